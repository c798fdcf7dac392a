"""From findings to a verdict, every one collected and not the first; and what is found of two versions compared."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from afterfit.performance.paired_comparison import Comparison, SliceComparison

Outcome = Literal["pass", "fail", "unsure", "not applicable"]
Decision = Literal["PROMOTE", "HOLD", "REJECT"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result.

    Attributes:
        code: which check.
        outcome: what it says; "unsure" is not enough evidence, "not applicable" no question to answer.
        sentence: the same for a person.
        value: what was measured, or None.
        limit: what it was held against, or None.
        interval: the value's interval, or None.
        n: rows behind it, or None.
    """

    code: str
    outcome: Outcome
    sentence: str
    value: float | None = None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the findings come to."""

    decision: Decision
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; numbers that are not finite (an interval from too few rows) are None."""
        return {"decision": self.decision, "findings": [_plain(asdict(finding)) for finding in self.findings]}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class ComparisonUse:
    """One comparison on some rows: who, against whom, and which rows. Times are ISO text, empty without a clock."""

    candidate: str
    champion: str
    sha256: str
    start: str = ""
    end: str = ""

    def overlaps(self, other: ComparisonUse) -> bool:
        """Whether the rows are partly the same, as far as times can tell; the same rows exactly without them."""
        if self.start and other.start:
            return self.start <= other.end and other.start <= self.end
        return self.sha256 == other.sha256


NEVER_FORCED = frozenset({"loads", "not_rolled_back", "another_version"})
"""Failures that no reason overrides."""


EVIDENCE = frozenset({"better", "not_worse"})
"""Checks against the champion: where they are unsure, they speak neither for nor against a candidate."""


def only_lacks_evidence(verdict: Verdict) -> bool:
    """Whether a candidate is held only because nothing tells it from the champion yet."""
    unsure = [finding for finding in verdict.findings if finding.outcome == "unsure"]
    return verdict.decision == "HOLD" and all(finding.code in EVIDENCE for finding in unsure)


def judge(findings: Iterable[Finding]) -> Verdict:
    """REJECT where a check fails, HOLD where one lacks evidence or none passes, PROMOTE otherwise."""
    collected = tuple(findings)
    outcomes = {finding.outcome for finding in collected}
    lacking = "unsure" in outcomes or "pass" not in outcomes
    decision: Decision = "REJECT" if "fail" in outcomes else "HOLD" if lacking else "PROMOTE"
    return Verdict(decision, collected)


def enough_rows(rows: int, smallest: int, window: str) -> Finding:
    """There are enough held-out rows that neither version was trained on."""
    held = f"{rows:,} held-out rows ({window})"
    if rows >= smallest:
        return Finding(
            "held_out_rows", "pass", f"{held} that no compared version was trained on.", rows, smallest, n=rows
        )
    sentence = f"Only {held} that no compared version was trained on; {smallest:,} are needed."
    return Finding("held_out_rows", "unsure", sentence, rows, smallest, n=rows)


def beats_dummy(
    metric: str,
    difference: float,
    interval: tuple[float, float],
    n: int,
    *,
    confidence: float = 0.95,
    champion: tuple[float, float] | None = None,
) -> Finding:
    """The candidate is better than the dummy, which gives every row the same answer.

    Surely better passes. What is not even better on these rows fails, sure or not: this bar is low. Where the champion
    does not surely beat the dummy on these rows either, the world is another one than both have learnt: then the bar
    says nothing, and to stay with the champion for that would be to stay with it for ever.

    Args:
        metric: its name.
        difference: by how much the candidate is better.
        interval: of the difference.
        n: rows behind it.
        confidence: of the interval.
        champion: the interval of the champion's difference from the dummy, or None.
    """
    if interval[0] > 0:
        outcome: Outcome = "pass"
    else:
        outcome = "fail" if interval[1] < 0 or difference <= 0 else "unsure"
    said = {"pass": "It beats", "fail": "It does not beat", "unsure": "The rows cannot tell whether it beats"}[outcome]
    sentence = f"{said} the dummy: difference {_difference(metric, difference, interval, confidence)}."
    if outcome != "pass" and champion is not None and champion[0] <= 0:
        outcome = "not applicable"
        sentence += " The champion does not surely beat it on these rows either."
    return Finding("beats_dummy", outcome, sentence, difference, 0.0, interval, n)


