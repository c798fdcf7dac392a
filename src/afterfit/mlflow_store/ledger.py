"""The ledger: every decision of a use case, in order, as MLflow runs that are never rewritten; aliases follow it.

Each decision is one run in the experiment `<use case>.ledger`, with tags, its findings as JSON and a page to read. Its
state tells how far it came:

    writing ─► intended ─► done           recorded whole, then carried out: aliases, tags, description; a refusal
       │                                  moves no alias, and the version says so all the same
       └─► abandoned                      cut short before it was recorded whole; nothing had been moved

A decision is written down before anything moves, and it can be carried out again without harm. So a process may die at
any point. Every command first calls `repair`: it abandons decisions that were not recorded whole, carries out those
that were, and puts an alias that somebody moved by hand back to where the ledger says. Decisions are taken one at a
time (`lock`). If another decision has moved the same alias while a version was judged, the later decision is recorded
as HOLD and names the earlier one. What is moved, and how, is in `alias_moves`.
"""

import getpass
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from afterfit.errors import StoreError
from afterfit.mlflow_store import alias_moves, registry, tracking
from afterfit.mlflow_store.alias_moves import STAGES
from afterfit.mlflow_store.decisions import Decision, LedgerEntry, State, holder, rolled_back_versions
from afterfit.mlflow_store.lock import PATIENCE, Lease, locked, retry_if_locked
from afterfit.redaction import redact, redacted

PREFIX = registry.PREFIX
FINDINGS, PAGE = "findings.json", "decision.md"
MOST_NOTE = 4500
"""Characters of a page that the run's note takes; MLflow's tags end at 5,000. The whole page is an artifact."""
TEXTS = ("action", "verdict", "version", "alias", "previous", "reason", "approval", "policy", "digest")
FACTS = ("moves", "forced", "stages")
"""The fields of a decision that become tags of its run: those that are text, and those that are true or false."""


def experiment(name: str) -> str:
    """The name of a use case's ledger."""
    return f"{name}.ledger"


def actor() -> str:
    """Who runs this: the user that MLflow knows, else the one of the machine."""
    try:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a process id without a name, as containers have
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def entries(name: str) -> tuple[LedgerEntry, ...]:
    """The whole ledger, oldest first."""
    tracking.check_reachable()
    with tracking.store_errors():
        ledger = mlflow.get_experiment_by_name(experiment(name))
        if ledger is None:
            return ()
        book = sorted(
            (_entry_of(run) for run in _decision_runs(str(ledger.experiment_id))), key=lambda entry: entry.number
        )
    return tuple(book)


def findings(entry: LedgerEntry) -> list[dict[str, Any]]:
    """A decision's findings as data."""
    with tracking.store_errors():
        content: list[dict[str, Any]] = mlflow.artifacts.load_dict(_artifacts(entry.run_id) + "/" + FINDINGS)[
            "findings"
        ]
    return content


def record(name: str, decision: Decision, last_number: int) -> tuple[LedgerEntry, list[str]]:
    """Write a decision down, then carry it out.

    Args:
        name: the use case's name.
        decision: what was decided.
        last_number: the number of the last entry when the judging began. Where another decision has moved the same
            alias since, this one is recorded as HOLD, whatever it was, and moves nothing.

    Returns:
        The entry as it was recorded, and a sentence for each thing that was repaired before.

    Raises:
        StoreError: the store went away; the next command finishes or undoes what was begun.
    """
    with locked(f"{name}.ledger-lock", actor()) as lease:
        repaired, book = _repair(name, lease)
        winner = next(
            (entry for entry in reversed(book) if entry.number > last_number and _rivals(entry, decision)), None
        )
        entry = _write(name, decision if winner is None else _held_back(decision, winner), book, lease)
        return _carry_out(name, entry, book, lease), repaired


def note(name: str, decision: Decision, patience: float = PATIENCE) -> LedgerEntry:
    """Record a decision that moves nothing. Nothing is repaired, and no alias is touched.

    For a process that only watches, such as a server. If a person has set an alias by hand, the next command puts it
    back, not the server.

    Args:
        name: the use case's name.
        decision: what was seen; it is recorded as one that moves nothing.
        patience: seconds to wait for a command that is at work.

    Raises:
        StoreError: the store went away; the unfinished record does not count, and the next command says so.
    """
    with locked(f"{name}.ledger-lock", actor(), patience) as lease:
        return _close(_write(name, replace(decision, moves=False), entries(name), lease), "done", lease)


