"""Try policies on a use case's own history, rank them, and recommend one; each policy is a nested run."""

from pathlib import Path

from afterfit.data import files
from afterfit.lifecycle.backtesting import backtest_policies, chosen_policies
from afterfit.lifecycle.result import CommandResult
from afterfit.loop.history import delayed, window_length
from afterfit.use_case import load_use_case


def command(  # noqa: PLR0917 - the options of the command line, given by name
    config: str,
    policies: str = "never,calendar,on-drift,on-performance,cautious",
    start: str = "",
    end: str = "",
    every: str = "",
    delay: str = "",
    processes: int = 0,
    folder: str = "backtests",
    page: str = "",
) -> CommandResult:
    """Try policies on history; see scripts/backtest.py for the options."""
    use_case = delayed(load_use_case(config), delay)
    chosen = chosen_policies(policies, use_case)
    length = window_length(every, use_case)
    place = files.check_writable(Path(page)) if page else None
    ends = (start, end)
    return backtest_policies(use_case, chosen, length, ends, folder=Path(folder), processes=processes, page=place)
