"""Metrics as data: each is a formula over weighted rows, with its direction.

A formula is prepared once for some rows (sorting, sums) and then evaluated under many sets of weights at once. With
all weights 1 it gives the plain value. With the counts of bootstrap draws it gives the resamples, and with one block's
weights set to 0 the jackknife. No metric here calls another library, because none evaluates 2,000 sets of weights in
one pass.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.errors import DataError, SettingsError
from afterfit.performance.predictions import FloatArray, Predictions, Task

IntArray = npt.NDArray[np.intp]
Needs = Literal["score", "probability", "prediction", "interval"]
INTERVAL_LEVEL = 0.9  # of the `lower` and `upper` that a regression answers
RowLosses = Callable[[npt.NDArray[Any], Predictions], FloatArray]
"""A loss, or a gain, for each row: from outcomes (n,) and predictions to (n,)."""
Weighted = Callable[[FloatArray], FloatArray]
"""A metric that is prepared for some rows, which lie in g groups.

It takes r sets of weights, (r, g): one weight for each group, which all rows of the group have. It gives the metric
under each set, (r,); nan where it is undefined.
"""
Formula = Callable[[npt.NDArray[Any], Predictions, IntArray, int], Weighted]
"""Prepares a metric for n rows: what does not depend on weights, such as sorting, is done here, once.

