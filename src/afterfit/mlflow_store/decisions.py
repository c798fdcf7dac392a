"""Decisions about versions, as the ledger keeps them, and which version holds or held an alias by them.

Nothing here calls MLflow: the ledger is given as a sequence of entries, oldest first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from afterfit.mlflow_store.registry import PRODUCTION, STAGING

Action = Literal["promotion", "rollback", "found", "repair", "refusal"]
State = Literal["writing", "intended", "done", "abandoned"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about an alias, and why.

    Attributes:
        action: "promotion", "rollback", "found" (the alias was there before the ledger), "repair" (it was moved by
            hand, or its version was deleted) or "refusal" (a server did not take the version into service).
        verdict: PROMOTE, TRIAL, HOLD, REJECT, ROLLBACK, FOUND, REPAIR or REFUSED. Older ledgers have no TRIAL: there a
            version on trial has HOLD and is forced.
        version: the version that was decided about; empty where an alias loses its version.
        alias: staging or production.
        moves: whether the alias goes to that version.
        previous: the version that held the alias; empty where none did.
        reason: a sentence of a person or of the program.
        forced: a person overrode the verdict.
        approval: who approved, as the version's tag said, and when that was seen.
        policy: hash of the limits that were in force.
        digest: of the version's bundle.
        window: which rows judged it: rows, start, end, sha256, and their use as a comparison.
        stages: whether the move is mirrored to MLflow's old stages.
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
        """Whether it has moved its alias, or will."""
        return self.decision.moves and self.state in {"intended", "done"}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        decision = {
            key: value for key, value in asdict(self.decision).items() if key not in {"findings", "page", "stages"}
        }
        return {
            "number": self.number,
            "state": self.state,
            "time": self.time.isoformat(timespec="seconds"),
            "actor": self.actor,
            "run_id": self.run_id,
            "repaired": self.repaired,
            **decision,
        }

    def sentence(self) -> str:
        """What was decided, by whom and when, for messages."""
        words = {
            "promotion": f"the promotion of version {self.decision.version} to {self.decision.alias}",
            "rollback": f"the rollback of {self.decision.alias} to version {self.decision.version}",
            "refusal": f"the refusal to serve version {self.decision.version}",
        }
        sentence = words.get(
            self.decision.action, f"the note that {self.decision.alias} is at version {self.decision.version or '-'}"
        )
        if self.decision.action in {"promotion", "rollback"} and not self.decision.moves:
            sentence = f"the decision that version {self.decision.version} does not go to {self.decision.alias}"
        return f"{sentence} by {self.actor} at {self.time:%Y-%m-%d %H:%M:%S} UTC (decision {self.number})"


def holder(book: Sequence[LedgerEntry], alias: str, at: datetime | None = None) -> str:
    """The version that holds an alias by the ledger, or held it at a moment (UTC); empty where none does.

    A version that is rolled back loses the alias `staging` too, if it has it.
    """
    current = ""
    for entry in book:
        decision = entry.decision
        if not entry.counts or (at is not None and entry.time > at):
            continue
        if decision.alias == alias:
            current = decision.version
        elif alias == STAGING and decision.action == "rollback" and decision.previous == current:
            current = ""
    return current


def past_holders(book: Sequence[LedgerEntry], alias: str = PRODUCTION) -> list[str]:
    """The versions that hold or held an alias, the newest move first, each once."""
    versions = [entry.decision.version for entry in book if entry.counts and entry.decision.alias == alias]
    return list(dict.fromkeys(version for version in reversed(versions) if version))


def rolled_back_versions(book: Sequence[LedgerEntry]) -> dict[str, LedgerEntry]:
    """The versions that were rolled back, each with the decision that did it."""
    rollbacks = [entry for entry in book if entry.counts and entry.decision.action == "rollback"]
    return {entry.decision.previous: entry for entry in rollbacks if entry.decision.previous}


def version_before(book: Sequence[LedgerEntry], version: str) -> str:
    """The version that a rollback of this one leads to: the last before it that was not rolled back; or empty."""
    rolled_back = rolled_back_versions(book)
    holders = past_holders(book)
    earlier = holders[holders.index(version) + 1 :] if version in holders else holders
    return next((number for number in earlier if number not in rolled_back and number != version), "")
