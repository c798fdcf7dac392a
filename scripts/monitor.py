"""Look at a window of the prediction log, or of a table: quality, drift, performance estimated and realised."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("monitor", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a use case: a built-in name, or a settings file")
    parser.add_argument("--version", default="production", help="a version or alias of its model")
    parser.add_argument(
        "--data", default="", help="a table; 'source': the use case's own; empty: its prediction log where it keeps one"
    )
    parser.add_argument("--start", default="", help="only rows from this time on, such as 2013-04-01")
    parser.add_argument("--end", default="", help="only rows before this time")
    parser.add_argument("--every", default="", help="a window each 6h, 1d, 1w, 1mo or 10000rows; empty: one window")
    parser.add_argument(
        "--refresh", default=0, type=console.whole, help="instead, look again at the last so many windows"
    )
    parser.add_argument("--page", default="", help="also write the last window's page to this HTML file")
    console.add_skip_damaged(parser)
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "monitor"))