Its arguments are the outcomes (n,), the predictions for them, `groups` and `count`. `groups` (n,) says in which group
each row lies, 0..count-1. Rows of one group always have the same weight: a group is a block of the bootstrap, which is
drawn as a whole, or a single row where each has a weight of its own.
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: a formula and its direction.

    Attributes:
        name: what it is called in settings and results.
        tasks: the kinds of model that it measures.
        needs: "probability" (calibrated), "score" (any number that ranks), "prediction" or "interval".
        formula: see `Formula`. `of_rows`, `of_sums` and `of_function` make one.
        greater_is_better: its direction.
        row_losses: each row's part, (n,), where the metric is a mean over rows (see `mean_over_rows`); else None.
        bounds: the least and the largest value that it can have.
    """

    name: str
    tasks: frozenset[Task]
    needs: Needs
    formula: Formula
    greater_is_better: bool = field(kw_only=True)
    row_losses: RowLosses | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def is_limited_by_rarest_class(self, predictions: Predictions) -> bool:
        """Whether its precision depends on the number of rows of the rarest class.

        So it is for classes, unless the metric is a mean over rows: then every row counts alike.
        """
        return predictions.classes is not None and self.row_losses is None

    def __call__(self, y: npt.NDArray[Any], predictions: Predictions, weight: FloatArray | None = None) -> float:
        """The metric over these rows, each with its weight (n,) where given; nan where it is undefined."""
        n = len(y)
        if n == 0:
            return float("nan")
        if weight is None:
            return float(self.formula(y, predictions, np.zeros(n, dtype=np.intp), 1)(np.ones((1, 1)))[0])
        weights = np.asarray(weight, dtype=np.float64)[None, :]
        return float(self.formula(y, predictions, np.arange(n, dtype=np.intp), n)(weights)[0])

    def improvement(self, champion: Any, candidate: Any) -> Any:
        """By how much the candidate's value is better than the champion's: positive is better in either direction."""
        return candidate - champion if self.greater_is_better else champion - candidate


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric over rows, realised or estimated.

    Attributes:
        metric: its name; "value" is money a row.
        value: the metric in its own unit; None where it is unknown.
        low: lower end of its interval, or None.
        high: upper end of it, or None.
        n: rows that it is computed from.
        reason: why there is no value, or no interval; empty where there are both.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str = ""


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """Division that gives nan, not an error, where the divisor is 0."""
    out = np.full(np.broadcast_shapes(np.shape(top), np.shape(bottom)), np.nan)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out


def mean_over_rows(
    name: str,
    losses: RowLosses,
    tasks: frozenset[Task],
    needs: Needs,
    *,
    greater_is_better: bool,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Metric:
    """The metric that is the mean of a loss, or of a gain, over rows; arguments as `Metric` has them."""
    formula = of_rows(losses)
    return Metric(name, tasks, needs, formula, greater_is_better=greater_is_better, row_losses=losses, bounds=bounds)


def of_sums(
    terms: Callable[[npt.NDArray[Any], Predictions], FloatArray], combine: Callable[[FloatArray], FloatArray]
) -> Formula:
    """A formula for a metric that is a function of a few sums over rows: terms (n, t), then combine (t, r) to (r,)."""

    def formula(y: npt.NDArray[Any], predictions: Predictions, groups: IntArray, count: int) -> Weighted:
        columns = terms(y, predictions).T
        sums = np.stack([np.bincount(groups, weights=column, minlength=count) for column in columns], axis=1)
        return lambda weights: combine((weights @ sums).T)

    return formula


def of_rows(losses: RowLosses, finish: Callable[[FloatArray], FloatArray] = np.asarray) -> Formula:
    """A formula for a mean over rows, passed through `finish` (such as a root)."""

    def terms(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
        return np.column_stack([losses(y, predictions), np.ones(len(y))])

    return of_sums(terms, lambda sums: finish(_ratio(sums[0], sums[1])))


def of_function(function: Callable[[npt.NDArray[Any], Predictions, FloatArray], float]) -> Formula:
    """A formula for any function (y, predictions, weight) to a number; it is called once for each set of weights."""

    def formula(y: npt.NDArray[Any], predictions: Predictions, groups: IntArray, _count: int) -> Weighted:
        return lambda weights: np.array([float(function(y, predictions, row[groups])) for row in weights])

    return formula


def _probabilities(predictions: Predictions) -> FloatArray:
    if predictions.probabilities is None:
        raise DataError("This metric needs probabilities; the model answered classes only. Choose accuracy or f1.")
    return predictions.probabilities


def _log_losses(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    chosen = _probabilities(predictions)[np.arange(len(y)), y.astype(np.intp)]
    losses: FloatArray = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))
    return losses


def _brier_losses(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    losses: FloatArray = (predictions.probability - y) ** 2
    return losses


def _hits(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    hits: FloatArray = (predictions.prediction == y).astype(np.float64)
    return hits


def _squared_errors(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    errors: FloatArray = (y - predictions.prediction) ** 2
    return errors


def _absolute_errors(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    errors: FloatArray = np.abs(y - predictions.prediction)
    return errors


def _interval_ends(predictions: Predictions) -> tuple[FloatArray, FloatArray]:
    if predictions.lower is None or predictions.upper is None:
        raise DataError("This metric needs the lower and upper ends of intervals; the model answered numbers only.")
    return predictions.lower, predictions.upper


def _covered(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    lower, upper = _interval_ends(predictions)
    return ((lower <= y) & (y <= upper)).astype(np.float64)


def _pinball_losses(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    """Mean of the quantile losses of both ends (Koenker and Bassett 1978), at 5 % and 95 %."""
    tail = (1.0 - INTERVAL_LEVEL) / 2.0
    lower_end, upper_end = _interval_ends(predictions)
    below, above = y - lower_end, y - upper_end
    lower = np.maximum(tail * below, (tail - 1.0) * below)
    upper = np.maximum((1.0 - tail) * above, -tail * above)
    losses: FloatArray = (lower + upper) / 2.0
    return losses


def _confusion(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    """(n, k * k) one column for each pair of true and predicted class."""
    k = len(predictions.classes or ())
    cell = y.astype(np.intp) * k + predictions.prediction.astype(np.intp)
    table = np.zeros((len(y), k * k))
    table[np.arange(len(y)), cell] = 1.0
    return table


def _as_table(sums: FloatArray) -> FloatArray:
    """(k, k, r) true class, predicted class and set of weights, from the sums (k * k, r) of `_confusion`."""
    k = round(len(sums) ** 0.5)
    return sums.reshape(k, k, -1)


def _f1_by_class(sums: FloatArray) -> FloatArray:
    table = _as_table(sums)
    hits = np.einsum("iir->ir", table)
    return _ratio(2.0 * hits, table.sum(axis=0) + table.sum(axis=1))


def _mean_of_defined(values: FloatArray) -> FloatArray:
    """Mean over the classes that occur; a class absent from outcomes (and predictions) is left out."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))


