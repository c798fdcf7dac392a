"""Policies tried on history: the loop's own steps, a folder for a registry, and outcomes held back by their delay."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import inf, isfinite, nan, sqrt
from typing import Any

import numpy as np

from afterfit import gate
from afterfit.gate.verdict import ComparisonUse, Verdict
from afterfit.loop import history, stepping
from afterfit.loop.history import Model, TaskRunner
from afterfit.loop.policy import ENDS, SURE, PairedDifference, TimeWindow
from afterfit.loop.stepping import Recipe, StepPlan, StepResult, TrainedVersion, WindowObservation
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.metrics import Measured, metric
from afterfit.settings import Policy
from afterfit.use_case import UseCase


@dataclass(slots=True)
class Replay:
    """The world of one policy on history: versions are models in a folder, numbered as a registry would.

    Attributes:
        work: does the pieces.
        models: the versions so far; the first is "1".
        uses: the comparisons that its gates made, in their order, as a ledger would keep them; named by the models'
            folders, so that policies which came the same way share a verdict.
    """

    work: TaskRunner
    models: dict[str, Model]
    uses: list[ComparisonUse] = field(default_factory=list)

    def recipe(self, version: str) -> tuple[str, Mapping[str, Any]]:
        """Builder and parameters of a version."""
        return self.models[version].builder, self.models[version].params

    def trained(self, version: str) -> TrainedVersion:
        """What a version was trained on."""
        model = self.models[version]
        return TrainedVersion(version, model.rows, model.until)

    def look(
        self, version: str, span: TimeWindow, past: Sequence[CalibrationEvidence], now: datetime
    ) -> WindowObservation:
        """Observe a window of a version."""
        return self.work.ask(history.look, self.models[version].folder, span, tuple(past), now)

    def duel(self, champion: str, previous: str, span: TimeWindow, now: datetime) -> PairedDifference:
        """Compare two versions on a window's known outcomes."""
        folders = (self.models[champion].folder, self.models[previous].folder)
        return self.work.ask(history.duel, *folders, span, now)

    def train(self, recipe: Recipe) -> TrainedVersion:
        """Train, or find the model that another policy has trained alike."""
        number = str(len(self.models) + 1)
        self.models[number] = self.work.ask(history.train, recipe)
        return self.trained(number)

    def verdict(self, candidate: str, champion: str, now: datetime, *, trial: bool) -> Verdict:
        """What the gate says of it."""
        ours, theirs = (self.models[number].folder for number in (candidate, champion))
        seen = self.work.ask(history.gate_verdict, ours, theirs, now, tuple(self.uses))
        return renamed(
            gate.judge(seen.findings, seen.window, trial=trial), {ours.name: candidate, theirs.name: champion}
        )

    def promote(self, candidate: str, champion: str, verdict: Verdict, reason: str) -> bool:
        """Nothing stands in the way; that the rows were used is kept."""
        del candidate, champion, reason
        self._record(verdict)
        return True

    def refuse(self, candidate: str, champion: str, verdict: Verdict, reason: str) -> None:
        """That the rows were used is kept."""
        del candidate, champion, reason
        self._record(verdict)

    def _record(self, verdict: Verdict) -> None:
        use = ComparisonUse.of_window(verdict.window)
        self.uses += [] if use is None else [use]

    def roll_back(self, champion: str, previous: str, reason: str) -> bool:
        """Nothing stands in the way."""
        del champion, previous, reason
        return True


def renamed(verdict: Verdict, names: Mapping[str, str]) -> Verdict:
    """A verdict that was shared, with the versions' own numbers in its sentences."""

    def told(sentence: str) -> str:
        for folder, number in names.items():
            sentence = sentence.replace(folder, number)
        return sentence

    return replace(verdict, findings=tuple(replace(one, sentence=told(one.sentence)) for one in verdict.findings))


