"""Seal what ended processes have left in the prediction log; join small parts, and remove old days."""

from datetime import datetime, timezone
from pathlib import Path

from afterfit import prediction_log
from afterfit.commands import console
from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.prediction_log.log import PredictionLog
from afterfit.use_case import load_use_case


def command(config: str, folder: str = "", skip_damaged: str = "false") -> CommandResult:
    """Seal; see scripts/seal.py for the options."""
    if folder and "://" not in folder and not Path(folder).is_dir():
        raise SettingsError(f"--folder '{folder}': there is no such folder, so there is nothing to seal.")
    log = prediction_log.required(load_use_case(config), folder)
    return console.leaving_out(skip_damaged, lambda: _sealed(log))


def _sealed(log: PredictionLog) -> CommandResult:
    counts = prediction_log.seal(log)
    joined, removed = prediction_log.tidy(log, datetime.now(timezone.utc))
    sealed = f"{counts.answers:,} answers and {counts.outcomes:,} outcomes of {counts.spools:,} processes that are gone"
    lines = [f"Sealed {sealed} into {counts.parts:,} parts in {log.store.address}."]
    lines += [f"Joined {joined:,} small parts of past days."] * bool(joined)
    lines += [f"Removed {removed:,} parts of days older than {log.keep_days} days."] * bool(removed)
    data = {
        "use_case": log.use_case,
        "answers": counts.answers,
        "outcomes": counts.outcomes,
        "parts": counts.parts,
        "spools": counts.spools,
        "joined": joined,
        "removed": removed,
    }
    return CommandResult(tuple(lines), data)
