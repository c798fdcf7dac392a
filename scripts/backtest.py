"""Try policies on history: what each would have alarmed, retrained, promoted and rolled back, and how good it was."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("backtest", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument(
        "--policies",
        default="never,calendar,on-drift,on-performance,cautious",
        help="presets, own (the use case's policy), or files with a policy's settings; commas between",
    )
    parser.add_argument("--start", default="", help="train the first model on what lies before; empty: split.train's")
    parser.add_argument("--end", default="", help="only rows before this time; empty: all")
    parser.add_argument("--every", default="", help="a window each 6h, 1d, 1w or 1mo; empty: as the policy says")
    parser.add_argument("--delay", default="", help="hours until outcomes are known; empty: as the gate says")
    parser.add_argument("--processes", type=console.whole, default=0, help="how many at once; 0: one a core")
    parser.add_argument("--folder", default="backtests", help="where models are kept, so that it can be resumed")
    parser.add_argument("--page", default="", help="also write the page to this HTML file")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "backtest"))
