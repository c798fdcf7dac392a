"""Compare candidate and champion on the same rows: the difference of a metric, its interval, and the conclusion."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from afterfit.errors import DataError, SettingsError
from afterfit.performance.bootstrap import FEWEST_BLOCKS, Blocks, bootstrap, interval_of, resolve
from afterfit.performance.evaluation import cut
from afterfit.performance.metrics import Metric, Weighted, outcomes_of, require, used_values
from afterfit.performance.metrics import metric as metric_named
from afterfit.performance.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

__all__ = ["Comparison", "PairedAnswers", "SliceComparison", "compare_performance", "compare_slices"]

Outcome = Literal["better", "worse", "equivalent", "inconclusive"]
Sides = tuple[Predictions, Predictions]  # of the champion and of the candidate


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing two models on the same rows.

    `difference` and `interval` are oriented: positive means that the candidate is better, for a loss too.

    Attributes:
        metric: its name.
        greater_is_better: its direction; `champion` and `candidate` are plain values in it.
        outcome: "better", "worse", "equivalent" or "inconclusive"; see `compare_performance`.
        reason: one sentence that says why.
        champion: the champion's value.
        candidate: the candidate's value.
        difference: by how much the candidate is better, in the metric's unit.
        interval: (low, high) of the difference; infinite ends where the rows are too few for one.
        confidence: of the interval.
        margin: smallest improvement that is worth it.
        tolerance: largest acceptable loss.
        labels_needed: about how many further outcomes make the interval narrow enough for a conclusion, if the
            difference stays as it is; 0 when there is one, None where no number is enough, or none can be estimated.
        n: rows.
        blocks: blocks that were resampled; n where rows are independent.
        effective_blocks: number of equal blocks with as much information.
        block_length: length of the blocks where they are of time, as text; else None.
        resamples: bootstrap resamples.
        identical: both models gave the same answer on every row, in the values that this metric uses.
    """

    metric: str
    greater_is_better: bool
    outcome: Outcome
    reason: str
    champion: float
    candidate: float
    difference: float
    interval: tuple[float, float]
    confidence: float
    margin: float
    tolerance: float
    labels_needed: int | None
    n: int
    blocks: int
    effective_blocks: float
    block_length: str | None
    resamples: int
    identical: bool

    @property
    def not_worse(self) -> bool:
        """Whether a loss beyond the tolerance is ruled out: the condition of a guardrail."""
        return self.interval[0] >= -self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON: numbers that are not finite become None."""
        return {name: _json_safe(item) for name, item in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class SliceComparison:
    """The comparison on the rows where `column` has `value`."""

    column: str
    value: str
    comparison: Comparison


@dataclass(frozen=True, slots=True, eq=False)
class PairedAnswers:
    """The outcomes of n rows, and what two versions answered for them.

    Attributes:
        y: (n,) class indices or numbers.
        candidate: n answers.
        champion: n answers.
        times: (n,) times of the rows, by which blocks are cut, or None.
    """

    y: npt.NDArray[Any]
    candidate: Predictions
    champion: Predictions
    times: npt.NDArray[Any] | None

    def compared(self, by: str | Metric, **settings: Any) -> Comparison:
        """The candidate against the champion by a metric; settings as `compare_performance` takes them."""
        return compare_performance(self.y, self.champion, self.candidate, by, self.times, **settings)


def compare_performance(
    y: npt.ArrayLike,
    champion: npt.ArrayLike | Predictions,
    candidate: npt.ArrayLike | Predictions,
    metric: str | Metric = "roc_auc",
    blocks: Any = None,
    *,
    margin: float = 0.0,
    tolerance: float | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Comparison:
    """Compare two models on the same n rows by a paired bootstrap over blocks of rows.

    Both models are measured under the same resamples, so that the difficulty of rows, common to both, cancels. The
    interval is the
    expanded percentile interval of the difference (Hesterberg 2015; see `bootstrap.interval_of`). It decides
    by the usual logic of superiority and equivalence (Wellek 2010):

    - better: all of it lies above `margin`;
    - worse: all of it lies below -`tolerance`;
    - equivalent: all of it lies from -`tolerance` to `margin`;
    - inconclusive: anything else, or a metric that is undefined on these rows (`reason` says which).

    With both margins 0 and a confidence of 95 %, two equal models come out as different in 5 % of comparisons, half of
    them as "better". Comparing again on the same rows, or by many metrics, makes such errors more frequent: use a
    higher confidence then.

    Assumes that blocks are independent of each other, and that the rows are representative of those to come.

    Args:
        y: (n,) outcomes: class index 0..k-1, or numbers.
        champion: the answers of the model in production: `Predictions`, or an array. For classes (n,) probabilities
            (or any ranking score, for metrics of ranks) of the second class, or (n, k) of all; or (n,) class indices,
            where the metric uses those. For numbers (n,).
        candidate: the answers of the model that is to replace it, on the same rows.
        metric: its name, or a `Metric`.
        blocks: None where rows are independent; (n,) labels of blocks of dependent rows (of one day, of one
            customer); or (n,) times, which are cut into blocks by the rule of `bootstrap.time_blocks`.
        margin: smallest improvement worth it, in the metric's unit, not negative.
        tolerance: largest acceptable loss, not negative; as large as `margin` where None.
        confidence: of the interval; both ends together.
        resamples: bootstrap resamples, 100 or more.
        seed: the same seed gives the same result.

    Raises:
        DataError: no rows, other lengths, or NaN in outcomes, predictions or blocks (with their count).
        SettingsError: an unknown metric, one for another kind of model, or impossible margins.
    """
    measure = metric_named(metric)
    tolerance = margin if tolerance is None else tolerance
    _check_settings(margin, tolerance, resamples, confidence)
    outcomes, sides = _inputs(measure, y, champion, candidate)
    pair = _prepare_pair(measure, outcomes, sides, blocks)
    result = _measure(pair, margin=margin, tolerance=tolerance, confidence=confidence, resamples=resamples)
    if result.identical or not math.isfinite(result.difference):
        return _without_interval(result)
    return _decide(replace(result, interval=_interval(pair, result, seed)))


def compare_slices(
    y: npt.ArrayLike,
    champion: npt.ArrayLike | Predictions,
    candidate: npt.ArrayLike | Predictions,
    slices: Mapping[str, Any] | pd.DataFrame,
    *,
    metric: str | Metric = "roc_auc",
    blocks: Any = None,
    smallest: int = 200,
    margin: float = 0.0,
    tolerance: float | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[SliceComparison, ...]:
    """`compare_performance` on each slice, with a confidence that holds for all slices together.

    Each of k slices is compared at a confidence of 1 - (1 - `confidence`) / k (Bonferroni), so that all k intervals
    contain the true values at once in at least `confidence` of cases, however slices overlap.

    Args:
        y: as in `compare_performance`.
        champion: as there.
        candidate: as there.
        slices: columns of n values each; see `evaluation.cut` for how rows are cut.
        metric: as there.
        blocks: as there; times are cut for each slice on its own.
        smallest: rows that a slice needs; smaller ones are put together.
        margin: as there.
        tolerance: as there.
        confidence: for all slices together.
        resamples: as there.
        seed: as there.
    """
    measure = metric_named(metric)
    _check_settings(margin, margin if tolerance is None else tolerance, resamples, confidence)
    outcomes, sides = _inputs(measure, y, champion, candidate)
    parts = list(cut(slices, len(outcomes), smallest=smallest))
    confidence_each = 1.0 - (1.0 - confidence) / max(1, len(parts))
    comparisons = []
    for part in parts:
        comparison = compare_performance(
            outcomes[part.rows],
            sides[0].take(part.rows),
            sides[1].take(part.rows),
            measure,
            _blocks_of(blocks, part.rows),
            margin=margin,
            tolerance=tolerance,
            confidence=confidence_each,
            resamples=resamples,
            seed=seed,
        )
        comparisons.append(SliceComparison(part.column, part.value, comparison))
    return tuple(comparisons)


def labels_needed(result: Comparison) -> int | None:
    """Further outcomes until the interval allows a conclusion, if the difference and the blocks stay as they are.

    An interval shrinks with 1/sqrt(n). The measured difference is uncertain itself: with this many further outcomes
    about every second comparison comes to a conclusion, with twice n about four in five. None where the difference
    lies on a margin.
    """
    low, high = result.interval
    d, below, above = result.difference, result.difference - low, high - result.difference
    shrink = max(
        _share(d - result.margin, below),
        _share(-result.tolerance - d, above),
        min(_share(d + result.tolerance, below), _share(result.margin - d, above)),
    )
    if shrink <= 1e-6:
        return None
    return max(1, math.ceil(result.n / shrink**2) - result.n)


@dataclass(frozen=True, slots=True, eq=False)
class _PreparedPair:
    """One metric of two models on the same n rows, prepared for weights of blocks.

    Attributes:
        metric: the metric.
        y: (n,) outcomes.
        sides: the champion's answers and the candidate's.
        blocks: which rows go together.
        statistics: the metric of the champion and of the candidate, from weights of the blocks.
    """

    metric: Metric
    y: npt.NDArray[Any]
    sides: Sides
    blocks: Blocks
    statistics: list[Weighted]


def _prepare_pair(metric: Metric, y: npt.NDArray[Any], sides: Sides, blocks: Any) -> _PreparedPair:
    """Cut the rows into blocks and prepare both models' metric; times are cut by how the difference hangs together."""

    def statistics(row_blocks: Blocks) -> list[Weighted]:
        return [metric.formula(y, side, row_blocks.ids, row_blocks.count) for side in sides]

    def difference(row_blocks: Blocks) -> Weighted:
        prepared = statistics(row_blocks)
        return lambda weights: np.asarray(metric.improvement(*(statistic(weights) for statistic in prepared)))

    row_blocks = resolve(blocks, len(y), difference)
    return _PreparedPair(metric, y, sides, row_blocks, statistics(row_blocks))


