"""Print the ledger of decisions, or what was in production at a moment."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("history", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--at", default="", help="a date (its end) or time in UTC; empty: all decisions")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "history"))
