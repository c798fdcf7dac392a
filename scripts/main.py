"""The whole way on one use case: search, train, register, promote, and answer real requests."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("main", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument(
        "--trials", default=0, type=console.whole, help="most trials of the search; 0: as the settings say"
    )
    parser.add_argument("--seconds", default=0.0, type=float, help="most seconds of the search; 0: as the settings say")
    parser.add_argument("--studies", default="studies", help="folder of the resumable searches")
    parser.add_argument(
        "--rehearse", default="auto", help="live the held-out window with server, log and loop: true, false, or auto"
    )
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "main"))
