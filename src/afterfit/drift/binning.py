"""What is counted in one column: the levels that a reference teaches, and a fast way from values to levels.

A number goes to one of `CELLS` cells of a fixed grid by one multiplication, and from its cell to its level by a table.
Cells are integers, so that sums of them are exact in any order. A name goes to its level by its text.

Combinations of two categories that a reference never had: an airline at an airport that it does not serve.

A row that was put in the wrong category often makes such a combination, though the category's own share hardly moves.
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
FINE = 60
"""About how many levels of equal weight a number gets; with the gaps between frequent values, twice as many."""
SHAPE = 16
"""Levels are joined to about this many of equal weight where the shape is tested."""
STEPS = 6
"""Steps of a score in one standard deviation; scores are whole numbers between -16 and 16."""
MOST_DECIMALS = 3
"""Most decimals at which values are taken to be rounded."""
KEPT = 200
"""Most categories that are counted by name."""
KNOWN = 4_096
"""Most further categories that are only recognised."""
REMEMBERED = 100_000
"""Names whose level is kept between chunks; past that, each chunk looks its own up."""
LONGEST = 80
"""Longer category names are cut, and told apart by a digest."""


@dataclass(frozen=True)
class NumberBins:
    """Levels of a number: 0 missing, 1 below the reference, 2… its values, the last above the reference.

    `offset` and `scale` take a value (or, where `curve` is set, asinh((value - centre) / curve)) to its cell. `starts`
    are the first cells of the levels from 1 on. `sample` is how many rows each level had when it was learnt.
    `decimals` says how many decimals its values have at most, or None where they have many.
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
        steps: Array = np.clip(np.rint(z * STEPS), -16, 16).astype(np.int64)
        return steps

    @cached_property
    def spread(self) -> Array:
        """(levels,) squared normal score in whole steps; 0 for missing."""
        square = (self.location / STEPS) ** 2
        scores = np.clip(np.rint((square - 1.0) * STEPS / 2), -16, 16).astype(np.int64)
        scores[0] = 0
        return scores

    @cached_property
    def groups(self) -> Array:
        """(levels,) the shape group of each level: about `SHAPE` of equal weight; -1 for missing and out of range."""
        counts = np.array(self.sample[2:-1], dtype=np.float64)
        groups, group, held = [], 0, 0.0
        for count in counts:
            if held and held + count / 2 > counts.sum() / SHAPE:
                group, held = group + 1, 0.0
            groups.append(group)
            held += count
        return np.array([-1, -1, *groups, -1], dtype=np.int64)

    @cached_property
    def novel(self) -> Array:
        """(levels,) whether the reference's sample had no value there: out of its range, or in a gap."""
        levels: Array = np.array(self.sample) == 0
        levels[[0, 1, -1]] = [False, True, True]
        return levels

    def cells(self, values: Array) -> Array:
        """The cell of each value, int64: 0 for NaN, else from 1 to CELLS - 2."""
        with np.errstate(over="ignore", invalid="ignore"):
            flat = np.arcsinh((values - self.centre) / self.curve) if self.curve else values
            at = flat * self.scale
            at += self.offset
            np.clip(at, 1.0, CELLS - 2.0, out=at)
        np.fmax(at, 0.0, out=at)
        return at.astype(np.int64)

    def finer(self, values: Array) -> int:
        """How many values have more decimals than any of the reference's; NaN and infinities have none."""
        return 0 if self.decimals is None else int(len(values) - _on_decimals(values, self.decimals))

    def value_of(self, cell: float) -> float:
        """The value in the middle of a cell."""
        flat = (cell + 0.5 - self.offset) / self.scale
        with np.errstate(over="ignore"):
            return float(np.sinh(flat) * self.curve + self.centre) if self.curve else flat


@dataclass(frozen=True)
class CategoryBins:
    """Levels of a category: 0 missing, 1 never seen in the reference, 2 seen but not kept by name, 3… the kept names.

    `known` holds digests of names that were seen and not kept; None means that there were too many to recognise, and
    that a new one cannot be told. `once` is the share of the reference in names that came only once (with times: in
    one block only), the estimate of Good (1953) and Turing of how often a new name is met. `hidden` keeps digests in
    place of names.
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
        """The level of each row, int64, and how often each name came that was never seen.

        `memory` keeps the levels of names between parts of one table.
        """
        memory = {} if memory is None or len(memory) > REMEMBERED else memory
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
        shown = label(name, hidden=self.hidden)
        level = self.level_of_name.get(shown)
        if level is None:
            level = 2 if self.known is None or digest(shown) in self.known else 1
        memory[name] = level
        return level


@dataclass(frozen=True)
class DateBins:
    """Levels of a date that is no feature: 0 missing, 1 there."""

    sample: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of levels."""
        return 2


Bins: TypeAlias = NumberBins | CategoryBins | DateBins


