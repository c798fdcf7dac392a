"""Look at a table and write a commented settings file for it."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("init", description=__doc__)
    parser.add_argument("--data", required=True, help="a CSV (also .gz) or Parquet file or folder, or an s3:// address")
    parser.add_argument("--target", required=True, help="the column to predict")
    parser.add_argument("--time", default="", help="the column that orders the rows in time; empty: looked for")
    parser.add_argument("--name", default="", help="the use case and model name; empty: from the file")
    parser.add_argument("--out", default="usecase.yaml", help="the settings file to write")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "init"))
