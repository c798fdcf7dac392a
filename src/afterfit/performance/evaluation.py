"""Metrics with direction over a model's predictions: values, intervals, slices, and value in money.

Cutting rows into slices: the values of a category, or ranges of a number.
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
from afterfit.performance.bootstrap import bootstrap, interval_of, resolve
from afterfit.performance.metrics import METRICS, Metric, metric, of_rows, outcomes_of, require
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
MISSING = "(missing)"
REST = "(rest)"


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Some of the rows: those where `column` has `value`; `rows` are their numbers."""

    column: str
    value: str
    rows: npt.NDArray[np.intp]


def cut(columns: Mapping[str, Any] | pd.DataFrame, n: int, *, smallest: int) -> Iterator[Slice]:
    """The slices of n rows by each column, largest first within a column.

    A number with more than `MOST_VALUES` different values is cut at its quartiles. Missing values are a slice. Values
    with fewer than `smallest` rows are put together as "(rest)"; if those are too few as well they are left out.

    Raises:
        DataError: a column of another length than n.
        SettingsError: `smallest` is not positive.
    """
    if smallest < 1:
        raise SettingsError(f"The smallest slice must have at least one row; {smallest} was asked for.")
    for name in map(str, columns):
        series = pd.Series(np.asarray(columns[name]))
        if len(series) != n:
            raise DataError(f"Slices need one value a row; {name} has {len(series)} values for {n} rows.")
        values = _words(series)
        counts = values.value_counts()
        large = counts.index[counts >= smallest]
        values = values.where(values.isin(large), REST)
        for value in [*large, REST]:
            rows = np.flatnonzero(values == value)
            if len(rows) >= smallest:
                yield Slice(name, str(value), rows)


def _words(series: pd.Series[Any]) -> pd.Series[Any]:
    """Each row's slice as text."""
    missing = series.isna()
    number = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if number and series.nunique() > MOST_VALUES:
        words = pd.Series(_ranges(series.to_numpy(dtype=np.float64, na_value=np.nan)))
    else:
        whole = number and bool((series.dropna() % 1 == 0).all())
        words = (series.astype("Int64") if whole else series).astype(object).map(str)
    return words.where(~missing, MISSING)


