"""What monitoring keeps in MLflow: one run for each window (the newest look), and one run with all windows' metrics."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from math import isfinite
from typing import Any

from afterfit.loop.observation import Observation
from afterfit.loop.policy import Action
from afterfit.loop.recorded_windows import RecordedWindow
from afterfit.mlflow_store import tracking
from afterfit.mlflow_store.tracking import FinishedRun, MetricPoint
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.metrics import Measured

KIND, START, END, VERSION = "afterfit.kind", "afterfit.start", "afterfit.end", "afterfit.version"
NAME, STEP, PAST, POINTS = "afterfit.window", "afterfit.step", "afterfit.past", "afterfit.points"
USE_CASE, COMPLETE, UNTIL = "afterfit.use_case", "afterfit.complete", "afterfit.outcomes_until"
ACTION, REASON, CAUSES = "afterfit.action", "afterfit.reason", "afterfit.causes"
FARTHEST = 10**9
"""The largest number of a window: hours since 1970, or a count; MLflow refuses steps that are much larger."""
MOST_REASON = 2_000
"""Characters of a reason; MLflow refuses long tags."""


@dataclass(frozen=True, slots=True)
class MonitorRecord:
    """What is recorded of a window: its observation, evidence on the version, its step, and what is to be done.

    `causes` are the keys of all that is wrong now, whether it was told with this window or before.
    """

    seen: Observation
    past: CalibrationEvidence
    step: int
    action: Action
    causes: tuple[str, ...]


def experiment(use_case: str) -> str:
    """The experiment of a use case's windows."""
    return f"{use_case}.monitor"


def windows(use_case: str) -> list[RecordedWindow]:
    """The windows recorded so far that can be read, oldest first; of each window the newest record."""
    return read_windows(use_case)[0]


def read_windows(use_case: str) -> tuple[list[RecordedWindow], list[str]]:
    """The windows, and a sentence for each run that somebody has changed, which is passed over."""
    latest: dict[tuple[str, ...], RecordedWindow] = {}
    passed: list[str] = []
    for run in tracking.finished_runs(experiment(use_case), {KIND: "window"}):
        window = _recorded_window(run)
        if window is None:
            where = f"in the experiment {experiment(use_case)}"
            passed.append(f"Passed over: the run {run.run_id} {where} is no readable window: its tags were changed.")
        else:
            latest.setdefault(place_of(window.name, window.start, window.end), window)
    return sorted(latest.values(), key=lambda window: (window.step, window.name)), passed


def record(use_case: str, entry: MonitorRecord, texts: Mapping[str, str]) -> str:
    """Record one window in a run of its own; older runs of the same window are deleted. Gives the run's id.

    Args:
        use_case: its name.
        entry: what is recorded.
        texts: files of the run, by path.
    """
    name, observation, step = experiment(use_case), entry.seen, entry.step
    tags = {
        KIND: "window",
        USE_CASE: use_case,
        NAME: observation.name,
        START: _iso(observation.start),
        END: _iso(observation.end),
        VERSION: observation.version,
        STEP: str(step),
        PAST: json.dumps(entry.past.to_dict()),
        COMPLETE: str(observation.complete).lower(),
        UNTIL: _iso(observation.known_up_to),
        ACTION: entry.action.kind,
        REASON: entry.action.reason[:MOST_REASON],
        CAUSES: json.dumps(entry.causes),
    }
    time = moment_of(observation.end, step)
    points = [MetricPoint(key, value, time, step) for key, value in metrics_of(observation).items()]
    same_window = {
        key: tags[key] for key in ((KIND, START, END) if observation.start and observation.end else (KIND, NAME))
    }
    older_runs = [run.run_id for run in tracking.finished_runs(name, same_window)]
    run_id = tracking.write_run(name, observation.name, tags, points, texts)
    tracking.delete_runs(older_runs)
    return run_id


