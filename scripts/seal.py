"""Seal what processes that are gone left in the prediction log; join small parts, remove old days."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("seal", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--folder", default="", help="the log's folder; empty: the settings file's, or AFTERFIT_LOG")
    console.add_skip_damaged(parser)
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "seal"))
