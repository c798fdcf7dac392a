"""Search a use case's candidates; every trial is a nested run, the parent carries the best and the pictures."""

from pathlib import Path

from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.training_run import load_table
from afterfit.lifecycle.tuning_run import bounded, described, summary, tune
from afterfit.mlflow_store import tracking
from afterfit.use_case import load_use_case


def command(config: str, trials: int = 0, seconds: float = 0.0, studies: str = "studies") -> CommandResult:
    """Search, log, and return the best; see scripts/tune.py for the options."""
    use_case = bounded(load_use_case(config), trials, seconds)
    with tracking.run(use_case.name, "tune", {"afterfit.use_case": use_case.name}) as active:
        table = load_table(use_case)
        found = tune(use_case, table, Path(studies))
    lines = tuple(described(use_case, found))
    return CommandResult(lines, {**summary(use_case, found), "run_id": active.info.run_id})
