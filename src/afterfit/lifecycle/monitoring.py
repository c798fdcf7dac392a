"""Look at windows of the prediction log or of a table, decide what is to be done, and record each in MLflow."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from afterfit import prediction_log
from afterfit.data.windows import RowCounts, WindowLength, WindowSplitter
from afterfit.errors import DataError, SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.loop import window_rows
from afterfit.loop.observation import Observation
from afterfit.loop.observe import observe, past_of
from afterfit.loop.policy import Action
from afterfit.loop.recorded_windows import RecordedWindow, due, known_by, step_of, to_do
from afterfit.loop.window_rows import ReadWindows, WindowRows
from afterfit.mlflow_store import monitor_runs, registry, tracking
from afterfit.mlflow_store.monitor_runs import MonitorRecord
from afterfit.model.bundle import Bundle
from afterfit.pages import monitor
from afterfit.pages.monitor import Step, drift_words, quality_words, service_words, value_words
from afterfit.prediction_log.log import PredictionLog
from afterfit.use_case import UseCase

SOURCE = "source"
NO_TIME = (
    "{} names no time column, so that there are no windows of time: all rows are one window, each look takes the place "
    "of the one before, no series is drawn, and neither late outcomes nor the dependence of rows on time are accounted "
    "for. Name a time column to have them."
)


@dataclass(frozen=True, slots=True)
class MonitoredWindow:
    """What a look found: the observation, what the policy says of it, and its run."""

    seen: Observation
    action: Action
    run_id: str


@dataclass(frozen=True, slots=True)
class MonitoredWindows:
    """The windows that were looked at, in order, and the counts of the rows that were read."""

    windows: tuple[MonitoredWindow, ...]
    counts: RowCounts


def period_of(
    use_case: UseCase, every: str, start: datetime | None = None, end: datetime | None = None
) -> WindowSplitter:
    """How rows are cut into windows."""
    marks = frozenset(use_case.columns.missing_marks)
    return WindowSplitter(WindowLength.parse(every), use_case.time, start, end, marks=marks)


def monitor_version(
    use_case: UseCase,
    version: str,
    data: str,
    period: WindowSplitter,
    *,
    refresh: int = 0,
    page: Path | None = None,
) -> CommandResult:
    """Look at windows of a version, record each, and say what was seen and what is to be done.

    Args:
        use_case: its settings.
        version: a number, an alias or `latest`.
        data: a table; "source" for the use case's own; empty for its prediction log where it keeps one.
        period: which rows, and how they are cut.
        refresh: look again at so many windows that were recorded, in place of those of the period.
        page: a file that gets the last window's page.
    """
    target = registry.version(use_case.name, version)
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    notes = [*([] if use_case.time else [NO_TIME.format(use_case.name)]), *monitor_runs.read_windows(use_case.name)[1]]
    with tracking.join_run(f"monitor {use_case.name} {target.number}"):
        if refresh:
            results = look_again(use_case, data, refresh, now)
        else:
            bundle = registry.load_bundle(target)
            period, left_out = after_training(use_case, bundle, data, period)
            read = look_at_windows(use_case, bundle, data, period, now)
            results, untimed = list(read.windows), read.counts.untimed
            notes += [*left_out, *([f"{untimed:,} rows have no time in '{period.time}'."] if untimed else [])]
    lines = [line for window in results for line in describe(use_case, window.seen, short=len(results) > 1)]
    words = [*lines, *notes, action_words(use_case, results[-1].action)]
    if page is not None:
        page.write_text(page_of(use_case, results[-1], notes), "utf-8")
    looks = [as_data(window) for window in results]
    return CommandResult(tuple(words), {"use_case": use_case.name, "windows": looks, "notes": notes})


def look_at_windows(
    use_case: UseCase, bundle: Bundle, data: str, period: WindowSplitter, now: datetime
) -> MonitoredWindows:
    """Look at each window and record it.

    Args:
        use_case: its settings.
        bundle: the version that is looked at.
        data: a table; "source" for the use case's own; empty for its prediction log where it keeps one.
        period: which rows, and how they are cut.
        now: the time (UTC, without a zone) by which outcomes count as complete.

    Raises:
        DataError: there is no row.
    """
    before, read = monitor_runs.windows(use_case.name), _windows(use_case, bundle, data, period)
    counts = read.counts
    bar = tqdm(read.windows, desc="monitor", unit=" windows", leave=False, disable=None)
    results = [look(use_case, bundle, window, before, now) for window in bar]
    if not results and not counts.seen and log_of(use_case, data):
        raise DataError(
            f"Version {bundle.version} of {use_case.name} has no answers in the prediction log in that window; "
            "--version names another one."
        )
    if not results:
        raise DataError(
            f"No row of {use_case.name} is in the window asked for{counts.span}; {counts.seen:,} were read."
        )
    if use_case.time is not None:
        monitor_runs.series(use_case.name)
    return MonitoredWindows(tuple(results), counts)


def look(
    use_case: UseCase, bundle: Bundle, window: WindowRows, before: list[RecordedWindow], now: datetime
) -> MonitoredWindow:
    """Look at one window and record it; `before` gets what it showed."""
    delay = timedelta(hours=use_case.gate.label_delay_hours)
    complete = bool(window.rows.known.sum() == window.rows.sound.sum()) or due(window.end, delay, now)
    observation = observe(
        use_case,
        bundle,
        window.rows,
        name=window.name,
        start=window.start,
        end=window.end,
        complete=complete,
        past=known_by(before, str(bundle.version), window, delay),
        seed=use_case.seed,
    )
    past, step = past_of(use_case, bundle, window.rows, end=window.end), step_of(window.start, window.number)
    action, causes = to_do(use_case, bundle, observation, [old for old in before if old.step < step])
    return MonitoredWindow(
        observation, action, record(use_case, MonitorRecord(observation, past, step, action, causes), before)
    )


def record(use_case: UseCase, entry: MonitorRecord, before: list[RecordedWindow]) -> str:
    """Record a window with its page, and gives its run's id; `before` gets it in its place among the others."""
    observation, metrics = entry.seen, monitor_runs.metrics_of(entry.seen)
    identity = monitor_runs.place_of(observation.name, observation.start, observation.end)
    others = [old for old in before if monitor_runs.place_of(old.name, old.start, old.end) != identity]
    mine = RecordedWindow(
        "",
        observation.name,
        observation.start,
        observation.end,
        observation.version,
        entry.step,
        observation.complete,
        metrics,
        entry.past,
        entry.causes,
    )
    before[:] = sorted([*others, mine], key=lambda old: (old.step, old.name))
    texts = {
        "observation.json": json.dumps(
            {**observation.to_dict(), "action": entry.action.to_dict()}, indent=1, default=str
        ),
        "monitor.html": _page(use_case, observation, entry.action, before),
    }
    return monitor_runs.record(use_case.name, entry, texts)


