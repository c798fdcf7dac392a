"""Search a use case's candidates; each trial is a nested run, and the parent run has the best one and the pictures."""

from pathlib import Path

from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.tuning_run import bounded, search_parameters
from afterfit.use_case import load_use_case


def command(config: str, trials: int = 0, seconds: float = 0.0, studies: str = "studies") -> CommandResult:
    """Search, log, and return the best; see scripts/tune.py for the options."""
    return search_parameters(bounded(load_use_case(config), trials, seconds), Path(studies))
