"""What is counted in a window: the levels of each column, and new combinations of two categories.

Levels and combinations are learnt from a reference. A number goes to one of `CELLS` cells of a fixed grid by one
multiplication, and from its cell to its level by a table. Cells are integers, so that sums of them are exact in any
order. A name goes to its level by its text.

A combination is the two categories that one row has in two columns, such as an airline and an airport. A row that was
put in the wrong category often makes a combination that the reference never had, though the share of each category
hardly changes.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np

from afterfit.drift.tabular import Kind, Names

Array = np.ndarray[Any, Any]
CELLS = 16_384
LEVELS = 60
"""About how many levels of equal weight a number gets; with the gaps between frequent values, up to twice as many."""
SHAPE_GROUPS = 16
"""The test of the shape joins levels to about this many groups of equal weight."""
SCORE_STEPS = 6
"""Steps of a score in one standard deviation; scores are whole numbers between -16 and 16."""
MOST_DECIMALS = 3
"""Values with up to this many decimals are taken to be rounded."""
MOST_KEPT = 200
"""Most categories that are counted by name."""
MOST_KNOWN = 4_096
"""Most further categories that are recognised, but not counted by name."""
MOST_REMEMBERED = 100_000
"""Names whose level is kept between chunks; where there are more, they are looked up again."""
LONGEST_NAME = 80
"""Longer category names are cut; a digest keeps them different."""
MOST_COMBINATIONS = 10
"""Most pairs of columns whose combinations are watched."""
MOST_ONCE = 0.002
"""A pair is watched where at most this share of the reference's rows has a combination that came only once…"""
LEAST_EXPECTED = 0.02
"""…and where, if the two columns were independent, at least this share of rows would have a new combination."""
MOST_LEVEL_PAIRS = 20_000
"""Pairs of columns with more combinations than this are not watched."""
_FIRST_NAMED_LEVEL = 3


@dataclass(frozen=True)
class NumberBins:
    """Levels of a number: 0 missing, 1 below the reference, 2… its values, the last above the reference.

    `offset` and `scale` turn a value (or, where `curve` is set, asinh((value - centre) / curve)) into its cell.
    `starts` are the first cells of the levels from 1 on. `sample` is how many rows each level had when it was learnt.
    `decimals` is the most decimals that its values have, or None where they have many.
    """

    offset: float
    scale: float
    centre: float
    curve: float
    starts: tuple[int, ...]
    sample: tuple[int, ...]
    decimals: int | None = None

    @property
    def size(self) -> int:
        """Number of levels."""
        return len(self.starts) + 1

    @cached_property
    def level_of_cell(self) -> Array:
        """(cells,) the level of each cell, uint8."""
        table = np.searchsorted(np.array((0, *self.starts)), np.arange(CELLS), side="right") - 1
        return np.array(table, dtype=np.uint8)

    @cached_property
    def location(self) -> Array:
        """(levels,) normal score of each level in whole steps; 0 for missing."""
        counts = np.array(self.sample[1:], dtype=np.float64)
        middle = (np.cumsum(counts) - counts / 2 + 0.25) / (counts.sum() + 0.5)
        z = np.array([0.0, *map(NormalDist().inv_cdf, np.clip(middle, 1e-4, 1 - 1e-4).tolist())])
        z[1:] -= np.average(z[1:], weights=counts) if counts.sum() else 0.0
        steps: Array = np.clip(np.rint(z * SCORE_STEPS), -16, 16).astype(np.int64)
        return steps

    @cached_property
    def spread(self) -> Array:
        """(levels,) squared normal score in whole steps; 0 for missing."""
        square = (self.location / SCORE_STEPS) ** 2
        scores = np.clip(np.rint((square - 1.0) * SCORE_STEPS / 2), -16, 16).astype(np.int64)
        scores[0] = 0
        return scores

    @cached_property
    def groups(self) -> Array:
        """(levels,) shape group of each level, about `SHAPE_GROUPS` of equal weight, -1 missing or out of range."""
        counts = np.array(self.sample[2:-1], dtype=np.float64)
        groups, group, rows_in_group = [], 0, 0.0
        for count in counts:
            if rows_in_group and rows_in_group + count / 2 > counts.sum() / SHAPE_GROUPS:
                group, rows_in_group = group + 1, 0.0
            groups.append(group)
            rows_in_group += count
        return np.array([-1, -1, *groups, -1], dtype=np.int64)

    @cached_property
    def novel(self) -> Array:
        """(levels,) whether the reference's sample had no value in the level: outside its range, or in a gap."""
        levels: Array = np.array(self.sample) == 0
        levels[[0, 1, -1]] = [False, True, True]
        return levels

    def cells(self, values: Array) -> Array:
        """The cell of each value, int64: 0 for NaN, else from 1 to CELLS - 2."""
        with np.errstate(over="ignore", invalid="ignore"):
            transformed = np.arcsinh((values - self.centre) / self.curve) if self.curve else values
            positions = transformed * self.scale
            positions += self.offset
            np.clip(positions, 1.0, CELLS - 2.0, out=positions)
        np.fmax(positions, 0.0, out=positions)
        return positions.astype(np.int64)

    def finer(self, values: Array) -> int:
        """How many values have more decimals than any of the reference's; NaN and infinities have none."""
        return 0 if self.decimals is None else int(len(values) - _count_with_decimals(values, self.decimals))

    def value_of(self, cell: float) -> float:
        """The value in the middle of a cell."""
        transformed = (cell + 0.5 - self.offset) / self.scale
        with np.errstate(over="ignore"):
            return float(np.sinh(transformed) * self.curve + self.centre) if self.curve else transformed