@dataclass(frozen=True, slots=True)
class WindowResult:
    """One window of one policy.

    Attributes:
        turn: what was seen and decided, with what was known then.
        done: what came of it.
        version: which answered the window.
        model: its model.
        candidate: the model that was trained after it; None where none was.
        realised: every metric with all outcomes, in hindsight.
        fell: whether the primary metric really was worse than promised, by more than the gate's tolerance.
    """

    turn: StepPlan
    done: StepResult
    version: str
    model: Model
    candidate: Model | None
    realised: Mapping[str, float]
    fell: bool

    def believed(self, name: str) -> Measured | None:
        """What was believed of a metric at the time."""
        return self.turn.observation.believed(name)


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """What one policy would have done.

    Attributes:
        name: the policy's.
        policy: its settings.
        entries: the windows in order.
        seconds: what its trainings would cost, each counted.
        outcomes: known outcomes that it used.
    """

    name: str
    policy: Policy
    entries: tuple[WindowResult, ...]
    seconds: float
    outcomes: int

    def count(self, *outcomes: str) -> int:
        """In how many windows one of these came of it: promoted, on trial, refused, held, rolled back."""
        return sum(entry.done.outcome in outcomes for entry in self.entries)

    @property
    def retrainings(self) -> int:
        """Models trained after the first."""
        return sum(entry.candidate is not None for entry in self.entries)

    @property
    def alarms(self) -> tuple[int, int]:
        """Windows with a new alarm: in those where performance fell, and in the others."""
        told = [entry.fell for entry in self.entries if entry.turn.action.causes]
        return sum(told), len(told) - sum(told)

    def mean(self, name: str) -> float:
        """The mean of a metric over the windows where it is defined."""
        known = [value for entry in self.entries if isfinite(value := entry.realised.get(name, nan))]
        return sum(known) / len(known) if known else nan

    @property
    def money(self) -> float | None:
        """Value over all rows less the costs of training and outcomes; None where the use case has no value."""
        if any("value" not in entry.realised for entry in self.entries):
            return None
        won = sum(entry.realised["value"] * entry.realised["rows"] for entry in self.entries)
        return won - self.costs

    @property
    def costs(self) -> float:
        """Of retrainings and outcomes, in the value's unit."""
        return self.retrainings * self.policy.retraining_cost + self.outcomes * self.policy.outcome_cost


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one policy was better than another: over the windows' mean, with a 90 % interval.

    In the primary metric's unit, or in money over all windows.
    """

    one: str
    other: str
    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves nothing out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The policies, best first, each against the best; which is recommended, and why."""

    stories: tuple[PolicyRun, ...]
    against_best: Mapping[str, Difference]
    recommended: str
    reason: str


@dataclass(frozen=True, slots=True)
class BacktestPlan:
    """What a backtest is asked: which windows, what the first model is trained on, and which policies."""

    spans: tuple[TimeWindow, ...]
    first: Recipe
    policies: Mapping[str, Policy]
    progress: Callable[[str, str], None] = field(default=lambda _name, _window: None)


def run(trial: BacktestPlan, work: TaskRunner) -> list[PolicyRun]:
    """Let each policy live through the windows; policies go on side by side, and share what they have in common."""
    first = work.ask(history.train, trial.first)
    stop = threading.Event()

    def told(item: tuple[str, Policy]) -> PolicyRun:
        return _story(*item, trial, work, first, stop)

    if not work.several:
        return [told(item) for item in trial.policies.items()]
    with ThreadPoolExecutor(max(len(trial.policies), 1)) as threads:
        try:
            return list(threads.map(told, trial.policies.items()))
        except BaseException:
            stop.set()
            raise


def _story(  # noqa: PLR0917 - one call, above
    name: str, policy: Policy, trial: BacktestPlan, work: TaskRunner, first: Model, stop: threading.Event
) -> PolicyRun:
    world = Replay(work, {"1": first})
    state = stepping.begin(world.trained("1"))
    entries = []
    for span in trial.spans:
        if stop.is_set():
            break
        version = state.champion
        model = world.models[version]
        turn = stepping.step(state, span, policy, world)
        realised = work.ask(history.realised, model.folder, span)
        last = span is trial.spans[-1]  # what it would lead to lies after the history
        done = StepResult(turn.state, "over") if last else stepping.act(span, turn.action, turn.state, policy, world)
        state = done.state
        fell = _fell(work.history.use_case, turn, realised)
        entries.append(WindowResult(turn, done, version, model, world.models.get(done.candidate), realised, fell))
        trial.progress(name, span.name)
    seconds = sum(entry.candidate.seconds for entry in entries if entry.candidate)
    return PolicyRun(name, policy, tuple(entries), seconds, _outcomes(policy, entries, work))


