"""One step of the loop, live: look at the next window, do what the policy says, and leave a mark after each stage."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from afterfit.alarms import delivery
from afterfit.data.windows import TimeWindow
from afterfit.errors import AlarmError, DamagedRecordError, SettingsError, UnsureAlarmError
from afterfit.lifecycle import monitoring
from afterfit.lifecycle.live_world import Live, rows_of, trained_version_of
from afterfit.lifecycle.reading_on import as_before
from afterfit.lifecycle.result import ALARM, REJECT, CommandResult
from afterfit.loop import history, stepping
from afterfit.loop.history import History, window_length
from afterfit.loop.policy import Action, Cause, State
from afterfit.loop.recorded_windows import step_of
from afterfit.loop.stepping import StepPlan, StepResult
from afterfit.loop.task_runner import TaskRunner
from afterfit.mlflow_store import ledger, monitor_runs, registry, step_journal, tracking
from afterfit.mlflow_store.registry import PRODUCTION
from afterfit.mlflow_store.step_journal import StepRun
from afterfit.use_case import UseCase

LEASE = 6 * 3600.0
"""Seconds that a step may take. After them another machine takes it for dead; the same machine sees if it is dead."""
TURN, STATE = "turn.json", "state.json"
EXIT = {"alarm": ALARM, "held": ALARM, "refused": REJECT, "not rolled back": REJECT}


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a step came: its page in the journal, its window, what was decided, and the state after the decision."""

    page: StepRun
    span: TimeWindow
    action: Action
    state: State


def run_step(use_case: UseCase, every: str, now: datetime, folder: Path) -> CommandResult:
    """Take the next window's step, or finish the one that an earlier process began.

    Args:
        use_case: its settings.
        every: the length of a window; the settings' own where empty.
        now: the time (UTC, without a zone): a window is due when it is over.
        folder: where bundles and answers are kept between steps.
    """
    repaired = ledger.repair(use_case.name)
    pages, passed = step_journal.read_pages(use_case.name)
    state, doubts = _state(use_case, pages)
    repaired += [*passed, *doubts]
    first = _first_begin(use_case, pages, state.champion)
    use_case = as_before(use_case)
    row_history = History.of(use_case, rows_of(use_case, first), folder / "work")
    work = TaskRunner(row_history)
    page = next((page for page in pages if not page.done), None)
    span, note = _due_window(row_history, page, max(_window_ends(pages), default=first), every, now)
    if span is None:
        return step_result(use_case, "", "nothing is due", [*repaired, note])
    if page is None:
        page = step_journal.begin(use_case.name, span.name, span.start.isoformat(), span.end.isoformat())
    (folder / "versions").mkdir(parents=True, exist_ok=True)
    world = Live(use_case, work, page, folder / "versions")
    with _step_run(use_case, span):
        stage = _decide(use_case, world, page, span, state)
        page, alarm_lines = _send_alarm(use_case, stage)
        world.page = page
        result = stepping.act(stage.span, stage.action, stage.state, use_case.policy, world)
        _finish(world.page, stage, result)
    lines = [*repaired, *_report_lines(span, stage.action, result), *alarm_lines, *([note] if note else [])]
    return step_result(use_case, span.name, result.outcome, lines, stage.action, result)


def step_result(  # noqa: PLR0917 - one place, called from three
    use_case: UseCase,
    window: str,
    outcome: str,
    lines: list[str],
    action: Action | None = None,
    result: StepResult | None = None,
) -> CommandResult:
    """The answer: lines for a person, the last of them one line of JSON for a scheduler."""
    data: dict[str, Any] = {
        "use_case": use_case.name,
        "window": window,
        "outcome": outcome,
        "action": None if action is None else action.to_dict(),
        "candidate": "" if result is None else result.candidate,
        "verdict": "" if result is None or result.verdict is None else result.verdict.decision,
        "production": None if result is None else result.state.champion,
    }
    code = EXIT.get(outcome, ALARM if action is not None and action.causes else 0)
    return CommandResult((*lines, json.dumps({**data, "exit_code": code})), {**data, "lines": lines}, code)


