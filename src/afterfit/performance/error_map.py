"""The error map: regions of the inputs in which out-of-fold errors are alike; it travels inside the version.

A small tree cuts the inputs into regions. For each leaf the map holds the errors of rows that the folds' models were
not fitted on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.tree import DecisionTreeRegressor

from afterfit.errors import DataError
from afterfit.performance import recalibration
from afterfit.performance.estimation import CalibrationEvidence, WindowAnswers, learn
from afterfit.performance.predictions import FloatArray, Predictions

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]
Stretches = list[npt.NDArray[np.intp]]
FORMAT = 1
LEAVES = 16
SMALLEST = 100
LARGEST = 1e300
POINTS = 40
"""How many numbers represent the errors of a region: the means of equal parts of the sorted errors."""


@dataclass(frozen=True, slots=True)
class Regions:
    """A binary tree over m columns: each node's column, threshold and children; a leaf's column is -1.

    The columns are the encoder's and, last, the prediction. Missing values go left where `missing` says so.
    """

    column: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    missing: tuple[bool, ...]

    def __call__(self, matrix: Floats) -> Ids:
        """(n,) the node of the leaf in which each row of a matrix (n, m) lies."""
        column, threshold = np.array(self.column), np.array(self.threshold)
        left, right, missing = np.array(self.left), np.array(self.right), np.array(self.missing)
        node = np.zeros(len(matrix), dtype=np.intp)
        while (unfinished := np.flatnonzero(column[node] >= 0)).size:
            nodes = node[unfinished]
            values = matrix[unfinished, column[nodes]]
            goes_left = np.where(np.isnan(values), missing[nodes], values <= threshold[nodes])
            node[unfinished] = np.where(goes_left, left[nodes], right[nodes])
        return node

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {name: list(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Regions":
        """The inverse of `to_dict`."""
        return cls(**{name: tuple(saved[name]) for name in cls.__dataclass_fields__})


def cut(matrix: Floats, error: Floats) -> Regions:
    """Cut n rows into at most `LEAVES` regions in which errors are alike.

    Args:
        matrix: (n, m) as the tree will see rows.
        error: (n,) the error of each row.
    """
    smallest = max(SMALLEST, len(error) // (2 * LEAVES))
    tree = DecisionTreeRegressor(max_leaf_nodes=LEAVES, min_samples_leaf=smallest, random_state=0)
    fitted = tree.fit(matrix, error).tree_
    is_leaf = fitted.children_left < 0
    return Regions(
        tuple(np.where(is_leaf, -1, fitted.feature).tolist()),
        tuple(
            np.clip(np.where(is_leaf, 0.0, fitted.threshold), -LARGEST, LARGEST).tolist()
        ),  # infinite: missing or not
        tuple(np.where(is_leaf, 0, fitted.children_left).tolist()),
        tuple(np.where(is_leaf, 0, fitted.children_right).tolist()),
        tuple(fitted.missing_go_to_left.astype(bool).tolist()),
    )


def points_of(errors: Floats) -> tuple[float, ...]:
    """`POINTS` numbers with the mean and standard deviation of some errors, and nearly their distribution."""
    parts = [part.mean() for part in np.array_split(np.sort(errors), min(POINTS, len(errors)))]
    points = np.interp(np.linspace(0, 1, POINTS), np.linspace(0, 1, len(parts)), parts)
    points += errors.mean() - points.mean()
    spread = points.std()
    stretch = errors.std() / spread if spread > 0 else 1.0
    return tuple((errors.mean() + stretch * (points - points.mean())).tolist())


@dataclass(frozen=True, slots=True)
class ErrorMap:
    """Errors of rows unseen in training, by region.

    Attributes:
        regions: where errors are alike.
        points: for each leaf (by its node) the log-odds by which probabilities of two classes are off, or errors of a
            regression; empty for more than two classes.
        folds: what each stretch of the rows showed, oldest first; empty without times, because then the stretches say
            nothing about change over time.
    """

    regions: Regions
    points: Mapping[int, tuple[float, ...]]
    folds: tuple[CalibrationEvidence, ...]

    def errors_at(self, matrix: FloatArray, predictions: Predictions) -> FloatArray | None:
        """(n, p) the points of the leaf in which each row lies.

        Args:
            matrix: (n, m) rows as the encoder gives them.
            predictions: what was answered.
        """
        if not self.points:
            return None
        leaves = self.regions(with_answer_column(matrix, predictions))
        width = len(next(iter(self.points.values())))
        table = np.zeros((len(self.regions.column), width))
        for leaf, points in self.points.items():
            table[leaf] = points
        return table[leaves]

    def to_json(self) -> str:
        """As JSON text."""
        document = {
            "format": FORMAT,
            "regions": self.regions.to_dict(),
            "points": {str(leaf): list(points) for leaf, points in self.points.items()},
            "folds": [fold.to_dict() for fold in self.folds],
        }
        return json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "ErrorMap":
        """From what `to_json` wrote, parsed.

        Raises:
            DataError: it has another format.
        """
        if saved.get("format") != FORMAT:
            raise DataError(f"Errors of rows unseen must have format {FORMAT}; these have {saved.get('format')!r}.")
        points = {int(leaf): tuple(map(float, points)) for leaf, points in saved["points"].items()}
        return cls(
            Regions.from_dict(saved["regions"]), points, tuple(map(CalibrationEvidence.from_dict, saved["folds"]))
        )


def with_answer_column(matrix: FloatArray, predictions: Predictions) -> FloatArray:
    """(n, m + 1) the encoded rows and a column of answers: positive-class probability, confidence or number."""
    answer: npt.NDArray[Any] = predictions.prediction
    if predictions.classes is not None:
        answer = predictions.probability if len(predictions.classes) == 2 else np.asarray(predictions.confidence)
    return np.column_stack([matrix, answer])


def learn_errormap(  # noqa: PLR0917 - by name in the one place that calls it
    matrix: FloatArray,
    y: npt.NDArray[Any],
    predictions: Predictions,
    times: npt.NDArray[Any] | None,
    shares: tuple[float, ...],
    stretches: int,
) -> ErrorMap | None:
    """Learn the error map from n rows, each answered by a model that was not fitted on it.

    Args:
        matrix: (n, m) rows as the encoder gives them.
        y: (n,) class indices or numbers.
        predictions: the answers, calibrated as the version calibrates its own.
        times: (n,) in order, or None.
        shares: the classes' usual shares; of any length in regression.
        stretches: how many parts of consecutive rows are compared.

    Returns:
        None for a model that answers no probabilities.
    """
    parts = np.array_split(np.arange(len(y)), stretches)
    if predictions.classes is None:
        return _learn_regression(with_answer_column(matrix, predictions), y, predictions, times, parts)
    if predictions.probabilities is None:
        return None
    answers = WindowAnswers(predictions, None, recalibration.centre_of(shares, len(predictions.classes)), times)
    folds = tuple(learn(answers.take(part), y[part], _end(times, part)) for part in parts)
    if len(predictions.classes) > 2 or not all(fold.off for fold in folds):
        is_wrong = (predictions.prediction != y).astype(float)
        return ErrorMap(cut(with_answer_column(matrix, predictions), is_wrong), {}, folds if times is not None else ())
    shifted_parts = [
        recalibration.shift_probabilities(answers.probabilities[part], answers.centre, np.array(fold.off))
        for part, fold in zip(parts, folds, strict=True)
    ]
    columns, positive = with_answer_column(matrix, predictions), np.concatenate(shifted_parts)[:, 1]
    del matrix  # as large as all that follows; this is the last reference to it
    regions = cut(columns, y - positive)
    shrinkage = _shrinkage(columns, y, positive, parts)
    log_odds = _log_odds_errors(regions(columns), y, positive)
    return ErrorMap(
        regions, {leaf: (shrinkage * value,) for leaf, value in log_odds.items()}, folds if times is not None else ()
    )


def _learn_regression(
    columns: FloatArray, y: FloatArray, predictions: Predictions, times: Any, parts: Stretches
) -> ErrorMap:
    error = y - predictions.prediction
    regions = cut(columns, np.abs(error))
    leaves = regions(columns)
    points = {int(leaf): points_of(error[leaves == leaf]) for leaf in np.unique(leaves)}
    answers = WindowAnswers(predictions, np.array([points[leaf] for leaf in leaves.tolist()]), np.empty(0), times)
    folds = tuple(learn(answers.take(part), y[part], _end(times, part)) for part in parts)
    return ErrorMap(regions, points, folds if times is not None else ())


def _log_odds_errors(leaves: npt.NDArray[np.intp], y: npt.NDArray[Any], positive: FloatArray) -> dict[int, float]:
    """The log-odds by which probabilities are off in each leaf, to first order."""
    ids, position = np.unique(leaves, return_inverse=True)
    log_odds = np.bincount(position, weights=y - positive) / (
        np.bincount(position, weights=positive * (1 - positive)) + 1.0
    )
    return dict(zip(ids.tolist(), log_odds.tolist(), strict=True))


def _shrinkage(columns: FloatArray, y: npt.NDArray[Any], positive: FloatArray, parts: Stretches) -> float:
    """The shrinkage of the leaves' errors, from 0 to 1 (Copas 1983).

    The slope of each stretch's own errors on those that regions learnt from the other stretches predict. Regions are
    cut where errors were observed, so the observed errors are too large there, and may even be chance alone.
    """
    predicted = np.zeros(len(y))
    for part in parts:
        is_other = np.ones(len(y), dtype=np.bool_)
        is_other[part] = False
        others = columns[is_other]
        regions = cut(others, (y - positive)[is_other])
        log_odds = _log_odds_errors(regions(others), y[is_other], positive[is_other])
        predicted[part] = [log_odds.get(leaf, 0.0) for leaf in regions(columns[part]).tolist()]
    weight = float((predicted**2 * positive * (1 - positive)).sum())
    return float(np.clip((predicted @ (y - positive)) / weight, 0.0, 1.0)) if weight > 0 else 0.0


def _end(times: npt.NDArray[Any] | None, part: npt.NDArray[np.intp]) -> Any:
    return None if times is None or not len(part) else pd.Timestamp(times[part[-1]]).to_pydatetime()