def _measure(pair: _PreparedPair, *, margin: float, tolerance: float, confidence: float, resamples: int) -> Comparison:
    """Both values and their difference, without interval or conclusion yet."""
    metric, blocks = pair.metric, pair.blocks
    champion, candidate = (float(statistic(np.ones((1, blocks.count)))[0]) for statistic in pair.statistics)
    by_class = metric.is_limited_by_rarest_class(pair.sides[0])
    return Comparison(
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        outcome="inconclusive",
        reason="",
        champion=champion,
        candidate=candidate,
        difference=float(metric.improvement(champion, candidate)),
        interval=(-math.inf, math.inf),
        confidence=confidence,
        margin=margin,
        tolerance=tolerance,
        labels_needed=None,
        n=len(pair.y),
        blocks=blocks.count,
        effective_blocks=blocks.effective(pair.y if by_class else None),
        block_length=blocks.length,
        resamples=resamples,
        identical=_same_answers(metric, pair.sides),
    )


def _interval(pair: _PreparedPair, result: Comparison, seed: int) -> tuple[float, float]:
    """(low, high) of the difference, from a bootstrap in which both models see the same draws."""
    draws = pair.metric.improvement(*bootstrap(pair.statistics, pair.blocks, result.resamples, seed))
    return interval_of(result.difference, draws, result.effective_blocks, result.confidence, pair.blocks.inflation)