def _precision(sums: FloatArray) -> FloatArray:
    table = _as_table(sums)
    return _ratio(table[1, 1], table[:, 1].sum(axis=0))


def _recall_by_class(sums: FloatArray) -> FloatArray:
    table = _as_table(sums)
    return _ratio(np.einsum("iir->ir", table), table.sum(axis=1))


def _balanced_accuracy(sums: FloatArray) -> FloatArray:
    recalls = _recall_by_class(sums)
    value = _mean_of_defined(recalls)
    value[(~np.isnan(recalls)).sum(axis=0) < 2] = np.nan  # with one class it would be accuracy under another name
    return value


def _r2_terms(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
    centred = y - y.mean()  # before squaring, so that a large mean costs no digits
    return np.column_stack([_squared_errors(y, predictions), centred, centred**2, np.ones(len(y))])


def _r2(sums: FloatArray) -> FloatArray:
    spread = sums[2] - _ratio(sums[1] ** 2, sums[3])
    spread[spread <= 1e-12 * sums[2]] = 0.0  # a constant target, up to rounding
    return 1.0 - _ratio(sums[0], spread)


def _auc(positive: npt.NDArray[np.bool_], score: FloatArray, groups: IntArray) -> Weighted:
    """Area under the ROC curve under weights; ties count half, exactly (Mann and Whitney 1947).

    Rows are sorted once, here. Each set of weights then costs one cumulative sum over the larger class, and two
    look-ups for each row of the smaller one: the weight that ranks strictly below it, and the weight that ranks below
    it or level with it.
    """
    few, many = np.flatnonzero(positive), np.flatnonzero(~positive)
    swapped = len(few) > len(many)
    if swapped:
        few, many = many, few
    many = many[np.argsort(score[many], kind="stable")]
    few = few[np.argsort(score[few], kind="stable")]  # look-ups then run through memory forwards
    below = np.searchsorted(score[many], score[few], side="left")
    up_to = np.searchsorted(score[many], score[few], side="right")
    tied = bool(np.any(below != up_to))
    groups_few, groups_many = groups[few], groups[many]

    def weighted(weights: FloatArray) -> FloatArray:
        cumulative = np.zeros((len(weights), len(many) + 1))
        np.cumsum(np.take(weights, groups_many, axis=1), axis=1, out=cumulative[:, 1:])
        few_weights = np.take(weights, groups_few, axis=1)
        wins = np.einsum("ri,ri->r", few_weights, np.take(cumulative, below, axis=1))
        if tied:
            wins = (wins + np.einsum("ri,ri->r", few_weights, np.take(cumulative, up_to, axis=1))) / 2.0
        area = _ratio(wins, few_weights.sum(axis=1) * cumulative[:, -1])
        return 1.0 - area if swapped else area

    return weighted


def _roc_auc(y: npt.NDArray[Any], predictions: Predictions, groups: IntArray, _count: int) -> Weighted:
    """Two classes: the area for the second. More: the unweighted mean over classes, each against the rest."""
    table = _probabilities(predictions)
    if table.shape[1] == 2:
        return _auc(y == 1, table[:, 1], groups)
    areas = [_auc(y == k, table[:, k], groups) for k in range(table.shape[1])]
    return lambda weights: np.asarray(np.mean([area(weights) for area in areas], axis=0))


def _average_precision(y: npt.NDArray[Any], predictions: Predictions, groups: IntArray, _count: int) -> Weighted:
    """Sum over distinct scores of precision times the step in recall (no interpolation)."""
    score = predictions.probability
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    ordered_groups, positive = groups[order], (y[order] == 1).astype(np.float64)

    def weighted(weights: FloatArray) -> FloatArray:
        ordered_weights = np.take(weights, ordered_groups, axis=1)
        true_positives = np.cumsum(ordered_weights * positive, axis=1)[:, ends]
        selected = np.cumsum(ordered_weights, axis=1)[:, ends]
        steps = np.diff(true_positives, axis=1, prepend=0.0)
        precision = np.divide(true_positives, selected, out=np.zeros_like(true_positives), where=selected > 0)
        return _ratio(np.einsum("ri,ri->r", steps, precision), true_positives[:, -1])

    return weighted


def _median_error(y: npt.NDArray[Any], predictions: Predictions, groups: IntArray, _count: int) -> Weighted:
    """Weighted median of the absolute errors; between two middle rows, their mean."""
    errors = _absolute_errors(y, predictions)
    order = np.argsort(errors, kind="stable")
    errors, ordered_groups = errors[order], groups[order]

    def weighted(weights: FloatArray) -> FloatArray:
        cumulative = np.cumsum(np.take(weights, ordered_groups, axis=1), axis=1)
        half = cumulative[:, -1:] / 2.0
        low, high = np.argmax(cumulative >= half, axis=1), np.argmax(cumulative > half, axis=1)
        middle: FloatArray = (errors[low] + errors[high]) / 2.0
        middle[half[:, 0] <= 0] = np.nan
        return middle

    return weighted


def _f1(sums: FloatArray) -> FloatArray:
    value: FloatArray = _f1_by_class(sums)[1]
    return value


def _macro_f1(sums: FloatArray) -> FloatArray:
    return _mean_of_defined(_f1_by_class(sums))


def _recall(sums: FloatArray) -> FloatArray:
    value: FloatArray = _recall_by_class(sums)[1]
    return value


_BINARY: frozenset[Task] = frozenset({"binary"})
_CLASSES: frozenset[Task] = frozenset({"binary", "multiclass"})
_NUMBERS: frozenset[Task] = frozenset({"regression"})
_ZERO_TO_ONE, _FROM_ZERO = (0.0, 1.0), (0.0, math.inf)
_OF_CLASSES = (
    Metric("roc_auc", _CLASSES, "score", _roc_auc, greater_is_better=True, bounds=_ZERO_TO_ONE),
    Metric("average_precision", _BINARY, "score", _average_precision, greater_is_better=True, bounds=_ZERO_TO_ONE),
    mean_over_rows("log_loss", _log_losses, _CLASSES, "probability", greater_is_better=False, bounds=_FROM_ZERO),
    mean_over_rows("brier", _brier_losses, _BINARY, "probability", greater_is_better=False, bounds=_ZERO_TO_ONE),
    mean_over_rows("accuracy", _hits, _CLASSES, "prediction", greater_is_better=True, bounds=_ZERO_TO_ONE),
    *(
        Metric(name, tasks, "prediction", of_sums(_confusion, combine), greater_is_better=True, bounds=_ZERO_TO_ONE)
        for name, tasks, combine in (
            ("balanced_accuracy", _CLASSES, _balanced_accuracy),
            ("f1", _BINARY, _f1),
            ("macro_f1", _CLASSES, _macro_f1),
            ("precision", _BINARY, _precision),
            ("recall", _BINARY, _recall),
        )
    ),
)
_OF_NUMBERS = (
    mean_over_rows("mae", _absolute_errors, _NUMBERS, "prediction", greater_is_better=False, bounds=_FROM_ZERO),
    mean_over_rows("mse", _squared_errors, _NUMBERS, "prediction", greater_is_better=False, bounds=_FROM_ZERO),
    Metric(
        "rmse", _NUMBERS, "prediction", of_rows(_squared_errors, np.sqrt), greater_is_better=False, bounds=_FROM_ZERO
    ),
    Metric("r2", _NUMBERS, "prediction", of_sums(_r2_terms, _r2), greater_is_better=True, bounds=(-math.inf, 1.0)),
    Metric("median_absolute_error", _NUMBERS, "prediction", _median_error, greater_is_better=False, bounds=_FROM_ZERO),
    mean_over_rows("pinball", _pinball_losses, _NUMBERS, "interval", greater_is_better=False, bounds=_FROM_ZERO),
    mean_over_rows("interval_coverage", _covered, _NUMBERS, "interval", greater_is_better=True, bounds=_ZERO_TO_ONE),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in (*_OF_CLASSES, *_OF_NUMBERS)})