@dataclass(frozen=True)
class CategoryBins:
    """Levels of a category: 0 missing, 1 never seen in the reference, 2 seen but not kept by name, 3… the kept names.

    `known` holds digests of names that were seen and not kept; None means that there were too many of them, so that a
    new name cannot be recognised as new. `once` is the share of the reference's rows whose name came only once (with
    times: in one block only). Good (1953) and Turing estimate by it how often a new name will come. With `hidden`,
    digests are kept in place of names.
    """

    kept: tuple[str, ...]
    known: frozenset[int] | None
    sample: tuple[int, ...]
    once: float
    hidden: bool

    @property
    def size(self) -> int:
        """Number of levels."""
        return len(self.kept) + 3

    @cached_property
    def level_of_name(self) -> dict[str, int]:
        """The level of each kept name."""
        return {name: i + 3 for i, name in enumerate(self.kept)}

    def levels(self, column: Names, memory: dict[str, int] | None = None) -> tuple[Array, dict[str, int]]:
        """The level of each row, int64, and the rows of each name that the reference never had.

        `memory` keeps the levels of names between parts of one table.
        """
        memory = {} if memory is None or len(memory) > MOST_REMEMBERED else memory
        table = np.array(
            [*(memory[n] if n in memory else self._level(n, memory) for n in column.names), 0], dtype=np.int64
        )
        levels = table[column.codes]
        if not (table == 1).any():
            return levels, {}
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(table) - 1)
        new: dict[str, int] = {}
        for i in np.flatnonzero((table[:-1] == 1) & (counts > 0)).tolist():
            name = label(column.names[i], hidden=self.hidden)
            new[name] = new.get(name, 0) + int(counts[i])
        return levels, new

    def _level(self, name: str, memory: dict[str, int]) -> int:
        kept_label = label(name, hidden=self.hidden)
        level = self.level_of_name.get(kept_label)
        if level is None:
            level = 2 if self.known is None or digest(kept_label) in self.known else 1
        memory[name] = level
        return level