def _same_answers(metric: Metric, sides: Sides) -> bool:
    """Whether both models gave the same answer on every row, in the values that the metric uses."""
    champion, candidate = (used_values(metric, side) for side in sides)
    return all(np.array_equal(*pair) for pair in zip(champion, candidate, strict=True))


def _blocks_of(blocks: Any, rows: npt.NDArray[np.intp]) -> Any:
    if blocks is None:
        return None
    return blocks.take(rows) if isinstance(blocks, Blocks) else np.asarray(blocks)[rows]


def _check_settings(margin: float, tolerance: float, resamples: int, confidence: float) -> None:
    if not (margin >= 0 and tolerance >= 0):
        raise SettingsError(f"Margin and tolerance must not be negative; they are {margin} and {tolerance}.")
    if resamples < 100:
        raise SettingsError(f"An interval needs at least 100 resamples; the setting is {resamples}.")
    if not 0.0 < confidence < 1.0:
        raise SettingsError(f"Confidence must be between 0 and 1, such as 0.95; it is {confidence}.")


def _inputs(
    metric: Metric, y: npt.ArrayLike, champion: npt.ArrayLike | Predictions, candidate: npt.ArrayLike | Predictions
) -> tuple[npt.NDArray[Any], Sides]:
    """Outcomes and both models' predictions, checked."""
    outcomes = outcomes_of(y)
    if len(outcomes) == 0:
        raise DataError("A comparison needs at least one row with its outcome; there is none.")
    sides = (_side(champion, outcomes, metric, "champion"), _side(candidate, outcomes, metric, "candidate"))
    if sides[0].classes is not None and len(sides[0].classes) != len(sides[1].classes or ()):
        raise DataError(f"Both models need the same classes; they have {sides[0].classes} and {sides[1].classes}.")
    for side, who in zip(sides, ("champion's answers", "candidate's answers"), strict=True):
        require(metric, outcomes, side, who)
    return outcomes, sides