def digest(name: str) -> int:
    """A stable 48-bit digest of a name."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")


def label(name: str, *, hidden: bool) -> str:
    """What stands for a category name in a profile: itself, shortened with a digest, or the digest alone."""
    if hidden:
        return name if name.startswith("#") and len(name) == 13 else f"#{digest(name):012x}"
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 14]}…#{digest(name):012x}"


def learn_number(values: Array) -> NumberBins:
    """Learn a grid and levels of equal weight from numbers; values that come often get a level of their own."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return NumberBins(0.0, 1.0, 0.0, 0.0, (1, 2, CELLS - 2), (len(values), 0, 0, 0))
    offset, scale, centre, curve = _grid(finite)
    blank = NumberBins(offset, scale, centre, curve, (1,), (0, 0))
    counts = np.bincount(blank.cells(finite), minlength=CELLS)
    starts = _starts(counts)
    rows = np.add.reduceat(counts, starts)
    missing = int(np.isnan(values).sum())
    decimals = next((d for d in range(MOST_DECIMALS + 1) if _on_decimals(finite, d) == len(finite)), None)
    return NumberBins(offset, scale, centre, curve, tuple(starts.tolist()), (missing, *rows.tolist()), decimals)


def _on_decimals(values: Array, decimals: int) -> int:
    """How many values have at most so many decimals, as near as 32-bit floats tell; NaN and infinities count."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * 10.0**decimals
        off = np.abs(scaled - np.rint(scaled)) > np.abs(scaled) * 2e-7 + 1e-7
    return int(len(values) - np.count_nonzero(off))


def _grid(finite: Array) -> tuple[float, float, float, float]:
    """Offset and scale of the grid, and the curve that bends it where a straight one would be too coarse."""
    unit = 16.0 if np.abs(finite).max() > 1e307 else 1.0  # differences of such numbers are too large for a float
    marks = np.quantile(finite / unit, [0, 0.01, 0.25, 0.5, 0.75, 0.99, 1]) * unit
    low, first, quarter, middle, three, last, high = marks.tolist()
    with np.errstate(over="ignore"):
        wide = (last - first) * 2
        bottom, top = max(low, first - wide), min(high, last + wide)
        straight = np.isfinite(top - bottom) and (top - bottom) * 3 / CELLS < (three - quarter) / 32
    if straight or (quarter == three and np.isfinite(top - bottom)):
        return *_straight(bottom, top), 0.0, 0.0
    curve = max((three - quarter) / 2, abs(middle) * 1e-9, 1e-300) if np.isfinite(three - quarter) else 1e300
    with np.errstate(over="ignore"):
        ends = np.arcsinh((np.array([low, high]) - middle) / curve)
    return *_straight(*np.clip(ends, -1500, 1500).tolist()), middle, curve


def _straight(bottom: float, top: float) -> tuple[float, float]:
    """The grid holds its range in the middle third, so that what moves out of it is still measured."""
    width = top - bottom
    if width <= max(abs(bottom), abs(top)) * 1e-13:
        width = max(abs(bottom), 1.0) * 1e-3
    scale = (CELLS - 4) / (3.0 * width)
    middle = bottom / 2 + top / 2
    if not np.isfinite(middle * scale):
        return 0.0, 1.0
    return CELLS / 2 - middle * scale, scale


def _starts(counts: Array) -> Array:
    """First cells of: below the smallest, levels of equal weight, above the largest.

    A cell that alone is worth a level gets one, and the empty cells before it get one too: values between those that
    come again and again are new.
    """
    filled = np.flatnonzero(counts[2 : CELLS - 2]) + 2
    if not len(filled):
        return np.array([1, 2, CELLS - 2], dtype=np.int64)
    target, last = counts.sum() / FINE, int(filled[-1])
    starts, held = [1, int(filled[0])], 0
    for cell, count in zip(filled.tolist(), counts[filled].tolist(), strict=True):
        if starts[-1] < cell and (held + count > target if held else count >= target):
            starts.append(cell)
            held = 0
        held += count
        if held >= target and cell < last:
            starts.append(cell + 1)
            held = 0
    return np.array([*starts, last + 1], dtype=np.int64)


def learn_category(column: Names, blocks: Array | None, *, kind: Kind, hidden: bool) -> CategoryBins:
    """Learn which names to count: the most frequent by name, the next by digest.

    Args:
        column: the names of the reference.
        blocks: the block of time of each row (-1 unknown), or None where rows are independent.
        kind: a boolean always knows both of its names.
        hidden: keep digests in place of names.
    """
    labels = [label(name, hidden=hidden) for name in column.names]
    there = column.codes >= 0
    counts = np.bincount(column.codes[there], minlength=len(labels)).astype(np.int64)
    merged = _merged(labels, counts)
    if kind == "boolean":
        merged = {**{label(name, hidden=hidden): 0 for name in ("false", "true")}, **merged}
    ranked = sorted(merged, key=lambda name: (-merged[name], name))
    kept, others = ranked[:KEPT], ranked[KEPT:]
    known = frozenset(map(digest, others)) if len(others) <= KNOWN else None
    sample = (int((~there).sum()), 0, sum(merged[n] for n in others), *(merged[n] for n in kept))
    once = rows_met_once(column.codes, counts, blocks) / max(int(counts.sum()), 1)
    return CategoryBins(tuple(kept), known, sample, once, hidden)


def _merged(labels: Sequence[str], counts: Array) -> dict[str, int]:
    merged: dict[str, int] = {}
    for name, count in zip(labels, counts.tolist(), strict=True):
        if count:
            merged[name] = merged.get(name, 0) + count
    return merged


def rows_met_once(codes: Array, counts: Array, blocks: Array | None) -> int:
    """Rows in codes that came once, or in one block only; a code of -1 is no code.

    Args:
        codes: (rows,) whole numbers.
        counts: (codes,) rows of each.
        blocks: (rows,) the block of time of each row, -1 unknown; or None.
    """
    if blocks is None:
        return int((counts == 1).sum())
    there = (codes >= 0) & (blocks >= 0)
    first, last = np.full(len(counts), np.iinfo(np.int64).max), np.full(len(counts), -1)
    np.minimum.at(first, codes[there], blocks[there])
    np.maximum.at(last, codes[there], blocks[there])
    return int(counts[(first == last) & (counts > 0)].sum())


def known_list(known: Iterable[int] | None) -> list[int] | None:
    """Digests in the order in which they are saved."""
    return None if known is None else sorted(known)


@dataclass(frozen=True, slots=True)
class LevelTest:
    """One thing that is tested in a column: the kind of change, and the level or shape group that it is about."""

    kind: str
    at: int = -1


def looks_of(bins: Bins) -> tuple[tuple[LevelTest, ...], Array]:
    """What is tested in a column by itself, and the score of each level in it: (levels, looks), whole numbers.

    The first look is at missing values and counts all rows; the others count the rows that have a value.
    """
    levels = np.arange(bins.size)
    looks, columns = [LevelTest("missing")], [levels == 0]
    if isinstance(bins, NumberBins):
        groups = bins.groups
        looks += [LevelTest("new values"), LevelTest("location"), LevelTest("spread")]
        columns += [bins.novel, bins.location, bins.spread]
        for group in range(groups.max() + 1 if groups.max() > 0 else 0):
            looks.append(LevelTest("shape", group))
            columns.append(groups == group)
    elif isinstance(bins, CategoryBins):
        looks.append(LevelTest("new values"))
        columns.append(levels == 1)
        for level in (*([2] if bins.sample[2] else []), *range(3, bins.size)):
            looks.append(LevelTest("share", level))
            columns.append(levels == level)
    return tuple(looks), np.stack(columns, axis=1).astype(np.int64)


MOST = 10
"""Most pairs of categories that are watched."""
RARE = 0.002
"""A pair is watched where new combinations are rarer than this in the reference."""
TELLING = 0.02
"""…and where rows put together at random would make one at least this often."""
MOST_CELLS = 20_000
_NAMED = 3


@dataclass(frozen=True)
class Combination:
    """Two columns by position; which levels came together; the share of rows in combinations that came only once."""

    one: int
    other: int
    seen: Array
    once: float

    def count(self, one: Array, other: Array) -> int:
        """Rows whose combination was never seen."""
        return int(len(one) - np.count_nonzero(self.seen.ravel().take(one * self.seen.shape[1] + other)))

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


def learn(bins: Sequence[Bins], levels: Sequence[Array], blocks: Array | None) -> tuple[Combination, ...]:
    """The pairs of categories that are worth watching.

    Args:
        bins: of each column.
        levels: of each column, (rows,).
        blocks: the block of time of each row (-1 unknown), or None where rows are independent.
    """
    able = [i for i, held in enumerate(bins) if isinstance(held, CategoryBins) and len(held.kept) > 1]
    found: list[tuple[float, Combination]] = []
    for place, one in enumerate(able):
        for other in able[place + 1 : place + 1 + MOST * MOST]:
            if bins[one].size * bins[other].size <= MOST_CELLS and len(found) < MOST * MOST:
                found.append(_learn(one, other, (bins[one].size, bins[other].size), levels, blocks))
    telling = [(mass, combination) for mass, combination in found if mass >= TELLING and combination.once <= RARE]
    telling.sort(key=lambda candidate: (-candidate[0], candidate[1].one, candidate[1].other))
    return tuple(combination for _, combination in telling[:MOST])


def _learn(
    one: int, other: int, shape: tuple[int, int], levels: Sequence[Array], blocks: Array | None
) -> tuple[float, Combination]:
    """How often rows put together at random would be new, and the combination."""
    codes = levels[one].astype(np.int64) * shape[1] + levels[other]
    counts = np.bincount(codes, minlength=shape[0] * shape[1]).reshape(shape)
    shares = counts / max(len(codes), 1)
    seen = counts > 0
    seen[:_NAMED], seen[:, :_NAMED] = True, True
    mass = float((np.outer(shares.sum(axis=1), shares.sum(axis=0)) * ~seen).sum())
    once = rows_met_once(codes, counts.ravel(), blocks) / max(len(codes), 1)
    return mass, Combination(one, other, seen, once)
