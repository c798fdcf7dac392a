"""Judge a version and move the alias if its findings allow it. Exit code 3: hold, 4: rejected."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("promote", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--version", default="latest", help="a version number, an alias, or latest")
    parser.add_argument("--to", default="production", help="staging or production")
    parser.add_argument("--start", default="", help="judge on outcomes from here on; empty: as the use case says")
    parser.add_argument("--end", default="", help="judge on outcomes before this; empty: as the use case says")
    parser.add_argument("--force", default="false", nargs="?", const="true", help="override the verdict: true or false")
    parser.add_argument("--reason", default="", help="why, for the ledger; --force needs one")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "promote"))
