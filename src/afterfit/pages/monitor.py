"""One self-contained HTML page about a window: estimated and realised performance, all windows so far, drift, quality.

Names and words come from data: the template escapes them, and the number of drawn things has limits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from afterfit.loop.observation import Observation
from afterfit.pages.drift import changed_columns, ranked_findings, safe_text
from afterfit.pages.template import template
from afterfit.performance.metrics import Measured

WIDE, HIGH, LEFT, TOP, BOTTOM = 520, 210, 52, 10, 172
MOST_CHARTS, MOST_WINDOWS, MOST_NAMES = 8, 240, 8
MOST_CHANGES, MOST_ISSUES, MOST_SLICES = 20, 30, 60
TICKS = 4
NOTHING = "\N{EN DASH}"
_KEYS = [(kind, end) for kind in ("estimated", "realised") for end in ("", "_low", "_high")]
Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One window of the series: its name, and its metrics by the names that they have in MLflow."""

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
    title: str, observation: Observation, series: Sequence[Step], lines: Sequence[str], notes: Sequence[str] = ()
) -> str:
    """The page as HTML.

    Args:
        title: of the page.
        observation: of the window that the page is about.
        series: all windows so far, oldest first.
        lines: the sentences at the top.
        notes: what else a reader should know.
    """
    names = list(observation.estimated or observation.realised)
    drawn_series = series[-MOST_WINDOWS:]
    charts = [chart(name, drawn_series, observation.promise.get(name)) for name in names[:MOST_CHARTS]]
    several = any(step.metrics.get("drift_alarm") for step in drawn_series)
    return template("monitor.html").render(
        title=safe_text(title, 200),
        lines=[safe_text(line, 400) for line in lines],
        notes=[safe_text(note, 400) for note in notes],
        window=safe_text(observation.name, 80),
        metrics=[_row(observation, name) for name in names],
        known=None if observation.known_up_to is None else f"{observation.known_up_to:%Y-%m-%d %H:%M}",
        calibration=None if observation.calibration is None else f"{observation.calibration:.3f}",
        charts=[chart_ for chart_ in charts if chart_ is not None] if len(drawn_series) > 1 else [],
        several=several,
        drifted=observation.drift is not None and observation.drift.alarm,
        drift=drift_words(observation),
        changes=_changes(observation),
        quality=quality_words(observation),
        issues=_issues(observation),
        service=service_words(observation),
        primary=names[0] if names else "",
        slices=[
            {
                "column": safe_text(slice_.column),
                "value": safe_text(slice_.value),
                "measured": value_words(slice_.measured),
                "n": f"{slice_.measured.n:,}",
            }
            for slice_ in observation.slices[:MOST_SLICES]
        ],
    )


def value_words(estimate: Measured | None) -> str:
    """A value with its interval, as text."""
    if estimate is None or estimate.value is None:
        return NOTHING
    if estimate.low is None or estimate.high is None or not isfinite(estimate.low) or not isfinite(estimate.high):
        return format_number(estimate.value)
    return f"{format_number(estimate.value)} [{format_number(estimate.low)}, {format_number(estimate.high)}]"


