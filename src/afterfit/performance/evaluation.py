"""Measure a model's predictions: metrics, their intervals, slices of the rows, value in money, calibration error.

A slice is the rows with one value of a category, or with a number in one range.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.errors import DataError, SettingsError
from afterfit.performance.bootstrap import Blocks, bootstrap, interval_of, resolve
from afterfit.performance.metrics import METRICS, Metric, Weighted, mean_over_rows, metric, outcomes_of, require
from afterfit.performance.predictions import FloatArray, Predictions, Task

if TYPE_CHECKING:
    from afterfit.settings import Value as ValueSettings

__all__ = [
    "METRICS",
    "Metric",
    "MoneyValue",
    "Predictions",
    "SliceResult",
    "by_slice",
    "cost_metric",
    "evaluate",
    "interval",
    "metric",
    "metrics_for",
    "outcome_metric",
    "value",
    "value_metric",
]

RANGES = 4  # a number with more different values than MOST_VALUES is cut at its quartiles
MOST_VALUES = 12
BINS = 10  # of the calibration error
MISSING = "(missing)"
REST = "(rest)"


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """The rows where `column` has `value`; `rows` are their positions."""

    column: str
    value: str
    rows: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class SliceResult:
    """The metrics of the n rows where `column` has `value`."""

    column: str
    value: str
    n: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class MoneyValue:
    """Money over n rows: the total and its mean a row; greater is better, so that costs are negative."""

    total: float
    per_row: float
    n: int


def cut(columns: Mapping[str, Any] | pd.DataFrame, n: int, *, smallest: int) -> Iterator[Slice]:
    """The slices of n rows by each column, largest first within a column.

    A number with more than `MOST_VALUES` different values is cut at its quartiles. Missing values are a slice. Values
    with fewer than `smallest` rows are put together as "(rest)"; if those are too few as well they are left out.

    Raises:
        DataError: a column of another length than n.
        SettingsError: `smallest` is not positive.
    """
    if smallest < 1:
        raise SettingsError(f"The smallest slice must have at least one row; the setting is {smallest}.")
    for name in map(str, columns):
        series = pd.Series(np.asarray(columns[name]))
        if len(series) != n:
            raise DataError(f"Slices need one value a row; {name} has {len(series)} values for {n} rows.")
        values = _slice_labels(series)
        counts = values.value_counts()
        large = counts.index[counts >= smallest]
        values = values.where(values.isin(large), REST)
        for value in [*large, REST]:
            rows = np.flatnonzero(values == value)
            if len(rows) >= smallest:
                yield Slice(name, str(value), rows)


def metrics_for(task: Task, *, intervals: bool = False) -> tuple[str, ...]:
    """Names of the metrics for this kind of model; metrics of intervals only where the model answers intervals."""
    return tuple(
        name
        for name, measure in METRICS.items()
        if task in measure.tasks and (intervals or measure.needs != "interval")
    )


def evaluate(
    names: Sequence[str | Metric],
    y: npt.ArrayLike,
    predictions: Predictions,
    *,
    weight: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """The value of each metric; one that is undefined on these rows (one class, a constant target) is nan.

    Args:
        names: metrics by name, or `Metric` objects.
        y: (n,) outcomes: class index 0..k-1, or numbers.
        predictions: what the model answered for the same rows.
        weight: (n,) weight of each row; all 1 where None.

    Raises:
        DataError: other lengths, NaN or infinite values (with their count), negative weights.
        SettingsError: an unknown metric, or one for another kind of model.
    """
    outcomes = outcomes_of(y)
    weights = None if weight is None else _weights(weight, len(outcomes))
    values = {}
    for measure in map(metric, names):
        require(measure, outcomes, predictions)
        values[measure.name] = measure(outcomes, predictions, weights)
    return values


def interval(
    name: str | Metric,
    y: npt.ArrayLike,
    predictions: Predictions,
    *,
    blocks: Any = None,
    resamples: int = 2_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """A metric's value with its interval, (value, low, high), by a bootstrap over blocks of rows.

    Args:
        name: the metric.
        y: (n,) outcomes.
        predictions: for the same rows.
        blocks: None where rows are independent; (n,) labels of the blocks; or (n,) times, which are cut into blocks
            by the rule of `time_blocks`.
        resamples: bootstrap resamples.
        seed: the same seed gives the same interval.
        confidence: of the interval.

    Returns:
        Both ends are infinite where there are too few blocks for an interval. The value is nan where it is undefined.
    """
    measure, outcomes = metric(name), outcomes_of(y)
    require(measure, outcomes, predictions)
    if len(outcomes) == 0:
        return float("nan"), -np.inf, np.inf

    def prepare(some: Blocks) -> Weighted:
        return measure.formula(outcomes, predictions, some.ids, some.count)

    row_blocks = resolve(blocks, len(outcomes), prepare)
    statistic = prepare(row_blocks)
    point = float(statistic(np.ones((1, row_blocks.count)))[0])
    draws = bootstrap([statistic], row_blocks, resamples, seed)[0]
    effective = row_blocks.effective(outcomes if measure.is_limited_by_rarest_class(predictions) else None)
    return point, *interval_of(point, draws, effective, confidence, row_blocks.inflation)


def by_slice(
    names: Sequence[str | Metric],
    y: npt.ArrayLike,
    predictions: Predictions,
    slices: Mapping[str, Any] | pd.DataFrame,
    *,
    smallest: int = 50,
) -> list[SliceResult]:
    """The metrics of each slice of the rows; see `cut` for how rows are cut.

    Args:
        names: the metrics.
        y: (n,) outcomes.
        predictions: for the same rows.
        slices: columns of n values each.
        smallest: rows that a slice needs; smaller ones are put together.
    """
    outcomes = outcomes_of(y)
    return [
        SliceResult(
            part.column, part.value, len(part.rows), evaluate(names, outcomes[part.rows], predictions.take(part.rows))
        )
        for part in cut(slices, len(outcomes), smallest=smallest)
    ]


def cost_metric(costs: Mapping[Any, Mapping[Any, float]], classes: Sequence[Any], *, name: str = "value") -> Metric:
    """Value a row from what each kind of error costs, as a metric like any other (greater is better).

    Args:
        costs: true class to predicted class to its cost, positive for money lost and negative for money won; a pair
            that is absent costs nothing.
        classes: the k class labels in the order of the class indices.
        name: what the metric is called.

    Raises:
        SettingsError: a class that the model does not have (the message names the nearest one), or a cost that is not
            a number.
    """
    table = np.zeros((len(classes), len(classes)))
    index = {str(label): number for number, label in enumerate(classes)}
    for true, row in costs.items():
        for predicted, cost in row.items():
            cell = _class_index(true, index), _class_index(predicted, index)
            table[cell] = _finite_cost(cost, f"cost of {true} predicted as {predicted}")

    def values(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
        gains: FloatArray = -table[y.astype(np.intp), predictions.prediction.astype(np.intp)]
        return gains

    return mean_over_rows(name, values, frozenset({"binary", "multiclass"}), "prediction", greater_is_better=True)


def outcome_metric(function: str | Callable[..., Any], *, name: str = "value") -> Metric:
    """Value a row from a function of prediction and outcome, as a metric like any other (greater is better).

    Args:
        function: the function itself, or its dotted name ("mycompany.money.value"). It is called once with two arrays
            (n,), the predictions and the outcomes, as class labels or numbers. It returns the money won by each row
            (n,).
        name: what the metric is called.

    Raises:
        SettingsError: there is no such function.
        DataError: when it is evaluated, if it does not return n finite numbers.
    """
    rule = _import_function(function) if isinstance(function, str) else function

    def values(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
        truth = y if predictions.classes is None else np.asarray(predictions.classes)[y.astype(np.intp)]
        gains = np.asarray(rule(predictions.labels, truth), dtype=np.float64)
        if gains.shape != (len(y),) or not np.all(np.isfinite(gains)):
            raise DataError(f"The function for {name} must return one finite number a row, {len(y)} in all.")
        return gains

    all_tasks: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})
    return mean_over_rows(name, values, all_tasks, "prediction", greater_is_better=True)


def value_metric(settings: ValueSettings | None, classes: Sequence[Any] | None) -> Metric | None:
    """A use case's value in money as a metric; None where its settings have none."""
    if settings is None:
        return None
    if settings.function is not None:
        return outcome_metric(settings.function)
    return cost_metric(settings.costs, classes or ())


