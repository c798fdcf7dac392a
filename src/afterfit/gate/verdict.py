"""From findings to a verdict. All findings are collected; the first failure does not end the examination."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Outcome = Literal["pass", "fail", "unsure", "not applicable"]
Decision = Literal["PROMOTE", "TRIAL", "HOLD", "REJECT"]
NEVER_FORCED = frozenset({"loads", "not_rolled_back", "another_version"})
"""Checks whose failure nobody can override."""
EVIDENCE = frozenset({"better", "not_worse"})
"""Checks against the champion: if one is unsure, that is no evidence for or against the candidate."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result.

    Attributes:
        code: the name of the check.
        outcome: its result; "unsure": not enough evidence; "not applicable": there was nothing to check.
        sentence: the result for a person.
        value: what was measured, or None.
        limit: the limit for the value, or None.
        interval: the value's interval, or None.
        n: the number of rows it was measured on, or None.
    """

    code: str
    outcome: Outcome
    sentence: str
    value: float | None = None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; numbers that are not finite (an interval from too few rows) are None."""
        content: dict[str, Any] = _plain(asdict(self))
        return content

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Finding:
        """From what `to_dict` wrote."""
        return cls(**{**saved, "interval": None if saved["interval"] is None else tuple(saved["interval"])})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the findings come to.

    Attributes:
        decision: PROMOTE; TRIAL (it goes into production on trial: no finding is against it, but evidence is missing);
            HOLD (not enough evidence) or REJECT.
        findings: all findings.
        window: the rows of the findings, as the ledger keeps them; empty where there are none.
    """

    decision: Decision
    findings: tuple[Finding, ...]
    window: Mapping[str, Any] = field(default_factory=dict)

    @property
    def moves(self) -> bool:
        """Whether the version gets the alias, for good or on trial."""
        return self.decision in {"PROMOTE", "TRIAL"}

    @property
    def may_be_forced(self) -> bool:
        """Whether a person may override it, with a reason."""
        failed = {finding.code for finding in self.findings if finding.outcome == "fail"}
        return not self.moves and not failed & NEVER_FORCED

    def at_staging(self) -> Verdict:
        """The verdict for staging: a version on HOLD for production may go to staging, where people can look at it."""
        return replace(self, decision="TRIAL") if self.decision == "HOLD" else self

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        findings = [finding.to_dict() for finding in self.findings]
        return {"decision": self.decision, "findings": findings, "window": dict(self.window)}


@dataclass(frozen=True, slots=True)
class ComparisonUse:
    """One comparison: candidate, champion, and the rows. Times are ISO text, empty without a time column."""

    candidate: str
    champion: str
    sha256: str
    start: str = ""
    end: str = ""

    def overlaps(self, other: ComparisonUse) -> bool:
        """Whether the two windows of time overlap; without times, whether the rows are exactly the same."""
        if self.start and other.start:
            return self.start <= other.end and other.start <= self.end
        return self.sha256 == other.sha256

    def to_dict(self) -> dict[str, str]:
        """As a decision's window keeps it, under "use"."""
        return asdict(self)

    @classmethod
    def of_window(cls, window: Mapping[str, Any]) -> ComparisonUse | None:
        """The use that a decision's window keeps; None where nothing was compared, or somebody has changed it."""
        use = window.get("use")
        if not isinstance(use, dict) or not all(isinstance(value, str) for value in use.values()):
            return None
        known = {"candidate", "champion", "sha256"} <= use.keys() <= {*cls.__slots__}
        return cls(**use) if known else None


def judge(findings: Iterable[Finding], window: Mapping[str, Any] | None = None, *, trial: bool = False) -> Verdict:
    """REJECT if a check fails, HOLD if one is unsure or none passes, PROMOTE otherwise.

    Args:
        findings: all findings, in any order.
        window: the rows of the findings.
        trial: whether TRIAL is allowed. It takes the place of a HOLD whose only reason is that the outcomes cannot yet
            tell the candidate from the champion.
    """
    collected = tuple(findings)
    outcomes = {finding.outcome for finding in collected}
    unsure = {finding.code for finding in collected if finding.outcome == "unsure"}
    if "fail" in outcomes:
        decision: Decision = "REJECT"
    elif "pass" in outcomes and not unsure:
        decision = "PROMOTE"
    else:
        decision = "TRIAL" if trial and unsure and unsure <= EVIDENCE else "HOLD"
    return Verdict(decision, collected, window or {})


def uses(past: Iterable[ComparisonUse], own: ComparisonUse) -> int:
    """The number (1, 2, …) of this comparison among those on overlapping rows; a repeated comparison counts once."""
    overlapping = [use for use in dict.fromkeys(past) if use.overlaps(own)]
    return overlapping.index(own) + 1 if own in overlapping else len(overlapping) + 1


def confidence_left(confidence: float, use: int) -> float:
    """The confidence of the k-th comparison on the same rows: 1 - (1 - confidence) / k².

    Rows that judged earlier candidates have influenced which candidate is judged now. By the union bound, the chance
    that any comparison on these rows errs is at most the sum of 1/k², 1.64 times the chance of the first one, however
    many comparisons there are and however they were chosen: alpha spending over an endless series (Foster and Stine
    2008; on reused holdouts, Dwork et al. 2015). "Better" errs on one side only: at 95 % an equal candidate gets
    through in at most 4.1 % of all series of gates.
    """
    return 1.0 - (1.0 - confidence) / use**2


def policy_hash(settings: Mapping[str, Any]) -> str:
    """A short hash of the limits in force, so that the ledger shows when they change."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
