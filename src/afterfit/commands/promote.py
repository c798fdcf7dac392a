"""Judge a version, record the decision in the ledger, and move the alias if the version may have it."""

from dataclasses import replace

from afterfit.commands import console
from afterfit.data.windows import parse_time
from afterfit.errors import SettingsError
from afterfit.lifecycle.promotion import PromotionRequest, promote_version
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import registry, tracking
from afterfit.mlflow_store.registry import PRODUCTION, STAGING
from afterfit.use_case import load_use_case


def command(  # noqa: PLR0917 - the options of the command line, by name
    config: str,
    version: str = "latest",
    to: str = "production",
    start: str = "",
    end: str = "",
    force: str = "false",
    reason: str = "",
) -> CommandResult:
    """Judge a version and move the alias; see scripts/promote.py for the options."""
    use_case = load_use_case(config)
    if to not in {STAGING, PRODUCTION}:
        raise SettingsError(f"--to must be staging or production, not '{to}'.")
    overrides = console.yes(force)
    if overrides and not reason.strip():
        raise SettingsError('--force needs a reason for those who read the ledger later: --reason "…".')
    request = PromotionRequest(parse_time(start, "--start"), parse_time(end, "--end"), overrides, reason.strip())
    candidate = registry.version(use_case.name, version)
    name = f"promote version {candidate.number} to {to}"
    with tracking.run(use_case.name, name, {"afterfit.use_case": use_case.name}) as active:
        answer = promote_version(use_case, candidate, to, request)
        tracking.tags({f"afterfit.{key}": str(answer.data[key]) for key in ("version", "to", "previous", "decision")})
        tracking.note("```\n" + "\n".join(answer.lines) + "\n```")
        tracking.table(answer.data["findings"], "findings.json")
    return replace(answer, data={**answer.data, "run_id": active.info.run_id})
