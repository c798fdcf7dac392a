"""What the folds' models showed on rows that they were not fitted on; it travels inside the version.

Regions of the inputs in which out-of-fold errors are alike: a small tree, and what the errors are in each leaf.
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
LEAVES = 16
SMALLEST = 100
LARGEST = 1e300
POINTS = 40
"""Numbers that stand for the errors of a region: means of equal parts of them, in order."""


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
        while (inner := np.flatnonzero(column[node] >= 0)).size:
            at = node[inner]
            values = matrix[inner, column[at]]
            goes_left = np.where(np.isnan(values), missing[at], values <= threshold[at])
            node[inner] = np.where(goes_left, left[at], right[at])
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
        error: (n,) what is to be alike.
    """
    smallest = max(SMALLEST, len(error) // (2 * LEAVES))
    tree = DecisionTreeRegressor(max_leaf_nodes=LEAVES, min_samples_leaf=smallest, random_state=0)
    made = tree.fit(matrix, error).tree_
    leaf = made.children_left < 0
    return Regions(
        tuple(np.where(leaf, -1, made.feature).tolist()),
        tuple(np.clip(np.where(leaf, 0.0, made.threshold), -LARGEST, LARGEST).tolist()),  # infinite: missing or not
        tuple(np.where(leaf, 0, made.children_left).tolist()),
        tuple(np.where(leaf, 0, made.children_right).tolist()),
        tuple(made.missing_go_to_left.astype(bool).tolist()),
    )


def points_of(errors: Floats) -> tuple[float, ...]:
    """`POINTS` numbers with the mean and the spread of some errors, and nearly their distribution."""
    parts = [part.mean() for part in np.array_split(np.sort(errors), min(POINTS, len(errors)))]
    middle = np.interp(np.linspace(0, 1, POINTS), np.linspace(0, 1, len(parts)), parts)
    middle += errors.mean() - middle.mean()
    spread = middle.std()
    stretch = errors.std() / spread if spread > 0 else 1.0
    return tuple((errors.mean() + stretch * (middle - middle.mean())).tolist())


FORMAT = 1
Stretches = list[npt.NDArray[np.intp]]


@dataclass(frozen=True, slots=True)
class ErrorMap:
    """Errors of rows unseen.

    Attributes:
        regions: where errors are alike.
        points: for each leaf (by its node) the log-odds by which probabilities of two classes are off, or errors of a
            regression; nothing of more classes.
        folds: what each stretch of the rows showed, oldest first; none without times, for then they tell nothing of
            how the world moves.
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
        leaves = self.regions(beside(matrix, predictions))
        width = len(next(iter(self.points.values())))
        table = np.zeros((len(self.regions.column), width))
        for leaf, points in self.points.items():
            table[leaf] = points
        return table[leaves]

    def to_json(self) -> str:
        """As JSON text."""
        told = {
            "format": FORMAT,
            "regions": self.regions.to_dict(),
            "points": {str(leaf): list(points) for leaf, points in self.points.items()},
            "folds": [fold.to_dict() for fold in self.folds],
        }
        return json.dumps(told, separators=(",", ":"), allow_nan=False) + "\n"

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


def beside(matrix: FloatArray, predictions: Predictions) -> FloatArray:
    """(n, m + 1) the encoded rows, and the answer: the positive class's probability, the confidence or the number."""
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
    """Learn from n rows that the models answering were not fitted on.

    Args:
        matrix: (n, m) rows as the encoder gives them.
        y: (n,) class indices or numbers.
        predictions: the answers, calibrated as the version will.
        times: (n,) in order, or None.
        shares: the classes' usual shares; of any length in regression.
        stretches: into how many the rows are cut.

    Returns:
        None for a model that answers no probabilities.
    """
    parts = np.array_split(np.arange(len(y)), stretches)
    if predictions.classes is None:
        return _of_numbers(beside(matrix, predictions), y, predictions, times, parts)
    if predictions.probabilities is None:
        return None
    answers = WindowAnswers(predictions, None, recalibration.centre_of(shares, len(predictions.classes)), times)
    folds = tuple(learn(answers.take(part), y[part], _end(times, part)) for part in parts)
    if len(predictions.classes) > 2 or not all(fold.off for fold in folds):
        chosen = (predictions.prediction != y).astype(float)
        return ErrorMap(cut(beside(matrix, predictions), chosen), {}, folds if times is not None else ())
    table = [
        recalibration.shifted(answers.probabilities[part], answers.centre, np.array(fold.off))
        for part, fold in zip(parts, folds, strict=True)
    ]
    columns, positive = beside(matrix, predictions), np.concatenate(table)[:, 1]
    del matrix  # as large as all that follows, and nobody else holds it
    regions = cut(columns, y - positive)
    trust = _trust(columns, y, positive, parts)
    off = _odds_off(regions(columns), y, positive)
    return ErrorMap(
        regions, {leaf: (trust * value,) for leaf, value in off.items()}, folds if times is not None else ()
    )


def _of_numbers(columns: FloatArray, y: FloatArray, predictions: Predictions, times: Any, parts: Stretches) -> ErrorMap:
    error = y - predictions.prediction
    regions = cut(columns, np.abs(error))
    leaves = regions(columns)
    points = {int(leaf): points_of(error[leaves == leaf]) for leaf in np.unique(leaves)}
    answers = WindowAnswers(predictions, np.array([points[leaf] for leaf in leaves.tolist()]), np.empty(0), times)
    folds = tuple(learn(answers.take(part), y[part], _end(times, part)) for part in parts)
    return ErrorMap(regions, points, folds if times is not None else ())


def _odds_off(leaves: npt.NDArray[np.intp], y: npt.NDArray[Any], positive: FloatArray) -> dict[int, float]:
    """By which log-odds the probabilities are off in each leaf, to first order."""
    names, at = np.unique(leaves, return_inverse=True)
    off = np.bincount(at, weights=y - positive) / (np.bincount(at, weights=positive * (1 - positive)) + 1.0)
    return dict(zip(names.tolist(), off.tolist(), strict=True))


def _trust(columns: FloatArray, y: npt.NDArray[Any], positive: FloatArray, parts: Stretches) -> float:
    """From 0 to 1: the slope at which what the other stretches say of regions holds in each (Copas 1983).

    Regions are cut where errors were seen, so that what is seen there is too large, and all of it may be chance.
    """
    said = np.zeros(len(y))
    for part in parts:
        rest = np.ones(len(y), dtype=np.bool_)
        rest[part] = False
        others = columns[rest]
        regions = cut(others, (y - positive)[rest])
        off = _odds_off(regions(others), y[rest], positive[rest])
        said[part] = [off.get(leaf, 0.0) for leaf in regions(columns[part]).tolist()]
    weight = float((said**2 * positive * (1 - positive)).sum())
    return float(np.clip((said @ (y - positive)) / weight, 0.0, 1.0)) if weight > 0 else 0.0


def _end(times: npt.NDArray[Any] | None, part: npt.NDArray[np.intp]) -> Any:
    return None if times is None or not len(part) else pd.Timestamp(times[part[-1]]).to_pydatetime()
