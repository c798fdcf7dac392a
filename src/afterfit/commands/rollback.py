"""Roll production back to the version before, or to another earlier one, after checking that it still works."""

from dataclasses import replace

from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.rollback import roll_back
from afterfit.mlflow_store import tracking
from afterfit.use_case import load_use_case


def command(config: str, reason: str, version: str = "") -> CommandResult:
    """Check a version and move production back to it; see scripts/rollback.py for the options."""
    if not reason.strip():
        raise SettingsError('A rollback needs a reason for those who read the ledger later: --reason "…".')
    use_case = load_use_case(config)
    name = f"rollback {f'to version {version}' if version else 'to the version before'}"
    with tracking.run(use_case.name, name, {"afterfit.use_case": use_case.name}) as active:
        answer = roll_back(use_case, reason.strip(), version)
        tracking.note("```\n" + "\n".join(answer.lines) + "\n```")
    return replace(answer, data={**answer.data, "run_id": active.info.run_id})
