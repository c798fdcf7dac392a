"""Changes of single columns, each column by itself: missing and new values, location, spread, shape, shares.

Every test compares sums over levels, so two profiles are all that it needs. A column that cannot be tested at all, as
it is absent from the window or came with another type, gives a finding that says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterfit.drift.binning import Bins, CategoryBins, LevelTest, NumberBins, level_tests
from afterfit.drift.design_effects import TimeDependence
from afterfit.drift.profiles import Counts, Profile
from afterfit.drift.pvalues import mean_pvalues, share_pvalues, skew_factor
from afterfit.drift.report import SMALLEST, UNIT, DriftFinding

Array = np.ndarray[Any, Any]
DECIMALS = -2
"""The `index` of the test of decimals."""
_SHARE_WORDS = {
    ("missing", False): "missing values",
    ("new values", False): "values never seen in the reference",
    ("new values", True): "more decimals than the reference ever had",
}


@dataclass(frozen=True, slots=True)
class Change:
    """The result of one test of one column: the evidence, and the effect in the unit of its kind.

    `index` is the level or the shape group. `before` and `now` are shares of rows, where the change is one of shares.
    """

    kind: str
    index: int
    statistic: float
    pvalue: float
    effect: float
    effective_rows: float
    before: float
    now: float


def changes_of(bins: Bins, window: Counts, reference: Counts, dependence: TimeDependence, lags: Array) -> list[Change]:
    """The results of all tests of a column; what cannot be tested is left out.

    Args:
        bins: the column's bins.
        window: its counts in the window.
        reference: its counts in the reference.
        dependence: how the rows of both lie in time.
        lags: (units, tests) lag correlations of the tests' scores.
    """
    tests, scores = level_tests(bins)
    lags = lags if lags.shape[1] == len(tests) else np.zeros((0, len(tests)))
    design_effects = _column_design_effects(bins, dependence.design_effect(lags))
    freedom = dependence.freedom(lags, int(reference.levels.sum()))
    window_rows = np.where([test.kind == "missing" for test in tests], window.levels.sum(), window.present).astype(
        float
    )
    reference_rows = np.where([test.kind == "missing" for test in tests], reference.levels.sum(), reference.present)
    testable = (window_rows > 0) & (reference_rows > 0)
    moments = _NumberMoments(bins, window, reference)
    window_counts, reference_counts = window.levels @ scores, reference.levels @ scores
    expected_new = _expected_new(bins, tests, reference)
    sizes = window_rows, reference_rows.astype(float)
    pvalues, statistics = _pvalues_and_statistics(
        tests, scores, (window, reference), sizes, designs=(design_effects, freedom), expected=expected_new
    )
    changes = []
    for i, test in enumerate(tests):
        if not testable[i] or (test.kind in {"location", "spread"} and not moments.comparable):
            continue
        share, share_before = window_counts[i] / window_rows[i], reference_counts[i] / reference_rows[i]
        effect = moments.effect(test.kind) if test.kind in {"location", "spread"} else float(share - share_before)
        effective_rows = float(window_rows[i] / design_effects[i])
        numbers = float(statistics[i]), float(pvalues[i]), effect, effective_rows
        changes.append(Change(test.kind, test.index, *numbers, float(share_before), float(share)))
    return changes + _decimals_change(bins, window, reference)


def describe_change(change: Change, bins: Bins) -> str:
    """A change in words."""
    scale = " (on an asinh scale)" if isinstance(bins, NumberBins) and bins.curve else ""
    if change.kind == "location":
        direction, amount = "up" if change.effect > 0 else "down", _format_number(abs(change.effect))
        return f"mean {direction} by {amount} standard deviations{scale}"
    if change.kind == "spread":
        return f"spread {_format_number(math.exp(change.effect))} times what it was{scale}"
    shares = f"{format_percent(change.before)} → {format_percent(change.now)}"
    if change.kind == "share":
        subject = level_name(bins, change.index)
    elif change.kind == "shape":
        subject = f"values {group_name(bins, change.index)}"
    else:
        subject = _SHARE_WORDS[change.kind, change.index == DECIMALS]
    return f"{subject} {shares}" + ("" if change.kind == "missing" else " of rows")


def level_name(bins: Bins, level: int) -> str:
    """How messages name a category; long names are cut."""
    if not isinstance(bins, CategoryBins) or level == 2:
        return "rarer categories"
    return quoted_name(bins.kept[level - 3])


def group_name(bins: Bins, group: int) -> str:
    """The range of a shape group in words."""
    if not isinstance(bins, NumberBins):
        return ""
    levels = np.flatnonzero(bins.groups == group)
    starts = (0, *bins.starts, bins.starts[-1])
    lowest, highest = bins.value_of(starts[levels[0]]), bins.value_of(starts[levels[-1] + 1] - 1)
    return (
        f"near {lowest:.4g}"
        if starts[levels[-1] + 1] - starts[levels[0]] == 1
        else f"between {lowest:.4g} and {highest:.4g}"
    )


def quoted_name(name: str) -> str:
    """A name in quotes; control characters are escaped, and long names are cut."""
    return repr(name if len(name) <= 40 else f"{name[:39]}…")


def format_percent(share: float) -> str:
    """A share as a percentage with as many digits as it needs."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.1f} %" if value >= 0.095 else f"{value:.2g} %"


