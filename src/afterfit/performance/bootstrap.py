"""Blocks of rows that share their luck, the bootstrap over them, and the interval that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from afterfit.errors import DataError, SettingsError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Weighted = Callable[[FloatArray], FloatArray]

LENGTHS = {
    "1 minute": 60,
    "10 minutes": 600,
    "1 hour": 3_600,
    "3 hours": 10_800,
    "6 hours": 21_600,
    "12 hours": 43_200,
    "1 day": 86_400,
    "2 days": 172_800,
    "1 week": 604_800,
    "4 weeks": 2_419_200,
}
FEWEST_BLOCKS = 5  # effective; below, the spread between blocks is not known well enough for any interval
LAGS = 4  # neighbours that a block of time must not hang together with
MOST_BLOCKS = 1_000  # blocks of time that are worth having; more cost time and say little more
_CHUNK = 2**18  # weights held at once for each model (2 MB): fits the cache, and bounds memory
_TAIL = 10  # resamples beyond an end of the interval, below which the end is taken from their spread


@dataclass(frozen=True, slots=True)
class Blocks:
    """Which rows go together.

    Attributes:
        ids: (n,) block of each row, 0..count-1, in order of time where the blocks are of time.
        count: number of blocks.
        length: how long a block is, as text, where the blocks are of time; else None.
        autocorrelation: of the sums of blocks with the next four, added up, where values were given; else nan.
    """

    ids: IntArray
    count: int
    length: str | None = None
    autocorrelation: float = float("nan")

    @property
    def inflation(self) -> float:
        """How much larger a variance is than independent blocks would make it, by their autocorrelation; at least 1.

        1 + 2 times the autocorrelations (Newey and West 1987, unweighted): what longer blocks would show if there
        were time for them.
        """
        return 1.0 + 2.0 * max(0.0, self.autocorrelation) if np.isfinite(self.autocorrelation) else 1.0

    def effective(self, groups: npt.NDArray[Any] | None = None) -> float:
        """How many equal blocks say as much as these unequal ones: (sum of sizes)² / sum of squared sizes (Kish 1965).

        With `groups`, (n,) class indices, the smallest such number over the classes that occur: an interval of a
        metric on 10 late flights rests on at most 10 blocks, however many flights were on time. Divided by
        `inflation`.
        """
        kinds = np.zeros(len(self.ids)) if groups is None else groups
        sizes = [np.bincount(self.ids[kinds == kind]).astype(np.float64) for kind in np.unique(kinds)]
        return float(min(((size.sum() ** 2) / (size**2).sum() for size in sizes), default=0.0)) / self.inflation

    def take(self, rows: npt.NDArray[Any]) -> Blocks:
        """The blocks of some rows, numbered anew."""
        kept, ids = np.unique(self.ids[rows], return_inverse=True)
        return Blocks(ids.astype(np.intp), len(kept), self.length, self.autocorrelation)


def label_blocks(labels: npt.ArrayLike | None, n: int) -> Blocks:
    """Blocks from one label a row (n,), of any kind; None makes every row a block of its own.

    Raises:
        DataError: another length than n, or rows without a label.
    """
    if labels is None:
        return Blocks(np.arange(n, dtype=np.intp), n)
    values = pd.Series(np.asarray(labels))
    _same_length(len(values), n)
    if values.isna().any():
        raise DataError(f"Every row needs a block; {int(values.isna().sum())} of {n} have none.")
    ids, kept = pd.factorize(values, sort=False)
    return Blocks(ids.astype(np.intp), len(kept))


def is_times(values: Any) -> bool:
    """Whether these are points in time (numpy, pandas or Python ones), not labels."""
    array = np.asarray(values)
    if array.dtype.kind == "O" and len(array):
        return hasattr(array[0], "timestamp")
    return array.dtype.kind == "M"


def time_blocks(
    times: npt.ArrayLike, values: npt.ArrayLike | None = None, *, fewest: int = 10, most: int = MOST_BLOCKS
) -> Blocks:
    """Cut rows into blocks of time long enough that neighbouring blocks hardly know of each other.

    The rule: of the lengths in `LENGTHS` that leave between `fewest` and `most` non-empty blocks, the shortest at
    which the sums of `values` (less their mean) do not hang together with those of the next four blocks: the four
    autocorrelations, less their bias, add up to nothing or less. Four, because luck that lasts leaves many small
    correlations, which together make an interval too narrow. Nothing, because it is cheaper to be wrong on this side:
    rows without any autocorrelation end with longer blocks than they need every second time, and with intervals that
    are a few per cent wider. Where no length does, and without `values`, the longest of those lengths; what
    correlation is left there widens the interval (`Blocks.inflation`). Where every
    length leaves fewer than `fewest`, the shortest; where every one leaves more than `most`, the longest. Blocks start
    at multiples of their length since 1970 (UTC).

    What lasts for more than about a tenth of the time that the rows cover cannot be told from them: intervals are then
    too narrow under any cut.

    Args:
        times: (n,) points in time; without a zone they are taken as they are, with one they become UTC.
        values: (n,) what must not hang together between blocks: each row's influence on the metric's difference, or
            its loss.
        fewest: blocks that must remain, for an interval needs some.
        most: blocks that need not be exceeded.

    Raises:
        DataError: rows without a time, or values of another length.
    """
    seconds = _seconds(times)
    if len(seconds) == 0:
        return Blocks(np.empty(0, dtype=np.intp), 0)
    ladder = _ladder(seconds)
    few = [blocks for blocks in ladder if blocks.count >= fewest] or ladder[:1]
    rungs = [blocks for blocks in few if blocks.count <= most] or few[-1:]
    if values is None:
        return rungs[-1]
    numbers = np.asarray(values, dtype=np.float64)
    _same_length(len(numbers), len(seconds))
    for blocks in rungs:
        tried = replace(blocks, autocorrelation=_neighbours(blocks, numbers))
        if tried.autocorrelation <= 0.0:
            break
    return tried


def resolve(given: Any, n: int, side: Callable[[Blocks], Weighted]) -> Blocks:
    """The blocks of n rows from what a caller may give: None, labels, times, or blocks ready made.

    Times are cut by the rule of `time_blocks`, on the influence of each of the shortest blocks (at most 1,000) on the
    value in question: a jackknife of `side`, which prepares that value for blocks.
    """
    if isinstance(given, Blocks):
        _same_length(len(given.ids), n)
        return given
    if given is None or not is_times(given):
        return label_blocks(given, n)
    seconds = _seconds(given)
    _same_length(len(seconds), n)
    ladder = _ladder(seconds)
    fine = next((blocks for blocks in ladder if blocks.count <= MOST_BLOCKS), ladder[-1])
    influence = jackknife(side(fine), fine) / np.bincount(fine.ids, minlength=fine.count)
    return time_blocks(given, influence[fine.ids])


def _seconds(times: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(times)
    if array.dtype.kind == "O":
        array = pd.to_datetime(pd.Series(array), utc=True).dt.tz_localize(None).to_numpy()
    stamps = array.astype("datetime64[s]")
    lost = int(np.isnat(stamps).sum())
    if lost:
        raise DataError(f"Every row needs a time; {lost} of {len(stamps)} have none.")
    return stamps.astype(np.int64)


def _ladder(seconds: npt.NDArray[np.int64]) -> list[Blocks]:
    """The rows cut at each length, shortest first; of lengths that cut alike, the longest."""
    rungs: dict[int, Blocks] = {}
    for name, length in LENGTHS.items():
        kept, ids = np.unique(seconds // length, return_inverse=True)
        rungs[len(kept)] = Blocks(ids.astype(np.intp), len(kept), name)
    return list(rungs.values())


def _neighbours(blocks: Blocks, values: FloatArray) -> float:
    """Correlations of the sums of blocks with those of the next four, added up.

    Each is -1/blocks on average where blocks are independent, since their mean is taken off; that is put right.
    """
    sums = np.bincount(blocks.ids, weights=values - values.mean(), minlength=blocks.count)
    total = float(sums @ sums)
    if total == 0:
        return 0.0
    return sum(float(sums[lag:] @ sums[:-lag]) for lag in range(1, LAGS + 1)) / total + LAGS / blocks.count


def block_weights(count: int, rows: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each block is drawn in each resample (Efron 1979), in chunks (r, count) that bound memory.

    Args:
        count: blocks; each resample draws as many, with replacement.
        rows: rows that a chunk will be spread over.
        resamples: sets of weights in all.
        seed: the same seed gives the same weights.
    """
    random = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(count, rows, 1))
    for start in range(0, resamples, size):
        several = min(size, resamples - start)
        drawn = random.integers(0, count, size=(several, count))
        drawn += np.arange(several)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=several * count).reshape(several, count).astype(np.float64)


