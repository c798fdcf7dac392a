"""Say what changed in a table since a version was trained, or between two tables. Exit code 3: alarm."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("compare_drift", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a use case; empty: none, two tables are compared")
    parser.add_argument(
        "--reference", default="production", help="a version or alias, a table (./folder), or a saved profile (.json)"
    )
    parser.add_argument("--data", default="", help="a table, a saved profile or `log`; empty: the use case's source")
    parser.add_argument("--start", default="", help="only rows from this time on, such as 2013-04-01")
    parser.add_argument("--end", default="", help="only rows before this time")
    parser.add_argument("--every", default="", help="a window each 6h, 1d, 1w, 1mo or 10000rows; empty: one window")
    parser.add_argument("--time", default="", help="the time column; empty: the use case's")
    parser.add_argument("--rate", default=0.01, type=float, help="share of windows without drift that may alarm")
    parser.add_argument("--page", default="", help="also write the page to this HTML file")
    parser.add_argument("--save", default="", help="also write the window's profile to this JSON file")
    console.add_skip_damaged(parser)
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "compare_drift"))
