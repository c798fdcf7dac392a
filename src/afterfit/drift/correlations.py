"""Relations between columns, in sums that can be merged: scores of each column, and sums of products of scores.

A few whole-number scores stand for each column: of a number its normal score and the square of that, of a category its
most frequent names, of both whether the value is missing. Sums of scores and of their products are exact, and the sums
of parts add up. From the reference's sums follow the directions in which a window is tested:

* the residual of a score: the score less its prediction from the other columns. Where one column is shifted alone, its
  residual shows that much more clearly than the column itself (Hall and Jin, 2010; Cai, Liu and Xia, 2014);
* the covariance of a column with its prediction from the others, and of two columns with each other, weighted so that
  the reference's value is Pillai's trace (1955): for two categories chi-squared over n, for two numbers r squared.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from afterfit.drift.binning import Bins, CategoryBins, NumberBins

Array = np.ndarray[Any, Any]

LOCATION, SPREAD = -1, -2
NAMES = 8
"""Most names of a category that become scores."""
FREQUENT = 0.01
"""A name becomes a score where its share of the reference is at least this and at most 1 less this; so does missing."""
MOST_SCORES = 200
"""Most scores that are multiplied with each other."""
MOST_PAIRS = 300
STRENGTH = 0.1
"""Columns whose relation is weaker than this, as a correlation, are taken to have none."""
RIDGE = 1e-3


@cache
def _thread_controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Keep the matrix library to one thread: these products are too small for a second thread to help."""
    limit: AbstractContextManager[Any] = _thread_controller().limit(limits=1, user_api="blas")
    return limit


@dataclass(frozen=True, slots=True)
class Score:
    """One score: the position of its column, and `LOCATION`, `SPREAD`, or the level whose rows have the score 1."""

    column: int
    level: int


def scores_of(position: int, bins: Bins) -> list[Score]:
    """The scores that stand for a column."""
    total = max(sum(bins.sample), 1)
    missing = [Score(position, 0)] if FREQUENT <= bins.sample[0] / total <= 1 - FREQUENT else []
    if isinstance(bins, NumberBins):
        varies = len(np.unique(bins.location[1:][np.array(bins.sample[1:]) > 0])) > 1
        return [Score(position, LOCATION), Score(position, SPREAD), *missing] if varies else missing
    if isinstance(bins, CategoryBins):
        shares = [count / total for count in bins.sample[3:]]
        names = [i + 3 for i, share in enumerate(shares[:NAMES]) if FREQUENT <= share <= 1 - FREQUENT]
        if len(names) == len(bins.kept) and len(names) > 1:
            names.pop()
        return [*(Score(position, level) for level in names), *missing]
    return missing


