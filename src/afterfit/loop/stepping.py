"""One turn of the loop: look at a window, decide by the policy, carry it out. The same live and on history.

The world behind it, which has versions, rows and a registry, comes in as `World`: live it is MLflow and the prediction
log, in a backtest a folder and a table. What is measured of a window, of two versions and of a candidate is measured by
the functions of this module in both. There is no clock in it: the time is the end of the window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from afterfit import data
from afterfit.data.windows import TimeWindow
from afterfit.gate.verdict import Verdict
from afterfit.loop.observation import Observation
from afterfit.loop.observe import AnsweredRows, observe, paired, past_of
from afterfit.loop.policy import PART, Action, PairedDifference, State, causes_of, decide, remembered
from afterfit.loop.recorded_windows import due, settled
from afterfit.model import packaging
from afterfit.model.bundle import Bundle
from afterfit.model.training import Trained, train
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.metrics import Metric, metric
from afterfit.performance.paired_comparison import Comparison, PairedAnswers
from afterfit.settings import Policy, TrainOn
from afterfit.use_case import UseCase

RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class WindowObservation:
    """What a look at a window gave: the observation, what its outcomes teach, and whether all that matter are there."""

    observation: Observation
    known: int
    past: CalibrationEvidence
    settled: bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: builder, parameters, trials of a search around them, and which rows.

    `until` is the time of deciding; outcomes that are not known by then are not there. `drift_since` is the begin of
    the last drift or fall, for training on what came since.
    """

    builder: str
    params: Mapping[str, Any]
    tune: int
    train_on: TrainOn
    minimum: int
    until: datetime
    drift_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class BuilderChoice:
    """A model builder by name, and its parameters."""

    builder: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainedVersion:
    """A version that was trained: its number, how many rows it was trained on, and the time of the last."""

    version: str
    rows: int
    until: datetime | None


class World(Protocol):
    """What the loop acts on. Each call is made at the end of the window in question, and knows nothing later."""

    def recipe(self, version: str) -> BuilderChoice:
        """Builder and parameters of a version."""

    def trained(self, version: str) -> TrainedVersion:
        """What a version was trained on."""

    def observe(
        self, version: str, span: TimeWindow, past: Sequence[CalibrationEvidence], now: datetime
    ) -> WindowObservation:
        """Observe a window of a version, which answers its rows now where another one had answered them."""

    def compare_versions(self, champion: str, previous: str, span: TimeWindow, now: datetime) -> PairedDifference:
        """Compare two versions on a window's known outcomes."""

    def train(self, recipe: Recipe) -> TrainedVersion:
        """Train and register."""

    def verdict(self, candidate: str, champion: str, now: datetime, *, trial: bool) -> Verdict:
        """What the gate says of it, in the light of earlier uses of the rows; TRIAL only where that is allowed."""

    def promote(self, candidate: str, champion: str, verdict: Verdict, reason: str) -> bool:
        """Record the verdict, PROMOTE or TRIAL, and put it into production; whether it is there now."""

    def refuse(self, candidate: str, champion: str, verdict: Verdict, reason: str) -> None:
        """Record the verdict, HOLD or REJECT: it stays out."""

    def roll_back(self, champion: str, previous: str, reason: str) -> bool:
        """Put the previous version back; whether it is there now."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What was seen in a window, what it teaches, and what is to be done: nothing has been done yet."""

    span: TimeWindow
    observation: Observation
    action: Action
    state: State
    past: CalibrationEvidence


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a turn: the state after it, and for a retraining the candidate and the gate's verdict."""

    state: State
    outcome: str
    candidate: str = ""
    verdict: Verdict | None = None


def begin(version: TrainedVersion) -> State:
    """The state of a loop that begins with a version in production."""
    return State(version.version, trained_rows=version.rows, trained_until=version.until)


def step(state: State, span: TimeWindow, policy: Policy, world: World) -> StepPlan:
    """Look at one window, and at earlier ones whose outcomes have come since; say what should be done."""
    history, waiting = [], []
    state = replace(state, windows=state.windows + 1)
    seen: WindowObservation
    for window in (*state.waiting, span):
        seen = world.observe(state.champion, window, state.pasts, span.end)
        history.append(seen.observation)
        if not seen.settled:
            waiting.append(window)
            continue
        state = replace(state, pasts=(*state.pasts, seen.past), outcomes=state.outcomes + seen.known)
        if state.previous:
            comparison = world.compare_versions(state.champion, state.previous, window, span.end)
            state = replace(state, comparisons=(*state.comparisons, comparison))
    state = replace(state, waiting=tuple(waiting))
    action = decide(history, state, policy)
    after = remembered(state, history[-1], action, tuple(causes_of(history, policy)))
    return StepPlan(span, seen.observation, action, after, seen.past)


def act(span: TimeWindow, action: Action, state: State, policy: Policy, world: World) -> StepResult:
    """Carry out what a turn said; everything that it asks of the world may be asked again after a crash."""
    if action.kind == "roll_back":
        return _roll_back(action, state, world)
    if action.kind == "retrain":
        return _retrain(span, action, state, policy, world)
    return StepResult(state, action.kind)


def _roll_back(action: Action, state: State, world: World) -> StepResult:
    if not world.roll_back(state.champion, state.previous, action.reason):
        return StepResult(replace(state, previous="", comparisons=()), "not rolled back")
    back = world.trained(state.previous)
    outcomes = state.outcomes + max(state.trained_rows - back.rows, 0)
    after = replace(begin(back), outcomes=outcomes, refusals=1, retrained=state.retrained, last=state.last)
    return StepResult(replace(after, drift_since=state.drift_since), "rolled back")