def series(use_case: str) -> str:
    """Update the run that holds all windows' metrics in order of time; gives its id.

    New points are added to the run. If an earlier value has changed, the run is replaced by a new one.
    """
    name, recorded = experiment(use_case), windows(use_case)
    points = [
        MetricPoint(k, v, moment_of(window.end, window.step), window.step)
        for window in recorded
        for k, v in window.metrics.items()
    ]
    earlier = tracking.finished_runs(name, {KIND: "series"})
    if earlier:
        count = re.match("[0-9]{1,9}(?= )", earlier[0].tags.get(POINTS, ""))
        known = int(count[0]) if count else len(points) + 1  # a tag that was changed: the series is written anew
        if known <= len(points) and earlier[0].tags[POINTS] == _points_tag(points[:known]):
            tracking.add_points(earlier[0].run_id, points[known:], {POINTS: _points_tag(points)})
            tracking.delete_runs([run.run_id for run in earlier[1:]])
            return earlier[0].run_id
    tags = {KIND: "series", USE_CASE: use_case, POINTS: _points_tag(points)}
    run_id = tracking.write_run(name, "series", tags, points, {})
    tracking.delete_runs([run.run_id for run in earlier])
    return run_id


def metrics_of(observation: Observation) -> dict[str, float]:
    """An observation as MLflow metrics; performance is named `estimated_<metric>` and `realised_<metric>`."""
    values = {
        "rows": float(observation.rows),
        "outcomes": float(observation.outcomes),
        "refused": float(observation.quality.refused),
    }
    for kind, measured in (("estimated", observation.estimated), ("realised", observation.realised)):
        for name, estimate in measured.items():
            values |= _ends(f"{kind}_{name}", estimate)
    if observation.drift is not None:
        alarms = [column for column in observation.drift.columns.values() if column.alarm]
        values |= {"drift_alarm": float(observation.drift.alarm), "changed_columns": float(len(alarms))}
    if observation.calibration is not None:
        values["calibration_error"] = observation.calibration
    if observation.service is not None:
        rates = {
            "answers_per_second": observation.service.per_second,
            "request_errors": float(observation.service.errors),
        }
        latencies = {f"seconds_p{q}": getattr(observation.service, f"p{q}") for q in (50, 95, 99)}
        values |= rates | {key: value for key, value in latencies.items() if value is not None}
    return values


def moment_of(end: datetime | None, step: int) -> int:
    """The time of a window's metrics, in milliseconds since 1970: its end; without times, its step in seconds."""
    if end is None:
        return 1_000 * step
    return int(end.replace(tzinfo=timezone.utc).timestamp() * 1_000)


def place_of(name: str, start: datetime | None, end: datetime | None) -> tuple[str, ...]:
    """What identifies a window: its start and end; without times, its name."""
    return (_iso(start), _iso(end)) if start is not None and end is not None else (name,)


def _ends(name: str, measured: Measured) -> dict[str, float]:
    values = {name: measured.value, f"{name}_low": measured.low, f"{name}_high": measured.high}
    return {key: value for key, value in values.items() if value is not None and isfinite(value)}


def _recorded_window(run: FinishedRun) -> RecordedWindow | None:
    """A window as its run has it; None where somebody has changed the run."""
    tags = run.tags
    try:
        ends = [datetime.fromisoformat(tags[key]) if tags.get(key) else None for key in (START, END)]
        past = CalibrationEvidence.from_dict(json.loads(tags[PAST])) if tags.get(PAST) else None
        step, causes = int(tags.get(STEP, "0")), json.loads(tags.get(CAUSES, "[]"))
        whole = isinstance(causes, list) and all(isinstance(cause, str) for cause in causes)
        whole = whole and not any(end is not None and end.tzinfo for end in ends)
        whole = whole and (past is None or isinstance(past.end, str | None))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if not whole or abs(step) > FARTHEST or not tags.get(NAME):
        return None
    return RecordedWindow(
        run.run_id,
        tags.get(NAME, ""),
        ends[0],
        ends[1],
        tags.get(VERSION, ""),
        step,
        tags.get(COMPLETE) == "true",
        run.metrics,
        past,
        tuple(causes),
    )


def _points_tag(points: Sequence[MetricPoint]) -> str:
    return f"{len(points)} {_digest(points)}"


def _digest(points: Sequence[MetricPoint]) -> str:
    whole: list[Any] = [[p.metric, p.value, p.time, p.step] for p in points if isfinite(p.value)]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:32]


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()