def score_table(score: Score, bins: Bins) -> Array:
    """(levels,) the score of each level, whole numbers between -16 and 16."""
    if score.level >= 0:
        return np.where(np.arange(bins.size) == score.level, 1, 0)
    if not isinstance(bins, NumberBins):
        raise TypeError("only numbers have a location and a spread")
    return bins.location if score.level == LOCATION else bins.spread


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over `rows` rows: of each score (scores,), and of the product of each two (scores, scores); int64."""

    rows: int
    totals: Array
    products: Array

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.rows + other.rows, self.totals + other.totals, self.products + other.products)

    @property
    def means(self) -> Array:
        """(scores,) means."""
        result: Array = self.totals / max(self.rows, 1)
        return result

    @property
    def covariance(self) -> Array:
        """(scores, scores) covariances."""
        means = self.means
        result: Array = self.products / max(self.rows, 1) - np.outer(means, means)
        return result


def empty_sums(count: int) -> Sums:
    """Sums over no rows."""
    return Sums(0, np.zeros(count, dtype=np.int64), np.zeros((count, count), dtype=np.int64))


def sum_scores(matrix: Array) -> Sums:
    """Sums of a (scores, rows) float32 matrix of whole numbers; exact up to 65,536 rows."""
    return Sums(
        matrix.shape[1], matrix.sum(axis=1, dtype=np.float64).astype(np.int64), (matrix @ matrix.T).astype(np.int64)
    )


@dataclass(frozen=True, slots=True)
class Form:
    """A covariance of two groups of scores, weighted: sum over a in `left`, b in `right` of weights[a, b] cov(a, b)."""

    left: Array
    right: Array
    weights: Array

    def weighted_covariance(self, covariance: Array) -> float:
        """The weighted covariance."""
        return float((covariance[np.ix_(self.left, self.right)] * self.weights).sum())

    def row_contributions(self, rows: Array) -> Array:
        """(rows,) what each row of centred scores (rows, scores) adds to the weighted covariance."""
        result: Array = np.einsum("ij,ij->i", rows[:, self.left] @ self.weights, rows[:, self.right])
        return result


@dataclass(frozen=True)
class Directions:
    """The directions in which windows are tested, from a reference's sums.

    `means` and `scales` standardise the scores; a score that does not vary has scale 0 and is left out. `residual`
    (scores, scores) holds for each score the row of weights that gives its residual: the score less its prediction from
    the other columns. `groups` holds the scores of each column, by the column's position.
    """

    means: Array
    scales: Array
    correlation: Array
    residual: Array
    groups: dict[int, Array]

    def standardise(self, sums: Sums) -> tuple[Array, Array]:
        """A window's means and covariances in the reference's units."""
        inverse = np.where(self.scales > 0, 1.0 / np.where(self.scales > 0, self.scales, 1.0), 0.0)
        return (sums.means - self.means) * inverse, sums.covariance * np.outer(inverse, inverse)

    def form_with_others(self, column: int, left_out: Sequence[int] = ()) -> Form:
        """The relation of a column with all others except those in `left_out`."""
        own_scores = self.groups[column]
        other_groups = [
            group for position, group in self.groups.items() if position != column and position not in left_out
        ]
        other_scores = np.concatenate(other_groups) if other_groups else np.zeros(0, dtype=np.int64)
        coefficients = np.linalg.solve(
            self._block(other_scores, other_scores), self.correlation[np.ix_(other_scores, own_scores)]
        ).T
        return Form(own_scores, other_scores, np.linalg.solve(self._block(own_scores, own_scores), coefficients))

    def form_of_pair(self, left_column: int, right_column: int) -> Form:
        """The relation of two columns with each other."""
        left, right = self.groups[left_column], self.groups[right_column]
        coefficients = np.linalg.solve(self._block(left, left), self.correlation[np.ix_(left, right)])
        return Form(left, right, np.linalg.solve(self._block(right, right), coefficients.T).T)

    def replace_by_prediction(self, means: Array, columns: Sequence[int]) -> Array:
        """The means (scores,), where those of some columns are replaced by their prediction from the others."""
        if not columns:
            return means
        replaced = np.concatenate([self.groups[c] for c in columns])
        others = np.setdiff1d(np.concatenate(list(self.groups.values())), replaced)
        result = means.copy()
        coefficients = np.linalg.solve(self._block(others, others), self.correlation[np.ix_(others, replaced)])
        result[replaced] = means[others] @ coefficients
        return result

    def _block(self, left: Array, right: Array) -> Array:
        block: Array = self.correlation[np.ix_(left, right)].copy()
        block[np.arange(len(left)), np.arange(len(right))] += RIDGE
        return block


def find_directions(sums: Sums, scores: Sequence[Score]) -> Directions:
    """The directions of a reference; they depend smoothly on its sums, so a little more data changes them little."""
    variances = np.clip(np.diag(sums.covariance), 0.0, None)
    scales = np.where(variances > 1e-9, np.sqrt(variances), 0.0)
    inverse = np.where(scales > 0, 1.0 / np.where(scales > 0, scales, 1.0), 0.0)
    correlation = sums.covariance * np.outer(inverse, inverse)
    groups: dict[int, list[int]] = {}
    for i, score in enumerate(scores):
        if scales[i] > 0:
            groups.setdefault(score.column, []).append(i)
    arrays = {column: np.array(group) for column, group in groups.items()}
    return Directions(sums.means, scales, correlation, _residual(correlation, arrays), arrays)


def _residual(correlation: Array, groups: dict[int, Array]) -> Array:
    weights = np.zeros_like(correlation)
    if not groups:
        return weights
    used = np.concatenate(list(groups.values()))
    place_of_score = {score: i for i, score in enumerate(used.tolist())}
    precision = np.linalg.inv(correlation[np.ix_(used, used)] + RIDGE * np.eye(len(used)))
    for group in groups.values():
        own_places = [place_of_score[score] for score in group.tolist()]
        weights[np.ix_(group, used)] = np.linalg.solve(precision[np.ix_(own_places, own_places)], precision[own_places])
    return weights


def strengths(directions: Directions) -> dict[tuple[int, int], float]:
    """How strongly each two columns are related, as a correlation between 0 and 1."""
    columns = sorted(directions.groups)
    squares = {
        (a, b): directions.form_of_pair(a, b).weighted_covariance(directions.correlation)
        for i, a in enumerate(columns)
        for b in columns[i + 1 :]
    }
    return {pair: float(np.sqrt(np.clip(value, 0.0, 1.0))) for pair, value in squares.items()}
