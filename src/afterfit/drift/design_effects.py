"""Blocks of time: how rows that share an hour, a day or a week depend on each other, and what that costs in rows.

Time is cut into nested units, from the finest that does not give the reference too
many blocks to the coarsest that still gives it enough. For each score the reference gives the covariance of two rows by
how near they are in time: in the same hour, in the same day but not in the same hour, and so on. The variance of a
difference between two windows is then a sum over pairs of rows, each pair by how near its rows are. It is exact for the
rows that the two windows really have, whether one window follows the other or both are drawn from the same days.
(Components of variance after Searle, Casella and McCulloch, 1992; the lag classes are the discrete form of Matheron's
variogram, 1963.)
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
"""The coarsest unit is the coarsest with at least this many blocks: from fewer, a variance is too uncertain."""
MISSING_TIME = np.iinfo(np.int64).min

Array = np.ndarray[Any, Any]


def choose_units(seconds: Array) -> tuple[str, ...]:
    """The nested units, finest first, that fit a reference's times; none where it spans too little time."""
    known_seconds = seconds[seconds != MISSING_TIME]
    block_counts = (
        {name: len(np.unique(known_seconds // length)) for name, length in UNITS} if len(known_seconds) else {}
    )
    usable = [name for name, _ in UNITS if FEWEST_BLOCKS <= block_counts.get(name, 0) <= MOST_BLOCKS]
    return tuple(
        name
        for i, name in enumerate(usable)
        if i + 1 == len(usable) or block_counts[name] != block_counts[usable[i + 1]]
    )


def count_blocks(seconds: Array, unit: str) -> dict[int, int]:
    """Rows in each block of a unit; rows without a time are not counted."""
    block_of_row = seconds[seconds != MISSING_TIME] // SECONDS[unit]
    blocks, rows = np.unique(block_of_row, return_counts=True)
    return dict(zip(blocks.tolist(), rows.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class TimeBlocks:
    """The rows of a sample in order of time, cut into blocks of nested units (finest unit first).

    `order` holds the positions of the rows, and `starts` where each block of the finest unit begins in it. `rows_of`
    holds for each unit the number of rows of its blocks, and `parents` the block of that unit around each finest
    block.
    """

    order: Array
    starts: Array
    rows_of: tuple[Array, ...]
    parents: tuple[Array, ...]

    @property
    def finest(self) -> Array:
        """The finest block of each row, in order of time."""
        return np.repeat(np.arange(len(self.starts)), self.rows_of[0])


def cut_into_blocks(seconds: Array, units: Sequence[str]) -> TimeBlocks:
    """Cut a sample into blocks of nested units; rows without a time are left out."""
    order = np.argsort(seconds, kind="stable")
    order = order[seconds[order] != MISSING_TIME]
    ordered = seconds[order]
    finest, starts, rows = np.unique(ordered // SECONDS[units[0]], return_index=True, return_counts=True)
    parents = tuple(np.unique(finest * SECONDS[units[0]] // SECONDS[u], return_inverse=True)[1] for u in units)
    rows_of = tuple(np.bincount(parent, weights=rows).astype(np.int64) for parent in parents)
    return TimeBlocks(order=order, starts=starts, rows_of=rows_of, parents=parents)


def lag_correlations(sums: Array, variances: Array, sample: TimeBlocks) -> Array:
    """Correlation of two rows by how near they are in time.

    Args:
        sums: (finest blocks, scores): sums of each score over each finest block, not centred.
        variances: (scores,): variance of each score over rows.
        sample: the blocks of the sample.

    Returns:
        (units, scores): for each unit, the mean correlation of two rows in the same block of it, but in different
        blocks of each finer unit. 0 where there are no such pairs or the score does not vary.
    """
    total = float(sample.rows_of[0].sum())
    centred = sums - np.outer(sample.rows_of[0], sums.sum(axis=0) / total)
    finer_squares, finer_pairs = variances * total, total
    lags = []
    for parent, rows in zip(sample.parents, sample.rows_of, strict=True):
        block_sums = np.zeros((len(rows), sums.shape[1]))
        np.add.at(block_sums, parent, centred)
        squares = (block_sums**2).sum(axis=0) * len(rows) / (len(rows) - 1)
        pairs = float((rows.astype(np.float64) ** 2).sum())
        lags.append(
            (squares - finer_squares) / (pairs - finer_pairs) if pairs > finer_pairs else np.zeros_like(squares)
        )
        finer_squares, finer_pairs = squares, pairs
    scale = np.where(variances > 0, variances, np.inf)
    return np.clip(np.stack(lags) / scale, -1.0, 1.0)


@dataclass(frozen=True, slots=True)
class TimeDependence:
    """How the rows of two windows lie in time, for the variance of the difference of their means.

    `rows` is 1/n + 1/m for n and m rows. `pairs` holds for each unit the weight of the pairs of rows that share a block
    of it but of no finer unit. `blocks` is the number of blocks of each unit in the reference. `shared` is the number
    of the reference's pairs of rows by unit, over its rows; the uncertainty of its lag correlations follows from it.
    """

    rows: float
    pairs: Array
    blocks: Array
    shared: Array

    def design_effect(self, lags: Array) -> Array:
        """Variance of a difference over its variance for independent rows: (scores,) from lags (units, scores).

        Never below 1: no sample is trusted to be better than independent rows.
        """
        if not len(self.pairs):
            return np.ones(lags.shape[1])
        result: Array = np.maximum(1.0, 1.0 + (lags * self.pairs[:, None]).sum(axis=0) / self.rows)
        return result

    def freedom(self, lags: Array, rows: int) -> Array:
        """Degrees of freedom of that variance (Satterthwaite, 1946): from few blocks it is uncertain.

        A lag correlation is as uncertain as the variance of the sums over its blocks, which has one degree of freedom
        for each block but one.
        """
        if not len(self.pairs):
            return np.full(lags.shape[1], float(max(rows - 1, 1)))
        sums = np.maximum(1.0 + np.cumsum(lags * self.shared[:, None], axis=0), 1.0)
        parts = self.pairs[:, None] / self.rows * sums / np.where(self.shared > 0, self.shared, np.inf)[:, None]
        noise = (parts**2 / (self.blocks[:, None] - 1)).sum(axis=0) + 1.0 / max(rows - 1, 1)
        result: Array = np.maximum(self.design_effect(lags) ** 2 / noise, 2.0)
        return result


def time_dependence(
    window: dict[int, int],
    reference: dict[int, int],
    rows: tuple[int, int],
    units: Sequence[str],
    blocks: Sequence[int],
) -> TimeDependence:
    """How the rows of two windows lie in time; a window without times is taken to follow the reference without a gap.

    Args:
        window: rows in each finest block.
        reference: the same of the reference.
        rows: all rows of the window and of the reference, also those without a time.
        units: nested units, finest first; none means that rows are independent.
        blocks: how many blocks of each unit the reference had when its lags were measured.
    """
    variance_factor = 1.0 / rows[0] + 1.0 / rows[1]
    if not units or not reference:
        return TimeDependence(rows=variance_factor, pairs=np.zeros(0), blocks=np.zeros(0), shared=np.zeros(0))
    window = window or _blocks_after(reference, rows[0])
    keys = np.array(sorted(window.keys() | reference.keys()), dtype=np.int64)
    window_rows = np.array([window.get(key, 0) for key in keys.tolist()], dtype=np.float64)
    reference_rows = np.array([reference.get(key, 0) for key in keys.tolist()], dtype=np.float64)
    weights = window_rows / window_rows.sum() - reference_rows / reference_rows.sum()
    return TimeDependence(
        rows=variance_factor,
        pairs=_pairs_by_nearness(keys, weights, units, variance_factor),
        blocks=np.array(blocks, dtype=np.float64),
        shared=_pairs_by_nearness(keys, reference_rows, units, reference_rows.sum()) / reference_rows.sum(),
    )


def _pairs_by_nearness(keys: Array, weights: Array, units: Sequence[str], own_pairs: float) -> Array:
    """(units,) summed products of the weights of two rows that share a block of the unit but of no finer unit."""
    pairs, finer_total = [], own_pairs
    for unit in units:
        _, coarse_block = np.unique(keys * SECONDS[units[0]] // SECONDS[unit], return_inverse=True)
        total = float((np.bincount(coarse_block, weights=weights) ** 2).sum())
        pairs.append(total - finer_total)
        finer_total = total
    return np.array(pairs)


def _blocks_after(reference: dict[int, int], rows: int) -> dict[int, int]:
    """Rows in each finest block, where they follow the reference and fill blocks as it does."""
    rows_per_block = max(round(sum(reference.values()) / len(reference)), 1)
    first = max(reference) + 1
    full, rest_rows = divmod(rows, rows_per_block)
    counts = {first + i: rows_per_block for i in range(full)}
    return {**counts, first + full: rest_rows} if rest_rows else counts
