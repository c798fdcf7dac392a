"""How columns hang together, in sums that merge: scores of each column, and the sums of their products.

Each column is told in a few whole-number scores (a number by its normal score and that score's square, a category by
its most frequent names, both by what is missing). The products of scores, summed over rows, are exact and add up.
From the reference's sums follow directions in which a window is looked at:

* a score less what the other columns say it should be. One column that is shifted alone stands out in its own
  direction much more than by itself (Hall and Jin, 2010; Cai, Liu and Xia, 2014);
* the covariance of a column with what the others say of it, and of two columns with each other, weighted so that the
  reference's value is Pillai's trace (1955): for two categories chi-squared over n, for two numbers r squared.
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
"""A name or a missing value becomes a score where this share of the reference has it."""
MOST_SCORES = 200
"""Most scores that are multiplied with each other."""
MOST_PAIRS = 300
STRENGTH = 0.1
"""Columns whose relation is weaker than this (in the unit of a correlation) are taken to have none."""
RIDGE = 1e-3


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Keep the matrix library to one thread: these products are small, and a second thread waits more than it helps."""
    limit: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limit


@dataclass(frozen=True, slots=True)
class Score:
    """One score: the column's position, and `LOCATION`, `SPREAD`, or the level whose rows score 1."""

    column: int
    level: int


def scores_of(position: int, bins: Bins) -> list[Score]:
    """The scores that tell a column."""
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


def no_sums(count: int) -> Sums:
    """Sums over no rows."""
    return Sums(0, np.zeros(count, dtype=np.int64), np.zeros((count, count), dtype=np.int64))


def sums_of(matrix: Array) -> Sums:
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

    def of(self, covariance: Array) -> float:
        """The weighted covariance."""
        return float((covariance[np.ix_(self.left, self.right)] * self.weights).sum())

    def of_rows(self, rows: Array) -> Array:
        """(rows,) what each row of centred scores (rows, scores) adds to it."""
        result: Array = np.einsum("ij,ij->i", rows[:, self.left] @ self.weights, rows[:, self.right])
        return result


@dataclass(frozen=True)
class Directions:
    """Where to look, from a reference's sums.

    `means` and `scales` standardise the scores; a score that does not vary has scale 0 and is left out. `residual`
    (scores, scores) holds a row of weights a score: itself less what the other columns say. `groups` holds the scores
    of each column position.
    """

    means: Array
    scales: Array
    correlation: Array
    residual: Array
    groups: dict[int, Array]

    def standard(self, sums: Sums) -> tuple[Array, Array]:
        """A window's means and covariances in the reference's units."""
        inverse = np.where(self.scales > 0, 1.0 / np.where(self.scales > 0, self.scales, 1.0), 0.0)
        return (sums.means - self.means) * inverse, sums.covariance * np.outer(inverse, inverse)

    def with_others(self, column: int, left_out: Sequence[int] = ()) -> Form:
        """A column with all the others, or with all but some."""
        own = self.groups[column]
        rest = [group for other, group in self.groups.items() if other != column and other not in left_out]
        others = np.concatenate(rest) if rest else np.zeros(0, dtype=np.int64)
        says = np.linalg.solve(self._block(others, others), self.correlation[np.ix_(others, own)]).T
        return Form(own, others, np.linalg.solve(self._block(own, own), says))

    def pair(self, one: int, other: int) -> Form:
        """Two columns with each other."""
        left, right = self.groups[one], self.groups[other]
        between = np.linalg.solve(self._block(left, left), self.correlation[np.ix_(left, right)])
        return Form(left, right, np.linalg.solve(self._block(right, right), between.T).T)

    def explained(self, means: Array, columns: Sequence[int]) -> Array:
        """The means (scores,), those of some columns replaced by what the others say."""
        if not columns:
            return means
        gone = np.concatenate([self.groups[c] for c in columns])
        kept = np.setdiff1d(np.concatenate(list(self.groups.values())), gone)
        result = means.copy()
        says = np.linalg.solve(self._block(kept, kept), self.correlation[np.ix_(kept, gone)])
        result[gone] = means[kept] @ says
        return result

    def _block(self, left: Array, right: Array) -> Array:
        block: Array = self.correlation[np.ix_(left, right)].copy()
        block[np.arange(len(left)), np.arange(len(right))] += RIDGE
        return block


def directions(sums: Sums, scores: Sequence[Score]) -> Directions:
    """Find the directions of a reference; smooth in its sums, so that a little more data moves them little."""
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
    place = {score: i for i, score in enumerate(used.tolist())}
    precision = np.linalg.inv(correlation[np.ix_(used, used)] + RIDGE * np.eye(len(used)))
    for group in groups.values():
        own = [place[score] for score in group.tolist()]
        weights[np.ix_(group, used)] = np.linalg.solve(precision[np.ix_(own, own)], precision[own])
    return weights


def strengths(found: Directions) -> dict[tuple[int, int], float]:
    """How strongly each two columns hang together, as a correlation between 0 and 1."""
    columns = sorted(found.groups)
    squares = {(a, b): found.pair(a, b).of(found.correlation) for i, a in enumerate(columns) for b in columns[i + 1 :]}
    return {pair: float(np.sqrt(np.clip(value, 0.0, 1.0))) for pair, value in squares.items()}
