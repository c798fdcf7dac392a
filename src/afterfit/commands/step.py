"""One step of the live loop: look at the next window, do what the policy says, and mark each stage as done."""

from datetime import datetime, timezone
from pathlib import Path

from afterfit.commands import console
from afterfit.data.windows import parse_time
from afterfit.errors import BusyError
from afterfit.lifecycle.live_loop import LEASE, run_step, step_result
from afterfit.lifecycle.result import CommandResult
from afterfit.loop.history import delayed
from afterfit.mlflow_store import ledger, tracking
from afterfit.mlflow_store.lock import locked
from afterfit.use_case import load_use_case


def command(
    config: str, every: str = "", now: str = "", folder: str = "steps", skip_damaged: str = "false"
) -> CommandResult:
    """Take one step; see scripts/step.py for the options."""
    use_case = delayed(load_use_case(config), "")
    clock = parse_time(now, "--now") or datetime.now(timezone.utc).replace(tzinfo=None)
    tracking.check_reachable()
    try:
        with locked(f"{use_case.name}.step-lock", ledger.actor(), patience=0.0, lease=LEASE):
            place = Path(folder) / use_case.name
            return console.leaving_out(skip_damaged, lambda: run_step(use_case, every, clock, place))
    except BusyError as error:
        return step_result(use_case, "", "busy", [f"Another step is at work: {error}"])
