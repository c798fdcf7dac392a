"""Blocks of dependent rows, the bootstrap over blocks, and the interval that it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from afterfit.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from afterfit.performance.metrics import Weighted
    from afterfit.performance.predictions import FloatArray

IntArray = npt.NDArray[np.intp]

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
FEWEST_BLOCKS = 5  # effective ones; with fewer, the spread between blocks is too uncertain for any interval
LAGS = 4  # a block of time must not correlate with this many blocks after it
MOST_BLOCKS = 1_000  # of time; more of them cost time and add little
_CHUNK = 2**18  # weights in memory at once for each model (2 MB): fits the cache, and bounds memory
_TAIL = 10  # with fewer resamples than this beyond an end, the end is computed from their standard deviation


@dataclass(frozen=True, slots=True)
class Blocks:
    """Which rows go together.

    Attributes:
        ids: (n,) block of each row, 0..count-1, in order of time where the blocks are of time.
        count: number of blocks.
        length: how long a block is, as text, where the blocks are of time; else None.
        autocorrelation: the block sums' autocorrelations at lags 1 to 4, added up, where values were given; else nan.
    """

    ids: IntArray
    count: int
    length: str | None = None
    autocorrelation: float = float("nan")

    @property
    def inflation(self) -> float:
        """Factor by which autocorrelation of the blocks makes a variance larger than independence would; at least 1.

        1 + 2 times the autocorrelations (Newey and West 1987, unweighted). Longer blocks would show the same, but the
        rows do not cover enough time for them.
        """
        return 1.0 + 2.0 * max(0.0, self.autocorrelation) if np.isfinite(self.autocorrelation) else 1.0

    def effective(self, groups: npt.NDArray[Any] | None = None) -> float:
        """Number of equal blocks with as much information as these: (sum of sizes)² / sum of squared sizes (Kish 1965).

        With `groups`, (n,) class indices, the smallest such number over the classes that occur: an interval of a
        metric on 10 late flights rests on at most 10 blocks, however many flights were on time. Divided by
        `inflation`.
        """
        classes = np.zeros(len(self.ids)) if groups is None else groups
        sizes = [np.bincount(self.ids[classes == label]).astype(np.float64) for label in np.unique(classes)]
        return float(min(((size.sum() ** 2) / (size**2).sum() for size in sizes), default=0.0)) / self.inflation

    def take(self, rows: npt.NDArray[Any]) -> Blocks:
        """The blocks of some rows, numbered anew."""
        labels, ids = np.unique(self.ids[rows], return_inverse=True)
        return Blocks(ids.astype(np.intp), len(labels), self.length, self.autocorrelation)


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
    ids, distinct = pd.factorize(values, sort=False)
    return Blocks(ids.astype(np.intp), len(distinct))


def is_times(values: Any) -> bool:
    """Whether these are points in time (numpy, pandas or Python ones), not labels."""
    array = np.asarray(values)
    if array.dtype.kind == "O" and len(array):
        return hasattr(array[0], "timestamp")
    return array.dtype.kind == "M"


def time_blocks(
    times: npt.ArrayLike, values: npt.ArrayLike | None = None, *, fewest: int = 10, most: int = MOST_BLOCKS
) -> Blocks:
    """Cut rows into blocks of time that are long enough to be nearly uncorrelated with the blocks after them.

    The rule takes the shortest of the allowed lengths at which block sums are not autocorrelated:

    - Allowed are the lengths in `LENGTHS` that leave between `fewest` and `most` non-empty blocks.
    - A block sum is the sum of `values` (less their mean) in a block. Its autocorrelations at lags 1 to 4, less their
      bias, must add up to 0 or less.
    - Four lags, because a lasting disturbance leaves many small correlations, which together make an interval too
      narrow.
    - 0, because too long blocks are the cheaper mistake: rows without any autocorrelation get longer blocks than they
      need every second time, and intervals that are a few per cent wider.
    - Where no allowed length fulfils this, and without `values`, it is the longest one. The correlation that is left
      widens the interval (`Blocks.inflation`).
    - Where every length leaves fewer blocks than `fewest`, it is the shortest of all; where every length leaves more
      than `most`, the longest of all.

    Blocks start at multiples of their length since 1970 (UTC).

    A disturbance that lasts longer than about a tenth of the time that the rows cover cannot be measured from these
    rows: intervals are then too narrow under any cut.

    Args:
        times: (n,) points in time; without a zone they are taken as they are, with one they become UTC.
        values: (n,) what must be uncorrelated between blocks: each row's influence on the metric's difference, or its
            loss.
        fewest: blocks that must remain, because an interval needs some.
        most: more blocks than this are not needed.

    Raises:
        DataError: rows without a time, or values of another length.
    """
    seconds = _seconds(times)
    if len(seconds) == 0:
        return Blocks(np.empty(0, dtype=np.intp), 0)
    cuts = _cuts(seconds)
    long_enough = [blocks for blocks in cuts if blocks.count >= fewest] or cuts[:1]
    allowed = [blocks for blocks in long_enough if blocks.count <= most] or long_enough[-1:]
    if values is None:
        return allowed[-1]
    numbers = np.asarray(values, dtype=np.float64)
    _same_length(len(numbers), len(seconds))
    for blocks in allowed:
        measured = replace(blocks, autocorrelation=_autocorrelation(blocks, numbers))
        if measured.autocorrelation <= 0.0:
            break
    return measured


def resolve(given: Any, n: int, prepare: Callable[[Blocks], Weighted]) -> Blocks:
    """The blocks of n rows from what a caller may give: None, labels, times, or blocks ready made.

    Times are cut by the rule of `time_blocks`. Its `values` are the influence of each of the shortest blocks (at most
    1,000) on the value in question: a jackknife of the statistic that `prepare` returns for some blocks.
    """
    if isinstance(given, Blocks):
        _same_length(len(given.ids), n)
        return given
    if given is None or not is_times(given):
        return label_blocks(given, n)
    seconds = _seconds(given)
    _same_length(len(seconds), n)
    cuts = _cuts(seconds)
    finest = next((blocks for blocks in cuts if blocks.count <= MOST_BLOCKS), cuts[-1])
    influence = jackknife(prepare(finest), finest) / np.bincount(finest.ids, minlength=finest.count)
    return time_blocks(given, influence[finest.ids])


def _seconds(times: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(times)
    if array.dtype.kind == "O":
        array = pd.to_datetime(pd.Series(array), utc=True).dt.tz_localize(None).to_numpy()
    stamps = array.astype("datetime64[s]")
    missing = int(np.isnat(stamps).sum())
    if missing:
        raise DataError(f"Every row needs a time; {missing} of {len(stamps)} have none.")
    return stamps.astype(np.int64)


def _cuts(seconds: npt.NDArray[np.int64]) -> list[Blocks]:
    """The rows cut at each length, shortest first; of lengths with equally many blocks, only the longest."""
    by_count: dict[int, Blocks] = {}
    for name, length in LENGTHS.items():
        starts, ids = np.unique(seconds // length, return_inverse=True)
        by_count[len(starts)] = Blocks(ids.astype(np.intp), len(starts), name)
    return list(by_count.values())


def _autocorrelation(blocks: Blocks, values: FloatArray) -> float:
    """The autocorrelations of block sums at lags 1 to 4, added up.

    Each is -1/blocks on average where blocks are independent, because their mean is subtracted; this bias is removed.
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
        draws = min(size, resamples - start)
        drawn = random.integers(0, count, size=(draws, count))
        drawn += np.arange(draws)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count).astype(np.float64)