@contextmanager
def _step_run(use_case: UseCase, span: TimeWindow) -> Iterator[None]:
    with tracking.run(use_case.name, f"step {span.name}", {"afterfit.use_case": use_case.name}):
        yield


def _state(use_case: UseCase, pages: list[StepRun]) -> tuple[State, list[str]]:
    """The state after the last finished step; a new one where somebody else has changed production since.

    If a state was changed by hand and cannot be read, the one before it is taken, and a sentence says so.

    Raises:
        SettingsError: nothing is in production.
    """
    holder = registry.holder(use_case.name, PRODUCTION)
    if holder is None:
        raise SettingsError(f"Nothing of '{use_case.name}' is in production: train and promote a version first.")
    done = [page for page in pages if page.done]
    under_way = len(done) < len(pages)
    state, doubts = _last_state(done)
    if state is None:
        return _first_state(use_case, pages, holder.number), doubts
    if under_way or state.champion == holder.number:  # a step that is under way may have moved it itself
        return state, doubts
    anew = stepping.begin(trained_version_of(holder))
    return replace(anew, retrained=state.retrained, drift_since=state.drift_since, last=state.last), doubts


def _last_state(done: list[StepRun]) -> tuple[State | None, list[str]]:
    """The newest state that can be read, or None, and a sentence for each one that cannot."""
    doubts: list[str] = []
    for page in reversed(done):
        state = _state_after(page)
        if state is not None:
            return state, doubts
        where = f"'{STATE}' of the step {page.window} (run {page.run_id})"
        doubts.append(f"{where} is gone or was changed: the state before it is taken.")
    return None, doubts


def _state_after(page: StepRun) -> State | None:
    with suppress(DamagedRecordError, LookupError, TypeError, ValueError, AttributeError):
        return State.from_dict(step_journal.read(page, STATE))
    return None


def _first_state(use_case: UseCase, pages: list[StepRun], holder: str) -> State:
    number = pages[0].marks.get("champion", holder) if pages else holder
    first = registry.holder(use_case.name, number) if number.isdecimal() else None
    return stepping.begin(trained_version_of(first or registry.version(use_case.name, holder)))


def _due_window(
    row_history: History, page: StepRun | None, begin: datetime, every: str, now: datetime
) -> tuple[TimeWindow | None, str]:
    """The window that is due, and a sentence: how many more are due, or why none is."""
    length = window_length(every, row_history.use_case)
    last = min(now, history.after(row_history.times[-1]))
    due_windows = history.spans(row_history, length, begin, last) if begin < last else []
    if page is not None:
        start, end = (datetime.fromisoformat(page.marks[key]) for key in ("start", "end"))
        return TimeWindow(page.window, start, end), ""
    if not due_windows:
        return None, f"No window of {length.count}{length.unit} from {begin} on is over yet (rows reach to {last})."
    return due_windows[0], f"{len(due_windows) - 1} more windows are due: step again." if len(due_windows) > 1 else ""


def _window_ends(pages: list[StepRun]) -> list[datetime]:
    """The ends of the finished windows; the next window begins where the last one ended."""
    return [datetime.fromisoformat(page.end) for page in pages if page.done]


def _first_begin(use_case: UseCase, pages: list[StepRun], holder: str) -> datetime:
    """Where the first window begins: where the training ended."""
    if use_case.split.train is not None and use_case.split.train.end is not None:
        return use_case.split.train.end
    until = _first_state(use_case, pages, holder).trained_until
    if until is None:
        raise SettingsError("Nothing says where the training ended: name split.train in the settings file.")
    return history.after(until)


