"""The geometry of a drift page's pictures: the two distributions of a column, and a heat map of columns by windows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterfit.drift.binning import Bins, CategoryBins, NumberBins
from afterfit.drift.profiles import Counts

Array = np.ndarray[Any, Any]
WIDE, HIGH = 240.0, 84.0
"""Size of the picture of a numeric column, in the units of its own view."""
SLOT, GAP = 9.0, 5.0
"""Width of the bar at either end for values outside the range, and its distance from the other bars."""
BARS = 30
MOST_NAMES = 7
ROW = 15.0
NAME_SPACE, SHARE_SPACE = 74.0, 92.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a number's picture: where it stands, and how high it is in the reference and in the window."""

    x: float
    wide: float
    before: float
    now: float


@dataclass(frozen=True, slots=True)
class NumberPicture:
    """Shares of rows over the range of a numeric column.

    `line` is the outline of the window's bars; `low` and `high` are the ends of the range in words. `outside` holds
    bars for values below and above the range, cut at the picture's height.
    """

    bars: tuple[Bar, ...]
    outside: tuple[Bar, ...]
    line: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class NameRow:
    """One category: its shares in reference and window, as lengths of bars and in words."""

    name: str
    y: float
    before: float
    now: float
    words: str
    new: bool


@dataclass(frozen=True, slots=True)
class NamePicture:
    """The categories with the largest shares, and those that changed most."""

    rows: tuple[NameRow, ...]
    high: float


@dataclass(frozen=True, slots=True)
class HeatCell:
    """One alarm of a column in a window: where, how strong from 0 to 1, and in words."""

    x: float
    y: float
    strength: float
    words: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Columns (down) by windows (across)."""

    cells: tuple[HeatCell, ...]
    names: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    side: float
    left: float
    top: float
    wide: float
    high: float
    left_out: int


def picture(bins: Bins, reference: Counts, window: Counts) -> NumberPicture | NamePicture | None:
    """A column's two distributions; None where there is nothing to draw."""
    if not reference.present or not window.present:
        return None
    if isinstance(bins, NumberBins):
        return _of_number(bins, _shares(reference), _shares(window))
    if isinstance(bins, CategoryBins):
        return _of_names(bins, _shares(reference), _shares(window))
    return None