@dataclass(frozen=True)
class DateBins:
    """Levels of a date that is no feature: 0 missing, 1 present."""

    sample: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of levels."""
        return 2


Bins: TypeAlias = NumberBins | CategoryBins | DateBins


@dataclass(frozen=True)
class Combination:
    """Two columns by position, and which of their levels came together in a row of the reference: `seen`.

    `once` is the share of the reference's rows whose combination came only once.
    """

    one: int
    other: int
    seen: Array
    once: float

    def count(self, one_levels: Array, other_levels: Array) -> int:
        """Number of rows whose combination the reference never had."""
        return int(
            len(one_levels) - np.count_nonzero(self.seen.ravel().take(one_levels * self.seen.shape[1] + other_levels))
        )

    def to_list(self) -> list[Any]:
        """As plain values."""
        packed = base64.b64encode(np.packbits(self.seen).tobytes()).decode("ascii")
        return [self.one, self.other, list(self.seen.shape), packed, self.once]

    @classmethod
    def from_list(cls, saved: Sequence[Any]) -> "Combination":
        """From plain values."""
        one, other, shape, packed, once = saved
        bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8), count=shape[0] * shape[1])
        return cls(one, other, bits.reshape(shape).astype(bool), once)


@dataclass(frozen=True, slots=True)
class LevelTest:
    """One test of a column: the kind of change, and the number of the level or shape group that it is about."""

    kind: str
    index: int = -1


def digest(name: str) -> int:
    """A stable 48-bit digest of a name."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")


def label(name: str, *, hidden: bool) -> str:
    """How a profile writes a category name: as it is, or shortened with a digest, or (hidden) as a digest alone."""
    if hidden:
        return name if name.startswith("#") and len(name) == 13 else f"#{digest(name):012x}"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 14]}…#{digest(name):012x}"


