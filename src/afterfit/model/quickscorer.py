"""Evaluate small trees without branches: a row's leaf in every tree at once, from one table look-up per feature.

QuickScorer (Lucchese, Nardini, Orlando, Perego, Tonellotto, Venturini 2015). A tree's leaves are bits of a word, from
left to right. A node whose test fails rules out the leaves below its left child. The lowest bit that is left over is
the leaf that walking the tree finds, in whatever order the tests are applied. So all tests on one feature become one
table: for each interval between its thresholds, the bits that are left in each tree. For all trees together a row costs
one search and one AND per feature; walking the trees costs a cache miss per node.
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
"""Most leaves of a tree: one bit of a word for each."""
MOST_BYTES = 2**25
"""Most bytes of all tables together; larger ones would cause the cache misses that they are meant to avoid."""
BLOCK = 2**18
"""Bytes of the words of rows that are evaluated together: intermediate results then stay in the processor's cache."""
PAIRED = 2**18
"""Most bytes of a joint table of two features, with a row for each pair; it halves the look-ups."""
EXPONENT = 23, 127, np.dtype(np.int32), np.dtype(np.float32)
LONG_EXPONENT = 52, 1023, np.dtype(np.int64), np.dtype(np.float64)
"""Position and bias of a float's exponent, and integers and floats of that size. The exponent of 2**k is k."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree as arrays over its nodes, the first being its root.

    Attributes:
        left, right: children; -1 at a leaf.
        feature: the feature that a node tests.
        threshold: a number at or below it goes left.
        default_left: whether a missing value goes left.
        categories: for nodes that test categories, the codes that go left; all others go right.
        swapped: nodes of this kind where the listed codes go right, and all others left.
        value: what a leaf adds to the output.
        output: index of the output to which the tree adds.
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
class _Test:
    """A node's test; `kept` are the bits of its tree's word that are left where the test fails."""

    feature: int
    tree: int
    threshold: float
    missing_passes: bool
    categories: frozenset[int] | None
    swapped: bool
    kept: int

    def passes(self, code: int) -> bool:
        return (code in (self.categories or ())) is not self.swapped


@dataclass(frozen=True, slots=True)
class _Feature:
    """One feature's table: a row for each interval or code, then for unlisted codes, then for missing values."""

    position: int
    thresholds: Floats | None
    table: Bits
    ranked: tuple[float, ...]
    words: tuple[int, ...]

    def places(self, values: Floats) -> npt.NDArray[np.intp]:
        """(n,) rows of the table for n values."""
        missing = np.isnan(values)
        if self.thresholds is not None:  # NaN sorts behind all thresholds; the next row is its own
            rows = np.searchsorted(self.thresholds, values)
            rows += missing
            return rows
        most = len(self.table) - 2
        codes = np.where((values >= 0) & (values < most), values, most).astype(np.intp)
        codes[missing] = most + 1
        return codes


@dataclass(frozen=True, slots=True)
class _Step:
    """One look-up: in one feature's table, or in a joint table with a row for each pair of two tables' rows."""

    table: Bits
    first: _Feature
    second: _Feature | None = None

    def take(self, rows: Floats, out: Bits) -> None:
        """The words (n, trees) of (n, p) rows of values."""
        places = self.first.places(rows[:, self.first.position])
        if self.second is not None:
            places *= len(self.second.table)
            places += self.second.places(rows[:, self.second.position])
        np.take(self.table, places, axis=0, out=out, mode="clip")


