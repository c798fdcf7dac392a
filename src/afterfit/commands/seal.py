"""Seal what processes that are gone left in the prediction log; join small parts, remove old days."""

from datetime import datetime, timezone

from afterfit import prediction_log
from afterfit.lifecycle.result import CommandResult
from afterfit.use_case import load_use_case


def command(config: str, folder: str = "") -> CommandResult:
    """Seal; see scripts/seal.py for the options."""
    log = prediction_log.required(load_use_case(config), folder)
    done = prediction_log.seal(log)
    joined, removed = prediction_log.tidy(log, datetime.now(timezone.utc))
    sealed = f"{done.answers:,} answers and {done.outcomes:,} outcomes of {done.spools:,} processes that are gone"
    lines = [f"Sealed {sealed} into {done.parts:,} parts in {log.store.address}."]
    lines += [f"Joined {joined:,} small parts of past days."] * bool(joined)
    lines += [f"Removed {removed:,} parts of days older than {log.keep_days} days."] * bool(removed)
    data = {
        "use_case": log.use_case,
        "answers": done.answers,
        "outcomes": done.outcomes,
        "parts": done.parts,
        "spools": done.spools,
        "joined": joined,
        "removed": removed,
    }
    return CommandResult(tuple(lines), data)