def _retrain(span: TimeWindow, action: Action, state: State, policy: Policy, world: World) -> StepResult:
    known = world.recipe(state.champion)
    recipe = Recipe(
        known.builder,
        known.params,
        policy.tune,
        policy.train_on,
        policy.minimum_outcomes,
        until=span.end,
        drift_since=state.drift_since,
    )
    made = world.train(recipe)
    verdict = world.verdict(made.version, state.champion, span.end, trial=policy.trial)
    spent = (*state.retrained, span.end)
    if verdict.moves:
        good = verdict.decision == "PROMOTE"
        reason = action.reason if good else f"On trial. {action.reason}"
        if world.promote(made.version, state.champion, verdict, reason):
            after = State(
                made.version,
                previous=state.champion,
                trained_rows=made.rows,
                trained_until=made.until,
                retrained=spent,
                drift_since=state.drift_since,
                waiting=tuple(window for window in state.waiting if made.until is None or window.end > made.until),
                last=state.last,
            )
            return StepResult(after, "promoted" if good else "on trial", made.version, verdict)
    else:
        world.refuse(made.version, state.champion, verdict, action.reason)
    refused = replace(state, windows=0, refusals=state.refusals + 1, retrained=spent)
    return StepResult(refused, "refused" if verdict.decision == "REJECT" else "held", made.version, verdict)


# What is measured, live and on history alike.


def observe_window(
    use_case: UseCase,
    bundle: Bundle,
    window: AnsweredRows,
    span: TimeWindow,
    past: Sequence[CalibrationEvidence],
    *,
    now: datetime,
) -> WindowObservation:
    """Observe a window as its outcomes are known now.

    Args:
        use_case: its metrics and gate, which has the label delay.
        bundle: the version that answered.
        window: the rows, with nan for outcomes that are not known now.
        span: which window it is.
        past: what earlier windows with outcomes showed of that version.
        now: the time, in the clock of the time column.
    """
    known, sound = int(window.known.sum()), int(window.sound.sum())
    delay = timedelta(hours=use_case.gate.label_delay_hours)
    counts = settled(span.end, delay, now, known=known, sound=sound)
    seen = observe(
        use_case,
        bundle,
        window,
        name=span.name,
        start=span.start,
        end=span.end,
        complete=due(span.end, delay, now),
        past=past,
        seed=use_case.seed,
    )
    return WindowObservation(seen, known, past_of(use_case, bundle, window, end=span.end), counts)


def compare_versions(
    use_case: UseCase, bundle: Bundle, name: str, window: AnsweredRows, other: AnsweredRows
) -> PairedDifference:
    """A version against the one that it replaced on the rows that both answered and whose outcomes are known.

    Args:
        use_case: its primary metric.
        bundle: the version.
        name: the window.
        window: as the version answered it.
        other: as the other one did.
    """
    rows = paired(window, other)
    n = len(rows.y)
    comparison = compared(use_case, rows)
    if comparison is None or not np.isfinite(comparison.difference):
        return PairedDifference(name, 0.0, -np.inf, np.inf, n, 0.0)
    low, high = (0.0, 0.0) if comparison.identical else comparison.interval
    primary = metric(use_case.primary_metric)
    dummy, model = (primary(rows.y, answers) for answers in (bundle.scorer.constant(n), rows.candidate))
    skill = float(primary.improvement(dummy, model))
    return PairedDifference(name, comparison.difference, low, high, comparison.n, skill if np.isfinite(skill) else 0.0)


def compared(use_case: UseCase, rows: PairedAnswers, by: Metric | None = None) -> Comparison | None:
    """Candidate against champion, by the primary metric where none is given; None where there are no rows."""
    if not len(rows.y):
        return None
    return rows.compared(use_case.primary_metric if by is None else by, resamples=RESAMPLES, seed=use_case.seed)


def chosen(recipe: Recipe, times: npt.NDArray[Any], marks: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Positions of the rows that a retraining takes, of rows with outcomes known by then, in order of time.

    "weighted" takes a row of age a with the probability 2^(-a / half-life), by its fingerprint: the loss that is
    expected over the sample is the loss weighted so, for any kind of model, and the same rows are taken each time.

    Args:
        recipe: which rows.
        times: (n,) their times.
        marks: (n,) their fingerprints.
    """
    rows, settings = np.arange(len(times)), recipe.train_on
    now = np.datetime64(recipe.until)
    if settings.rows == "weighted":
        days = (now - times).astype("timedelta64[s]").astype(np.float64) / 86_400
        chance = np.exp2(-days / float(settings.half_life_days or 1.0))
        part = rows[data.shares(marks) < chance]
    elif settings.rows == "days":
        part = rows[times >= now - np.timedelta64(int(float(settings.days or 0) * 86_400), "s")]
    elif settings.rows == "change" and recipe.drift_since is not None:
        part = rows[times >= np.datetime64(recipe.drift_since)]
    else:
        return rows
    return part if len(part) >= PART * recipe.minimum else rows


def made(ready: packaging.Table, recipe: Recipe, folder: Path, params: Mapping[str, Any]) -> tuple[Bundle, Trained]:
    """Train on a table and write the bundle; its manifest is dated with the time of deciding."""
    trained = train(ready.problem, recipe.builder, params)
    return packaging.write_bundle(ready, (recipe.builder, params), trained, folder, recipe.until), trained