def bootstrap(statistics: Sequence[Weighted], blocks: Blocks, resamples: int, seed: int) -> FloatArray:
    """Each statistic under the same resamples of blocks: (statistics, resamples)."""
    rows = len(blocks.ids)
    parts = [
        np.stack([statistic(weights) for statistic in statistics])
        for weights in block_weights(blocks.count, rows, resamples, seed)
    ]
    return np.concatenate(parts, axis=1)


def jackknife(statistic: Weighted, blocks: Blocks) -> FloatArray:
    """(count,) influence of each block: the statistic of all blocks, less the statistic without that one."""
    whole = statistic(np.ones((1, blocks.count)))[0]
    size = max(1, _CHUNK // max(blocks.count, len(blocks.ids), 1))
    parts = []
    for start in range(0, blocks.count, size):
        left_out = np.arange(start, min(start + size, blocks.count))
        weights = np.ones((len(left_out), blocks.count))
        weights[np.arange(len(left_out)), left_out] = 0.0
        parts.append(statistic(weights))
    influence: FloatArray = np.nan_to_num(whole - np.concatenate(parts))
    return influence


def interval_of(
    value: float, draws: FloatArray, effective: float, confidence: float, inflation: float = 1.0
) -> tuple[float, float]:
    """The interval of a value from its bootstrap draws: percentiles, pushed outwards where blocks are few.

    The percentiles are those that make the interval of a mean as wide as Student's t with `effective` - 1 degrees of
    freedom would ("expanded percentile", Hesterberg 2015); plain percentiles are too narrow by 10 % at 10 blocks. An
    end with fewer than ten draws beyond it is too uncertain as a percentile; it is the value plus or minus the same
    multiple of the draws' standard deviation instead.

    Assumes that blocks are independent, or correlated as `inflation` says. Undefined draws (a resample with one class
    only) are left out.

    Args:
        value: the metric, or the difference, over the rows as they are.
        draws: (r,) the same under each resample.
        effective: `Blocks.effective`.
        confidence: share of such intervals that contain the true value, 0.95 for instance.
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


def _same_length(entries: int, n: int) -> None:
    if entries != n:
        raise DataError(f"Blocks need one entry a row; there are {n} rows and {entries} entries.")
