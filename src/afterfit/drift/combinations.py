"""Combinations of two categories that a reference never had: an airline at an airport that it does not serve.

A row that was put in the wrong category often makes such a combination, though the category's own share hardly moves.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterfit.drift.binning import Bins, CategoryBins, rows_met_once

Array = np.ndarray[Any, Any]

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
