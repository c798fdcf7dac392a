"""Print the ledger: when, who, from, to, verdict and why; or what was in production at a moment."""

from datetime import datetime, timezone
from typing import Any

from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import decisions, ledger
from afterfit.mlflow_store.decisions import LedgerEntry
from afterfit.mlflow_store.registry import PRODUCTION, STAGING
from afterfit.use_case import UseCase, load_use_case


def command(config: str, at: str = "") -> CommandResult:
    """Read the ledger; see scripts/history.py for the options."""
    return command_for(load_use_case(config), at)


def command_for(use_case: UseCase, at: str = "") -> CommandResult:
    """The same for a use case that is loaded already."""
    moment = moment_of(at) if at.strip() else None
    repaired = ledger.repair(use_case.name)
    book = ledger.entries(use_case.name)
    if moment is not None:
        return _on(use_case.name, book, moment, repaired)
    now = {alias: decisions.holder(book, alias) for alias in (STAGING, PRODUCTION)}
    lines = [*repaired, *(line for entry in book for line in told(entry))]
    lines += [] if book else [f"No decision about '{use_case.name}' is on record yet."]
    lines += [f"Now {alias}: {f'version {number}' if number else 'nothing'}." for alias, number in now.items()]
    found = {"use_case": use_case.name, "now": {alias: number or None for alias, number in now.items()}}
    return CommandResult(
        tuple(lines), {**found, "decisions": [entry.to_dict() for entry in book], "repaired": repaired}
    )


def moment_of(text: str) -> datetime:
    """A moment in UTC; a date means its end, so that it says what was there when the day was over.

    Raises:
        SettingsError: no date and no time.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise SettingsError(f"--at '{text}' is no date or time, such as 2013-07-01 or 2013-07-01T12:00.") from error
    if len(text.strip()) <= len("2013-07-01"):
        found = found.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)


def _on(name: str, book: tuple[LedgerEntry, ...], moment: datetime, repaired: list[str]) -> CommandResult:
    held = [entry for entry in book if entry.counts and entry.decision.alias == PRODUCTION and entry.time <= moment]
    found: dict[str, Any] = {"use_case": name, "at": moment.isoformat(), "repaired": repaired}
    if not held or not held[-1].decision.version:
        line = f"At {moment:%Y-%m-%d %H:%M} UTC nothing of '{name}' was in production."
        return CommandResult((*repaired, line), {**found, "production": None, "decision": None})
    last = held[-1]
    line = f"At {moment:%Y-%m-%d %H:%M} UTC version {last.decision.version} of '{name}' was in production, since:"
    found |= {"production": last.decision.version, "decision": last.to_dict()}
    return CommandResult((*repaired, line, *told(last)), found)


def told(entry: LedgerEntry) -> list[str]:
    """One decision in a line, and its reason in another."""
    decision = entry.decision
    way = f"{decision.previous or '-'} -> {decision.version or '-'}"
    if not decision.moves:
        way = f"{decision.version} not to {decision.alias}"
    marks = [f"to {decision.alias}" if decision.moves else "", "forced" if decision.forced else ""]
    marks += [f"approved: {decision.approval}" if decision.approval else ""]
    marks += ["" if entry.state == "done" else entry.state]
    line = f"{entry.number:>4}  {entry.time:%Y-%m-%d %H:%M:%S}  {decision.verdict:<8} {way}"
    whole = f"{' · '.join([line, *filter(None, marks)])}  by {entry.actor}"
    return [whole, *([f"      {decision.reason}"] if decision.reason else [])]
