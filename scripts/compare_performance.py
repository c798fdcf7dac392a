"""Compare two versions on the same rows of a window, with intervals; nothing is decided or recorded."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("compare_performance", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--candidate", default="latest", help="a version number, an alias, or latest")
    parser.add_argument("--champion", default="production", help="what it is compared with, in the same words")
    parser.add_argument("--start", default="", help="rows from here on; empty: as the use case's gate")
    parser.add_argument("--end", default="", help="rows before this; empty: as the use case's gate")
    parser.add_argument("--data", default="", help="`shadow`: the candidate's answers behind the champion's")
    console.add_skip_damaged(parser)
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "compare_performance"))
