"""One step of the loop, live: look at the next window, do what the policy says, and leave a mark after each stage."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from afterfit.data.windows import TimeWindow
from afterfit.errors import AlarmError, SettingsError, UnsureAlarmError
from afterfit.lifecycle import alarms, monitoring
from afterfit.lifecycle.live_world import Live, rows_of, trained
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
"""Seconds that a step may take before another machine takes it for dead; on the same machine a dead one is seen."""
TURN, STATE = "turn.json", "state.json"
EXIT = {"alarm": ALARM, "held": ALARM, "refused": REJECT, "not rolled back": REJECT}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a step is: its page, its window, what was decided, and the state after the decision."""

    page: StepRun
    span: TimeWindow
    action: Action
    state: State


def stepped(use_case: UseCase, every: str, now: datetime, folder: Path) -> CommandResult:
    """The next window's step, begun anew or finished where an earlier process left it."""
    repaired = ledger.repair(use_case.name)
    pages = step_journal.pages(use_case.name)
    state = _state(use_case, pages)
    first = _first_begin(use_case, pages, state.champion)
    known = History.of(use_case, rows_of(use_case, first), folder / "work")
    work = TaskRunner(known)
    page = next((one for one in pages if not one.done), None)
    span, left = _span(known, page, max(_ends(pages), default=first), (every, now))
    if span is None:
        return _said(use_case, "", "nothing is due", [*repaired, left])
    if page is None:
        page = step_journal.begin(use_case.name, span.name, span.start.isoformat(), span.end.isoformat())
    (folder / "versions").mkdir(parents=True, exist_ok=True)
    world = Live(use_case, work, page, folder / "versions")
    with _run(use_case, span):
        stage = _decided(use_case, world, page, span, state)
        page, told = _alarmed(use_case, stage)
        world.page = page
        done = stepping.act(stage.span, stage.action, stage.state, use_case.policy, world)
        _finished(world.page, stage, done)
    lines = [*repaired, *_lines(span, stage.action, done), *told, *([left] if left else [])]
    return _said(use_case, span.name, done.outcome, lines, stage.action, done)


@contextmanager
def _run(use_case: UseCase, span: TimeWindow) -> Iterator[None]:
    with tracking.run(use_case.name, f"step {span.name}", {"afterfit.use_case": use_case.name}):
        yield


def _state(use_case: UseCase, pages: list[StepRun]) -> State:
    """The state after the last step that was done; anew where production was changed by others since.

    Raises:
        SettingsError: nothing is in production.
    """
    holder = registry.holder(use_case.name, PRODUCTION)
    if holder is None:
        raise SettingsError(f"Nothing of '{use_case.name}' is in production: train and promote a version first.")
    done = [page for page in pages if page.done]
    open_ = len(done) < len(pages)
    if not done:
        return _first(use_case, pages, holder.number)
    state = State.from_dict(step_journal.read(done[-1], STATE))
    if open_ or state.champion == holder.number:  # a step that is under way may have moved it itself
        return state
    anew = stepping.begin(trained(holder))
    return replace(anew, retrained=state.retrained, drift_since=state.drift_since, last=state.last)


def _first(use_case: UseCase, pages: list[StepRun], holder: str) -> State:
    number = pages[0].marks.get("champion", holder) if pages else holder
    return stepping.begin(trained(registry.version(use_case.name, number)))


def _span(
    known: History, page: StepRun | None, begin: datetime, asked: tuple[str, datetime]
) -> tuple[TimeWindow | None, str]:
    """The window that is due, and a sentence on what is left after it, or why none is."""
    length, now = window_length(asked[0], known.use_case), asked[1]
    last = min(now, history.after(known.times[-1]))
    due = history.spans(known, length, begin, last) if begin < last else []
    if page is not None:
        start, end = (datetime.fromisoformat(page.marks[key]) for key in ("start", "end"))
        return TimeWindow(page.window, start, end), ""
    if not due:
        return None, f"No window of {length.count}{length.unit} from {begin} on is over yet (rows reach to {last})."
    return due[0], f"{len(due) - 1} more windows are due: step again." if len(due) > 1 else ""


def _ends(pages: list[StepRun]) -> list[datetime]:
    """Where the windows ended that are done; the next begins after the last."""
    return [datetime.fromisoformat(page.end) for page in pages if page.done]


def _first_begin(use_case: UseCase, pages: list[StepRun], holder: str) -> datetime:
    """Where the first window begins: where the training ended."""
    if use_case.split.train is not None and use_case.split.train.end is not None:
        return use_case.split.train.end
    until = _first(use_case, pages, holder).trained_until
    if until is None:
        raise SettingsError("Nothing says where the training ended: name split.train in the settings file.")
    return history.after(until)


