"""Changes of single columns: missing and new values, location, spread, shape, shares, each by itself.

Every test here compares sums over levels, so that it needs nothing but two profiles.

Columns of which nothing can be measured: vanished, of another type, or not to be told; each as a finding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterfit.drift import pvalues as evidence
from afterfit.drift.binning import Bins, CategoryBins, LevelTest, NumberBins, looks_of
from afterfit.drift.design_effects import TimeDependence
from afterfit.drift.profiles import Counts, Profile
from afterfit.drift.report import SMALLEST, UNIT, DriftFinding

Array = np.ndarray[Any, Any]
FINER = -2
"""Stands for the look at decimals."""


@dataclass(frozen=True, slots=True)
class Change:
    """One look at one column: how sure, and how large in its unit. `at` is the level or shape group.

    `before` and `now` are the shares of rows, where the change is one of shares.
    """

    kind: str
    at: int
    statistic: float
    pvalue: float
    effect: float
    effective_rows: float
    before: float
    now: float


def changes_of(bins: Bins, window: Counts, reference: Counts, spread: TimeDependence, lags: Array) -> list[Change]:
    """Everything that is looked at in a column; what cannot be told is left out.

    Args:
        bins: the column's bins.
        window: its counts in the window.
        reference: its counts in the reference.
        spread: how the rows of both lie in time.
        lags: (units, looks) lag correlations of the looks.
    """
    looks, scores = looks_of(bins)
    lags = lags if lags.shape[1] == len(looks) else np.zeros((0, len(looks)))
    design = _designs(bins, spread.design_effect(lags))
    freedom = spread.freedom(lags, int(reference.levels.sum()))
    rows = np.where([look.kind == "missing" for look in looks], window.levels.sum(), window.present).astype(float)
    others = np.where([look.kind == "missing" for look in looks], reference.levels.sum(), reference.present)
    able = (rows > 0) & (others > 0)
    mean = _Means(bins, window, reference)
    count, other = window.levels @ scores, reference.levels @ scores
    known = _expected_new(bins, looks, reference)
    sizes = rows, others.astype(float)
    pvalues, statistics = _tested(looks, scores, (window, reference), sizes, designs=(design, freedom), expected=known)
    found = []
    for i, look in enumerate(looks):
        if not able[i] or (look.kind in {"location", "spread"} and not mean.able):
            continue
        share, before = count[i] / rows[i], other[i] / others[i]
        effect = mean.effect(look.kind) if look.kind in {"location", "spread"} else float(share - before)
        rows_worth = float(rows[i] / design[i])
        numbers = float(statistics[i]), float(pvalues[i]), effect, rows_worth
        found.append(Change(look.kind, look.at, *numbers, float(before), float(share)))
    return found + _finer(bins, window, reference)


def _finer(bins: Bins, window: Counts, reference: Counts) -> list[Change]:
    """Values with more decimals than the reference ever had: as if in another unit, or computed another way."""
    if not isinstance(bins, NumberBins) or bins.decimals is None or not window.present or not reference.present:
        return []
    rows, others = np.array([float(window.present)]), np.array([float(reference.present)])
    count, other = np.array([float(window.finer)]), np.array([min(reference.finer + 1.0, others[0])])
    certain = np.ones(1)
    pvalue = float(evidence.of_shares(count, rows, other, others, design=certain, freedom=certain * 1e9)[0])
    now, before = window.finer / window.present, reference.finer / reference.present
    return [Change("new values", FINER, math.nan, pvalue, now - before, float(window.present), before, now)]


def _designs(bins: Bins, design: Array) -> Array:
    """New values come as seldom as the location moves: they have no design effect of their own to measure."""
    if isinstance(bins, NumberBins):
        design = design.copy()
        design[1] = max(design[1], design[2])
    return design


def _expected_new(bins: Bins, looks: Sequence[LevelTest], reference: Counts) -> Array:
    """Rows of the reference that count as new: one, and those in names that it met only once (Good, 1953)."""
    once = bins.once * reference.present if isinstance(bins, CategoryBins) else 0.0
    return np.array([1.0 + once if look.kind == "new values" else 0.0 for look in looks])


def _tested(
    looks: Sequence[LevelTest],
    scores: Array,
    counts: tuple[Counts, Counts],
    rows: tuple[Array, Array],
    *,
    designs: tuple[Array, Array],
    expected: Array,
) -> tuple[Array, Array]:
    """P-values and statistics of all looks; new values are tested on one side."""
    safe = np.maximum(rows[0], 1.0), np.maximum(rows[1], 1.0)
    count = (counts[0].levels @ scores).astype(float)
    other = (counts[1].levels @ scores).astype(float)
    means = np.array([look.kind in {"location", "spread"} for look in looks])
    variance, skewness = _row_moments(counts[1], scores)
    difference = count / safe[0] - other / safe[1]
    variance = variance * (1.0 / safe[0] + 1.0 / safe[1]) * designs[0]
    skew = skewness * evidence.skew_factor(*safe, designs[0])
    of_means = evidence.of_means(difference, variance, skew, designs[1])
    shown = np.where(means, 0.0, np.clip(other + expected, 0.0, safe[1]))
    of_shares = evidence.of_shares(
        np.where(means, 0.0, count), safe[0], shown, safe[1], design=designs[0], freedom=designs[1]
    )
    new = np.array([look.kind == "new values" for look in looks])
    one_sided = np.where(difference > 0, of_shares / 2.0, 1.0)  # fewer new values than ever before are no change
    scale = np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.where(means, of_means, np.where(new, one_sided, of_shares)), difference / scale


def _row_moments(reference: Counts, scores: Array) -> tuple[Array, Array]:
    """Variance and skewness of the scores over the reference's rows that have a value."""
    weights = reference.levels[1:] / max(reference.present, 1)
    centred = scores[1:] - weights @ scores[1:]
    variance = weights @ centred**2
    third = weights @ centred**3
    everything = reference.levels / max(int(reference.levels.sum()), 1)
    missing = float(everything[0])
    variance[0], third[0] = missing * (1 - missing), missing * (1 - missing) * (1 - 2 * missing)
    return variance, third / np.where(variance > 0, variance, 1.0) ** 1.5


