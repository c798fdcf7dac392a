"""The ledger: every decision of a use case, in order, as MLflow runs that are never rewritten; aliases follow it.

Each decision is one run in the experiment `<use case>.ledger`, with tags, its findings as JSON and a page to read. Its
state tells how far it came:

    writing ─► intended ─► done           recorded whole, then carried out: aliases, tags, description; a refusal
       │                                  moves no alias, and the version says so all the same
       └─► abandoned                      cut short before it was recorded whole; nothing had been moved

A decision is written down before anything moves, and it can be carried out again without harm. So a process may die at
any point. Every command that decides first calls `repair`: it abandons decisions that were not recorded whole, carries
out those that were, and puts an alias that somebody moved by hand back to where the ledger says. A command that only
reads moves nothing. Runs that somebody changed or deleted are passed over (`ledger_runs`), and no number is given
twice. Decisions are taken one at a time (`lock`). If another decision has moved the same alias while a version was
judged, the later decision is recorded as HOLD and names the earlier one. What is moved, and how, is in `alias_moves`.
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
from mlflow.exceptions import MlflowException

from afterfit.errors import StoreError
from afterfit.mlflow_store import alias_moves, registry, tracking
from afterfit.mlflow_store.alias_moves import STAGES
from afterfit.mlflow_store.decisions import Decision, LedgerEntry, State, holder, rolled_back_versions
from afterfit.mlflow_store.ledger_runs import FACTS, HIGHEST, PREFIX, TEXTS, Book, experiment, read
from afterfit.mlflow_store.lock import PATIENCE, Lease, locked, retry_if_locked
from afterfit.texts.redaction import redact, redacted

FINDINGS, PAGE = "findings.json", "decision.md"
MOST_NOTE = 4500
"""Characters of a page that the run's note takes; MLflow's tags end at 5,000. The whole page is an artifact."""


def actor() -> str:
    """Who runs this: the user that MLflow knows, else the one of the machine."""
    try:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a process id without a name, as containers have
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def entries(name: str) -> tuple[LedgerEntry, ...]:
    """The decisions that can be read, oldest first."""
    return read(name).entries


def findings(entry: LedgerEntry) -> list[dict[str, Any]]:
    """A decision's findings as data; empty where they were changed by hand or are gone."""
    with tracking.store_errors():
        folder = _artifacts(entry.run_id)
    try:
        content = json.loads(mlflow.artifacts.load_text(f"{folder}/{FINDINGS}"))["findings"]
        return [dict(finding) for finding in content if isinstance(finding, dict)]
    except (MlflowException, OSError, ValueError, TypeError, LookupError):
        tracking.check_reachable()
        return []


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
            (entry for entry in reversed(book.entries) if entry.number > last_number and _rivals(entry, decision)), None
        )
        entry = _write(name, decision if winner is None else _held_back(decision, winner), book, lease)
        return _carry_out(name, entry, book.entries, lease), repaired


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
        return _close(_write(name, replace(decision, moves=False), read(name), lease), "done", lease)


def repair(name: str) -> list[str]:
    """Finish or undo what a dead command has left, and put aliases back to what the ledger says.

    For commands that decide. One that only reads says what is open (`open_sentences`), and changes nothing.

    Returns:
        A sentence for each repair, after one for each damage of the ledger itself. Where nothing had to be repaired, no
        lock is taken.
    """
    book = read(name)
    if not open_sentences(book, registry.aliases(name)):
        return list(book.remarks)
    with locked(f"{name}.ledger-lock", actor()) as lease:
        repaired, book = _repair(name, lease)
        return [*book.remarks, *repaired]


def open_sentences(book: Book, aliases: Mapping[str, str]) -> list[str]:
    """What the next command that decides will repair: unfinished decisions, and aliases that are elsewhere."""
    sentences = [
        f"Not finished: {entry.sentence()} is being recorded, or was cut short."
        for entry in book.entries
        if entry.state in {"writing", "intended"}
    ]
    for alias in STAGES:
        actual, recorded = aliases.get(alias, ""), holder(book.entries, alias)
        if actual != recorded:
            sentences.append(
                f"The alias '{alias}' is at {_version_words(actual)}, and by the ledger at {_version_words(recorded)}: "
                "the next promote, rollback or step settles that."
            )
    return sentences


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


def _repair(name: str, lease: Lease) -> tuple[list[str], Book]:
    """Repair under the lock; gives a sentence for each repair, and the ledger after them."""
    repaired = []
    book = read(name)
    for entry in book.entries:
        if entry.state == "writing":
            _close(entry, "abandoned", lease)
            repaired.append(f"Undone: {entry.sentence()} was cut short before anything was moved; it is abandoned.")
        elif entry.state == "intended":
            _carry_out(name, _with_findings(entry), book.entries, lease, by=actor())
            repaired.append(f"Finished: {entry.sentence()} had been cut short.")
    book = read(name) if repaired else book
    aliases = registry.aliases(name)
    for alias in STAGES:
        if holder(book.entries, alias) != aliases.get(alias, ""):
            repaired += _align(name, alias, book, lease)
            book = read(name)
    return repaired, book


def _with_findings(entry: LedgerEntry) -> LedgerEntry:
    """A refused entry with its findings, which are in an artifact of its run: the version's page shows them."""
    if entry.decision.moves:
        return entry
    return replace(entry, decision=replace(entry.decision, findings=findings(entry)))


def _align(name: str, alias: str, book: Book, lease: Lease) -> list[str]:
    """Handle an alias that is not where the ledger says.

    If the ledger has no decision about the alias, or has lost one that may have moved it, it takes over what is there:
    damage moves nothing. Else the alias is put back.
    """
    actual, recorded = registry.aliases(name).get(alias, ""), holder(book.entries, alias)
    if actual == recorded:
        return []
    if not any(entry.counts and entry.decision.alias == alias for entry in book.entries):
        sentence = f"Version {actual} held the alias '{alias}' before the ledger knew of it."
        decision = Decision("found", "FOUND", actual, alias, moves=True, reason=sentence, page=sentence)
    elif not book.tells(alias):
        sentence = (
            f"The alias '{alias}' is at {_version_words(actual)}, and by what is left of the ledger at "
            f"{_version_words(recorded)}. A later decision is lost, so that it stays where it is."
        )
        decision = Decision("found", "FOUND", actual, alias, moves=True, previous=recorded, reason=sentence)
    elif not recorded and actual in rolled_back_versions(book.entries):
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
    _carry_out(name, _write(name, replace(decision, page=sentence), book, lease), book.entries, lease)
    return [sentence]


def _version_words(number: str) -> str:
    return f"version {number}" if number else "no version"


def _write(name: str, decision: Decision, book: Book, lease: Lease) -> LedgerEntry:
    """Record a decision as a run; its state becomes "intended" only when findings and page are there."""
    lease.require()
    now = datetime.now(timezone.utc)
    number = book.highest + 1
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
        retry_if_locked(lambda: client.set_experiment_tag(ledger, HIGHEST, str(number)))
        registry.set_model_tag(name, HIGHEST, str(number))
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
