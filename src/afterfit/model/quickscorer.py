"""Small trees walked without branches: a row's leaf in every tree at once, from one table look-up a feature.

QuickScorer (Lucchese, Nardini, Orlando, Perego, Tonellotto, Venturini 2015): a tree's leaves are bits from left to
right. A node whose test fails rules out the leaves below its left child; the lowest bit that is left over is the leaf
that walking the tree finds, whatever the order in which the tests are looked at. So all tests on one feature become one
table: for each interval between its thresholds, the bits that are left in each tree. A row costs one search and one AND
a feature for all trees together, where walking costs a cache miss a node.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[Any]
MOST_LEAVES = 64
"""Leaves of a tree that the bits of one word can stand for."""
MOST_BYTES = 2**25
"""Of all tables together; larger ones would miss the caches that they are there to spare."""
BLOCK = 2**18
"""Bytes of the words of the rows that are worked on together, so that what is between stays in the processor's cache.
"""
PAIRED = 2**18
"""Bytes up to which two features' tables become one of all their pairs, which halves the look-ups."""
EXPONENT = 23, 127, np.dtype(np.int32), np.dtype(np.float32)
LONG_EXPONENT = 52, 1023, np.dtype(np.int64), np.dtype(np.float64)
"""Where a float has its exponent, which of a power of two is the number of its bit."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree as arrays over its nodes, the first being its root.

    Attributes:
        left, right: children; -1 at a leaf.
        feature: which one is tested.
        threshold: at or below it a number goes left.
        default_left: whether a missing value does.
        categories: for nodes that test categories, the codes that go left; all others go right.
        swapped: such nodes where the listed codes go right, and all others left.
        value: what a leaf adds.
        output: to which of the outputs.
    """

    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: Floats
    default_left: npt.NDArray[np.uint8]
    categories: Mapping[int, npt.NDArray[np.uint32]]
    swapped: frozenset[int]
    value: Floats
    output: int


@dataclass(frozen=True, slots=True)
class _Feature:
    """One feature's table: rows by interval or code, then those for codes beyond all listed, then for missing ones."""

    at: int
    thresholds: Floats | None
    table: Bits
    ranked: tuple[float, ...]
    words: tuple[int, ...]

    def places(self, values: Floats) -> npt.NDArray[np.intp]:
        """(n,) rows of the table for n values."""
        missing = np.isnan(values)
        if self.thresholds is not None:  # NaN is searched beyond all thresholds: one further is its own row
            found = np.searchsorted(self.thresholds, values)
            found += missing
            return found
        most = len(self.table) - 2
        codes = np.where((values >= 0) & (values < most), values, most).astype(np.intp)
        codes[missing] = most + 1
        return codes


@dataclass(frozen=True, slots=True)
class _Step:
    """What one look-up finds: one feature's table, or two features' with a row for each pair of their rows."""

    table: Bits
    one: _Feature
    other: _Feature | None = None

    def take(self, rows: Floats, out: Bits) -> None:
        """The words (n, trees) of (n, p) rows of values."""
        places = self.one.places(rows[:, self.one.at])
        if self.other is not None:
            places *= len(self.other.table)
            places += self.other.places(rows[:, self.other.at])
        np.take(self.table, places, axis=0, out=out, mode="clip")


