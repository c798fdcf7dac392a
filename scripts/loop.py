"""Take a step whenever one is due, for ever: for those who have no scheduler. Ends at Ctrl-C."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("loop", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--every", default="1h", help="how often to look whether a window is over, such as 15min or 1h")
    parser.add_argument("--folder", default="steps", help="where models are kept while they are worked on")
    parser.add_argument("--rounds", type=console.whole, default=0, help="end after so many looks; 0: never")
    console.add_skip_damaged(parser)
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "loop"))
