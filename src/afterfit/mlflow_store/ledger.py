"""The ledger: every decision of a use case, in order, as runs that nobody rewrites; and aliases that follow it.

Each decision is one run in the experiment `<use case>.ledger`, with tags, its findings as JSON and a page to read. Its
state tells how far it came:

    writing ─► intended ─► done           recorded whole, then carried out: aliases, tags, description; a refusal
       │                                  moves no alias, and the version says so all the same
       └─► abandoned                      cut short before it was recorded whole; nothing had been moved

A decision is written down before anything moves, and what it asks for can be carried out again without harm. So a
process may die anywhere: `repair`, which every command calls first, abandons what was not recorded whole, carries out
what was, and puts an alias that somebody moved by hand back to where the ledger says. Decisions are taken one at a
time (`lock`); one that was judged while another moved the same alias is recorded as HOLD and names it.
"""

import getpass
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Literal

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from afterfit.errors import StoreError
from afterfit.mlflow_store import registry, tracking
from afterfit.mlflow_store.lock import PATIENCE, Lease, locked, patiently
from afterfit.mlflow_store.registry import PRODUCTION, STAGING, Version
from afterfit.mlflow_store.standing import decision_words, standing, summary

PREVIOUS = "previous"
PREFIX = registry.PREFIX
FINDINGS, PAGE = "findings.json", "decision.md"
MOST_NOTE = 4500
"""Characters of a page that the run's note takes; MLflow's tags end at 5,000. The whole page is an artifact."""
Action = Literal["promotion", "rollback", "found", "repair", "refusal"]
State = Literal["writing", "intended", "done", "abandoned"]
RETIRED = ("production_until", "replaced_by")
"""The facts of a version that left production, which one that comes back loses."""
SEEN = {PRODUCTION: "Production", STAGING: "Staging"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about an alias, and why.

    Attributes:
        action: "promotion", "rollback", "found" (the alias was there before the ledger), "repair" (it was moved by
            hand, or its version was deleted) or "refusal" (a server did not take the version into service).
        verdict: PROMOTE, TRIAL, HOLD, REJECT, ROLLBACK, FOUND, REPAIR or REFUSED. In ledgers of before there was
            TRIAL, what went in on trial is HOLD and forced.
        version: the version decided about; empty where an alias loses its version.
        alias: staging or production.
        moves: whether the alias goes to that version.
        previous: the version that held the alias; empty where none did.
        reason: of a person, or of the program, in a sentence.
        forced: a person overrode the verdict.
        approval: who approved, as the version's tag said, and when that was seen.
        policy: hash of the limits that were in force.
        digest: of the version's bundle.
        window: which rows were looked at: rows, start, end, sha256, and their use as a comparison.
        stages: mirror the move to MLflow's old stages.
        findings: each finding as data.
        page: the decision in Markdown.
    """

    action: Action
    verdict: str
    version: str
    alias: str
    moves: bool
    previous: str = ""
    reason: str = ""
    forced: bool = False
    approval: str = ""
    policy: str = ""
    digest: str = ""
    window: Mapping[str, Any] = field(default_factory=dict)
    stages: bool = False
    findings: Sequence[Mapping[str, Any]] = ()
    page: str = ""


TEXTS = ("action", "verdict", "version", "alias", "previous", "reason", "approval", "policy", "digest")
FACTS = ("moves", "forced", "stages")


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A decision as the ledger has it (findings and page are artifacts of its run).

    Attributes:
        number: 1, 2, 3 … in the order in which they were taken.
        state: how far it came.
        time: when it was recorded, UTC.
        actor: who or what ran the command.
        run_id: the decision's run.
        repaired: by whom and when it was finished or abandoned, where its own process did not.
        decision: what was decided.
    """

    number: int
    state: State
    time: datetime
    actor: str
    run_id: str
    repaired: str
    decision: Decision

    @property
    def counts(self) -> bool:
        """Whether it moved its alias, or must."""
        return self.decision.moves and self.state in {"intended", "done"}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        told = {key: value for key, value in asdict(self.decision).items() if key not in {"findings", "page", "stages"}}
        return {
            "number": self.number,
            "state": self.state,
            "time": self.time.isoformat(timespec="seconds"),
            "actor": self.actor,
            "run_id": self.run_id,
            "repaired": self.repaired,
            **told,
        }

    def sentence(self) -> str:
        """What and by whom, for messages."""
        told = {
            "promotion": f"the promotion of version {self.decision.version} to {self.decision.alias}",
            "rollback": f"the rollback of {self.decision.alias} to version {self.decision.version}",
            "refusal": f"the refusal to serve version {self.decision.version}",
        }
        what = told.get(
            self.decision.action, f"the note that {self.decision.alias} is at version {self.decision.version or '-'}"
        )
        if self.decision.action in {"promotion", "rollback"} and not self.decision.moves:
            what = f"the decision that version {self.decision.version} does not go to {self.decision.alias}"
        return f"{what} by {self.actor} at {self.time:%Y-%m-%d %H:%M:%S} UTC (decision {self.number})"


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
        known = mlflow.get_experiment_by_name(experiment(name))
        if known is None:
            return ()
        found = sorted((_entry(run) for run in _runs(str(known.experiment_id))), key=lambda entry: entry.number)
    return tuple(found)


def _runs(experiment_id: str) -> Iterator[Run]:
    token = None
    while True:
        page = MlflowClient().search_runs([experiment_id], f"tags.`{PREFIX}number` != ''", page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _entry(run: Run) -> LedgerEntry:
    tags = {key.removeprefix(PREFIX): value for key, value in run.data.tags.items() if key.startswith(PREFIX)}
    texts = {key: tags.get(key, "") for key in TEXTS}
    facts = {key: tags.get(key) == "true" for key in FACTS}
    decision = Decision(**texts, **facts, window=json.loads(tags.get("window") or "{}"))  # type: ignore[arg-type]
    state: Any = tags["state"]
    time = datetime.fromisoformat(tags["time"])
    return LedgerEntry(
        int(tags["number"]), state, time, tags["actor"], run.info.run_id, tags.get("repaired", ""), decision
    )


def findings(entry: LedgerEntry) -> list[dict[str, Any]]:
    """A decision's findings as data."""
    with tracking.store_errors():
        loaded: list[dict[str, Any]] = mlflow.artifacts.load_dict(_artifacts(entry.run_id) + "/" + FINDINGS)["findings"]
    return loaded


def _artifacts(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.artifact_uri)


def holder(book: Sequence[LedgerEntry], alias: str, at: datetime | None = None) -> str:
    """The version that held an alias by the ledger, now or at a moment (UTC); empty where none did.

    A version that is rolled back leaves staging too, where it is there.
    """
    held = ""
    for entry in book:
        decision = entry.decision
        if not entry.counts or (at is not None and entry.time > at):
            continue
        if decision.alias == alias:
            held = decision.version
        elif alias == STAGING and decision.action == "rollback" and decision.previous == held:
            held = ""
    return held


def once_held(book: Sequence[LedgerEntry], alias: str = PRODUCTION) -> list[str]:
    """The versions that held an alias, the one that came last first, each once."""
    moved = [entry.decision.version for entry in book if entry.counts and entry.decision.alias == alias]
    return list(dict.fromkeys(version for version in reversed(moved) if version))


def rolled_back(book: Sequence[LedgerEntry]) -> dict[str, LedgerEntry]:
    """The versions that were rolled back, with the decision that did it."""
    backwards = [entry for entry in book if entry.counts and entry.decision.action == "rollback"]
    return {entry.decision.previous: entry for entry in backwards if entry.decision.previous}


def before(book: Sequence[LedgerEntry], version: str) -> str:
    """The version that production would go back to from this one: the last before it that was not rolled back."""
    barred = rolled_back(book)
    held = once_held(book)
    earlier = held[held.index(version) + 1 :] if version in held else held
    return next((number for number in earlier if number not in barred and number != version), "")


def record(name: str, decision: Decision, seen: int) -> tuple[LedgerEntry, list[str]]:
    """Write a decision down, then carry it out.

    Args:
        name: the use case's name.
        decision: what was decided.
        seen: the number of the last entry when the judging began. Where another decision has moved the same alias
            since, this one is recorded as HOLD, whatever it was, and moves nothing.

    Returns:
        The entry as it ended, and a sentence for each thing that had to be repaired on the way.

    Raises:
        StoreError: the store went away; the next command finishes or undoes what was begun.
    """
    with locked(f"{name}.ledger-lock", actor()) as held:
        said, book = _repair(name, held)
        winner = next((one for one in reversed(book) if one.number > seen and _rivals(one, decision)), None)
        entry = _write(name, decision if winner is None else _raced(decision, winner), book, held)
        return _carry_out(name, entry, book, held), said


def note(name: str, decision: Decision, patience: float = PATIENCE) -> LedgerEntry:
    """Write down what moves nothing, and leave everything else as it is: no repair, no alias touched.

    For a process that only watches, such as a server: an alias that a person has set by hand is for the next command
    to put back, and not for it.

    Args:
        name: the use case's name.
        decision: what was seen; whatever it says, it moves nothing.
        patience: seconds to wait for a command that is at work.

    Raises:
        StoreError: the store went away; what was begun does not count, and the next command says so.
    """
    with locked(f"{name}.ledger-lock", actor(), patience) as held:
        return _end(_write(name, replace(decision, moves=False), entries(name), held), "done", held)


def _rivals(entry: LedgerEntry, decision: Decision) -> bool:
    return entry.counts and decision.moves and entry.decision.alias == decision.alias


def _raced(decision: Decision, winner: LedgerEntry) -> Decision:
    sentence = f"While this was judged, {winner.sentence()} came first: judge again against what is there now."
    finding = {"code": "came_first", "outcome": "unsure", "sentence": sentence}
    return replace(
        decision, verdict="HOLD", moves=False, reason=sentence, findings=[finding, *decision.findings], page=sentence
    )


def repair(name: str) -> list[str]:
    """Finish or undo what a command that died has left, and put aliases back to what the ledger says.

    Returns:
        A sentence for each thing done; nothing, and no lock taken, where nothing had to be done.
    """
    if not _unsettled(entries(name), registry.aliases(name)):
        return []
    with locked(f"{name}.ledger-lock", actor()) as held:
        return _repair(name, held)[0]


def _unsettled(book: Sequence[LedgerEntry], aliases: Mapping[str, str]) -> bool:
    unfinished = any(entry.state in {"writing", "intended"} for entry in book)
    return unfinished or any(holder(book, alias) != aliases.get(alias, "") for alias in SEEN)


def _repair(name: str, held: Lease) -> tuple[list[str], tuple[LedgerEntry, ...]]:
    """A sentence for each thing done, and the ledger after it."""
    said = []
    book = entries(name)
    for entry in book:
        if entry.state == "writing":
            _end(entry, "abandoned", held)
            said.append(f"Undone: {entry.sentence()} was cut short before anything was moved; it is abandoned.")
        elif entry.state == "intended":
            _carry_out(name, _with_findings(entry), book, held, by=actor())
            said.append(f"Finished: {entry.sentence()} had been cut short.")
    book = entries(name) if said else book
    aliases = registry.aliases(name)
    for alias in SEEN:
        if holder(book, alias) != aliases.get(alias, ""):
            said += _align(name, alias, book, held)
            book = entries(name)
    return said, book


def _with_findings(entry: LedgerEntry) -> LedgerEntry:
    """What a refusal says on its version is in its findings, which lie beside the entry."""
    if entry.decision.moves:
        return entry
    return replace(entry, decision=replace(entry.decision, findings=findings(entry)))


def _align(name: str, alias: str, book: Sequence[LedgerEntry], held: Lease) -> list[str]:
    """An alias is not where the ledger says: take it over where the ledger knows nothing of it, else put it back."""
    actual, recorded = registry.aliases(name).get(alias, ""), holder(book, alias)
    if actual == recorded:
        return []
    if not any(entry.counts and entry.decision.alias == alias for entry in book):
        sentence = f"Version {actual} held the alias '{alias}' before the ledger knew of it."
        decision = Decision("found", "FOUND", actual, alias, moves=True, reason=sentence, page=sentence)
    elif not recorded and actual in rolled_back(book):
        sentence = f"Version {actual} was rolled back and still held the alias '{alias}': it was taken away."
        decision = Decision("repair", "REPAIR", "", alias, moves=True, previous=actual, reason=sentence)
    elif not recorded or _version(name, recorded) is not None:
        sentence = (
            f"The alias '{alias}' was at {_named(actual)} without a decision, and by the ledger at {_named(recorded)}: "
            "it was put back. To go elsewhere, promote or roll back."
        )
        decision = Decision("repair", "REPAIR", recorded, alias, moves=True, previous=actual, reason=sentence)
    else:
        sentence = f"Version {recorded} held the alias '{alias}' by the ledger, and was deleted: nothing holds it now."
        decision = Decision("repair", "REPAIR", "", alias, moves=True, previous=recorded, reason=sentence)
    _carry_out(name, _write(name, replace(decision, page=sentence), book, held), book, held)
    return [sentence]


def _named(number: str) -> str:
    return f"version {number}" if number else "no version"


def _version(name: str, number: str) -> Version | None:
    """A version by its number; None where there is none, or not any more."""
    return registry.holder(name, number) if number else None


def _write(name: str, decision: Decision, book: Sequence[LedgerEntry], held: Lease) -> LedgerEntry:
    """Record a decision whole; it is intended only with its findings beside it."""
    held.require()
    now = datetime.now(timezone.utc)
    number = max((entry.number for entry in book), default=0) + 1
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
        run: Any = patiently(lambda: client.create_run(ledger, tags=tags, run_name=title))
        client.log_dict(run.info.run_id, {"findings": [dict(one) for one in decision.findings]}, FINDINGS)
        client.log_text(run.info.run_id, decision.page, PAGE)
    entry = LedgerEntry(number, "writing", now, actor(), run.info.run_id, "", decision)
    if decision.action != "refusal":  # a server only notes that, and nothing has to be carried out
        _set(entry, held, state="intended")
        return replace(entry, state="intended")
    return entry


def _carry_out(name: str, entry: LedgerEntry, book: Sequence[LedgerEntry], held: Lease, by: str = "") -> LedgerEntry:
    """Do what an entry asks for, again where it was half done; then it is done."""
    story = [*(one for one in book if one.number < entry.number), replace(entry, state="intended")]
    with _naming(entry):
        if entry.decision.moves:
            _move(name, story, held)
        else:
            _say_why_not(name, story, held)
    return _end(entry, "done", held, by)


@contextmanager
def _naming(entry: LedgerEntry) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise StoreError(
            f"Recorded and not carried out yet: {entry.sentence()}; the next command finishes it. {error}"
        ) from error


def _move(name: str, story: Sequence[LedgerEntry], held: Lease) -> None:
    """The last entry's alias to its version; what both versions say of themselves goes with it."""
    entry = story[-1]
    decision = entry.decision
    held.require()
    target = _version(name, decision.version)
    if target is None:
        registry.unset_alias(name, decision.alias)
    else:
        registry.set_alias(target, decision.alias)
        facts = {f"{decision.alias}_since": entry.time.isoformat(), "decision": entry.run_id}
        _tell(target, story, facts, RETIRED if decision.alias == PRODUCTION else ())
        if decision.stages:
            registry.mirror_stage(target, SEEN[decision.alias])
    if decision.alias == PRODUCTION and target is not None:
        _set_previous(name, story)
    if decision.previous != decision.version:
        _retire(name, story)


def _set_previous(name: str, story: Sequence[LedgerEntry]) -> None:
    back = _version(name, before(story, story[-1].decision.version))
    if back is None:
        registry.unset_alias(name, PREVIOUS)
    else:
        registry.set_alias(back, PREVIOUS)


def _retire(name: str, story: Sequence[LedgerEntry]) -> None:
    """What becomes of the version that leaves the alias."""
    entry = story[-1]
    decision = entry.decision
    target = _version(name, decision.previous)
    if target is None:
        return
    leaves = decision.alias == PRODUCTION and decision.action != "repair"
    if leaves and holder(story, STAGING) != holder(story[:-1], STAGING):
        registry.unset_alias(name, STAGING)
    told = {"production_until": entry.time.isoformat(), "replaced_by": decision.version}
    _tell(target, story, told if leaves else {})
    if decision.stages and leaves:
        registry.mirror_stage(target, "Archived")


def _say_why_not(name: str, story: Sequence[LedgerEntry], held: Lease) -> None:
    """A version that was refused or held says so, unless what it is says more: in production, or rolled back."""
    held.require()
    number = story[-1].decision.version
    target = _version(name, number) if standing(story, number).decided is story[-1] else None
    if target is not None:
        _tell(target, story, {})


def _tell(target: Version, story: Sequence[LedgerEntry], facts: Mapping[str, str], drop: Sequence[str] = ()) -> None:
    """Where a version stands after a ledger's last entry, in its tags and its description."""
    found, entry = standing(story, target.number), story[-1]
    tags = {registry.STATUS: found.status} | {f"{PREFIX}{key}": value for key, value in facts.items()}
    if found.decided is not None and (found.decided is entry or registry.DECISION not in target.stored):
        tags[registry.DECISION] = decision_words(found.decided)
    registry.tag(target, tags, [f"{PREFIX}{key}" for key in ("stage", *drop)])
    if found.decided is entry and entry.decision.action in {"promotion", "rollback"}:
        registry.extend_description(target, f"## Decision {entry.number}", summary(entry))


def _end(entry: LedgerEntry, state: State, held: Lease, by: str = "") -> LedgerEntry:
    told: dict[str, str] = {"state": state}
    if by or state == "abandoned":
        told["repaired"] = f"{by or actor()} {datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    with tracking.store_errors():
        status = "FINISHED" if state == "done" else "KILLED"
        patiently(lambda: MlflowClient().set_terminated(entry.run_id, status))
    _set(entry, held, **told)
    return replace(entry, state=state, repaired=told.get("repaired", ""))


def _set(entry: LedgerEntry, held: Lease, **values: str) -> None:
    """The one place that changes tags of an entry; the state comes last."""
    held.require()
    with tracking.store_errors():
        for key in sorted(values):
            patiently(partial(MlflowClient().set_tag, entry.run_id, f"{PREFIX}{key}", values[key]))