def repair(name: str) -> list[str]:
    """Finish or undo what a dead command has left, and put aliases back to what the ledger says.

    Returns:
        A sentence for each repair; empty where nothing had to be done, and then no lock is taken.
    """
    if not _unsettled(entries(name), registry.aliases(name)):
        return []
    with locked(f"{name}.ledger-lock", actor()) as lease:
        return _repair(name, lease)[0]


def _decision_runs(experiment_id: str) -> Iterator[Run]:
    token = None
    while True:
        page = MlflowClient().search_runs([experiment_id], f"tags.`{PREFIX}number` != ''", page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _entry_of(run: Run) -> LedgerEntry:
    tags = {key.removeprefix(PREFIX): value for key, value in run.data.tags.items() if key.startswith(PREFIX)}
    texts = {key: tags.get(key, "") for key in TEXTS}
    facts = {key: tags.get(key) == "true" for key in FACTS}
    decision = Decision(**texts, **facts, window=json.loads(tags.get("window") or "{}"))  # type: ignore[arg-type]
    state: Any = tags["state"]
    time = datetime.fromisoformat(tags["time"])
    return LedgerEntry(
        int(tags["number"]), state, time, tags["actor"], run.info.run_id, tags.get("repaired", ""), decision
    )


def _artifacts(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.artifact_uri)


def _rivals(entry: LedgerEntry, decision: Decision) -> bool:
    return entry.counts and decision.moves and entry.decision.alias == decision.alias


def _held_back(decision: Decision, winner: LedgerEntry) -> Decision:
    sentence = f"While this was judged, {winner.sentence()} came first: judge again against what is there now."
    finding = {"code": "came_first", "outcome": "unsure", "sentence": sentence}
    return replace(
        decision, verdict="HOLD", moves=False, reason=sentence, findings=[finding, *decision.findings], page=sentence
    )


def _unsettled(book: Sequence[LedgerEntry], aliases: Mapping[str, str]) -> bool:
    unfinished = any(entry.state in {"writing", "intended"} for entry in book)
    return unfinished or any(holder(book, alias) != aliases.get(alias, "") for alias in STAGES)


def _repair(name: str, lease: Lease) -> tuple[list[str], tuple[LedgerEntry, ...]]:
    """Repair under the lock; gives a sentence for each repair, and the ledger after them."""
    repaired = []
    book = entries(name)
    for entry in book:
        if entry.state == "writing":
            _close(entry, "abandoned", lease)
            repaired.append(f"Undone: {entry.sentence()} was cut short before anything was moved; it is abandoned.")
        elif entry.state == "intended":
            _carry_out(name, _with_findings(entry), book, lease, by=actor())
            repaired.append(f"Finished: {entry.sentence()} had been cut short.")
    book = entries(name) if repaired else book
    aliases = registry.aliases(name)
    for alias in STAGES:
        if holder(book, alias) != aliases.get(alias, ""):
            repaired += _align(name, alias, book, lease)
            book = entries(name)
    return repaired, book


def _with_findings(entry: LedgerEntry) -> LedgerEntry:
    """A refused entry with its findings, which are in an artifact of its run: the version's page shows them."""
    if entry.decision.moves:
        return entry
    return replace(entry, decision=replace(entry.decision, findings=findings(entry)))


def _align(name: str, alias: str, book: Sequence[LedgerEntry], lease: Lease) -> list[str]:
    """Handle an alias that is not where the ledger says.

    If the ledger has no decision about the alias, it takes over what is there; else the alias is put back.
    """
    actual, recorded = registry.aliases(name).get(alias, ""), holder(book, alias)
    if actual == recorded:
        return []
    if not any(entry.counts and entry.decision.alias == alias for entry in book):
        sentence = f"Version {actual} held the alias '{alias}' before the ledger knew of it."
        decision = Decision("found", "FOUND", actual, alias, moves=True, reason=sentence, page=sentence)
    elif not recorded and actual in rolled_back_versions(book):
        sentence = f"Version {actual} was rolled back and still held the alias '{alias}': it was taken away."
        decision = Decision("repair", "REPAIR", "", alias, moves=True, previous=actual, reason=sentence)
    elif not recorded or registry.holder(name, recorded) is not None:
        sentence = (
            f"The alias '{alias}' was at {_version_words(actual)} without a decision, and by the ledger at "
            f"{_version_words(recorded)}: it was put back. To go elsewhere, promote or roll back."
        )
        decision = Decision("repair", "REPAIR", recorded, alias, moves=True, previous=actual, reason=sentence)
    else:
        sentence = f"Version {recorded} held the alias '{alias}' by the ledger, and was deleted: nothing holds it now."
        decision = Decision("repair", "REPAIR", "", alias, moves=True, previous=recorded, reason=sentence)
    _carry_out(name, _write(name, replace(decision, page=sentence), book, lease), book, lease)
    return [sentence]


def _version_words(number: str) -> str:
    return f"version {number}" if number else "no version"


def _write(name: str, decision: Decision, book: Sequence[LedgerEntry], lease: Lease) -> LedgerEntry:
    """Record a decision as a run; its state becomes "intended" only when findings and page are there."""
    lease.require()
    now = datetime.now(timezone.utc)
    number = max((entry.number for entry in book), default=0) + 1
    decision = _clean(decision)
    values = {key: str(getattr(decision, key)) for key in TEXTS}
    values |= {key: str(getattr(decision, key)).lower() for key in FACTS}
    values |= {"number": f"{number:06d}", "state": "writing", "time": now.isoformat(), "actor": actor()}
    values |= {"window": json.dumps(decision.window), "use_case": name}
    tags = {f"{PREFIX}{key}": value for key, value in values.items()}
    tags["mlflow.note.content"] = decision.page[:MOST_NOTE]
    tags["mlflow.user"] = actor()
    title = f"{number}. {'FORCED' if decision.forced else decision.verdict} {decision.version} to {decision.alias}"
    with tracking.store_errors():
        client = MlflowClient()
        ledger = tracking.experiment_id(experiment(name))
        run: Any = retry_if_locked(lambda: client.create_run(ledger, tags=tags, run_name=title))
        client.log_dict(run.info.run_id, {"findings": [dict(finding) for finding in decision.findings]}, FINDINGS)
        client.log_text(run.info.run_id, decision.page, PAGE)
    entry = LedgerEntry(number, "writing", now, actor(), run.info.run_id, "", decision)
    if decision.action != "refusal":  # a server only notes that, and nothing has to be carried out
        _set_tags(entry, lease, state="intended")
        return replace(entry, state="intended")
    return entry


def _clean(decision: Decision) -> Decision:
    """The decision without secrets in what people and libraries said; names, numbers and digests are its own."""
    return replace(
        decision,
        reason=redact(decision.reason),
        approval=redact(decision.approval),
        page=redact(decision.page),
        findings=redacted(decision.findings),
        window=redacted(decision.window),
    )


def _carry_out(name: str, entry: LedgerEntry, book: Sequence[LedgerEntry], lease: Lease, by: str = "") -> LedgerEntry:
    """Do what an entry asks for, even if a part of it is done already, and mark it as done."""
    so_far = [*(earlier for earlier in book if earlier.number < entry.number), replace(entry, state="intended")]
    with _naming_the_entry(entry):
        alias_moves.carry_out(name, so_far, lease)
    return _close(entry, "done", lease, by)


@contextmanager
def _naming_the_entry(entry: LedgerEntry) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise StoreError(
            f"Recorded and not carried out yet: {entry.sentence()}; the next command finishes it. {error}"
        ) from error


def _close(entry: LedgerEntry, state: State, lease: Lease, by: str = "") -> LedgerEntry:
    values: dict[str, str] = {"state": state}
    if by or state == "abandoned":
        values["repaired"] = f"{by or actor()} {datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    with tracking.store_errors():
        status = "FINISHED" if state == "done" else "KILLED"
        retry_if_locked(lambda: MlflowClient().set_terminated(entry.run_id, status))
    _set_tags(entry, lease, **values)
    return replace(entry, state=state, repaired=values.get("repaired", ""))


def _set_tags(entry: LedgerEntry, lease: Lease, **values: str) -> None:
    """Set tags of an entry. No other function changes them; of several tags the state comes last (by the alphabet)."""
    lease.require()
    with tracking.store_errors():
        for key in sorted(values):
            retry_if_locked(partial(MlflowClient().set_tag, entry.run_id, f"{PREFIX}{key}", values[key]))