def learn_number(values: Array) -> NumberBins:
    """Learn a grid and levels of equal weight from numbers; values that come often get a level of their own."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return NumberBins(0.0, 1.0, 0.0, 0.0, (1, 2, CELLS - 2), (len(values), 0, 0, 0))
    offset, scale, centre, curve = _fit_grid(finite)
    blank = NumberBins(offset, scale, centre, curve, (1,), (0, 0))
    counts = np.bincount(blank.cells(finite), minlength=CELLS)
    starts = _level_starts(counts)
    rows = np.add.reduceat(counts, starts)
    missing = int(np.isnan(values).sum())
    decimals = next((d for d in range(MOST_DECIMALS + 1) if _count_with_decimals(finite, d) == len(finite)), None)
    return NumberBins(offset, scale, centre, curve, tuple(starts.tolist()), (missing, *rows.tolist()), decimals)


def learn_category(column: Names, blocks: Array | None, *, kind: Kind, hidden: bool) -> CategoryBins:
    """Learn which names to count: the most frequent ones by name; of the next ones a digest is kept.

    Args:
        column: the names of the reference.
        blocks: the block of time of each row (-1 unknown), or None where rows are independent.
        kind: a boolean always has both of its names, even if the reference has only one.
        hidden: keep digests in place of names.
    """
    labels = [label(name, hidden=hidden) for name in column.names]
    present = column.codes >= 0
    counts = np.bincount(column.codes[present], minlength=len(labels)).astype(np.int64)
    rows_of_label = _rows_of_label(labels, counts)
    if kind == "boolean":
        rows_of_label = {**{label(name, hidden=hidden): 0 for name in ("false", "true")}, **rows_of_label}
    ranked = sorted(rows_of_label, key=lambda name: (-rows_of_label[name], name))
    kept, others = ranked[:MOST_KEPT], ranked[MOST_KEPT:]
    known = frozenset(map(digest, others)) if len(others) <= MOST_KNOWN else None
    sample = (int((~present).sum()), 0, sum(rows_of_label[n] for n in others), *(rows_of_label[n] for n in kept))
    once = rows_met_once(column.codes, counts, blocks) / max(int(counts.sum()), 1)
    return CategoryBins(tuple(kept), known, sample, once, hidden)


def level_tests(bins: Bins) -> tuple[tuple[LevelTest, ...], Array]:
    """The tests of a column by itself, and the score of each level in each test: (levels, tests), whole numbers.

    The first test is of missing values and counts all rows; the others count the rows that have a value.
    """
    levels = np.arange(bins.size)
    tests, columns = [LevelTest("missing")], [levels == 0]
    if isinstance(bins, NumberBins):
        groups = bins.groups
        tests += [LevelTest("new values"), LevelTest("location"), LevelTest("spread")]
        columns += [bins.novel, bins.location, bins.spread]
        for group in range(groups.max() + 1 if groups.max() > 0 else 0):
            tests.append(LevelTest("shape", group))
            columns.append(groups == group)
    elif isinstance(bins, CategoryBins):
        tests.append(LevelTest("new values"))
        columns.append(levels == 1)
        for level in (*([2] if bins.sample[2] else []), *range(3, bins.size)):
            tests.append(LevelTest("share", level))
            columns.append(levels == level)
    return tuple(tests), np.stack(columns, axis=1).astype(np.int64)


def learn_combinations(bins: Sequence[Bins], levels: Sequence[Array], blocks: Array | None) -> tuple[Combination, ...]:
    """The pairs of columns whose new combinations are watched.

    Args:
        bins: of each column.
        levels: of each column, (rows,).
        blocks: the block of time of each row (-1 unknown), or None where rows are independent.
    """
    candidates = [
        i for i, column_bins in enumerate(bins) if isinstance(column_bins, CategoryBins) and len(column_bins.kept) > 1
    ]
    learnt: list[tuple[float, Combination]] = []
    for position, one in enumerate(candidates):
        for other in candidates[position + 1 : position + 1 + MOST_COMBINATIONS * MOST_COMBINATIONS]:
            if (
                bins[one].size * bins[other].size <= MOST_LEVEL_PAIRS
                and len(learnt) < MOST_COMBINATIONS * MOST_COMBINATIONS
            ):
                learnt.append(_learn_combination(one, other, (bins[one].size, bins[other].size), levels, blocks))
    watched = [
        (expected_share, combination)
        for expected_share, combination in learnt
        if expected_share >= LEAST_EXPECTED and combination.once <= MOST_ONCE
    ]
    watched.sort(key=lambda candidate: (-candidate[0], candidate[1].one, candidate[1].other))
    return tuple(combination for _, combination in watched[:MOST_COMBINATIONS])


def rows_met_once(codes: Array, counts: Array, blocks: Array | None) -> int:
    """Number of rows whose code came only once, or in one block only; a code of -1 does not count.

    Args:
        codes: (rows,) whole numbers.
        counts: (codes,) rows of each.
        blocks: (rows,) the block of time of each row, -1 unknown; or None.
    """
    if blocks is None:
        return int((counts == 1).sum())
    known = (codes >= 0) & (blocks >= 0)
    first, last = np.full(len(counts), np.iinfo(np.int64).max), np.full(len(counts), -1)
    np.minimum.at(first, codes[known], blocks[known])
    np.maximum.at(last, codes[known], blocks[known])
    return int(counts[(first == last) & (counts > 0)].sum())


def sorted_digests(known: Iterable[int] | None) -> list[int] | None:
    """Digests in the order in which they are saved."""
    return None if known is None else sorted(known)


def _count_with_decimals(values: Array, decimals: int) -> int:
    """How many values have at most `decimals` decimals, within the precision of 32-bit floats.

    NaN and infinities count as values that have.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * 10.0**decimals
        has_more = np.abs(scaled - np.rint(scaled)) > np.abs(scaled) * 2e-7 + 1e-7
    return int(len(values) - np.count_nonzero(has_more))