def look_again(use_case: UseCase, data: str, count: int, now: datetime) -> list[MonitoredWindow]:
    """Look again at the last windows that were recorded, each by the version that it was recorded for."""
    before = monitor_runs.windows(use_case.name)
    if not before:
        raise SettingsError(f"No window of {use_case.name} was recorded yet: monitor one first.")
    bundles: dict[str, Bundle] = {}
    results = []
    for old in before[-count:]:
        if old.version not in bundles:
            bundles[old.version] = registry.load_bundle(registry.version(use_case.name, old.version))
        period = period_of(use_case, "", old.start, old.end)
        for window in _windows(use_case, bundles[old.version], data, period).windows:
            same = WindowRows(window.number, old.name, old.start, old.end, window.rows)
            results.append(look(use_case, bundles[old.version], same, before, now))
    if use_case.time is not None:
        monitor_runs.series(use_case.name)
    if not results:
        raise DataError(f"The last {count} windows of {use_case.name} have no rows any more in what was read.")
    return results


def _windows(use_case: UseCase, bundle: Bundle, data: str, period: WindowSplitter) -> ReadWindows:
    log = log_of(use_case, data)
    if log is None:
        return window_rows.from_table(use_case, bundle, "" if data == SOURCE else data, period)
    return window_rows.from_log(use_case, bundle, log, period)


