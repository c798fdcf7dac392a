"""Train one model, log it and register it as a version."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("train", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--builder", default="", help="a model builder; empty: the first candidate of the settings")
    parser.add_argument("--params_from", default="", help="run id of a search whose best parameters are used")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "train"))
