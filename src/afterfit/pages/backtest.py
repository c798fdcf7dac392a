"""One self-contained HTML page about a backtest: the ranking, and a timeline for each policy. It has no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

from afterfit.loop.backtest import PolicyRun, Ranking, WindowResult
from afterfit.pages.template import template
from afterfit.use_case import UseCase

WIDE, HIGH, LEFT, TOP, FOOT = 1040.0, 170.0, 64.0, 16.0, 44.0
"""Size of a timeline in its own units, and the space at its left, top and foot."""
MOST_TICKS = 26
MARKS = {
    "promoted": ("▲", "good"),
    "on trial": ("△", "good"),
    "refused": ("✕", "bad"),
    "held": ("✕", "bad"),
    "rolled back": ("▼", "bad"),
}
OUTCOME_WORDS = {
    "promoted": "retrained and promoted",
    "on trial": "retrained, in production on trial (TRIAL)",
    "refused": "retrained, refused",
    "held": "retrained, held",
    "rolled back": "rolled back",
}


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """One window on a timeline: its place, realised and estimated metric, what was done, and the same in words."""

    x: float
    realised: float | None
    believed: float | None
    low: float | None
    high: float | None
    mark: str
    kind: str
    alarm: str
    words: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """A policy's windows: points, lines through them (each new version begins a new line), ticks and grid lines."""

    points: tuple[ChartPoint, ...]
    lines: tuple[str, ...]
    others: str
    ticks: tuple[tuple[float, str], ...]
    grid: tuple[tuple[float, str], ...]


def render(use_case: UseCase, ranking: Ranking, window: str, rows: int) -> str:
    """The page as HTML.

    Args:
        use_case: its settings.
        ranking: the policies, the best first.
        window: which rows, in words.
        rows: how many rows.
    """
    name = use_case.primary_metric
    ends = _value_range(ranking.stories, name)
    best = ranking.stories[0]
    return template("backtest.html").render(
        title=f"Backtest of {use_case.name}",
        window=window,
        rows=rows,
        metric=name,
        ranking=ranking,
        table=[_row(story, ranking, name) for story in ranking.stories],
        stories=[(story, timeline(story, best, name, ends), _events(story)) for story in ranking.stories],
        money=best.money is not None,
        unit=use_case.metrics.value.unit if use_case.metrics.value else "",
        wide=WIDE,
        high=TOP + HIGH + FOOT,
        left=LEFT,
        floor=TOP + HIGH,
    )