def percent(share: float) -> str:
    """A share in per cent, as short as possible."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.1f} %" if value >= 0.095 else "< 0.1 %"


def mean_of(bins: Bins, counts: Counts) -> float | None:
    """The mean of a numeric column whose bins are on a linear scale; None otherwise."""
    if not isinstance(bins, NumberBins) or bins.curve or not counts.present or not bins.scale:
        return None
    return bins.value_of(counts.first / counts.present)


def heat_map(
    columns: Sequence[str], windows: Sequence[str], alarms: Mapping[tuple[int, int], tuple[float, str]], most: int
) -> HeatMap:
    """Lay out alarms.

    Args:
        columns: the columns' names, those to be shown first.
        windows: the windows' names, in order.
        alarms: (column, window) to (how many times the smallest effect of interest, words).
        most: the largest number of cells; with many windows fewer columns are shown.
    """
    rows = max(min(len(columns), 40, most // max(len(windows), 1)), min(len(columns), 5))
    side = float(np.clip(round(820 / max(len(windows), 1), 1), 1.0, 44.0))
    high, left, top = 18.0, 150.0, 66.0
    cells = tuple(
        HeatCell(round(left + w * side, 1), top + c * high, round(min(math.log2(max(weight, 1.0)) / 6, 1.0), 2), words)
        for (c, w), (weight, words) in alarms.items()
        if c < rows
    )
    step = max(math.ceil(15 / side), 1)
    ticks = tuple((round(left + (i + 0.5) * side, 1), windows[i]) for i in range(0, len(windows), step))
    names = tuple((top + i * high, name) for i, name in enumerate(columns[:rows]))
    wide = round(left + len(windows) * side + 60, 1)
    return HeatMap(cells, names, ticks, side, left, top, wide, top + rows * high + 4, len(columns) - rows)


def _shares(counts: Counts) -> Array:
    """(levels,) shares of the rows that have a value; 0 for missing."""
    shares = counts.levels / max(counts.present, 1)
    shares[0] = 0.0
    return shares


def _of_number(bins: NumberBins, before: Array, now: Array) -> NumberPicture | None:
    edges = np.array(bins.starts[1:], dtype=float)  # levels 2 to the last but one lie between these
    if len(edges) < 2:
        return None
    low, high = _range(edges, before[2:-1], now[2:-1])
    count = int(max(min(BARS, round(high - low)), 1))
    cuts = np.linspace(low, high, count + 1)
    inside = [_spread(edges, shares[2:-1], cuts) for shares in (before, now)]
    below = [shares[1] + _spread(edges, shares[2:-1], np.array([edges[0], low]))[0] for shares in (before, now)]
    above = [max(1 - inside[i].sum() - below[i], 0.0) for i in (0, 1)]
    ends = [max(pair) > 0.002 for pair in (below, above)]
    start, stop = (SLOT + GAP if ends[0] else 0.0), WIDE - (SLOT + GAP if ends[1] else 0.0)
    wide = (stop - start) / count
    scale = (HIGH - 4) / (max(inside[0].max(), inside[1].max()) or 1.0)
    bars = tuple(_bar(start + i * wide, wide, inside[0][i] * scale, inside[1][i] * scale) for i in range(count))
    slots = [(0.0, below, ends[0]), (WIDE - SLOT, above, ends[1])]
    outside = tuple(_bar(x, SLOT, pair[0] * scale, pair[1] * scale) for x, pair, drawn in slots if drawn)
    values = [bins.value_of(low - 0.5), bins.value_of(high - 0.5)]
    labels = [_format_end(value, abs(values[1] - values[0])) for value in values]
    if ends[0]:
        labels[0] += f" · below {percent(below[0])} → {percent(below[1])}"
    if ends[1]:
        labels[1] = f"above {percent(above[0])} → {percent(above[1])} · {labels[1]}"
    return NumberPicture(bars, outside, _outline(bars), *labels)


def _bar(x: float, wide: float, before: float, now: float) -> Bar:
    return Bar(round(x, 1), round(wide, 1), round(min(before, HIGH), 1), round(min(now, HIGH), 1))


def _format_end(value: float, span: float) -> str:
    """A value to about a hundredth of the span that it belongs to."""
    if not (math.isfinite(value) and math.isfinite(span)) or span <= 0:
        return f"{value:.4g}"
    digits = 2 - math.floor(math.log10(span))
    return f"{round(value, digits) + 0.0:.6g}"


def _range(edges: Array, before: Array, now: Array) -> tuple[float, float]:
    """The drawn range, in cells: without the outermost 0.5 % of the reference and 1 % of the window at either end."""
    lows, highs = [], []
    for shares, tail in ((before, 0.005), (now, 0.01)):
        if shares.sum() <= 0:
            continue
        climb = np.cumsum(shares) / shares.sum()
        lows.append(edges[int(np.searchsorted(climb, tail, side="right"))])
        highs.append(edges[int(np.searchsorted(climb, 1 - tail, side="left")) + 1])
    if not lows:
        return float(edges[0]), float(edges[-1])
    return float(min(lows)), float(max(highs))


def _spread(edges: Array, shares: Array, cuts: Array) -> Array:
    """(bars,) the share between each two cuts, where the share of a level is spread evenly over the level."""
    climb = np.concatenate([[0.0], np.cumsum(shares)])
    result: Array = np.diff(np.interp(cuts, edges, climb))
    return result


def _outline(bars: Sequence[Bar]) -> str:
    """The window's outline as the points of a line."""
    points = []
    for bar in bars:
        top = round(HIGH - bar.now, 1)
        points += [f"{bar.x:g},{top:g}", f"{round(bar.x + bar.wide, 1):g},{top:g}"]
    return " ".join(points)


def _of_names(bins: CategoryBins, before: Array, now: Array) -> NamePicture | None:
    levels = np.arange(3, bins.size)
    if not len(levels) and not now[1]:
        return None
    by_size = levels[np.argsort(-np.maximum(before, now)[levels], kind="stable")]
    by_change = levels[np.argsort(-np.abs(now - before)[levels], kind="stable")]
    chosen = list(dict.fromkeys([*by_size[:4].tolist(), *by_change[:3].tolist(), *by_size.tolist()]))
    chosen = chosen[: MOST_NAMES - (1 if now[1] else 0)]
    chosen.sort(key=lambda level: (-before[level], level))
    categories = [(bins.kept[level - 3], float(before[level]), float(now[level]), False) for level in chosen]
    if now[1]:
        categories.append(("never seen", float(before[1]), float(now[1]), True))
    tallest = max(max(b, n) for _, b, n, _ in categories) or 1.0
    scale = (WIDE - NAME_SPACE - SHARE_SPACE) / tallest
    rows = tuple(
        NameRow(name, i * ROW, round(b * scale, 1), round(n * scale, 1), f"{percent(b)} → {percent(n)}", is_new)
        for i, (name, b, n, is_new) in enumerate(categories)
    )
    return NamePicture(rows, len(rows) * ROW)
