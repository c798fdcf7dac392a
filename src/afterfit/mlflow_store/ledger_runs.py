"""Read the ledger's runs. What somebody has changed, deleted or put there by hand is named and passed over."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, get_args

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from afterfit.errors import StoreError
from afterfit.mlflow_store import registry, tracking
from afterfit.mlflow_store.decisions import Action, Decision, LedgerEntry, State

PREFIX = registry.PREFIX
HIGHEST = f"{PREFIX}decisions"
"""The tag of experiment and registered model with the highest number that was ever given: runs can be deleted."""
TEXTS = ("action", "verdict", "version", "alias", "previous", "reason", "approval", "policy", "digest")
FACTS = ("moves", "forced", "stages")
"""The fields of a decision that become tags of its run: those that are text, and those that are true or false."""
MOST_NUMBERS = 20_000
"""A tag that somebody set to a larger number is not taken for so many lost decisions."""
MOST_NAMED = 5
"""Runs and numbers that one sentence names."""


@dataclass(frozen=True, slots=True)
class Book:
    """The ledger as it was read.

    Attributes:
        entries: the decisions, by number.
        highest: the highest number that was ever given; 0 for none.
        lost_numbers: of decisions that are passed over, or of which nothing is left.
        lost_times: when those were begun whose numbers cannot be read either.
        remarks: a sentence for each kind of damage.
    """

    entries: tuple[LedgerEntry, ...] = ()
    highest: int = 0
    lost_numbers: tuple[int, ...] = ()
    lost_times: tuple[datetime, ...] = ()
    remarks: tuple[str, ...] = ()

    def tells(self, alias: str) -> bool:
        """Whether the last move of an alias is known: no decision after it was lost, which may have moved the alias."""
        moves = [entry for entry in self.entries if entry.counts and entry.decision.alias == alias]
        if not moves:
            return not (self.lost_numbers or self.lost_times)
        last = moves[-1]
        return max(self.lost_numbers, default=0) < last.number and all(lost < last.time for lost in self.lost_times)


@dataclass(frozen=True, slots=True)
class _Passed:
    """A run that is passed over: why, its number where that can be read, and when it was begun."""

    run_id: str
    why: str
    number: int | None
    begun: datetime


def experiment(name: str) -> str:
    """The name of a use case's ledger."""
    return f"{name}.ledger"


def read(name: str) -> Book:
    """The whole ledger.

    Raises:
        StoreError: the store does not answer, or the experiment was deleted as a whole.
    """
    tracking.check_reachable()
    with tracking.store_errors():
        ledger = mlflow.get_experiment_by_name(experiment(name))
        if ledger is None:
            return Book(highest=_number(registry.model_tag(name, HIGHEST)) or 0)
        if ledger.lifecycle_stage == "deleted":
            raise StoreError(
                f"The experiment '{experiment(name)}' with all decisions was deleted: restore it "
                f"(mlflow experiments restore -x {ledger.experiment_id})."
            )
        runs = [run for run in _runs(str(ledger.experiment_id)) if _is_decision(run)]
    noted = [_number(ledger.tags.get(HIGHEST)), _number(registry.model_tag(name, HIGHEST))]
    return _book(name, runs, max(number or 0 for number in noted))


