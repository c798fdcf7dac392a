"""One self-contained page about a window: performance estimated and realised, its series so far, drift, quality.

Names and words come from data: the template escapes them, and all that is drawn has limits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from afterfit.loop.observation import Observation
from afterfit.pages.drift import by_weight, changed, shown
from afterfit.pages.template import template
from afterfit.performance.metrics import Measured

WIDE, HIGH, LEFT, TOP, BOTTOM = 520, 210, 52, 10, 172
MOST_CHARTS, MOST_WINDOWS, MOST_NAMES = 8, 240, 8
MOST_CHANGES, MOST_ISSUES, MOST_SLICES = 20, 30, 60
TICKS = 4
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Step:
    """One window of the series: its name, and its metrics as MLflow has them."""

    name: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A metric over windows, in the picture's own units."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    promise: tuple[float, float] | None
    bands: tuple[str, ...]
    guesses: tuple[str, ...]
    reals: tuple[str, ...]
    whiskers: tuple[tuple[float, float, float], ...]
    guessdots: tuple[tuple[float, float], ...]
    realdots: tuple[tuple[float, float], ...]
    drifts: tuple[float, ...]
    names: tuple[tuple[float, str], ...]
    wide: int = WIDE
    high: int = HIGH
    left: int = LEFT
    bottom: int = BOTTOM


def render(
    title: str, seen: Observation, series: Sequence[Step], lines: Sequence[str], notes: Sequence[str] = ()
) -> str:
    """The page as HTML.

    Args:
        title: of the page.
        seen: the window that it is about.
        series: all windows so far, oldest first.
        lines: what is to be said first.
        notes: what else a reader should know.
    """
    names = list(seen.estimated or seen.realised)
    shown_series = series[-MOST_WINDOWS:]
    charts = [chart(name, shown_series, seen.promise.get(name)) for name in names[:MOST_CHARTS]]
    several = any(step.metrics.get("drift_alarm") for step in shown_series)
    return template("monitor.html").render(
        title=shown(title, 200),
        lines=[shown(line, 400) for line in lines],
        notes=[shown(note, 400) for note in notes],
        window=shown(seen.name, 80),
        metrics=[_row(seen, name) for name in names],
        known=None if seen.known_up_to is None else f"{seen.known_up_to:%Y-%m-%d %H:%M}",
        calibration=None if seen.calibration is None else f"{seen.calibration:.3f}",
        charts=[one for one in charts if one is not None] if len(shown_series) > 1 else [],
        several=several,
        drifted=seen.drift is not None and seen.drift.alarm,
        drift=drift_words(seen),
        changes=_changes(seen),
        quality=quality_words(seen),
        issues=_issues(seen),
        service=service_words(seen),
        primary=names[0] if names else "",
        slices=[
            {"column": shown(s.column), "value": shown(s.value), "measured": said(s.measured), "n": f"{s.measured.n:,}"}
            for s in seen.slices[:MOST_SLICES]
        ],
    )


# Words.


def said(one: Measured | None) -> str:
    """A value with its interval."""
    if one is None or one.value is None:
        return NOTHING
    if one.low is None or one.high is None or not isfinite(one.low) or not isfinite(one.high):
        return number(one.value)
    return f"{number(one.value)} [{number(one.low)}, {number(one.high)}]"


def number(value: float) -> str:
    """Three decimals for shares, four digits for anything larger."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def drift_words(seen: Observation) -> str:
    """Drift in one sentence."""
    if seen.drift is None:
        return "Drift cannot be told: the version carries no profile of its training window, or no row came."
    alarms = sum(column.alarm for column in seen.drift.columns.values())
    if not seen.drift.alarm:
        return f"No drift that matters in {len(seen.drift.columns)} columns."
    return f"Drift: {alarms} of {len(seen.drift.columns)} columns changed since training."


def quality_words(seen: Observation) -> str:
    """Rows and what the contract said, in one sentence."""
    quality = seen.quality
    text = f"{quality.rows:,} rows came, {quality.refused:,} were refused"
    if quality.doubled:
        text += f", {quality.doubled:,} have a key that had come before"
    if quality.unknown:
        text += f"; columns that the contract does not know: {shown(', '.join(quality.unknown), 200)}"
    return f"{text}."


def service_words(seen: Observation) -> str:
    """Rate, errors and latency, in one sentence; empty where nobody measured them."""
    one = seen.service
    if one is None:
        return ""
    late = (
        ""
        if one.p50 is None or one.p99 is None
        else f", {1000 * one.p50:.3g} ms at the median, {1000 * one.p99:.3g} ms at 99 %"
    )
    rate = f"{one.per_second:,.0f}" if one.per_second >= 10 else f"{one.per_second:.2g}"
    return f"{one.answers:,} answers, {rate} a second, {one.errors:,} with an error{late}."