def not_applicable_finding(column: str, kind: str) -> DriftFinding:
    """The finding of what could not be tested."""
    nan, words = math.nan, f"{column}: {kind} cannot be tested"
    return DriftFinding(
        column,
        kind,
        "not applicable",
        nan,
        nan,
        nan,
        nan,
        UNIT[kind],
        SMALLEST[kind],
        0.0,
        given_others=False,
        words=words,
    )


def incomparable_columns(window: Profile, reference: Profile) -> dict[int, DriftFinding]:
    """Findings of columns that are absent from the window or came with another type; nothing else of them is tested."""
    findings = {}
    for i, column in enumerate(reference.layout.columns):
        window_counts, reference_counts = window.counts[i], reference.counts[i]
        if window_counts.absent == window.rows:
            findings[i] = _certain_finding(
                column.name, "absent", 1.0, f"{column.name}: the column is not in the window"
            )
        elif words := _describe_type(window_counts, reference_counts):
            share = (window_counts.invalid or window_counts.levels[1:2].sum()) / window.rows
            findings[i] = _certain_finding(column.name, "kind", float(share), f"{column.name}: {words}")
    return findings


def _pvalues_and_statistics(
    tests: Sequence[LevelTest],
    scores: Array,
    counts: tuple[Counts, Counts],
    rows: tuple[Array, Array],
    *,
    designs: tuple[Array, Array],
    expected: Array,
) -> tuple[Array, Array]:
    """P-values and statistics of all tests; the test of new values is one-sided."""
    safe_rows = np.maximum(rows[0], 1.0), np.maximum(rows[1], 1.0)
    window_counts = (counts[0].levels @ scores).astype(float)
    reference_counts = (counts[1].levels @ scores).astype(float)
    is_mean = np.array([test.kind in {"location", "spread"} for test in tests])
    variance, skewness = _row_moments(counts[1], scores)
    difference = window_counts / safe_rows[0] - reference_counts / safe_rows[1]
    variance = variance * (1.0 / safe_rows[0] + 1.0 / safe_rows[1]) * designs[0]
    difference_skewness = skewness * skew_factor(*safe_rows, designs[0])
    of_means = mean_pvalues(difference, variance, difference_skewness, designs[1])
    reference_shares = np.where(is_mean, 0.0, np.clip(reference_counts + expected, 0.0, safe_rows[1]))
    of_shares = share_pvalues(
        np.where(is_mean, 0.0, window_counts),
        safe_rows[0],
        reference_shares,
        safe_rows[1],
        design=designs[0],
        freedom=designs[1],
    )
    is_new = np.array([test.kind == "new values" for test in tests])
    one_sided = np.where(difference > 0, of_shares / 2.0, 1.0)  # fewer new values are no change
    scale = np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.where(is_mean, of_means, np.where(is_new, one_sided, of_shares)), difference / scale