def _steps(features: Sequence[_Feature]) -> tuple[_Step, ...]:
    """The look-ups of all features: small tables joined with large ones."""
    ranked = sorted(features, key=lambda feature: len(feature.table))
    steps: list[_Step] = []
    while ranked:
        one = ranked.pop(0)
        fitting = [other for other in ranked if len(other.table) * one.table.nbytes <= PAIRED]
        if not fitting:
            steps.append(_Step(one.table, one))
            continue
        other = fitting[-1]
        ranked = [feature for feature in ranked if feature is not other]
        pairs = one.table[:, None] & other.table[None]
        steps.append(_Step(pairs.reshape(-1, one.table.shape[1]), one, other))
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class Bitvectors:
    """Trees as tables; safe to use from several threads.

    Attributes:
        features: the tables.
        width: bits of a word, one word a tree.
        base: (k,) what the outputs begin with.
    """

    features: tuple[_Feature, ...]
    width: int
    base: tuple[float, ...]
    _steps: tuple[_Step, ...]
    _leaves: Floats
    _offsets: npt.NDArray[Any]
    _slices: tuple[slice, ...]
    _ones: int
    _all: int

    @property
    def block(self) -> int:
        """Most rows that are worked on together."""
        return max(BLOCK * 8 // (self.width * len(self._offsets)), 1)

    def rows(self, matrix: Floats) -> Floats:
        """(n, p) rows, best stored by columns, to (n, k) outputs."""
        out = np.empty((len(matrix), len(self.base)))
        trees = len(self._offsets)
        block = -(-len(matrix) // max(-(-len(matrix) // self.block), 1)) or 1  # blocks of one size, none larger
        for first in range(0, len(matrix), block):
            some = matrix[first : first + block]
            left = np.empty((len(some), trees), dtype=_word(self.width))
            taken = np.empty_like(left)
            if self._steps:
                self._steps[0].take(some, left)
            else:
                left.fill(np.iinfo(left.dtype).max)
            for one in self._steps[1:]:
                one.take(some, taken)
                np.bitwise_and(left, taken, out=left)
            np.negative(left, out=taken)
            np.bitwise_and(left, taken, out=left)
            out[first : first + block] = self._summed(self._found(left))
        return out

    def row(self, values: Sequence[float]) -> list[float]:
        """One row (p,) to k outputs. The words of all trees are one long integer: that is quicker than an array."""
        left = self._all
        for one in self.features:
            value, words = values[one.at], one.words
            if value != value:  # noqa: PLR0124 - the definition of NaN
                left &= words[-1]
            elif one.ranked:
                left &= words[bisect_left(one.ranked, value)]
            else:
                left &= words[int(value) if 0 <= value < len(words) - 2 else -2]
        left &= (left ^ self._all) + self._ones  # the lowest bit of each word; none is 0, so that nothing is carried
        size = len(self._offsets) * self.width // 8
        lowest = np.frombuffer(left.to_bytes(size, "little"), dtype=_little(self.width))
        found = self._found(lowest)
        return [b + float(np.add.reduce(found[part])) for b, part in zip(self.base, self._slices, strict=True)]

    def _found(self, lowest: Bits) -> Floats:
        """What the leaves add, (..., trees), from words of one bit each."""
        shift, _, whole, real = LONG_EXPONENT if self.width == 64 else EXPONENT
        places = lowest.astype(real).view(whole)
        places >>= shift
        places += self._offsets
        return self._leaves.take(places)

    def _summed(self, found: Floats) -> Floats:
        sums = [b + found[:, part].sum(axis=1) for b, part in zip(self.base, self._slices, strict=True)]
        return np.column_stack(sums)


@cache
def _word(width: int) -> np.dtype[Any]:
    return np.dtype(f"uint{width}")


@cache
def _little(width: int) -> np.dtype[Any]:
    return _word(width).newbyteorder("<")


def bitvectors(trees: Sequence[Tree], base: Sequence[float], *, inclusive: bool = True) -> Bitvectors | None:
    """Make the tables.

    Args:
        trees: at least one.
        base: (k,) what the outputs begin with.
        inclusive: a number that equals the threshold goes left; else it goes right.

    Returns:
        None where a tree has more than 64 leaves, a feature is tested as a number and as a category, or the tables
        would be too large.
    """
    leaves = max(int((tree.left < 0).sum()) for tree in trees)
    if leaves > MOST_LEAVES:
        return None
    width = next(bits for bits in (16, 32, 64) if leaves <= bits)
    ranked = sorted(trees, key=lambda tree: tree.output)
    values = np.zeros((len(ranked), width))
    tests: dict[int, list[_Test]] = {}
    for number, tree in enumerate(ranked):
        for test in _tests(tree, number, width, values[number]):
            tests.setdefault(test.feature, []).append(test)
    if sum(map(len, tests.values())) * len(ranked) * width // 8 > MOST_BYTES:
        return None
    if any(len({test.categories is None for test in some}) > 1 for some in tests.values()):
        return None
    features = tuple(_feature(at, tests[at], len(ranked), width, inclusive=inclusive) for at in sorted(tests))
    counts = [sum(tree.output == k for tree in ranked) for k in range(len(base))]
    ends = np.cumsum([0, *counts]).tolist()
    _, bias, whole, _ = LONG_EXPONENT if width == 64 else EXPONENT
    offsets = np.arange(len(ranked), dtype=whole) * width - bias
    ones = sum(1 << (width * number) for number in range(len(ranked)))
    return Bitvectors(
        features,
        width,
        tuple(float(one) for one in base),
        _steps(features),
        values.ravel(),
        offsets,
        tuple(slice(a, b) for a, b in pairwise(ends)),
        ones,
        (1 << (width * len(ranked))) - 1,
    )


@dataclass(frozen=True, slots=True)
class _Test:
    """A node's test: in its tree's word, the bits that are left where it fails."""

    feature: int
    tree: int
    threshold: float
    missing_passes: bool
    categories: frozenset[int] | None
    swapped: bool
    kept: int

    def passes(self, code: int) -> bool:
        return (code in (self.categories or ())) is not self.swapped


def _tests(tree: Tree, number: int, width: int, values: Floats) -> list[_Test]:
    """A tree's tests; its leaves' values go into `values`, from left to right."""
    found: list[_Test] = []
    whole = (1 << width) - 1

    def walk(node: int, first: int) -> int:
        if tree.left[node] < 0:
            values[first] = tree.value[node]
            return first + 1
        middle = walk(int(tree.left[node]), first)
        listed = tree.categories.get(node)
        below = ((1 << middle) - 1) ^ ((1 << first) - 1)
        found.append(
            _Test(
                int(tree.feature[node]),
                number,
                float(tree.threshold[node]),
                bool(tree.default_left[node]),
                None if listed is None else frozenset(listed.tolist()),
                node in tree.swapped,
                whole ^ below,
            )
        )
        return walk(int(tree.right[node]), middle)

    walk(0, 0)
    return found


def _feature(at: int, tests: Sequence[_Test], trees: int, width: int, *, inclusive: bool) -> _Feature:
    thresholds: Floats | None = None
    if tests[0].categories is None:
        thresholds = np.unique([test.threshold for test in tests])
        if not inclusive:  # x < t and x <= the float below t are one test
            thresholds = np.nextafter(thresholds, -math.inf)
        table = _of_numbers(tests, np.unique([test.threshold for test in tests]), trees, width)
    else:
        table = _of_codes(tests, trees, width)
    for test in tests:
        if not test.missing_passes:
            table[-1, test.tree] &= test.kept
    little = table.astype(_little(width))
    words = tuple(int.from_bytes(row.tobytes(), "little") for row in little)
    return _Feature(at, thresholds, table, () if thresholds is None else tuple(thresholds.tolist()), words)


def _of_numbers(tests: Sequence[_Test], thresholds: Floats, trees: int, width: int) -> Bits:
    """Rows by the number of thresholds below a value, and a last one for missing values."""
    table = _full(len(thresholds) + 2, trees, width)
    for test in tests:
        table[int(np.searchsorted(thresholds, test.threshold)) + 1, test.tree] &= test.kept
    table[:-1] = np.bitwise_and.accumulate(table[:-1], axis=0)
    return table


def _of_codes(tests: Sequence[_Test], trees: int, width: int) -> Bits:
    """Rows by code, then one for all that no test lists, and a last one for missing values."""
    codes = 1 + max((max(test.categories) for test in tests if test.categories), default=-1)
    table = _full(codes + 2, trees, width)
    for test in tests:
        for code in range(codes + 1):
            if not test.passes(code):
                table[code, test.tree] &= test.kept
    return table


def _full(rows: int, trees: int, width: int) -> Bits:
    return np.full((rows, trees), np.iinfo(_word(width)).max, dtype=_word(width))
