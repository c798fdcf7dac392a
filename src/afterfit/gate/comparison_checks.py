"""Findings of the gate about the comparison of two versions: whether the rows may judge them, and what they show."""

from collections.abc import Sequence
from typing import Literal

from afterfit.gate.verdict import Finding, Outcome
from afterfit.performance.paired_comparison import Comparison, SliceComparison


def enough_rows(rows: int, smallest: int, window: str, *, fold: bool = False) -> Finding:
    """There are enough rows to compare the two versions on.

    Args:
        rows: how many there are.
        smallest: how many are needed.
        window: which rows, in words.
        fold: whether they are of the candidate's last fold, and so among its training rows.
    """
    count_words = f"{rows:,} rows ({window}) of its last fold" if fold else f"{rows:,} held-out rows ({window})"
    whose = "that come after the champion's training" if fold else "that no compared version was trained on"
    if rows >= smallest:
        return Finding("held_out_rows", "pass", f"{count_words} {whose}.", rows, smallest, n=rows)
    sentence = f"Only {count_words} {whose}; {smallest:,} are needed."
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

    If the interval is above 0, it passes. If it is not even better on these rows, it fails, since this is easy to
    reach. If the champion does not surely beat the dummy on these rows either, the data have changed since both were
    trained: then the check says nothing. To keep the champion for that reason would be to keep it for ever.

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
    words = {"pass": "It beats", "fail": "It does not beat", "unsure": "The rows cannot tell whether it beats"}[outcome]
    sentence = f"{words} the dummy: difference {_difference_words(metric, difference, interval, confidence)}."
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
    words = {
        "pass": f"It is not worse than version {champion}",
        "fail": f"It is worse than version {champion}",
        "unsure": f"The rows cannot tell whether it is worse than version {champion}",
    }[outcome]
    difference_words = _difference_words(metric, difference, interval, confidence)
    sentence = f"{words}: difference {difference_words}; a loss of {tolerance:g} is tolerated."
    return Finding("not_worse", outcome, sentence, difference, -tolerance, interval, n)


def primary(comparison: Comparison, champion: str, require: Literal["better", "not_worse"]) -> Finding:
    """The metric that decides: the candidate is better than the champion, or at least not worse.

    Superiority asks that the whole interval lies above the margin, non-inferiority that it lies above the negative
    tolerance (Wellek 2010). A candidate that is known to be no better fails: it is no reason to change production.
    """
    if require == "not_worse":
        bounds = {
            "tolerance": comparison.tolerance,
            "n": comparison.n,
            "champion": champion,
            "confidence": comparison.confidence,
        }
        return not_worse(comparison.metric, comparison.difference, comparison.interval, **bounds)  # type: ignore[arg-type]
    outcomes: dict[str, Outcome] = {"better": "pass", "inconclusive": "unsure"}
    words = {"better": "better", "worse": "worse", "equivalent": "as good", "inconclusive": "not settled"}
    sentence = (
        f"Version {champion} has {comparison.champion:.4f} {comparison.metric}, it has {comparison.candidate:.4f}: "
    )
    sentence += f"{words[comparison.outcome]}, by {_interval_words(comparison)}; "
    sentence += f"more than {comparison.margin:+.4g} is asked for."
    outcome = outcomes.get(comparison.outcome, "fail")
    if outcome == "unsure" and comparison.labels_needed is not None:
        sentence += f" About {comparison.labels_needed:,} more outcomes would settle it."
    return Finding(
        "better", outcome, sentence, comparison.difference, comparison.margin, comparison.interval, comparison.n
    )


def guardrail(comparison: Comparison) -> Finding:
    """A metric beside the primary one must be known not to be worse by more than its tolerance.

    All guardrails must pass, so that each is tested at the full confidence (intersection-union test, Berger 1982).
    """
    outcome: Outcome = "pass" if comparison.not_worse else "fail" if comparison.outcome == "worse" else "unsure"
    words = {"pass": "is not worse", "fail": "is worse", "unsure": "may be worse"}[outcome]
    sentence = (
        f"{comparison.metric} {words}: {_interval_words(comparison)}; a loss of {comparison.tolerance:g} is tolerated."
    )
    return Finding(
        f"guardrail_{comparison.metric}",
        outcome,
        sentence,
        comparison.difference,
        -comparison.tolerance,
        comparison.interval,
        comparison.n,
    )