def _fit_grid(finite: Array) -> tuple[float, float, float, float]:
    """Offset, scale, centre and curve of the grid; the curve is 0 unless a straight grid would be too coarse."""
    unit = 16.0 if np.abs(finite).max() > 1e307 else 1.0  # differences of such numbers are too large for a float
    quantiles = np.quantile(finite / unit, [0, 0.01, 0.25, 0.5, 0.75, 0.99, 1]) * unit
    low, first_percentile, quarter, middle, three_quarters, last_percentile, high = quantiles.tolist()
    with np.errstate(over="ignore"):
        wide = (last_percentile - first_percentile) * 2
        bottom, top = max(low, first_percentile - wide), min(high, last_percentile + wide)
        straight = np.isfinite(top - bottom) and (top - bottom) * 3 / CELLS < (three_quarters - quarter) / 32
    if straight or (quarter == three_quarters and np.isfinite(top - bottom)):
        return *_fit_straight_grid(bottom, top), 0.0, 0.0
    curve = (
        max((three_quarters - quarter) / 2, abs(middle) * 1e-9, 1e-300)
        if np.isfinite(three_quarters - quarter)
        else 1e300
    )
    with np.errstate(over="ignore"):
        ends = np.arcsinh((np.array([low, high]) - middle) / curve)
    return *_fit_straight_grid(*np.clip(ends, -1500, 1500).tolist()), middle, curve


def _fit_straight_grid(bottom: float, top: float) -> tuple[float, float]:
    """Offset and scale of a grid whose middle third is the range, so that values outside the range are measured too."""
    width = top - bottom
    if width <= max(abs(bottom), abs(top)) * 1e-13:
        width = max(abs(bottom), 1.0) * 1e-3
    scale = (CELLS - 4) / (3.0 * width)
    middle = bottom / 2 + top / 2
    if not np.isfinite(middle * scale):
        return 0.0, 1.0
    return CELLS / 2 - middle * scale, scale


def _level_starts(counts: Array) -> Array:
    """First cell of each level: below the smallest value, levels of equal weight, above the largest value.

    A cell with enough rows for a level of its own gets one, and so do the empty cells before it: a value between two
    very frequent values is new.
    """
    filled = np.flatnonzero(counts[2 : CELLS - 2]) + 2
    if not len(filled):
        return np.array([1, 2, CELLS - 2], dtype=np.int64)
    rows_per_level, last_filled = counts.sum() / LEVELS, int(filled[-1])
    starts, rows = [1, int(filled[0])], 0
    for cell, cell_rows in zip(filled.tolist(), counts[filled].tolist(), strict=True):
        if starts[-1] < cell and (rows + cell_rows > rows_per_level if rows else cell_rows >= rows_per_level):
            starts.append(cell)
            rows = 0
        rows += cell_rows
        if rows >= rows_per_level and cell < last_filled:
            starts.append(cell + 1)
            rows = 0
    return np.array([*starts, last_filled + 1], dtype=np.int64)


def _rows_of_label(labels: Sequence[str], counts: Array) -> dict[str, int]:
    merged: dict[str, int] = {}
    for name, count in zip(labels, counts.tolist(), strict=True):
        if count:
            merged[name] = merged.get(name, 0) + count
    return merged


def _learn_combination(
    one: int, other: int, shape: tuple[int, int], levels: Sequence[Array], blocks: Array | None
) -> tuple[float, Combination]:
    """The share of rows that would have a new combination if the columns were independent, and the combination."""
    codes = levels[one].astype(np.int64) * shape[1] + levels[other]
    counts = np.bincount(codes, minlength=shape[0] * shape[1]).reshape(shape)
    shares = counts / max(len(codes), 1)
    seen = counts > 0
    seen[:_FIRST_NAMED_LEVEL], seen[:, :_FIRST_NAMED_LEVEL] = True, True
    expected_share = float((np.outer(shares.sum(axis=1), shares.sum(axis=0)) * ~seen).sum())
    once = rows_met_once(codes, counts.ravel(), blocks) / max(len(codes), 1)
    return expected_share, Combination(one, other, seen, once)