def _side(answers: npt.ArrayLike | Predictions, y: npt.NDArray[Any], metric: Metric, who: str) -> Predictions:
    if isinstance(answers, Predictions):
        return answers
    array = np.asarray(answers)
    if array.dtype.kind not in "biuf" or array.ndim not in {1, 2}:
        raise DataError(
            f"The {who}'s answers must be numbers, (n,) or (n, k); they came as {array.dtype} {array.shape}."
        )
    missing = int(np.isnan(array.astype(np.float64)).reshape(len(array), -1).any(axis=1).sum())
    if missing:
        raise DataError(
            f"{missing} of {len(array)} of the {who}'s answers are NaN; leave those rows out, or mend them."
        )
    if metric.tasks == {"regression"}:
        return Predictions.of_values(array)
    classes = int(np.nan_to_num(y).max()) + 1
    if array.ndim == 1 and metric.needs == "prediction" and np.all(array == np.floor(array)):
        k = max(2, classes, int(array.max(initial=0)) + 1)
        return Predictions(array.astype(np.intp), classes=tuple(range(k)))
    return Predictions.of_probabilities(array)


def _without_interval(result: Comparison) -> Comparison:
    if not math.isfinite(result.difference):
        return replace(
            result, reason=f"{result.metric} is undefined on these {result.n} rows, such as with outcomes of one class."
        )
    return replace(
        result,
        outcome="equivalent",
        reason="Both models answered the same on every row.",
        interval=(0.0, 0.0),
        labels_needed=0,
    )


def _decide(result: Comparison) -> Comparison:
    """The outcome that follows from the interval, with its reason."""
    low, high = result.interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return replace(
            result,
            reason=f"{result.effective_blocks:.1f} effective blocks (counted in the rarest class) are fewer than the "
            f"{FEWEST_BLOCKS} that an interval needs.",
        )
    span = f"by {result.difference:+.4g} (from {low:+.4g} to {high:+.4g})"
    if low > result.margin:
        return replace(result, outcome="better", labels_needed=0, reason=f"Better in {result.metric} {span}.")
    if high < -result.tolerance:
        return replace(result, outcome="worse", labels_needed=0, reason=f"Worse in {result.metric} {span}.")
    if low >= -result.tolerance and high <= result.margin:
        return replace(
            result, outcome="equivalent", labels_needed=0, reason=f"{result.metric} differs {span}: inside the margins."
        )
    needed = labels_needed(result)
    more = "no number of further outcomes would settle it" if needed is None else f"about {needed} further outcomes"
    return replace(
        result,
        labels_needed=needed,
        reason=f"{result.metric} differs {span}: not settled by {result.n} outcomes; it takes {more}.",
    )


def _share(room: float, reach: float) -> float:
    """The factor by which one side of the interval must shrink to fit into the room that it has."""
    if room <= 0:
        return 0.0
    return room / reach if reach > 0 else 1.0


def _json_safe(item: Any) -> Any:
    if isinstance(item, tuple):
        return [_json_safe(part) for part in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item