def _column_design_effects(bins: Bins, design_effects: Array) -> Array:
    """New values of a number are too rare to measure their own design effect: it is at least that of the location."""
    if isinstance(bins, NumberBins):
        design_effects = design_effects.copy()
        design_effects[1] = max(design_effects[1], design_effects[2])
    return design_effects


def _expected_new(bins: Bins, tests: Sequence[LevelTest], reference: Counts) -> Array:
    """Rows of the reference that count as new: one, and those whose name came only once (Good, 1953)."""
    once = bins.once * reference.present if isinstance(bins, CategoryBins) else 0.0
    return np.array([1.0 + once if test.kind == "new values" else 0.0 for test in tests])


def _row_moments(reference: Counts, scores: Array) -> tuple[Array, Array]:
    """Variance and skewness of the scores over the reference's rows that have a value."""
    weights = reference.levels[1:] / max(reference.present, 1)
    centred = scores[1:] - weights @ scores[1:]
    variance = weights @ centred**2
    third_moment = weights @ centred**3
    all_shares = reference.levels / max(int(reference.levels.sum()), 1)
    missing_share = float(all_shares[0])
    variance[0], third_moment[0] = (
        missing_share * (1 - missing_share),
        missing_share * (1 - missing_share) * (1 - 2 * missing_share),
    )
    return variance, third_moment / np.where(variance > 0, variance, 1.0) ** 1.5


class _NumberMoments:
    """Mean and standard deviation of a number in both windows, from sums of cells."""

    def __init__(self, bins: Bins, window: Counts, reference: Counts) -> None:
        self.mean, self.deviation = _moments(window)
        self.mean_before, self.deviation_before = _moments(reference)
        varies = isinstance(bins, NumberBins) and len(np.unique(bins.location[1:])) > 1
        self.comparable = varies and self.deviation_before > 0

    def effect(self, kind: str) -> float:
        if kind == "location":
            return (self.mean - self.mean_before) / self.deviation_before
        return math.log(max(self.deviation / self.deviation_before, 0.001))


def _moments(counts: Counts) -> tuple[float, float]:
    rows = max(counts.present, 1)
    mean = counts.first / rows
    return mean, math.sqrt(max(counts.second / rows - mean * mean, 0.0))


def _decimals_change(bins: Bins, window: Counts, reference: Counts) -> list[Change]:
    """Values with more decimals than the reference ever had: the unit or the computation may have changed."""
    if not isinstance(bins, NumberBins) or bins.decimals is None or not window.present or not reference.present:
        return []
    window_rows, reference_rows = np.array([float(window.present)]), np.array([float(reference.present)])
    window_count, reference_count = (
        np.array([float(window.finer)]),
        np.array([min(reference.finer + 1.0, reference_rows[0])]),
    )
    certain = np.ones(1)
    pvalue = float(
        share_pvalues(
            window_count, window_rows, reference_count, reference_rows, design=certain, freedom=certain * 1e9
        )[0]
    )
    now, before = window.finer / window.present, reference.finer / reference.present
    return [Change("new values", DECIMALS, math.nan, pvalue, now - before, float(window.present), before, now)]


def _format_number(value: float) -> str:
    return f"{value:.2f}" if value < 0.195 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _describe_type(window: Counts, reference: Counts) -> str:
    rows = max(int(window.levels.sum()), 1)
    share = window.invalid / rows
    types = f"{' and '.join(sorted(reference.types)) or 'empty'}, is {' and '.join(sorted(window.types))}"
    if share - reference.invalid / max(int(reference.levels.sum()), 1) >= SMALLEST["kind"]:
        return f"was {types}; {format_percent(share)} of rows do not fit its kind"
    if window.types and not window.types & reference.types and reference.present:
        new = int(window.levels[1]) if len(window.levels) > 2 else 0
        return (
            f"was {types}; {format_percent(new / rows)} of rows have values that it never had" if new > rows / 2 else ""
        )
    return ""


def _certain_finding(column: str, kind: str, effect: float, words: str) -> DriftFinding:
    nan = math.nan
    return DriftFinding(
        column, kind, "alarm", nan, 0.0, 0.0, effect, UNIT[kind], SMALLEST[kind], 0.0, given_others=False, words=words
    )