def format_number(value: float) -> str:
    """Three decimals for shares, four digits for anything larger."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def drift_words(observation: Observation) -> str:
    """Drift in one sentence."""
    if observation.drift is None:
        return "Drift is not known: the version carries no profile of its training window, or no row came."
    alarms = sum(column.alarm for column in observation.drift.columns.values())
    if not observation.drift.alarm:
        return f"No drift that matters in {len(observation.drift.columns)} columns."
    return f"Drift: {alarms} of {len(observation.drift.columns)} columns changed since training."


def quality_words(observation: Observation) -> str:
    """Number of rows, and problems that the contract found, in one sentence."""
    quality = observation.quality
    text = f"{quality.rows:,} rows came, {quality.refused:,} were refused"
    if quality.doubled:
        text += f", {quality.doubled:,} have a key that had come before"
    if quality.unknown:
        text += f"; columns that the contract does not know: {safe_text(', '.join(quality.unknown), 200)}"
    return f"{text}."


def service_words(observation: Observation) -> str:
    """Rate, errors and latency, in one sentence; empty where nobody measured them."""
    service = observation.service
    if service is None:
        return ""
    latency = (
        ""
        if service.p50 is None or service.p99 is None
        else f", {1000 * service.p50:.3g} ms at the median, {1000 * service.p99:.3g} ms at 99 %"
    )
    rate = f"{service.per_second:,.0f}" if service.per_second >= 10 else f"{service.per_second:.2g}"
    return f"{service.answers:,} answers, {rate} a second, {service.errors:,} with an error{latency}."


def chart(name: str, series: Sequence[Step], promise: Mapping[str, float | None] | None) -> Chart | None:
    """A metric over the windows; None where no window has it."""
    values = {key: [step.metrics.get(f"{key[0]}_{name}{key[1]}") for step in series] for key in _KEYS}
    ends = [] if not promise else [promise.get("low"), promise.get("high")]
    drawn_values = [value for series_values in values.values() for value in series_values if value is not None]
    if not drawn_values:
        return None
    drawn_values += [end for end in ends if end is not None]
    low, high = min(drawn_values), max(drawn_values)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    low, high = low - room, high + room

    def y(value: float) -> float:
        return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)

    places = np.linspace(LEFT + 24, WIDE - 24, len(series)).round(1).tolist()
    band = None
    if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
        band = (y(ends[1]), round(y(ends[0]) - y(ends[1]), 1))
    every = max(1, -(-len(series) // MOST_NAMES))
    return Chart(
        safe_text(name),
        tuple((y(tick), format_number(tick)) for tick in np.linspace(low + room, high - room, TICKS).tolist()),
        band,
        tuple(_bands(places, values["estimated", "_low"], values["estimated", "_high"], y)),
        tuple(_lines(places, values["estimated", ""], y)),
        tuple(_lines(places, values["realised", ""], y)),
        tuple(_whiskers(places, values["realised", "_low"], values["realised", "_high"], y)),
        tuple((x, y(v)) for x, v in zip(places, values["estimated", ""], strict=True) if v is not None),
        tuple((x, y(v)) for x, v in zip(places, values["realised", ""], strict=True) if v is not None),
        tuple(x for x, step in zip(places, series, strict=True) if step.metrics.get("drift_alarm")),
        tuple(
            (x, safe_text(step.name.split(" to ")[0], 16))
            for x, step in list(zip(places, series, strict=True))[::every]
        ),
    )


def _row(observation: Observation, name: str) -> dict[str, str]:
    promise, estimated, realised = (
        observation.promise.get(name),
        observation.estimated.get(name),
        observation.realised.get(name),
    )
    reasons = [estimate.reason for estimate in (estimated, realised) if estimate is not None and estimate.reason]
    return {
        "name": safe_text(name),
        "promise": NOTHING if not promise else value_words(_promised(name, promise)),
        "estimated": value_words(estimated),
        "realised": value_words(realised),
        "n": NOTHING if realised is None else f"{realised.n:,}",
        "reason": " ".join(dict.fromkeys(reasons)),
    }


def _promised(name: str, promise: Mapping[str, float | None]) -> Measured:
    return Measured(name, promise.get("mean"), promise.get("low"), promise.get("high"))


def _changes(observation: Observation) -> list[str]:
    if observation.drift is None:
        return []
    columns = changed_columns(observation.drift)
    words = [safe_text(next(f for f in ranked_findings(column) if f.alarm).words, 240) for column in columns]
    more = [f"and {len(words) - MOST_CHANGES:,} more columns"] if len(words) > MOST_CHANGES else []
    return [*words[:MOST_CHANGES], *more]


def _issues(observation: Observation) -> list[tuple[str, str, str]]:
    quality = observation.quality
    rows = [(c, f"error: {code}", n) for (c, code), n in quality.errors.items()]
    rows += [(c, code, n) for (c, code), n in quality.warnings.items()]
    ranked = sorted(rows, key=lambda row: (not row[1].startswith("error"), -row[2]))[:MOST_ISSUES]
    return [(safe_text(c), code.replace("_", " "), f"{n:,}") for c, code, n in ranked]


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