def _ranges(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """The range of each value between the quartiles, as text; a quartile belongs to the range above it."""
    known = np.sort(values[~np.isnan(values)])
    edges = np.unique(known[[len(known) // RANGES * part for part in range(1, RANGES)]])
    texts = [f"{edge:.6g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    names = np.array([f"below {texts[0]}", *between, f"{texts[-1]} or more"], dtype=object)
    words: npt.NDArray[Any] = names[np.searchsorted(edges, values, side="right").clip(0, len(edges))]
    return words


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


def metrics_for(task: Task, *, intervals: bool = False) -> tuple[str, ...]:
    """Names of the metrics that measure this kind of model; those of intervals only where it answers them."""
    return tuple(name for name, one in METRICS.items() if task in one.tasks and (intervals or one.needs != "interval"))


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
    for one in map(metric, names):
        require(one, outcomes, predictions)
        values[one.name] = one(outcomes, predictions, weights)
    return values


def _weights(weight: npt.ArrayLike, n: int) -> FloatArray:
    weights = np.asarray(weight, dtype=np.float64)
    if weights.shape != (n,) or not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise DataError(f"Weights must be {n} numbers that are not negative, one a row.")
    return weights


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
        The ends are infinite where there are too few blocks to tell, and nan is the value where it is undefined.
    """
    one, outcomes = metric(name), outcomes_of(y)
    require(one, outcomes, predictions)
    if len(outcomes) == 0:
        return float("nan"), -np.inf, np.inf
    cut_rows = resolve(blocks, len(outcomes), lambda some: one.formula(outcomes, predictions, some.ids, some.count))
    side = one.formula(outcomes, predictions, cut_rows.ids, cut_rows.count)
    point = float(side(np.ones((1, cut_rows.count)))[0])
    draws = bootstrap([side], cut_rows, resamples, seed)[0]
    by_class = one.by_class and predictions.classes is not None
    effective = cut_rows.effective(outcomes if by_class else None)
    return point, *interval_of(point, draws, effective, confidence, cut_rows.inflation)


def by_slice(
    names: Sequence[str | Metric],
    y: npt.ArrayLike,
    predictions: Predictions,
    slices: Mapping[str, Any] | pd.DataFrame,
    *,
    smallest: int = 50,
) -> list[SliceResult]:
    """The metrics of each slice of the rows; see `afterfit.performance.slices.cut` for how rows are cut.

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
            that is not named costs nothing.
        classes: the k class labels in the order of the class indices.
        name: what the metric is called.

    Raises:
        SettingsError: a class that the model does not know (the nearest one is named), or a cost that is no number.
    """
    table = np.zeros((len(classes), len(classes)))
    index = {str(label): number for number, label in enumerate(classes)}
    for true, row in costs.items():
        for predicted, cost in row.items():
            cell = _class(true, index), _class(predicted, index)
            table[cell] = _number(cost, f"cost of {true} predicted as {predicted}")

    def values(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
        won: FloatArray = -table[y.astype(np.intp), predictions.prediction.astype(np.intp)]
        return won

    return Metric(name, True, frozenset({"binary", "multiclass"}), "prediction", of_rows(values), values)


def _class(label: Any, index: Mapping[str, int]) -> int:
    if str(label) in index:
        return index[str(label)]
    near = difflib.get_close_matches(str(label), index, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SettingsError(f"The costs name the class {label!r}; the model knows {', '.join(index)}.{hint}")


def _number(cost: Any, what: str) -> float:
    try:
        number = float(cost)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise SettingsError(f"The {what} must be a number; it is {cost!r}.")
    return number


def outcome_metric(function: str | Callable[..., Any], *, name: str = "value") -> Metric:
    """Value a row from a function of prediction and outcome, as a metric like any other (greater is better).

    Args:
        function: itself, or its dotted name ("mycompany.money.value"). It is called once with two arrays (n,), the
            predictions and the outcomes, as class labels or numbers, and returns the money won by each row (n,).
        name: what the metric is called.

    Raises:
        SettingsError: there is no such function.
        DataError: when it is evaluated, if it does not return n finite numbers.
    """
    rule = _load(function) if isinstance(function, str) else function

    def values(y: npt.NDArray[Any], predictions: Predictions) -> FloatArray:
        truth = y if predictions.classes is None else np.asarray(predictions.classes)[y.astype(np.intp)]
        won = np.asarray(rule(predictions.labels, truth), dtype=np.float64)
        if won.shape != (len(y),) or not np.all(np.isfinite(won)):
            raise DataError(f"The function for {name} must return one finite number a row, {len(y)} in all.")
        return won

    every: frozenset[Task] = frozenset({"binary", "multiclass", "regression"})
    return Metric(name, True, every, "prediction", of_rows(values), values)


def value_metric(settings: ValueSettings | None, classes: Sequence[Any] | None) -> Metric | None:
    """A use case's value in money as a metric, or None where it names none."""
    if settings is None:
        return None
    if settings.function is not None:
        return outcome_metric(settings.function)
    return cost_metric(settings.costs, classes or ())


def _load(dotted: str) -> Callable[..., Any]:
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


def value(
    y: npt.ArrayLike,
    predictions: Predictions,
    rule: Mapping[Any, Mapping[Any, float]] | Callable[..., Any] | str | Metric,
) -> MoneyValue:
    """Money over these rows.

    Args:
        y: (n,) outcomes.
        predictions: for the same rows.
        rule: a table of costs (see `cost_metric`), a function of prediction and outcome or its dotted name (see
            `outcome_metric`), or the metric that one of them made.
    """
    outcomes = outcomes_of(y)
    if isinstance(rule, Mapping):
        if predictions.classes is None:
            raise SettingsError("A table of costs needs a model of classes; for numbers give a function.")
        rule = cost_metric(rule, predictions.classes)
    one = rule if isinstance(rule, Metric) else outcome_metric(rule)
    require(one, outcomes, predictions)
    if one.row_losses is None:
        raise SettingsError(f"Value is a sum over rows; {one.name} is not.")
    won = one.row_losses(outcomes, predictions)
    total = float(won.sum())
    return MoneyValue(total, total / len(won) if len(won) else float("nan"), len(won))


BINS = 10


def calibration_error(y: npt.NDArray[Any], predictions: Predictions) -> tuple[float, float]:
    """How far probabilities are from shares, and how far chance alone would put them; nan where nothing is said.

    Two classes: the expected calibration error over ten bins of equal size (Naeini, Cooper, Hauskrecht 2015). More:
    the same of the predicted class's confidence. Numbers: the distance of the 90 % interval's coverage from 90 %.
    Chance: what independent rows under perfect calibration would show on average.
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
