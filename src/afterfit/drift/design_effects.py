"""Blocks of time: how rows that share an hour, a day or a week depend on each other, and what that costs in rows.

Rows are cut by a ladder of nested units, from the finest that the reference can fill to the coarsest that it still
repeats. For each score the reference gives its covariance between rows by how near they are: in the same hour, in the
same day but not the same hour, and so on. The variance of a difference between two windows is then a sum over pairs
of rows, each pair by its nearness: exact for the rows that the two windows really have, whether they follow each
other or are drawn from the same days. (Components of variance after Searle, Casella and McCulloch, 1992; the lag
classes are the discrete form of Matheron's variogram, 1963.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNITS: tuple[tuple[str, int], ...] = (
    ("second", 1),
    ("10 seconds", 10),
    ("minute", 60),
    ("10 minutes", 600),
    ("hour", 3_600),
    ("6 hours", 21_600),
    ("day", 86_400),
    ("week", 604_800),
    ("4 weeks", 2_419_200),
    ("52 weeks", 31_449_600),
)
SECONDS = dict(UNITS)
MOST_BLOCKS = 10_000
"""The finest unit is the finest with no more blocks than this in the reference."""
FEWEST_BLOCKS = 8
"""The coarsest unit is the coarsest with no fewer: variances of less are not worth having."""
MISSING_TIME = np.iinfo(np.int64).min

Array = np.ndarray[Any, Any]


def chosen_units(seconds: Array) -> tuple[str, ...]:
    """The nested units, finest first, that a reference's times can tell about; none where there is too little time."""
    known = seconds[seconds != MISSING_TIME]
    filled = {name: len(np.unique(known // length)) for name, length in UNITS} if len(known) else {}
    able = [name for name, _ in UNITS if FEWEST_BLOCKS <= filled.get(name, 0) <= MOST_BLOCKS]
    return tuple(name for i, name in enumerate(able) if i + 1 == len(able) or filled[name] != filled[able[i + 1]])


def count_blocks(seconds: Array, unit: str) -> dict[int, int]:
    """Rows in each block of a unit; rows without a time are not counted."""
    known = seconds[seconds != MISSING_TIME] // SECONDS[unit]
    blocks, rows = np.unique(known, return_counts=True)
    return dict(zip(blocks.tolist(), rows.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Cut:
    """The rows of a sample, in order of time, and where the blocks of each unit begin (finest unit first).

    `rows_of` holds for each unit the rows of its blocks; `parents` the block of the unit that each finest block is in.
    """

    order: Array
    starts: Array
    rows_of: tuple[Array, ...]
    parents: tuple[Array, ...]

    @property
    def finest(self) -> Array:
        """The finest block of each row, in order of time."""
        return np.repeat(np.arange(len(self.starts)), self.rows_of[0])


def cut(seconds: Array, units: Sequence[str]) -> Cut:
    """Cut a sample by nested units; rows without a time are left out."""
    order = np.argsort(seconds, kind="stable")
    order = order[seconds[order] != MISSING_TIME]
    ordered = seconds[order]
    finest, starts, rows = np.unique(ordered // SECONDS[units[0]], return_index=True, return_counts=True)
    parents = tuple(np.unique(finest * SECONDS[units[0]] // SECONDS[u], return_inverse=True)[1] for u in units)
    rows_of = tuple(np.bincount(parent, weights=rows).astype(np.int64) for parent in parents)
    return Cut(order=order, starts=starts, rows_of=rows_of, parents=parents)


def lag_correlations(sums: Array, variances: Array, sample: Cut) -> Array:
    """Correlation of rows by nearness.

    Args:
        sums: (finest blocks, scores): sums of each score over each finest block, not centred.
        variances: (scores,): variance of each score over rows.
        sample: how the sample was cut.

    Returns:
        (units, scores): for each unit, the mean correlation of two rows that share its block but no finer one. 0 where
        there are no such pairs or the score does not vary.
    """
    total = float(sample.rows_of[0].sum())
    centred = sums - np.outer(sample.rows_of[0], sums.sum(axis=0) / total)
    shared, pairs = variances * total, total
    lags = []
    for parent, rows in zip(sample.parents, sample.rows_of, strict=True):
        of_blocks = np.zeros((len(rows), sums.shape[1]))
        np.add.at(of_blocks, parent, centred)
        squares = (of_blocks**2).sum(axis=0) * len(rows) / (len(rows) - 1)
        now = float((rows.astype(np.float64) ** 2).sum())
        lags.append((squares - shared) / (now - pairs) if now > pairs else np.zeros_like(squares))
        shared, pairs = squares, now
    scale = np.where(variances > 0, variances, np.inf)
    return np.clip(np.stack(lags) / scale, -1.0, 1.0)


@dataclass(frozen=True, slots=True)
class TimeDependence:
    """How the rows of two windows lie in time, for the variance of a difference between their means.

    `rows` is 1/n + 1/m. `pairs` holds for each unit the weight of pairs of rows that share its block but no finer one.
    `blocks` is the number of blocks of each unit that the reference had, and `shared` its pairs of rows by nearness
    (over its rows), which tell how rough its lags are.
    """

    rows: float
    pairs: Array
    blocks: Array
    shared: Array

    def design_effect(self, lags: Array) -> Array:
        """Variance of a difference over what independent rows would give: (scores,) from lags (units, scores).

        Never below 1: a design that is better than independent rows is not trusted.
        """
        if not len(self.pairs):
            return np.ones(lags.shape[1])
        result: Array = np.maximum(1.0, 1.0 + (lags * self.pairs[:, None]).sum(axis=0) / self.rows)
        return result

    def freedom(self, lags: Array, rows: int) -> Array:
        """Degrees of freedom of that variance (Satterthwaite, 1946): few blocks make it a rough one.

        A lag is as rough as the variance of the sums over its blocks, which has a degree of freedom a block.
        """
        if not len(self.pairs):
            return np.full(lags.shape[1], float(max(rows - 1, 1)))
        sums = np.maximum(1.0 + np.cumsum(lags * self.shared[:, None], axis=0), 1.0)
        parts = self.pairs[:, None] / self.rows * sums / np.where(self.shared > 0, self.shared, np.inf)[:, None]
        noise = (parts**2 / (self.blocks[:, None] - 1)).sum(axis=0) + 1.0 / max(rows - 1, 1)
        result: Array = np.maximum(self.design_effect(lags) ** 2 / noise, 2.0)
        return result


def spread(
    window: dict[int, int],
    reference: dict[int, int],
    rows: tuple[int, int],
    units: Sequence[str],
    blocks: Sequence[int],
) -> TimeDependence:
    """Compare where two windows' rows lie; a window without times is taken to follow the reference without a gap.

    Args:
        window: rows in each finest block.
        reference: the same of the reference.
        rows: rows of the window and of the reference, with those that have no time.
        units: nested units, finest first; none means that rows are independent.
        blocks: how many blocks of each unit the reference had when its lags were measured.
    """
    alone = 1.0 / rows[0] + 1.0 / rows[1]
    if not units or not reference:
        return TimeDependence(rows=alone, pairs=np.zeros(0), blocks=np.zeros(0), shared=np.zeros(0))
    window = window or _following(reference, rows[0])
    keys = np.array(sorted(window.keys() | reference.keys()), dtype=np.int64)
    mine = np.array([window.get(key, 0) for key in keys.tolist()], dtype=np.float64)
    other = np.array([reference.get(key, 0) for key in keys.tolist()], dtype=np.float64)
    weights = mine / mine.sum() - other / other.sum()
    return TimeDependence(
        rows=alone,
        pairs=_by_nearness(keys, weights, units, alone),
        blocks=np.array(blocks, dtype=np.float64),
        shared=_by_nearness(keys, other, units, other.sum()) / other.sum(),
    )


def _by_nearness(keys: Array, weights: Array, units: Sequence[str], alone: float) -> Array:
    """(units,) summed products of the weights of two rows that share a unit's block but no finer one."""
    pairs, before = [], alone
    for unit in units:
        _, parent = np.unique(keys * SECONDS[units[0]] // SECONDS[unit], return_inverse=True)
        now = float((np.bincount(parent, weights=weights) ** 2).sum())
        pairs.append(now - before)
        before = now
    return np.array(pairs)


def _following(reference: dict[int, int], rows: int) -> dict[int, int]:
    each = max(round(sum(reference.values()) / len(reference)), 1)
    first = max(reference) + 1
    full, rest = divmod(rows, each)
    counts = {first + i: each for i in range(full)}
    return {**counts, first + full: rest} if rest else counts