class _Means:
    """Mean and standard deviation of a number in both windows, from sums of cells."""

    def __init__(self, bins: Bins, window: Counts, reference: Counts) -> None:
        self.mean, self.deviation = _moments(window)
        self.mean_before, self.deviation_before = _moments(reference)
        varies = isinstance(bins, NumberBins) and len(np.unique(bins.location[1:])) > 1
        self.able = varies and self.deviation_before > 0

    def effect(self, kind: str) -> float:
        if kind == "location":
            return (self.mean - self.mean_before) / self.deviation_before
        return math.log(max(self.deviation / self.deviation_before, 0.001))


def _moments(counts: Counts) -> tuple[float, float]:
    rows = max(counts.present, 1)
    mean = counts.first / rows
    return mean, math.sqrt(max(counts.second / rows - mean * mean, 0.0))


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 0.195 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def percent(share: float) -> str:
    """A share as a percentage with as many digits as it needs."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.1f} %" if value >= 0.095 else f"{value:.2g} %"


def words_of(change: Change, bins: Bins) -> str:
    """A change as a person would say it."""
    scale = " (on an asinh scale)" if isinstance(bins, NumberBins) and bins.curve else ""
    if change.kind == "location":
        way, amount = "up" if change.effect > 0 else "down", _figure(abs(change.effect))
        return f"mean {way} by {amount} standard deviations{scale}"
    if change.kind == "spread":
        return f"spread {_figure(math.exp(change.effect))} times what it was{scale}"
    moved = f"{percent(change.before)} → {percent(change.now)}"
    if change.kind == "share":
        what = level_name(bins, change.at)
    elif change.kind == "shape":
        what = f"values {group_name(bins, change.at)}"
    else:
        what = _SHARE_WORDS[change.kind, change.at == FINER]
    return f"{what} {moved}" + ("" if change.kind == "missing" else " of rows")


_SHARE_WORDS = {
    ("missing", False): "missing values",
    ("new values", False): "values never seen in the reference",
    ("new values", True): "more decimals than the reference ever had",
}


def level_name(bins: Bins, level: int) -> str:
    """A category's name as it is shown; long ones cut."""
    if not isinstance(bins, CategoryBins) or level == 2:
        return "rarer categories"
    return shortened(bins.kept[level - 3])


def shortened(name: str) -> str:
    """A name in quotes, control characters escaped, long ones cut."""
    return repr(name if len(name) <= 40 else f"{name[:39]}…")


def group_name(bins: Bins, group: int) -> str:
    """The range of a shape group."""
    if not isinstance(bins, NumberBins):
        return ""
    levels = np.flatnonzero(bins.groups == group)
    starts = (0, *bins.starts, bins.starts[-1])
    low, high = bins.value_of(starts[levels[0]]), bins.value_of(starts[levels[-1] + 1] - 1)
    return f"near {low:.4g}" if starts[levels[-1] + 1] - starts[levels[0]] == 1 else f"between {low:.4g} and {high:.4g}"


def untold(column: str, kind: str) -> DriftFinding:
    """The finding of what could not be tested."""
    nan, words = math.nan, f"{column}: {kind} cannot be told"
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


def unfit(window: Profile, reference: Profile) -> dict[int, DriftFinding]:
    """Columns that vanished or whose type became another, so that nothing else can be said of them."""
    found = {}
    for i, column in enumerate(reference.layout.columns):
        counts, before = window.counts[i], reference.counts[i]
        if counts.absent == window.rows:
            found[i] = _certain(column.name, "absent", 1.0, f"{column.name}: the column is not in the window")
        elif words := _other_type(counts, before):
            share = (counts.invalid or counts.levels[1:2].sum()) / window.rows
            found[i] = _certain(column.name, "kind", float(share), f"{column.name}: {words}")
    return found


def _other_type(window: Counts, reference: Counts) -> str:
    rows = max(int(window.levels.sum()), 1)
    share = window.invalid / rows
    types = f"{' and '.join(sorted(reference.types)) or 'empty'}, is {' and '.join(sorted(window.types))}"
    if share - reference.invalid / max(int(reference.levels.sum()), 1) >= SMALLEST["kind"]:
        return f"was {types}; {percent(share)} of rows do not fit its kind"
    if window.types and not window.types & reference.types and reference.present:
        new = int(window.levels[1]) if len(window.levels) > 2 else 0
        return f"was {types}; {percent(new / rows)} of rows have values that it never had" if new > rows / 2 else ""
    return ""


def _certain(column: str, kind: str, effect: float, words: str) -> DriftFinding:
    nan = math.nan
    return DriftFinding(
        column, kind, "alarm", nan, 0.0, 0.0, effect, UNIT[kind], SMALLEST[kind], 0.0, given_others=False, words=words
    )