def _decided(use_case: UseCase, world: Live, page: StepRun, span: TimeWindow, state: State) -> Stage:
    """What is to be done, as it was decided: looked at once, and read back after a crash."""
    if page.marks.get("decided") == "true":
        saved = step_journal.read(page, TURN)
        causes = tuple(Cause(**one) for one in saved["action"]["causes"])
        action = Action(saved["action"]["kind"], saved["action"]["reason"], causes)
        return Stage(page, span, action, State.from_dict(saved["state"]))
    page = step_journal.mark(page, champion=state.champion)
    turn = stepping.step(state, span, use_case.policy, world)
    _watch(use_case, turn)
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


def _watch(use_case: UseCase, turn: StepPlan) -> None:
    """The window in the monitor's series, in place of what was there for it."""
    entry = monitor_runs.MonitorRecord(
        turn.observation, turn.past, step_of(turn.span.start), turn.action, turn.state.alarmed
    )
    monitoring.record(use_case, entry, monitor_runs.windows(use_case.name))
    monitor_runs.series(use_case.name)


def _alarmed(use_case: UseCase, stage: Stage) -> tuple[StepRun, list[str]]:
    """Send what is to be told, once; the page, and what is to be said of it."""
    page, settings = stage.page, use_case.alarms
    if not stage.action.causes or not (settings.webhook or settings.command):
        return page, []
    sent = page.marks.get("alarm", "")
    if sent == "sent":
        return page, []
    if sent in {"sending", "unsure"}:
        return step_journal.mark(page, alarm="unsure"), ["The alarm may have gone out before: it is not sent again."]
    told = alarms.message(use_case.name, stage.span.name, stage.action.to_dict(), stage.state.champion)
    page = step_journal.mark(page, alarm="sending")
    try:
        alarms.send(settings, told, use_case.root, time.sleep)
    except UnsureAlarmError as error:
        return step_journal.mark(page, alarm="unsure"), [f"{error} It is not sent again."]
    except AlarmError as error:
        return step_journal.mark(page, alarm="failed", failure=str(error)), [f"The alarm did not go out: {error}"]
    return step_journal.mark(page, alarm="sent"), ["The alarm went out."]


def _finished(page: StepRun, stage: Stage, done: StepResult) -> None:
    """The state after the step, whole before the mark that it is done; an alarm that failed is to come again."""
    state = done.state
    if page.marks.get("alarm") == "failed":
        lost = {cause.key for cause in stage.action.causes}
        state = replace(state, alarmed=tuple(key for key in state.alarmed if key not in lost))
    step_journal.write(page, STATE, state.to_dict())
    verdict = "" if done.verdict is None else done.verdict.decision
    told = {"outcome": done.outcome, "candidate": done.candidate, "verdict": verdict, "version": state.champion}
    page = step_journal.mark(page, **told)
    numbers = {"alarms": float(len(stage.action.causes)), "retrained": float(bool(done.candidate))}
    step_journal.close(page, "\n\n".join(_lines(stage.span, stage.action, done)), numbers)


def _lines(span: TimeWindow, action: Action, done: StepResult) -> list[str]:
    lines = [f"{span.name}: {done.outcome}. {action.reason}"]
    lines += [f"Alarm: {cause.sentence}" for cause in action.causes]
    if done.verdict is not None:
        against = [one.sentence for one in done.verdict.findings if one.outcome in {"fail", "unsure"}]
        lines.append(f"Version {done.candidate}: {done.verdict.decision}. {' '.join(against)}".strip())
    lines.append(f"In production: version {done.state.champion}.")
    return lines


def _said(  # noqa: PLR0917 - one place, called from three
    use_case: UseCase,
    window: str,
    outcome: str,
    lines: list[str],
    action: Action | None = None,
    done: StepResult | None = None,
) -> CommandResult:
    """The answer: lines for a person, the last of them one line of JSON for a scheduler."""
    told: dict[str, Any] = {
        "use_case": use_case.name,
        "window": window,
        "outcome": outcome,
        "action": None if action is None else action.to_dict(),
        "candidate": "" if done is None else done.candidate,
        "verdict": "" if done is None or done.verdict is None else done.verdict.decision,
        "production": None if done is None else done.state.champion,
    }
    code = EXIT.get(outcome, ALARM if action is not None and action.causes else 0)
    return CommandResult((*lines, json.dumps({**told, "exit_code": code})), {**told, "lines": lines}, code)