def _row(seen: Observation, name: str) -> dict[str, str]:
    promise, estimated, realised = seen.promise.get(name), seen.estimated.get(name), seen.realised.get(name)
    reasons = [one.reason for one in (estimated, realised) if one is not None and one.reason]
    return {
        "name": shown(name),
        "promise": NOTHING if not promise else said(_promised(name, promise)),
        "estimated": said(estimated),
        "realised": said(realised),
        "n": NOTHING if realised is None else f"{realised.n:,}",
        "reason": " ".join(dict.fromkeys(reasons)),
    }


def _promised(name: str, promise: Mapping[str, float | None]) -> Measured:
    return Measured(name, promise.get("mean"), promise.get("low"), promise.get("high"))


def _changes(seen: Observation) -> list[str]:
    if seen.drift is None:
        return []
    columns = changed(seen.drift)
    words = [shown(next(f for f in by_weight(column) if f.alarm).words, 240) for column in columns]
    more = [f"and {len(words) - MOST_CHANGES:,} more columns"] if len(words) > MOST_CHANGES else []
    return [*words[:MOST_CHANGES], *more]


def _issues(seen: Observation) -> list[tuple[str, str, str]]:
    quality = seen.quality
    rows = [(c, f"error: {code}", n) for (c, code), n in quality.errors.items()]
    rows += [(c, code, n) for (c, code), n in quality.warnings.items()]
    ranked = sorted(rows, key=lambda row: (not row[1].startswith("error"), -row[2]))[:MOST_ISSUES]
    return [(shown(c), code.replace("_", " "), f"{n:,}") for c, code, n in ranked]


# Pictures.


def chart(name: str, series: Sequence[Step], promise: Mapping[str, float | None] | None) -> Chart | None:
    """A metric over the windows; None where no window has it."""
    told = {key: [step.metrics.get(f"{key[0]}_{name}{key[1]}") for step in series] for key in _KEYS}
    ends = [] if not promise else [promise.get("low"), promise.get("high")]
    known = [value for values in told.values() for value in values if value is not None]
    if not known:
        return None
    known += [end for end in ends if end is not None]
    low, high = min(known), max(known)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    low, high = low - room, high + room

    def y(value: float) -> float:
        return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)

    places = np.linspace(LEFT + 24, WIDE - 24, len(series)).round(1).tolist()
    band = None
    if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
        band = (y(ends[1]), round(y(ends[0]) - y(ends[1]), 1))
    spaced = max(1, -(-len(series) // MOST_NAMES))
    return Chart(
        shown(name),
        tuple((y(tick), number(tick)) for tick in np.linspace(low + room, high - room, TICKS).tolist()),
        band,
        tuple(_bands(places, told["estimated", "_low"], told["estimated", "_high"], y)),
        tuple(_lines(places, told["estimated", ""], y)),
        tuple(_lines(places, told["realised", ""], y)),
        tuple(_whiskers(places, told["realised", "_low"], told["realised", "_high"], y)),
        tuple((x, y(v)) for x, v in zip(places, told["estimated", ""], strict=True) if v is not None),
        tuple((x, y(v)) for x, v in zip(places, told["realised", ""], strict=True) if v is not None),
        tuple(x for x, step in zip(places, series, strict=True) if step.metrics.get("drift_alarm")),
        tuple(
            (x, shown(step.name.split(" to ")[0], 16)) for x, step in list(zip(places, series, strict=True))[::spaced]
        ),
    )


_KEYS = [(kind, end) for kind in ("estimated", "realised") for end in ("", "_low", "_high")]
Values = Sequence[float | None]


def _lines(places: Sequence[float], values: Values, y: Any) -> list[str]:
    """Lines through the windows that have a value, broken where one has none."""
    lines: list[list[str]] = [[]]
    for x, value in zip(places, values, strict=True):
        if value is None:
            lines.append([])
        else:
            lines[-1].append(f"{x},{y(value)}")
    return [" ".join(line) for line in lines if len(line) > 1]


def _bands(places: Sequence[float], lows: Values, highs: Values, y: Any) -> list[str]:
    rows = list(zip(places, lows, highs, strict=True))
    return [
        f"{x},{y(low)} {x},{y(high)} {x2},{y(high2)} {x2},{y(low2)}"
        for (x, low, high), (x2, low2, high2) in pairwise(rows)
        if None not in {low, high, low2, high2}
    ]


def _whiskers(places: Sequence[float], lows: Values, highs: Values, y: Any) -> list[tuple[float, float, float]]:
    rows = zip(places, lows, highs, strict=True)
    return [(x, y(low), y(high)) for x, low, high in rows if low is not None and high is not None]