def not_worse(
    metric: str,
    difference: float,
    interval: tuple[float, float],
    *,
    tolerance: float,
    n: int,
    champion: str,
    confidence: float = 0.95,
) -> Finding:
    """The candidate is not worse than the champion by more than the tolerance.

    Args:
        metric: its name.
        difference: by how much the candidate is better.
        interval: of the difference.
        tolerance: the loss that is still not worse, in the metric's unit.
        n: rows behind it.
        champion: the version in production.
        confidence: of the interval.
    """
    if interval[0] >= -tolerance:
        outcome: Outcome = "pass"
    else:
        outcome = "fail" if interval[1] < -tolerance else "unsure"
    said = {
        "pass": f"It is not worse than version {champion}",
        "fail": f"It is worse than version {champion}",
        "unsure": f"The rows cannot tell whether it is worse than version {champion}",
    }[outcome]
    shown = _difference(metric, difference, interval, confidence)
    sentence = f"{said}: difference {shown}; a loss of {tolerance:g} is tolerated."
    return Finding("not_worse", outcome, sentence, difference, -tolerance, interval, n)


def primary(comparison: Comparison, champion: str, require: Literal["better", "not_worse"]) -> Finding:
    """The metric that decides: the candidate is better than the champion, or at least not worse.

    Superiority asks that the whole interval lies above the margin, non-inferiority that it lies above the negative
    tolerance (Wellek 2010). What is known to be no better is no reason to change production: that fails.
    """
    found = comparison
    if require == "not_worse":
        bounds = {"tolerance": found.tolerance, "n": found.n, "champion": champion, "confidence": found.confidence}
        return not_worse(found.metric, found.difference, found.interval, **bounds)  # type: ignore[arg-type]
    outcomes: dict[str, Outcome] = {"better": "pass", "inconclusive": "unsure"}
    words = {"better": "better", "worse": "worse", "equivalent": "as good", "inconclusive": "not settled"}
    sentence = f"Version {champion} has {found.champion:.4f} {found.metric}, it has {found.candidate:.4f}: "
    sentence += f"{words[found.outcome]}, by {_spanned(found)}; more than {found.margin:+.4g} is asked for."
    outcome = outcomes.get(found.outcome, "fail")
    if outcome == "unsure" and found.labels_needed is not None:
        sentence += f" About {found.labels_needed:,} more outcomes would settle it."
    return Finding("better", outcome, sentence, found.difference, found.margin, found.interval, found.n)


def guardrail(comparison: Comparison) -> Finding:
    """A metric beside the primary one must be known not to be worse by more than its tolerance.

    All guardrails must pass, so that each is tested at the full confidence (intersection-union test, Berger 1982).
    """
    found = comparison
    outcome: Outcome = "pass" if found.not_worse else "fail" if found.outcome == "worse" else "unsure"
    said = {"pass": "is not worse", "fail": "is worse", "unsure": "may be worse"}[outcome]
    sentence = f"{found.metric} {said}: {_spanned(found)}; a loss of {found.tolerance:g} is tolerated."
    return Finding(
        f"guardrail_{found.metric}", outcome, sentence, found.difference, -found.tolerance, found.interval, found.n
    )


def slices(compared: Sequence[SliceComparison]) -> Finding:
    """No slice is known to be worse by more than its tolerance, at a confidence that holds for all together.

    A slice that is too small to tell does not hold a promotion back; how many those are is said.
    """
    if not compared:
        return Finding("slices", "not applicable", "The use case names no slices, or none has rows enough.")
    worse = [one for one in compared if one.comparison.outcome == "worse"]
    unsure = sum(not one.comparison.not_worse for one in compared) - len(worse)
    worst = min(compared, key=lambda one: one.comparison.difference)
    told = f"{len(compared)} slices, {unsure} of them too small to tell"
    value, limit = worst.comparison.difference, -worst.comparison.tolerance
    if not worse:
        return Finding("slices", "pass", f"No slice is known to be worse ({told}).", value, limit, n=len(compared))
    named = "; ".join(f"{one.column} {one.value}: {_spanned(one.comparison)}" for one in worse[:5])
    sentence = f"It is worse for {named} ({told}; a loss of {-limit:g} is tolerated)."
    return Finding("slices", "fail", sentence, value, limit, worst.comparison.interval, len(compared))


def value(comparison: Comparison, unit: str) -> Finding:
    """Value in money, a row: it must not be known to be lower than the champion's by more than is tolerated."""
    found = comparison
    outcome: Outcome = "fail" if found.outcome == "worse" else "pass"
    sentence = (
        f"It is worth {found.candidate:+.4g} {unit} a row, the champion {found.champion:+.4g}: {_spanned(found)}, "
        f"{found.difference * found.n:+,.0f} {unit} over {found.n:,} rows."
    )
    return Finding("value", outcome, sentence, found.difference, -found.tolerance, found.interval, found.n)


def another_version(candidate: str, champion: str, same_digest: bool) -> Finding:  # noqa: FBT001 - a fact, not an option
    """The candidate is not the champion itself, under its own number or another."""
    if candidate == champion:
        return Finding("another_version", "fail", f"Version {candidate} is in production already.")
    if same_digest:
        return Finding("another_version", "fail", f"Version {candidate} is the same bundle as version {champion}.")
    return Finding("another_version", "pass", f"Version {candidate} is another bundle than version {champion}.")


