"""What monitoring keeps in MLflow: a run a window, replaced when it is looked at again, and a series of them all."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from math import isfinite
from typing import Any

from afterfit.loop.observation import Observation
from afterfit.loop.policy import Action
from afterfit.loop.recorded_windows import RecordedWindow
from afterfit.mlflow_store import tracking
from afterfit.mlflow_store.tracking import MetricPoint, Noted
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.metrics import Measured

KIND, START, END, VERSION = "afterfit.kind", "afterfit.start", "afterfit.end", "afterfit.version"
NAME, STEP, PAST, POINTS = "afterfit.window", "afterfit.step", "afterfit.past", "afterfit.points"
USE_CASE, COMPLETE, UNTIL = "afterfit.use_case", "afterfit.complete", "afterfit.outcomes_until"
ACTION, REASON, CAUSES = "afterfit.action", "afterfit.reason", "afterfit.causes"
MOST_REASON = 2_000
"""Characters of a reason; MLflow refuses long tags."""


@dataclass(frozen=True, slots=True)
class MonitorRecord:
    """What is recorded of a window: what was seen, what it showed of the version, its place, and what is to be done.

    `causes` are the keys of all that is wrong, which were told with this window or before.
    """

    seen: Observation
    past: CalibrationEvidence
    step: int
    action: Action
    causes: tuple[str, ...]


def experiment(use_case: str) -> str:
    """Where a use case's windows are."""
    return f"{use_case}.monitor"


def windows(use_case: str) -> list[RecordedWindow]:
    """The windows recorded so far, oldest first, each as it was looked at last."""
    found: dict[tuple[str, ...], RecordedWindow] = {}
    for one in map(_watched, tracking.noted(experiment(use_case), {KIND: "window"})):
        found.setdefault(place_of(one.name, one.start, one.end), one)
    return sorted(found.values(), key=lambda one: (one.step, one.name))


def record(use_case: str, entry: MonitorRecord, texts: Mapping[str, str]) -> str:
    """Record one window in a run of its own; runs of the same window before are removed. Gives the run's id.

    Args:
        use_case: its name.
        entry: what is recorded.
        texts: files of the run, by path.
    """
    name, seen, step = experiment(use_case), entry.seen, entry.step
    tags = {
        KIND: "window",
        USE_CASE: use_case,
        NAME: seen.name,
        START: _iso(seen.start),
        END: _iso(seen.end),
        VERSION: seen.version,
        STEP: str(step),
        PAST: json.dumps(entry.past.to_dict()),
        COMPLETE: str(seen.complete).lower(),
        UNTIL: _iso(seen.known_up_to),
        ACTION: entry.action.kind,
        REASON: entry.action.reason[:MOST_REASON],
        CAUSES: json.dumps(entry.causes),
    }
    time = moment_of(seen.end, step)
    points = [MetricPoint(key, value, time, step) for key, value in metrics_of(seen).items()]
    place = {key: tags[key] for key in ((KIND, START, END) if seen.start and seen.end else (KIND, NAME))}
    before = [run.run_id for run in tracking.noted(name, place)]
    made = tracking.note_run(name, seen.name, tags, points, texts)
    tracking.forget(before)
    return made


def series(use_case: str) -> str:
    """Bring the run that carries all windows' metrics in order of time up to date; gives its id.

    What was told already only grows; where an earlier value became another one, the run is made anew.
    """
    name, found = experiment(use_case), windows(use_case)
    points = [
        MetricPoint(k, v, moment_of(one.end, one.step), one.step) for one in found for k, v in one.metrics.items()
    ]
    known = tracking.noted(name, {KIND: "series"})
    if known:
        count, digest = known[0].tags[POINTS].split(" ")
        if int(count) <= len(points) and digest == _digest(points[: int(count)]):
            tracking.add_points(known[0].run_id, points[int(count) :], {POINTS: _told(points)})
            tracking.forget([run.run_id for run in known[1:]])
            return known[0].run_id
    tags = {KIND: "series", USE_CASE: use_case, POINTS: _told(points)}
    made = tracking.note_run(name, "series", tags, points, {})
    tracking.forget([run.run_id for run in known])
    return made


def metrics_of(seen: Observation) -> dict[str, float]:
    """What becomes a metric of MLflow; names are those of the metrics after `estimated_` and `realised_`."""
    found = {"rows": float(seen.rows), "outcomes": float(seen.outcomes), "refused": float(seen.quality.refused)}
    for kind, measured in (("estimated", seen.estimated), ("realised", seen.realised)):
        for name, one in measured.items():
            found |= _ends(f"{kind}_{name}", one)
    if seen.drift is not None:
        alarms = [column for column in seen.drift.columns.values() if column.alarm]
        found |= {"drift_alarm": float(seen.drift.alarm), "changed_columns": float(len(alarms))}
    if seen.calibration is not None:
        found["calibration_error"] = seen.calibration
    if seen.service is not None:
        told = {"answers_per_second": seen.service.per_second, "request_errors": float(seen.service.errors)}
        late = {f"seconds_p{q}": getattr(seen.service, f"p{q}") for q in (50, 95, 99)}
        found |= told | {key: value for key, value in late.items() if value is not None}
    return found


def moment_of(end: datetime | None, step: int) -> int:
    """Milliseconds since 1970 at which a window's metrics stand: its end, or without times its step in seconds."""
    if end is None:
        return 1_000 * step
    return int(end.replace(tzinfo=timezone.utc).timestamp() * 1_000)


def _ends(name: str, one: Measured) -> dict[str, float]:
    ends = {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return {key: value for key, value in ends.items() if value is not None and isfinite(value)}


def place_of(name: str, start: datetime | None, end: datetime | None) -> tuple[str, ...]:
    """What makes two looks ones at the same window: where it begins and ends, or without times its name."""
    return (_iso(start), _iso(end)) if start is not None and end is not None else (name,)


def _watched(run: Noted) -> RecordedWindow:
    tags = run.tags
    ends = [datetime.fromisoformat(tags[key]) if tags.get(key) else None for key in (START, END)]
    past = CalibrationEvidence.from_dict(json.loads(tags[PAST])) if tags.get(PAST) else None
    return RecordedWindow(
        run.run_id,
        tags.get(NAME, ""),
        ends[0],
        ends[1],
        tags.get(VERSION, ""),
        int(tags.get(STEP, "0")),
        tags.get(COMPLETE) == "true",
        run.metrics,
        past,
        tuple(json.loads(tags.get(CAUSES, "[]"))),
    )


def _told(points: Sequence[MetricPoint]) -> str:
    return f"{len(points)} {_digest(points)}"


def _digest(points: Sequence[MetricPoint]) -> str:
    whole: list[Any] = [[p.metric, p.value, p.time, p.step] for p in points if isfinite(p.value)]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:32]


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()