def metric(name: str | Metric) -> Metric:
    """The metric of this name; a `Metric` is returned unchanged.

    Raises:
        SettingsError: no metric has this name; the message names the nearest one and lists all.
    """
    if isinstance(name, Metric):
        return name
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(str(name), METRICS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SettingsError(f"There is no metric {name!r}.{hint} There are: {', '.join(METRICS)}.")


def outcomes_of(y: Any) -> FloatArray:
    """Outcomes (n,) as floats; a missing one is NaN, which `require` refuses with its count.

    Raises:
        DataError: another shape, or text: class labels must be turned into class indices first.
    """
    if isinstance(y, pd.Series) and pd.api.types.is_numeric_dtype(y):
        y = y.to_numpy(dtype=np.float64, na_value=np.nan)
    array = np.asarray(y)
    if array.ndim != 1:
        raise DataError(f"Outcomes must be one a row, (n,); they came as {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"Outcomes must be numbers or class indices 0, 1, …; they came as {array.dtype}. Turn labels into indices."
        )
    return array.astype(np.float64)


def require(measure: Metric, y: npt.NDArray[Any], predictions: Predictions, who: str = "predictions") -> None:
    """Raise where these rows cannot be measured by this metric.

    Raises:
        DataError: lengths differ; NaN or infinite outcomes or predictions (with their count); class indices out of
            range.
        SettingsError: the metric is not for this kind of model.
    """
    if len(y) != len(predictions):
        raise DataError(f"Outcomes and {who} need the same rows; there are {len(y)} and {len(predictions)}.")
    if predictions.task not in measure.tasks:
        raise SettingsError(
            f"{measure.name} measures {_task_names(measure.tasks)}; the {who} are of a {predictions.task}."
        )
    used = used_values(measure, predictions)
    for name, values in (("outcomes", y), *((who, part) for part in used)):
        not_finite = (
            int(len(values) - np.isfinite(values.reshape(len(values), -1)).all(axis=1).sum()) if len(values) else 0
        )
        if not_finite:
            raise DataError(
                f"{not_finite} of {len(values)} {name} are NaN or infinite; leave those rows out, or mend them."
            )
    table = predictions.probabilities
    if measure.needs == "probability" and table is not None and len(y) and (table.min() < 0 or table.max() > 1):
        raise DataError(
            f"{measure.name} needs probabilities from 0 to 1; {who} run from {table.min()} to {table.max()}."
        )
    if predictions.classes is not None and len(y):
        k = len(predictions.classes)
        if y.min() < 0 or y.max() >= k or np.any(y != np.floor(y)):
            raise DataError(f"Outcomes must be class indices 0 to {k - 1}; they run from {y.min()} to {y.max()}.")


def used_values(measure: Metric, predictions: Predictions) -> list[npt.NDArray[Any]]:
    """The arrays of the predictions that this metric looks at."""
    if measure.needs == "interval":
        return list(_interval_ends(predictions))
    if measure.needs == "prediction":
        return [predictions.prediction]
    return [_probabilities(predictions)]


def _task_names(tasks: frozenset[Task]) -> str:
    return " or ".join(sorted(tasks))
