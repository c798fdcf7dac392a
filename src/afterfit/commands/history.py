"""Print the ledger: when, who, from which version, to which, verdict and why; or what was in production at a moment."""

from datetime import datetime, timezone
from typing import Any

from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import ledger, ledger_runs, registry
from afterfit.mlflow_store.decisions import LedgerEntry
from afterfit.mlflow_store.registry import PRODUCTION, STAGING
from afterfit.use_case import UseCase, load_use_case


def command(config: str, at: str = "") -> CommandResult:
    """Read the ledger; see scripts/history.py for the options."""
    return show_history(load_use_case(config), at)


def show_history(use_case: UseCase, at: str = "") -> CommandResult:
    """All decisions of a use case, or what was in production at a moment, if one is given; nothing is changed."""
    moment = moment_of(at) if at.strip() else None
    read = ledger_runs.read(use_case.name)
    aliases, book = registry.aliases(use_case.name), read.entries
    remarks = [*read.remarks, *ledger.open_sentences(read, aliases)]
    if moment is not None:
        return _production_at(use_case.name, book, moment, remarks)
    now = {alias: aliases.get(alias, "") for alias in (STAGING, PRODUCTION)}
    lines = [*remarks, *(line for entry in book for line in decision_lines(entry))]
    lines += [] if book else [f"No decision about '{use_case.name}' is on record yet."]
    lines += [f"Now {alias}: {f'version {number}' if number else 'nothing'}." for alias, number in now.items()]
    data = {"use_case": use_case.name, "now": {alias: number or None for alias, number in now.items()}}
    told = {"decisions": [entry.to_dict() for entry in book], "repaired": [], "remarks": remarks}
    return CommandResult(tuple(lines), {**data, **told})


def moment_of(text: str) -> datetime:
    """A moment in UTC. A date without a time means the end of that day.

    Raises:
        SettingsError: the text is no date and no time.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        if len(text.strip()) <= len("2013-07-01"):
            moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_999)
        return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"--at '{text}' is no date or time, such as 2013-07-01 or 2013-07-01T12:00.") from error


def decision_lines(entry: LedgerEntry) -> list[str]:
    """One decision in a line, and its reason in a second line."""
    decision = entry.decision
    change = f"{decision.previous or '-'} -> {decision.version or '-'}"
    if not decision.moves:
        change = f"{decision.version} not to {decision.alias}"
    marks = [f"to {decision.alias}" if decision.moves else "", "forced" if decision.forced else ""]
    marks += [f"approved: {decision.approval}" if decision.approval else ""]
    marks += ["" if entry.state == "done" else entry.state]
    line = f"{entry.number:>4}  {entry.time:%Y-%m-%d %H:%M:%S}  {decision.verdict:<8} {change}"
    first_line = f"{' · '.join([line, *filter(None, marks)])}  by {entry.actor}"
    return [first_line, *([f"      {decision.reason}"] if decision.reason else [])]


def _production_at(name: str, book: tuple[LedgerEntry, ...], moment: datetime, remarks: list[str]) -> CommandResult:
    moves = [entry for entry in book if entry.counts and entry.decision.alias == PRODUCTION and entry.time <= moment]
    data: dict[str, Any] = {"use_case": name, "at": moment.isoformat(), "repaired": [], "remarks": remarks}
    if not moves or not moves[-1].decision.version:
        line = f"At {moment:%Y-%m-%d %H:%M} UTC nothing of '{name}' was in production."
        return CommandResult((*remarks, line), {**data, "production": None, "decision": None})
    last = moves[-1]
    line = f"At {moment:%Y-%m-%d %H:%M} UTC version {last.decision.version} of '{name}' was in production, since:"
    data |= {"production": last.decision.version, "decision": last.to_dict()}
    return CommandResult((*remarks, line, *decision_lines(last)), data)
