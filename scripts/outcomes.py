"""Load true targets from a table into the prediction log, by prediction id or by key."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("outcomes", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--data", default="", help="a table with the targets; empty: the use case's own source")
    parser.add_argument("--by", default="", help="prediction_id or key; empty: prediction_id where the table has it")
    parser.add_argument("--folder", default="", help="the log's folder; empty: the settings file's, or AFTERFIT_LOG")
    console.add_skip_damaged(parser)
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "outcomes"))
