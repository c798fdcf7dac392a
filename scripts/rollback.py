"""Take production back to the version before, or to one that once was there. Exit code 4: it failed a check."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("rollback", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--reason", required=True, help="why, for those who read the ledger later")
    parser.add_argument("--version", default="", help="a version that once was in production; empty: the one before")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "rollback"))