def _runs(experiment_id: str) -> Iterator[Run]:
    token = None
    while True:
        page = MlflowClient().search_runs([experiment_id], "", ViewType.ALL, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _is_decision(run: Run) -> bool:
    """Whether a run was meant as a decision: others may keep runs of their own in the experiment."""
    return any(f"{PREFIX}{key}" in run.data.tags for key in ("number", "action", "state", "verdict"))


def _book(name: str, runs: Sequence[Run], noted: int) -> Book:
    read_runs = [_entry_or_fault(name, run) for run in runs]
    entries = sorted(
        (one for one in read_runs if isinstance(one, LedgerEntry)), key=lambda entry: (entry.number, entry.time)
    )
    passed = [one for one in read_runs if isinstance(one, _Passed)]
    first: dict[int, LedgerEntry] = {}
    for entry in entries:
        if first.setdefault(entry.number, entry) is not entry:
            why = f"has the number {entry.number}, which another one has"
            passed.append(_Passed(entry.run_id, why, None, entry.time))
    seen = [*first, *(one.number for one in passed if one.number is not None)]
    highest = max([noted, *seen])
    gone = sorted(set(range(1, min(highest, MOST_NUMBERS) + 1)).difference(seen))
    numbers = tuple(one.number for one in passed if one.number is not None and one.number not in first)
    times = tuple(one.begun for one in passed if one.number is None)
    return Book(tuple(first.values()), highest, (*numbers, *gone), times, tuple(_remarks(name, passed, gone)))


def _remarks(name: str, passed: Sequence[_Passed], gone: Sequence[int]) -> Iterator[str]:
    where = f"in the experiment {experiment(name)}"
    for one in sorted(passed, key=lambda one: one.begun)[:MOST_NAMED]:
        number = f" (decision {one.number})" if one.number else ""
        yield f"Passed over: the run {one.run_id}{number} {where} {one.why}."
    if len(passed) > MOST_NAMED:
        yield f"Passed over: {len(passed) - MOST_NAMED} more runs {where} that are no readable decisions."
    if gone:
        named = ", ".join(map(str, gone[:MOST_NAMED])) + (" …" if len(gone) > MOST_NAMED else "")
        yield f"Missing: nothing is left {where} of the decisions with the numbers {named}, which stay taken."


def _entry_or_fault(name: str, run: Run) -> LedgerEntry | _Passed:
    tags = {key.removeprefix(PREFIX): str(value) for key, value in run.data.tags.items() if key.startswith(PREFIX)}
    number = _number(tags.get("number"))
    begun = datetime.fromtimestamp(int(run.info.start_time or 0) / 1_000, timezone.utc)
    fault = _fault(name, run, tags)
    time = _time(tags.get("time"))
    if fault or number is None or time is None:
        return _Passed(run.info.run_id, fault, number, begun)
    texts = {key: tags.get(key, "") for key in TEXTS}
    facts = {key: tags.get(key) == "true" for key in FACTS}
    decision = Decision(**texts, **facts, window=_window(tags.get("window")))  # type: ignore[arg-type]
    state: Any = tags["state"]
    who = tags.get("actor") or "somebody"
    return LedgerEntry(number, state, time, who, run.info.run_id, tags.get("repaired", ""), decision)


def _fault(name: str, run: Run, tags: Mapping[str, str]) -> str:
    """Why a run is no readable decision, in words that follow its name; empty where it is one."""
    if run.info.lifecycle_stage == "deleted":
        return "was deleted"
    if tags.get("use_case", name) != name:
        return "is of another use case"
    faults = {
        "number": _number(tags.get("number")) is None,
        "state": tags.get("state") not in get_args(State),
        "time": _time(tags.get("time")) is None,
        "action": tags.get("action") not in get_args(Action),
        "moves": tags.get("moves") not in {"true", "false"},
        "version": re.fullmatch(r"[0-9]{0,9}", tags.get("version", "?")) is None,
        "previous": re.fullmatch(r"[0-9]{0,9}", tags.get("previous", "")) is None,
        "alias": not tags.get("alias"),
    }
    wrong = [key for key, is_wrong in faults.items() if is_wrong]
    words = [f"{PREFIX}{key} ({_said(tags[key])})" if key in tags else f"{PREFIX}{key} (removed)" for key in wrong]
    return f"is no readable decision: look at its tags {', '.join(words)}" if wrong else ""


def _said(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"0{0,20}[1-9][0-9]{0,14}", text, re.ASCII) else None


def _time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
        return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _window(text: str | None) -> dict[str, Any]:
    """The rows that judged; empty where the tag is no JSON any more: the decision counts all the same."""
    try:
        window = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return window if isinstance(window, dict) else {}