@dataclass(frozen=True, slots=True)
class Bitvectors:
    """Trees as tables; safe to use from several threads.

    Attributes:
        features: the tables.
        width: bits of a word, one word a tree.
        base: (k,) start values of the outputs.
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
        """Most rows that are evaluated together."""
        return max(BLOCK * 8 // (self.width * len(self._offsets)), 1)

    def rows(self, matrix: Floats) -> Floats:
        """(n, p) rows, best stored by columns, to (n, k) outputs."""
        out = np.empty((len(matrix), len(self.base)))
        trees = len(self._offsets)
        size = -(-len(matrix) // max(-(-len(matrix) // self.block), 1)) or 1  # blocks of one size, none larger
        for start in range(0, len(matrix), size):
            part = matrix[start : start + size]
            words = np.empty((len(part), trees), dtype=_word(self.width))
            scratch = np.empty_like(words)
            if self._steps:
                self._steps[0].take(part, words)
            else:
                words.fill(np.iinfo(words.dtype).max)
            for step in self._steps[1:]:
                step.take(part, scratch)
                np.bitwise_and(words, scratch, out=words)
            np.negative(words, out=scratch)
            np.bitwise_and(words, scratch, out=words)
            out[start : start + size] = self._sum_outputs(self._leaf_values(words))
        return out

    def row(self, values: Sequence[float]) -> list[float]:
        """One row (p,) to k outputs. The words of all trees are one long integer, which is faster than an array."""
        remaining = self._all
        for feature in self.features:
            value, words = values[feature.position], feature.words
            if value != value:  # noqa: PLR0124 - the definition of NaN
                remaining &= words[-1]
            elif feature.ranked:
                remaining &= words[bisect_left(feature.ranked, value)]
            else:
                remaining &= words[int(value) if 0 <= value < len(words) - 2 else -2]
        # keeps the lowest bit of each word; no word is 0, so nothing is carried into the next word
        remaining &= (remaining ^ self._all) + self._ones
        size = len(self._offsets) * self.width // 8
        lowest = np.frombuffer(remaining.to_bytes(size, "little"), dtype=_little(self.width))
        leaf_values = self._leaf_values(lowest)
        return [
            start + float(np.add.reduce(leaf_values[part])) for start, part in zip(self.base, self._slices, strict=True)
        ]

    def _leaf_values(self, lowest: Bits) -> Floats:
        """The values of the leaves, (..., trees), from words with one bit set."""
        shift, _, whole, real = LONG_EXPONENT if self.width == 64 else EXPONENT
        places = lowest.astype(real).view(whole)
        places >>= shift
        places += self._offsets
        return self._leaves.take(places)

    def _sum_outputs(self, leaf_values: Floats) -> Floats:
        sums = [start + leaf_values[:, part].sum(axis=1) for start, part in zip(self.base, self._slices, strict=True)]
        return np.column_stack(sums)


def bitvectors(trees: Sequence[Tree], base: Sequence[float], *, inclusive: bool = True) -> Bitvectors | None:
    """Turn trees into tables of bits.

    Args:
        trees: at least one.
        base: (k,) start values of the outputs.
        inclusive: a number that equals the threshold goes left; else it goes right.

    Returns:
        None where a tree has more than 64 leaves, a feature is tested as a number and as a category, or the tables
        would be too large.
    """
    leaves = max(int((tree.left < 0).sum()) for tree in trees)
    if leaves > MOST_LEAVES:
        return None
    width = next(bits for bits in (16, 32, 64) if leaves <= bits)
    sorted_trees = sorted(trees, key=lambda tree: tree.output)
    values = np.zeros((len(sorted_trees), width))
    tests: dict[int, list[_Test]] = {}
    for number, tree in enumerate(sorted_trees):
        for test in _tests(tree, number, width, values[number]):
            tests.setdefault(test.feature, []).append(test)
    if sum(map(len, tests.values())) * len(sorted_trees) * width // 8 > MOST_BYTES:
        return None
    if any(len({test.categories is None for test in feature_tests}) > 1 for feature_tests in tests.values()):
        return None
    features = tuple(
        _make_feature(position, tests[position], len(sorted_trees), width, inclusive=inclusive)
        for position in sorted(tests)
    )
    counts = [sum(tree.output == k for tree in sorted_trees) for k in range(len(base))]
    ends = np.cumsum([0, *counts]).tolist()
    _, bias, whole, _ = LONG_EXPONENT if width == 64 else EXPONENT
    offsets = np.arange(len(sorted_trees), dtype=whole) * width - bias
    ones = sum(1 << (width * number) for number in range(len(sorted_trees)))
    return Bitvectors(
        features,
        width,
        tuple(float(start) for start in base),
        _plan_steps(features),
        values.ravel(),
        offsets,
        tuple(slice(start, end) for start, end in pairwise(ends)),
        ones,
        (1 << (width * len(sorted_trees))) - 1,
    )


def _tests(tree: Tree, number: int, width: int, values: Floats) -> list[_Test]:
    """A tree's tests. Also writes its leaves' values into `values`, from left to right."""
    tests: list[_Test] = []
    whole = (1 << width) - 1

    def walk(node: int, first: int) -> int:
        if tree.left[node] < 0:
            values[first] = tree.value[node]
            return first + 1
        middle = walk(int(tree.left[node]), first)
        listed = tree.categories.get(node)
        below = ((1 << middle) - 1) ^ ((1 << first) - 1)
        tests.append(
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
    return tests


def _make_feature(position: int, tests: Sequence[_Test], trees: int, width: int, *, inclusive: bool) -> _Feature:
    thresholds: Floats | None = None
    if tests[0].categories is None:
        thresholds = np.unique([test.threshold for test in tests])
        if not inclusive:  # x < t and x <= the float below t are one test
            thresholds = np.nextafter(thresholds, -math.inf)
        table = _number_table(tests, np.unique([test.threshold for test in tests]), trees, width)
    else:
        table = _code_table(tests, trees, width)
    for test in tests:
        if not test.missing_passes:
            table[-1, test.tree] &= test.kept
    little_endian = table.astype(_little(width))
    words = tuple(int.from_bytes(row.tobytes(), "little") for row in little_endian)
    return _Feature(position, thresholds, table, () if thresholds is None else tuple(thresholds.tolist()), words)


def _number_table(tests: Sequence[_Test], thresholds: Floats, trees: int, width: int) -> Bits:
    """Rows by the number of thresholds below a value, and a last one for missing values."""
    table = _all_bits(len(thresholds) + 2, trees, width)
    for test in tests:
        table[int(np.searchsorted(thresholds, test.threshold)) + 1, test.tree] &= test.kept
    table[:-1] = np.bitwise_and.accumulate(table[:-1], axis=0)
    return table


def _code_table(tests: Sequence[_Test], trees: int, width: int) -> Bits:
    """Rows by code, then one for all that no test lists, and a last one for missing values."""
    codes = 1 + max((max(test.categories) for test in tests if test.categories), default=-1)
    table = _all_bits(codes + 2, trees, width)
    for test in tests:
        for code in range(codes + 1):
            if not test.passes(code):
                table[code, test.tree] &= test.kept
    return table


def _all_bits(rows: int, trees: int, width: int) -> Bits:
    return np.full((rows, trees), np.iinfo(_word(width)).max, dtype=_word(width))


def _plan_steps(features: Sequence[_Feature]) -> tuple[_Step, ...]:
    """The look-ups of all features: small tables joined with large ones."""
    remaining = sorted(features, key=lambda feature: len(feature.table))
    steps: list[_Step] = []
    while remaining:
        first = remaining.pop(0)
        partners = [second for second in remaining if len(second.table) * first.table.nbytes <= PAIRED]
        if not partners:
            steps.append(_Step(first.table, first))
            continue
        second = partners[-1]
        remaining = [feature for feature in remaining if feature is not second]
        pairs = first.table[:, None] & second.table[None]
        steps.append(_Step(pairs.reshape(-1, first.table.shape[1]), first, second))
    return tuple(steps)


@cache
def _word(width: int) -> np.dtype[Any]:
    return np.dtype(f"uint{width}")


@cache
def _little(width: int) -> np.dtype[Any]:
    return _word(width).newbyteorder("<")