def log_of(use_case: UseCase, data: str) -> PredictionLog | None:
    """The prediction log that is read; None where a table is."""
    return None if data else prediction_log.log_of(use_case)


def after_training(
    use_case: UseCase, bundle: Bundle, data: str, period: WindowSplitter
) -> tuple[WindowSplitter, list[str]]:
    """The use case's own source holds the training rows too: only later rows are looked at, and a note says so."""
    if data not in {"", SOURCE} or log_of(use_case, data):
        return period, []
    return window_rows.after_training(period, bundle, f"version {bundle.version}")


# What is said.


def describe(use_case: UseCase, observation: Observation, *, short: bool = False) -> list[str]:
    """A window in a few lines, or in one."""
    main = use_case.primary_metric
    estimated, realised, promise = (
        observation.estimated.get(main),
        observation.realised.get(main),
        observation.promise.get(main),
    )
    parts = [f"{main} estimated {value_words(estimated)}", f"realised {value_words(realised)}"]
    if short:
        return [f"{observation.name}: {observation.rows:,} rows, {', '.join(parts)}; {drift_words(observation)}"]
    lines = [f"{use_case.name}, version {observation.version}, {observation.name}: {', '.join(parts)}."]
    if promise and promise.get("low") is not None:
        lines.append(f"  promised: {promise['mean']:.3f} [{promise['low']:.3f}, {promise['high']:.3f}]")
    lines.append(f"  {outcomes_words(observation)}")
    measured = [*observation.estimated.values(), *observation.realised.values()]
    reasons = dict.fromkeys(value.reason for value in measured if value.reason)
    lines += [f"  {reason}" for reason in reasons]
    lines += [
        f"  {name}: estimated {value_words(value)}, realised {value_words(observation.realised.get(name))}"
        for name, value in observation.estimated.items()
        if name != main
    ]
    lines += [f"  {drift_words(observation)}", f"  {quality_words(observation)}"]
    return [*lines, *([f"  {service_words(observation)}"] if observation.service else [])]


def outcomes_words(observation: Observation) -> str:
    """Which outcomes are known, in one line."""
    known = f", known up to {observation.known_up_to:%Y-%m-%d %H:%M}" if observation.known_up_to else ""
    rest = "complete" if observation.complete else "more to come"
    return f"outcomes: {observation.outcomes:,} of {observation.rows:,} rows{known}; {rest}"


def action_words(use_case: UseCase, action: Action) -> str:
    """What is to be done and why, in one sentence."""
    return f"Policy {use_case.policy.preset}: {action.kind.replace('_', ' ')}. {action.reason}"


def page_of(use_case: UseCase, result: MonitoredWindow, notes: Sequence[str]) -> str:
    """The page of a window, with the series as MLflow has it now."""
    return _page(use_case, result.seen, result.action, monitor_runs.windows(use_case.name), notes)


def _page(
    use_case: UseCase,
    observation: Observation,
    action: Action,
    series: Sequence[RecordedWindow],
    notes: Sequence[str] = (),
) -> str:
    until = [old for old in series if observation.end is None or old.end is None or old.end <= observation.end]
    first, *_ = describe(use_case, observation)
    lines = [first, outcomes_words(observation), action_words(use_case, action)]
    steps = [Step(old.name, old.metrics) for old in until]
    return monitor.render(f"{use_case.name}: {observation.name}", observation, steps, lines, notes)


def as_data(window: MonitoredWindow) -> dict[str, Any]:
    """A window as a program reads it."""
    return {**window.seen.to_dict(), "action": window.action.to_dict(), "run_id": window.run_id}