def _fell(use_case: UseCase, turn: StepPlan, realised: Mapping[str, float]) -> bool:
    name = use_case.primary_metric
    promise = turn.observation.promise.get(name, {}).get("mean")
    value = realised.get(name, nan)
    if promise is None or not isfinite(value):
        return False
    lost = promise - value if metric(name).greater_is_better else value - promise
    return lost > use_case.gate.known_tolerance


def _outcomes(policy: Policy, entries: Sequence[WindowResult], work: TaskRunner) -> int:
    """Outcomes known by the last decision, where the policy looks at outcomes or trains on them at all."""
    looks = policy.while_it_pays or policy.roll_back or "realised" in {*policy.alarm, *policy.retrain}
    if not entries or not (looks or any(entry.candidate for entry in entries)):
        return 0
    known = work.history
    rows = known.between(entries[0].turn.span.start, entries[-1].turn.span.end)
    return int(np.isfinite(known.y[rows.start : min(known.known(entries[-1].turn.span.end), rows.stop)]).sum())


def difference(one: PolicyRun, other: PolicyRun, work: TaskRunner, *, money: bool = False) -> Difference:
    """By how much one policy was better than another.

    Both are compared on the same rows, window by window, by a paired bootstrap over blocks of time; where the same
    model answered, the difference is nothing. Windows are taken to be independent of each other. In money, it is the
    difference over all windows less the difference in costs.
    """
    parts = [_window(mine, theirs, work, money=money) for mine, theirs in zip(one.entries, other.entries, strict=True)]
    known = [spread for _, spread in parts if isfinite(spread)]
    rough = max(known, default=inf)
    error = sqrt(sum(min(spread, rough) ** 2 for _, spread in parts))
    total = sum(value for value, _ in parts)
    scale = 1.0 if money else len(parts) or 1.0
    value = total / scale - (one.costs - other.costs if money else 0.0)
    reach = SURE * error / scale
    return Difference(one.name, other.name, value, value - reach, value + reach)


def _window(mine: WindowResult, theirs: WindowResult, work: TaskRunner, *, money: bool) -> tuple[float, float]:
    if mine.model.folder == theirs.model.folder:
        return 0.0, 0.0
    pair = sorted([mine.model.folder, theirs.model.folder])
    found = work.ask(history.versus, *pair, mine.turn.span, money)
    if found is None or not isfinite(found.difference):
        return 0.0, 0.0
    sign = 1.0 if pair[0] == mine.model.folder else -1.0
    scale = found.n if money else 1.0
    return sign * found.difference * scale, (found.interval[1] - found.interval[0]) / (2 * ENDS) * scale


def ranked(stories: Sequence[PolicyRun], work: TaskRunner) -> Ranking:
    """Put policies in order: by money where the use case says what its answers are worth, else by the primary metric.

    Recommended is the one with the fewest retrainings among those that are not surely worse than the best.
    """
    use_case = work.history.use_case
    money = all(story.money is not None for story in stories)
    name = use_case.primary_metric
    sign = 1.0 if metric(name).greater_is_better else -1.0

    def worth(story: PolicyRun) -> float:
        return (story.money or 0.0) if money else sign * story.mean(name)

    ordered = sorted(stories, key=worth, reverse=True)
    best = ordered[0]
    against = {story.name: difference(story, best, work, money=money) for story in ordered}
    able = [story for story in ordered if story is best or against[story.name].high >= 0]
    chosen = min(able, key=lambda story: (story.retrainings, ordered.index(story)))
    return Ranking(tuple(ordered), against, chosen.name, _why(chosen, best, against, use_case, money=money))


def _why(
    chosen: PolicyRun, best: PolicyRun, against: Mapping[str, Difference], use_case: UseCase, *, money: bool
) -> str:
    name = use_case.primary_metric
    unit = use_case.metrics.value.unit if money and use_case.metrics.value else name
    worth = f"{best.money:,.0f} {unit}" if money else f"{best.mean(name):.4f} {name} on average"
    if chosen is best:
        return f"{best.name} is best with {worth}, with {best.retrainings} retrainings."
    found = against[chosen.name]
    shown = "{:+,.0f} ({:+,.0f} to {:+,.0f})" if money else "{:+.4f} ({:+.4f} to {:+.4f})"
    return (
        f"{best.name} is best with {worth}, but {chosen.name} is not surely worse: "
        f"{shown.format(found.value, found.low, found.high)} {unit}, with {chosen.retrainings} retrainings in place of "
        f"{best.retrainings}."
    )
