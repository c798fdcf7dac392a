"""From evidence to a verdict: the one place with limits of promotion. Every finding is collected, not the first."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

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


def judge(findings: Iterable[Finding]) -> Verdict:
    """REJECT where a check fails, HOLD where one lacks evidence or none passes, PROMOTE otherwise."""
    collected = tuple(findings)
    outcomes = {finding.outcome for finding in collected}
    lacking = "unsure" in outcomes or "pass" not in outcomes
    decision: Decision = "REJECT" if "fail" in outcomes else "HOLD" if lacking else "PROMOTE"
    return Verdict(decision, collected)


def example_answered(answers: Sequence[dict[str, Any]]) -> Finding:
    """The version answers the example rows that were saved with it."""
    if not answers:
        return Finding("answers_example", "unsure", "It was saved without example rows, so none could be asked.", n=0)
    refused = [answer["error"] for answer in answers if answer["error"] is not None]
    if not refused:
        return Finding("answers_example", "pass", f"It answers its {len(answers)} example rows.", n=len(answers))
    sentence = f"It refuses {len(refused)} of its own {len(answers)} example rows: {refused[0]['message']}"
    return Finding("answers_example", "fail", sentence, float(len(refused)), 0.0, n=len(answers))


def does_not_load(reason: str) -> Finding:
    """The version's bundle could not be loaded, or is not the one that was registered."""
    return Finding("loads", "fail", reason)


def loads(digest: str) -> Finding:
    """The version's bundle was loaded, and is the one that was registered."""
    return Finding("loads", "pass", f"It loads, and is the bundle that was registered (digest {digest[:12]}…).")


def enough_rows(rows: int, smallest: int, window: str) -> Finding:
    """There are enough held-out rows that neither version was trained on."""
    held = f"{rows:,} held-out rows ({window})"
    if rows >= smallest:
        return Finding(
            "held_out_rows", "pass", f"{held} that no compared version was trained on.", rows, smallest, n=rows
        )
    sentence = f"Only {held} that no compared version was trained on; {smallest:,} are needed."
    return Finding("held_out_rows", "unsure", sentence, rows, smallest, n=rows)


def answers_all(refused: int, rows: int) -> Finding:
    """How many held-out rows the candidate refuses; those are in no comparison."""
    if rows == 0:
        return Finding("answers_rows", "not applicable", "There are no held-out rows to answer.", n=0)
    if refused == 0:
        return Finding("answers_rows", "pass", f"It answers all {rows:,} held-out rows.", 0.0, n=rows)
    share = refused / rows
    outcome: Outcome = "pass" if share <= 0.01 else "fail"
    sentence = f"It refuses {refused:,} of {rows:,} held-out rows ({share:.1%}; at most 1 % may be)."
    return Finding("answers_rows", outcome, sentence, share, 0.01, n=rows)


def beats_dummy(metric: str, difference: float, interval: tuple[float, float], n: int) -> Finding:
    """The candidate is better than the dummy, which gives every row the same answer.

    Surely better passes. What is not even better on these rows fails, sure or not: this bar is low.

    Args:
        metric: its name.
        difference: by how much the candidate is better.
        interval: of the difference.
        n: rows behind it.
    """
    if interval[0] > 0:
        outcome: Outcome = "pass"
    else:
        outcome = "fail" if interval[1] < 0 or difference <= 0 else "unsure"
    said = {"pass": "It beats", "fail": "It does not beat", "unsure": "The rows cannot tell whether it beats"}[outcome]
    sentence = f"{said} the dummy: difference {_difference(metric, difference, interval)}."
    return Finding("beats_dummy", outcome, sentence, difference, 0.0, interval, n)


def not_worse(
    metric: str, difference: float, interval: tuple[float, float], *, tolerance: float, n: int, champion: str
) -> Finding:
    """The candidate is not worse than the champion by more than the tolerance.

    Args:
        metric: its name.
        difference: by how much the candidate is better.
        interval: of the difference.
        tolerance: the loss that is still not worse, in the metric's unit.
        n: rows behind it.
        champion: the version in production.
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
    shown = _difference(metric, difference, interval)
    sentence = f"{said}: difference {shown}; a loss of {tolerance:g} is tolerated."
    return Finding("not_worse", outcome, sentence, difference, -tolerance, interval, n)


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
    return Finding("not_worse", "not applicable", "Nothing is in production yet, so there is nothing to be worse than.")


def _difference(metric: str, difference: float, interval: tuple[float, float]) -> str:
    return f"{difference:+.4f} {metric} (95 % interval {interval[0]:+.4f} to {interval[1]:+.4f})"