def _decide(use_case: UseCase, world: Live, page: StepRun, span: TimeWindow, state: State) -> Stage:
    """Look at the window and decide what is to be done; after a crash, read back what was decided.

    What somebody has changed meanwhile is decided anew.
    """
    if page.marks.get("decided") == "true":
        with suppress(DamagedRecordError, LookupError, TypeError, ValueError, AttributeError):
            saved = step_journal.read(page, TURN)
            causes = tuple(Cause(**cause) for cause in saved["action"]["causes"])
            action = Action(saved["action"]["kind"], saved["action"]["reason"], causes)
            return Stage(page, span, action, State.from_dict(saved["state"]))
    page = step_journal.mark(page, champion=state.champion)
    turn = stepping.step(state, span, use_case.policy, world)
    _record_window(use_case, turn)
    step_journal.write(
        page,
        TURN,
        {
            "action": turn.action.to_dict(),
            "state": turn.state.to_dict(),
            "observation": turn.observation.to_dict(),
        },
    )
    page = step_journal.mark(page, decided="true", action=turn.action.kind)
    return Stage(page, span, turn.action, turn.state)


def _record_window(use_case: UseCase, turn: StepPlan) -> None:
    """Record the window among the monitor's windows; an earlier record of it is replaced."""
    entry = monitor_runs.MonitorRecord(
        turn.observation, turn.past, step_of(turn.span.start), turn.action, turn.state.alarmed
    )
    monitoring.record(use_case, entry, monitor_runs.windows(use_case.name))
    monitor_runs.series(use_case.name)


def _send_alarm(use_case: UseCase, stage: Stage) -> tuple[StepRun, list[str]]:
    """Send the alarm, at most once; gives the page with its new mark, and lines for the person."""
    page, settings = stage.page, use_case.alarms
    if not stage.action.causes or not (settings.webhook or settings.command):
        return page, []
    sent = page.marks.get("alarm", "")
    if sent == "sent":
        return page, []
    if sent in {"sending", "unsure"}:
        return step_journal.mark(page, alarm="unsure"), ["The alarm may have gone out before: it is not sent again."]
    alarm = delivery.message(use_case.name, stage.span.name, stage.action.to_dict(), stage.state.champion)
    deliveries = delivery.prepare(settings, alarm, use_case.root)  # what it raises is known before the mark
    page = step_journal.mark(page, alarm="sending")
    try:
        failed = delivery.deliver(deliveries, settings.tries, time.sleep)
    except UnsureAlarmError as error:
        return step_journal.mark(page, alarm="unsure"), [f"{error} It is not sent again."]
    except AlarmError as error:
        return step_journal.mark(page, alarm="failed", failure=str(error)), [f"The alarm did not go out: {error}"]
    lines = ["The alarm went out.", *(f"One of its ways failed: {sentence}" for sentence in failed)]
    return step_journal.mark(page, alarm="sent", **({"failure": " ".join(failed)} if failed else {})), lines


def _finish(page: StepRun, stage: Stage, result: StepResult) -> None:
    """Write the state, then mark the step as done; causes whose alarm failed are forgotten, so that they come again."""
    state = result.state
    if page.marks.get("alarm") == "failed":
        lost = {cause.key for cause in stage.action.causes}
        state = replace(state, alarmed=tuple(key for key in state.alarmed if key not in lost))
    step_journal.write(page, STATE, state.to_dict())
    verdict = "" if result.verdict is None else result.verdict.decision
    marks = {"outcome": result.outcome, "candidate": result.candidate, "verdict": verdict, "version": state.champion}
    page = step_journal.mark(page, **marks)
    numbers = {"alarms": float(len(stage.action.causes)), "retrained": float(bool(result.candidate))}
    step_journal.close(page, "\n\n".join(_report_lines(stage.span, stage.action, result)), numbers)


def _report_lines(span: TimeWindow, action: Action, result: StepResult) -> list[str]:
    lines = [f"{span.name}: {result.outcome}. {action.reason}"]
    lines += [f"Alarm: {cause.sentence}" for cause in action.causes]
    if result.verdict is not None:
        against = [finding.sentence for finding in result.verdict.findings if finding.outcome in {"fail", "unsure"}]
        lines.append(f"Version {result.candidate}: {result.verdict.decision}. {' '.join(against)}".strip())
    lines.append(f"In production: version {result.state.champion}.")
    return lines
