"""Load true targets from a table into the prediction log, by prediction id or by key."""

from afterfit import prediction_log
from afterfit.commands import console
from afterfit.errors import SettingsError
from afterfit.lifecycle.outcomes import load
from afterfit.lifecycle.result import CommandResult
from afterfit.use_case import load_use_case


def command(config: str, data: str = "", by: str = "", folder: str = "", skip_damaged: str = "false") -> CommandResult:
    """Load outcomes; see scripts/outcomes.py for the options."""
    use_case = load_use_case(config)
    if by not in {"", "prediction_id", "key"}:
        raise SettingsError(f"--by must be prediction_id or key, and came as '{by}'.")
    log = prediction_log.required(use_case, folder)
    return console.leaving_out(skip_damaged, lambda: load(use_case, data, by, log))