def value(
    y: npt.ArrayLike,
    predictions: Predictions,
    rule: Mapping[Any, Mapping[Any, float]] | Callable[..., Any] | str | Metric,
) -> MoneyValue:
    """Money over these rows.

    Args:
        y: (n,) outcomes.
        predictions: for the same rows.
        rule: a table of costs (see `cost_metric`); a function of prediction and outcome, or its dotted name (see
            `outcome_metric`); or a metric that one of these two returned.
    """
    outcomes = outcomes_of(y)
    if isinstance(rule, Mapping):
        if predictions.classes is None:
            raise SettingsError("A table of costs needs a model of classes; for numbers give a function.")
        rule = cost_metric(rule, predictions.classes)
    measure = rule if isinstance(rule, Metric) else outcome_metric(rule)
    require(measure, outcomes, predictions)
    if measure.row_losses is None:
        raise SettingsError(f"Value is a sum over rows; {measure.name} is not.")
    gains = measure.row_losses(outcomes, predictions)
    total = float(gains.sum())
    return MoneyValue(total, total / len(gains) if len(gains) else float("nan"), len(gains))


def calibration_error(y: npt.NDArray[Any], predictions: Predictions) -> tuple[float, float]:
    """How far probabilities are from observed shares, and the value that chance alone would give.

    Two classes: the expected calibration error over ten bins of equal size (Naeini, Cooper, Hauskrecht 2015). More
    classes: the same for the confidence in the predicted class. Numbers: the distance of the 90 % interval's coverage
    from 90 %. Chance: what independent rows would show on average under perfect calibration. Both values are nan where
    the model answers no probabilities, or no intervals.
    """
    if predictions.classes is None:
        if predictions.lower is None or predictions.upper is None:
            return float("nan"), float("nan")
        covered = (y >= predictions.lower) & (y <= predictions.upper)
        return abs(float(covered.mean()) - 0.9), 0.8 * float(np.sqrt(0.09 / len(y)))
    if predictions.probabilities is None:
        return float("nan"), float("nan")
    if len(predictions.classes) == 2:
        stated, hit = predictions.probability, y == 1
    else:
        stated, hit = np.asarray(predictions.confidence), y == predictions.prediction
    parts = np.array_split(np.argsort(stated, kind="stable"), BINS)
    error = sum(abs(float(stated[part].sum() - hit[part].sum())) for part in parts) / len(y)
    return error, 0.8 * float(np.sqrt(BINS * np.mean(stated * (1 - stated)) / len(y)))