def bootstrap(sides: Sequence[Weighted], blocks: Blocks, resamples: int, seed: int) -> FloatArray:
    """Each side's metric under the same resamples of blocks: (sides, resamples)."""
    rows = len(blocks.ids)
    parts = [
        np.stack([side(weights) for side in sides]) for weights in block_weights(blocks.count, rows, resamples, seed)
    ]
    return np.concatenate(parts, axis=1)


def jackknife(side: Weighted, blocks: Blocks) -> FloatArray:
    """(count,) influence of each block: the metric with all blocks, less the metric without that one."""
    whole = side(np.ones((1, blocks.count)))[0]
    size = max(1, _CHUNK // max(blocks.count, len(blocks.ids), 1))
    parts = []
    for start in range(0, blocks.count, size):
        out = np.arange(start, min(start + size, blocks.count))
        weights = np.ones((len(out), blocks.count))
        weights[np.arange(len(out)), out] = 0.0
        parts.append(side(weights))
    influence: FloatArray = np.nan_to_num(whole - np.concatenate(parts))
    return influence


def interval_of(
    value: float, draws: FloatArray, effective: float, confidence: float, inflation: float = 1.0
) -> tuple[float, float]:
    """The interval of a value from its bootstrap draws: percentiles, pushed outwards where blocks are few.

    The percentiles are those that make the interval of a mean as wide as Student's t with `effective` - 1 degrees of
    freedom would ("expanded percentile", Hesterberg 2015); plain percentiles are too narrow by 10 % at 10 blocks. An
    end with fewer than ten draws beyond it is too rough to be read off, and is the value plus or minus the same
    multiple of the draws' standard deviation.

    Assumes that blocks are independent, or hang together as `inflation` says. Undefined draws (a resample with one
    class only) are left out.

    Args:
        value: the metric, or the difference, over the rows as they are.
        draws: (r,) the same under each resample.
        effective: `Blocks.effective`.
        confidence: share of such intervals that hold the truth, 0.95 for instance.
        inflation: `Blocks.inflation`; the draws are spread around the value by its square root.

    Returns:
        (low, high); infinite where there are fewer than `FEWEST_BLOCKS` effective blocks.
    """
    if not 0.0 < confidence < 1.0:
        raise SettingsError(f"Confidence must be between 0 and 1, such as 0.95; it is {confidence}.")
    draws = draws[np.isfinite(draws)]
    if effective < FEWEST_BLOCKS or len(draws) < 2 or not np.isfinite(value):
        return -np.inf, np.inf
    draws = value + np.sqrt(inflation) * (draws - value)
    stretch = np.sqrt(effective / (effective - 1.0))
    distance = float(stretch * stats.t.ppf((1.0 + confidence) / 2.0, effective - 1.0))
    tail = float(special.ndtr(-distance))
    if tail * len(draws) < _TAIL:
        reach = distance * float(draws.std(ddof=1))
        return value - reach, value + reach
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)


def _same_length(came: int, n: int) -> None:
    if came != n:
        raise DataError(f"Blocks need one entry a row; there are {n} rows and {came} entries.")