def slices(compared: Sequence[SliceComparison]) -> Finding:
    """No slice is known to be worse by more than its tolerance, at a confidence that holds for all together.

    A slice with too few rows to tell does not prevent a promotion; the finding says how many such slices there are.
    """
    if not compared:
        return Finding("slices", "not applicable", "The use case names no slices, or none has rows enough.")
    worse = [slice_ for slice_ in compared if slice_.comparison.outcome == "worse"]
    unsure = sum(not slice_.comparison.not_worse for slice_ in compared) - len(worse)
    worst = min(compared, key=lambda slice_: slice_.comparison.difference)
    counts = f"{len(compared)} slices, {unsure} of them too small to tell"
    value, limit = worst.comparison.difference, -worst.comparison.tolerance
    if not worse:
        return Finding("slices", "pass", f"No slice is known to be worse ({counts}).", value, limit, n=len(compared))
    examples = "; ".join(
        f"{slice_.column} {slice_.value}: {_interval_words(slice_.comparison)}" for slice_ in worse[:5]
    )
    sentence = f"It is worse for {examples} ({counts}; a loss of {-limit:g} is tolerated)."
    return Finding("slices", "fail", sentence, value, limit, worst.comparison.interval, len(compared))


def value(comparison: Comparison, unit: str) -> Finding:
    """Value in money for each row: it fails if it is known to be lower than the champion's by more than tolerated."""
    outcome: Outcome = "fail" if comparison.outcome == "worse" else "pass"
    sentence = (
        f"It is worth {comparison.candidate:+.4g} {unit} a row, the champion {comparison.champion:+.4g}: "
        f"{_interval_words(comparison)}, "
        f"{comparison.difference * comparison.n:+,.0f} {unit} over {comparison.n:,} rows."
    )
    return Finding(
        "value", outcome, sentence, comparison.difference, -comparison.tolerance, comparison.interval, comparison.n
    )


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


def outside_training(inside: int, young: int, rows: int, *, fold: bool = False) -> Finding:
    """How many rows are left out: inside a training window (by fold: the champion's), or with incomplete outcomes."""
    where = "inside the champion's training window" if fold else "inside a training window"
    sentence = f"{rows:,} rows are used; {inside:,} {where} and {young:,} with young outcomes are not."
    return Finding("rows_used", "pass", sentence, float(inside + young), n=rows)


def none_seen(seen: int, rows: int, who: str) -> Finding:
    """No row used has the fingerprint of a training row."""
    if seen == 0:
        return Finding(f"unseen_by_{who}", "pass", f"None of {rows:,} rows is a training row of the {who}.", 0.0, 0.0)
    sentence = f"{seen:,} of {rows:,} rows are training rows of the {who}: these rows cannot judge it."
    return Finding(f"unseen_by_{who}", "fail", sentence, float(seen), 0.0, n=rows)


def judged_by_fold(rows: int, seen_by_champion: int | None) -> Finding:
    """The candidate was trained on these rows; a fit of its recipe that had not seen them answers in its place.

    Args:
        rows: how many there are.
        seen_by_champion: how many of them the champion was trained on; None without a champion.
    """
    never = "; the champion never saw them" if seen_by_champion == 0 else ""
    sentence = f"These {rows:,} rows are among its training rows: a fit that had not seen them answered for it{never}."
    return Finding("unseen_by_candidate", "pass", sentence, n=rows)


def fresh(use: int, confidence: float) -> Finding:
    """How often these rows judged other candidates before, and what confidence is left for this comparison."""
    if use == 1:
        return Finding("fresh_rows", "pass", "These rows were used for no other gate.", 1.0)
    before = "once" if use == 2 else f"{use - 1} times"
    sentence = f"Other candidates were judged on these rows {before} before: judged at {confidence:.2%} confidence."
    return Finding("fresh_rows", "pass", sentence, float(use))


def _difference_words(metric: str, difference: float, interval: tuple[float, float], confidence: float) -> str:
    return f"{difference:+.4f} {metric} ({100 * confidence:.4g} % interval {interval[0]:+.4f} to {interval[1]:+.4f})"


def _interval_words(comparison: Comparison) -> str:
    low, high = comparison.interval
    return f"{comparison.difference:+.4f} ({100 * comparison.confidence:.4g} % interval {low:+.4f} to {high:+.4f})"