def other_answers(identical: bool, champion: str, n: int) -> Finding:  # noqa: FBT001 - a fact, not an option
    """The candidate does not answer every row as the champion does."""
    if identical:
        return Finding("other_answers", "fail", f"It answers all {n:,} rows just as version {champion} does.", n=n)
    return Finding("other_answers", "pass", f"It answers some rows in another way than version {champion}.", n=n)


def no_champion() -> Finding:
    """Nothing is in production yet."""
    return Finding(
        "champion", "not applicable", "Nothing is in production yet, so there is nothing to be compared with."
    )


def champion_does_not_load(champion: str, reason: str) -> Finding:
    """The version in production cannot be compared with."""
    return Finding("champion", "unsure", f"Version {champion}, in production, cannot be compared with: {reason}")


def rows_unread(reason: str) -> Finding:
    """The rows that the version should answer could not be read or checked."""
    return Finding("answers_rows", "fail", f"The latest rows could not be scored: {reason}")


def not_rolled_back(candidate: str, decision: int | None, reason: str) -> Finding:
    """A version that was rolled back does not come again, nor does its bundle under another number."""
    if decision is None:
        return Finding("not_rolled_back", "pass", "It was never rolled back.")
    sentence = f"Version {candidate} was rolled back by decision {decision} ({reason}): train a new candidate."
    return Finding("not_rolled_back", "fail", sentence)


def approval(approved: str, tag: str) -> Finding:
    """A person approved the version, by a tag in the MLflow interface."""
    if approved:
        return Finding("approval", "pass", f"Approved: {approved}.")
    return Finding("approval", "unsure", f"Nobody approved it yet: set the tag '{tag}' of the version to your name.")


def outside_training(inside: int, young: int, rows: int) -> Finding:
    """Rows inside a training window, or without complete outcomes, are left out."""
    sentence = f"{rows:,} rows are used; {inside:,} inside a training window and {young:,} with young outcomes are not."
    return Finding("rows_used", "pass", sentence, float(inside + young), n=rows)


def none_seen(seen: int, rows: int, who: str) -> Finding:
    """No row used has the fingerprint of a training row."""
    if seen == 0:
        return Finding(f"unseen_by_{who}", "pass", f"None of {rows:,} rows is a training row of the {who}.", 0.0, 0.0)
    sentence = f"{seen:,} of {rows:,} rows are training rows of the {who}: these rows cannot judge it."
    return Finding(f"unseen_by_{who}", "fail", sentence, float(seen), 0.0, n=rows)


def judged_by_fold(rows: int) -> Finding:
    """The candidate was trained on these rows too; its last fold's fit, which was not, answers for it."""
    sentence = (
        f"{rows:,} rows are answered by its last fold's fit, which had not seen them; it was trained on them too."
    )
    return Finding("unseen_by_candidate", "pass", sentence, n=rows)


def confidence_left(confidence: float, use: int) -> float:
    """The confidence of the k-th comparison on the same rows: 1 - (1 - confidence) / k².

    Rows that were looked at before have helped to choose what is looked at now. By the union bound, the chance that
    any of all comparisons on these rows errs is at most the sum of 1/k², 1.64 times that of the first one, however
    many there are and however they were chosen: alpha spending over an endless series (Foster and Stine 2008; on
    holdouts used again, Dwork et al. 2015). "Better" errs on one side only: at 95 % an equal candidate gets through in
    at most 4.1 % of all series of gates.
    """
    return 1.0 - (1.0 - confidence) / use**2


def fresh(use: int, confidence: float) -> Finding:
    """How often these rows were used for gates, and what that costs."""
    if use == 1:
        return Finding("fresh_rows", "pass", "These rows were used for no other gate.", 1.0)
    before = "once" if use == 2 else f"{use - 1} times"
    sentence = f"Other candidates were judged on these rows {before} before: judged at {confidence:.2%} confidence."
    return Finding("fresh_rows", "pass", sentence, float(use))


def uses(past: Iterable[ComparisonUse], own: ComparisonUse) -> int:
    """The how-manieth comparison this is on rows that overlap its own; the same one done again is not another."""
    seen = [one for one in dict.fromkeys(past) if one.overlaps(own)]
    return seen.index(own) + 1 if own in seen else len(seen) + 1


def policy_hash(settings: Mapping[str, Any]) -> str:
    """A short hash of the limits in force, so that the ledger shows when they change."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _difference(metric: str, difference: float, interval: tuple[float, float], confidence: float) -> str:
    return f"{difference:+.4f} {metric} ({100 * confidence:.4g} % interval {interval[0]:+.4f} to {interval[1]:+.4f})"


def _spanned(found: Comparison) -> str:
    low, high = found.interval
    return f"{found.difference:+.4f} ({100 * found.confidence:.4g} % interval {low:+.4f} to {high:+.4f})"