def _slice_labels(series: pd.Series[Any]) -> pd.Series[Any]:
    """The slice of each row, as text."""
    missing = series.isna()
    number = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if number and series.nunique() > MOST_VALUES:
        labels = pd.Series(_ranges(series.to_numpy(dtype=np.float64, na_value=np.nan)))
    else:
        whole = number and bool((series.dropna() % 1 == 0).all())
        labels = (series.astype("Int64") if whole else series).astype(object).map(str)
    return labels.where(~missing, MISSING)


def _ranges(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """The range of each value between the quartiles, as text; a quartile belongs to the range above it."""
    sorted_values = np.sort(values[~np.isnan(values)])
    edges = np.unique(sorted_values[[len(sorted_values) // RANGES * quartile for quartile in range(1, RANGES)]])
    edge_texts = [f"{edge:.6g}" for edge in edges]
    inner = [f"{low} to {high}" for low, high in pairwise(edge_texts)]
    names = np.array([f"below {edge_texts[0]}", *inner, f"{edge_texts[-1]} or more"], dtype=object)
    labels: npt.NDArray[Any] = names[np.searchsorted(edges, values, side="right").clip(0, len(edges))]
    return labels


def _weights(weight: npt.ArrayLike, n: int) -> FloatArray:
    weights = np.asarray(weight, dtype=np.float64)
    if weights.shape != (n,) or not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise DataError(f"Weights must be {n} numbers that are not negative, one a row.")
    return weights


def _class_index(label: Any, index: Mapping[str, int]) -> int:
    if str(label) in index:
        return index[str(label)]
    near = difflib.get_close_matches(str(label), index, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SettingsError(f"The costs name the class {label!r}; the model knows {', '.join(index)}.{hint}")


def _finite_cost(cost: Any, what: str) -> float:
    try:
        number = float(cost)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise SettingsError(f"The {what} must be a number; it is {cost!r}.")
    return number


def _import_function(dotted: str) -> Callable[..., Any]:
    module, _, attribute = dotted.rpartition(".")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"There is no function {dotted!r} ({error}); give it as package.module.function."
        ) from error
    if not callable(function):
        raise SettingsError(
            f"{dotted!r} must be a function of prediction and outcome; it is a {type(function).__name__}."
        )
    loaded: Callable[..., Any] = function
    return loaded