def timeline(story: PolicyRun, best: PolicyRun, name: str, ends: tuple[float, float]) -> Timeline:
    """Lay out a policy's windows.

    Args:
        story: the run of the policy.
        best: the run of the best policy, drawn beside it.
        name: the metric.
        ends: the range of the metric, from `_value_range`.
    """
    count = max(len(story.entries), 1)
    places = [round(LEFT + (WIDE - LEFT - 12) * (i + 0.5) / count, 1) for i in range(len(story.entries))]
    points = tuple(_point(entry, x, name, ends) for entry, x in zip(story.entries, places, strict=True))
    values = [entry.realised.get(name, nan) for entry in best.entries]
    others = " ".join(f"{x},{_y(v, ends):g}" for x, v in zip(places, values, strict=False) if isfinite(v))
    step = max(-(-count // MOST_TICKS), 1)
    ticks = tuple((places[i], story.entries[i].turn.span.name) for i in range(0, len(places), step))
    marks = [ends[0] + (ends[1] - ends[0]) * part for part in (0.1, 0.5, 0.9)]
    return Timeline(points, _lines(story, points), others, ticks, tuple((_y(v, ends), f"{v:.4g}") for v in marks))


def _row(story: PolicyRun, ranking: Ranking, name: str) -> dict[str, Any]:
    difference = ranking.against_best[story.name]
    first = story is ranking.stories[0]
    money = story.money is not None
    shown = "{:+,.0f} ({:+,.0f} to {:+,.0f})" if money else "{:+.4f} ({:+.4f} to {:+.4f})"
    return {
        "name": story.name,
        "recommended": story.name == ranking.recommended,
        "mean": f"{story.mean(name):.4f}",
        "difference": "best" if first else shown.format(difference.value, difference.low, difference.high),
        "retrainings": story.retrainings,
        "promotions": story.count("promoted", "on trial"),
        "refusals": story.count("refused", "held"),
        "rollbacks": story.count("rolled back"),
        "alarms": f"{story.alarms[0]} true, {story.alarms[1]} false",
        "seconds": f"{story.seconds:,.0f} s",
        "outcomes": f"{story.outcomes:,}",
        "money": "" if story.money is None else f"{story.money:,.0f}",
    }


def _value_range(stories: Sequence[PolicyRun], name: str) -> tuple[float, float]:
    """The range of the timelines: all realised and estimated values, without the estimates' intervals."""
    values = [entry.realised.get(name, nan) for story in stories for entry in story.entries]
    estimates = [entry.best_estimate(name) for story in stories for entry in story.entries]
    values += [estimate.value for estimate in estimates if estimate is not None and estimate.value is not None]
    known = [value for value in values if isfinite(value)] or [0.0, 1.0]
    room = 0.08 * ((max(known) - min(known)) or 1.0)
    return min(known) - room, max(known) + room


def _lines(story: PolicyRun, points: Sequence[ChartPoint]) -> tuple[str, ...]:
    """One line for each stretch of windows that one version answered; a line begins where the last one ended."""
    lines: list[list[str]] = []
    version = ""
    last = ""
    for entry, point in zip(story.entries, points, strict=True):
        if point.realised is None:
            continue
        here = f"{point.x:g},{point.realised:g}"
        if entry.version != version:
            lines.append([last] if last else [])
            version = entry.version
        lines[-1].append(here)
        last = here
    return tuple(" ".join(line) for line in lines)


def _point(entry: WindowResult, x: float, name: str, ends: tuple[float, float]) -> ChartPoint:
    value, best = entry.realised.get(name, nan), entry.best_estimate(name)
    estimate = best if best is not None and best.value is not None else None
    mark, kind = MARKS.get(entry.done.outcome, ("", ""))
    causes = entry.turn.action.causes
    alarm = ("true" if entry.fell else "false") if causes else ""
    words = [f"{entry.turn.span.name}, version {entry.version}", f"realised {value:.4f}"]
    if estimate is not None:
        words.append(f"believed {estimate.value:.4f}")
    words += [OUTCOME_WORDS[entry.done.outcome]] if entry.done.outcome in OUTCOME_WORDS else []
    return ChartPoint(
        x,
        _y(value, ends) if isfinite(value) else None,
        None if estimate is None or estimate.value is None else _y(estimate.value, ends),
        None if estimate is None or estimate.low is None else _y(estimate.low, ends),
        None if estimate is None or estimate.high is None else _y(estimate.high, ends),
        mark,
        kind,
        alarm,
        "; ".join(words),
    )


def _y(value: float, ends: tuple[float, float]) -> float:
    """The distance of a value from the top; values outside the range are drawn at its ends."""
    share = (value - ends[0]) / (ends[1] - ends[0])
    return round(TOP + HIGH * (1 - min(max(share, 0.0), 1.0)), 1)


def _events(story: PolicyRun) -> list[dict[str, str]]:
    """The windows with an action or an alarm, in words."""
    events = []
    for entry in story.entries:
        action, verdict = entry.turn.action, entry.done.verdict
        if action.kind == "nothing" or (entry.done.outcome == "over" and not action.causes):
            continue
        deciding = [] if verdict is None else [f.sentence for f in verdict.findings if f.outcome in {"fail", "unsure"}]
        deciding = deciding or [f.sentence for f in (() if verdict is None else verdict.findings) if f.code == "better"]
        events.append(
            {
                "window": entry.turn.span.name,
                "what": OUTCOME_WORDS.get(entry.done.outcome, "alarm" if action.causes else action.kind),
                "why": action.reason,
                "gate": " ".join(deciding)[:500],
            }
        )
    return events
