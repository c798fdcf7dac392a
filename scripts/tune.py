"""Search a use case's candidates; trials are nested runs."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("tune", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--trials", default=0, type=console.whole, help="most trials; 0: as the settings say")
    parser.add_argument("--seconds", default=0.0, type=float, help="most seconds; 0: as the settings say")
    parser.add_argument("--studies", default="studies", help="folder of the resumable searches")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "tune"))
