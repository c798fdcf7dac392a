"""One turn of the loop: monitor the next window, then retrain, promote, roll back or alarm. For cron and the like."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("step", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--every", default="", help="a window each 6h, 1d, 1w or 1mo; empty: as the policy says")
    parser.add_argument("--now", default="", help="the time by which windows are over; empty: the clock's, UTC")
    parser.add_argument("--folder", default="steps", help="where models are kept while they are worked on")
    console.add_skip_damaged(parser)
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "step"))
