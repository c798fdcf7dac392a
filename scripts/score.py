"""Score a source in batches to a Parquet file."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("score", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--version", default="production", help="a version number, an alias, or latest")
    parser.add_argument("--data", default="", help="a table to score; empty: the use case's own source")
    parser.add_argument("--out", default="scores.parquet", help="the Parquet file to write")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "score"))
