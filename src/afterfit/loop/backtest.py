"""Policies tried on history: the loop's own steps, a folder for a registry, and outcomes held back by their delay."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import inf, isfinite, nan, sqrt

import numpy as np

from afterfit import gate
from afterfit.data.windows import TimeWindow
from afterfit.gate.verdict import ComparisonUse, Verdict
from afterfit.loop import stepping, tasks
from afterfit.loop.policy import ENDS, SURE, PairedDifference
from afterfit.loop.stepping import BuilderChoice, Recipe, StepPlan, StepResult, TrainedVersion, WindowObservation
from afterfit.loop.task_runner import TaskRunner
from afterfit.loop.tasks import Model
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.metrics import Measured, metric
from afterfit.settings import Policy
from afterfit.use_case import UseCase


@dataclass(slots=True)
class Replay:
    """The world of one policy on history: versions are models in a folder, numbered as a registry would.

    Attributes:
        work: does the tasks.
        models: the versions so far; the first is "1".
        uses: the comparisons that its gates made, in their order, as a ledger would keep them; named by the models'
            folders, so that policies which came the same way share a verdict.
    """

    work: TaskRunner
    models: dict[str, Model]
    uses: list[ComparisonUse] = field(default_factory=list)

    def recipe(self, version: str) -> BuilderChoice:
        """Builder and parameters of a version."""
        return BuilderChoice(self.models[version].builder, self.models[version].params)

    def trained(self, version: str) -> TrainedVersion:
        """What a version was trained on."""
        model = self.models[version]
        return TrainedVersion(version, model.rows, model.until)

    def observe(
        self, version: str, span: TimeWindow, past: Sequence[CalibrationEvidence], now: datetime
    ) -> WindowObservation:
        """Observe a window of a version."""
        return self.work.ask(tasks.observe, self.models[version].folder, span, tuple(past), now)

    def compare_versions(self, champion: str, previous: str, span: TimeWindow, now: datetime) -> PairedDifference:
        """Compare two versions on a window's known outcomes."""
        folders = (self.models[champion].folder, self.models[previous].folder)
        return self.work.ask(tasks.compare_versions, *folders, span, now)

    def train(self, recipe: Recipe) -> TrainedVersion:
        """Train, or find the model that another policy has trained alike."""
        number = str(len(self.models) + 1)
        self.models[number] = self.work.ask(tasks.train, recipe)
        return self.trained(number)

    def verdict(self, candidate: str, champion: str, now: datetime, *, trial: bool) -> Verdict:
        """What the gate says of it."""
        ours, theirs = (self.models[number].folder for number in (candidate, champion))
        seen = self.work.ask(tasks.gate_verdict, ours, theirs, now, tuple(self.uses))
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
    """A verdict that policies share, with this policy's version numbers in its sentences."""

    def numbered(sentence: str) -> str:
        for folder, number in names.items():
            sentence = sentence.replace(folder, number)
        return sentence

    findings = (replace(finding, sentence=numbered(finding.sentence)) for finding in verdict.findings)
    return replace(verdict, findings=tuple(findings))


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

    def best_estimate(self, name: str) -> Measured | None:
        """The best that was known of a metric at the time."""
        return self.turn.observation.best_estimate(name)


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
        fell = [entry.fell for entry in self.entries if entry.turn.action.causes]
        return sum(fell), len(fell) - sum(fell)

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
        """Whether the interval does not hold 0."""
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


def run(plan: BacktestPlan, work: TaskRunner) -> list[PolicyRun]:
    """Let each policy live through the windows. Policies go on side by side, and share the tasks that are alike."""
    first = work.ask(tasks.train, plan.first)
    stop = threading.Event()

    def story(item: tuple[str, Policy]) -> PolicyRun:
        return _story(*item, plan, work, first, stop)

    if not work.several:
        return [story(item) for item in plan.policies.items()]
    with ThreadPoolExecutor(max(len(plan.policies), 1)) as threads:
        try:
            return list(threads.map(story, plan.policies.items()))
        except BaseException:
            stop.set()
            raise


def _story(  # noqa: PLR0917 - one call, above
    name: str, policy: Policy, plan: BacktestPlan, work: TaskRunner, first: Model, stop: threading.Event
) -> PolicyRun:
    world = Replay(work, {"1": first})
    state = stepping.begin(world.trained("1"))
    entries = []
    for span in plan.spans:
        if stop.is_set():
            break
        version = state.champion
        model = world.models[version]
        turn = stepping.step(state, span, policy, world)
        realised = work.ask(tasks.realised, model.folder, span)
        last = span is plan.spans[-1]  # what it would lead to lies after the history
        done = StepResult(turn.state, "over") if last else stepping.act(span, turn.action, turn.state, policy, world)
        state = done.state
        fell = _fell(work.history.use_case, turn, realised)
        entries.append(WindowResult(turn, done, version, model, world.models.get(done.candidate), realised, fell))
        plan.progress(name, span.name)
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
    history, end = work.history, entries[-1].turn.span.end
    rows = history.between(entries[0].turn.span.start, end)
    return int(np.isfinite(history.y[rows.start : min(history.known(end), rows.stop)]).sum())


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
    first, second = sorted([mine.model.folder, theirs.model.folder])  # one task, whichever of the two is asked first
    comparison = work.ask(tasks.compare_in_hindsight, first, second, mine.turn.span, money=money)
    if comparison is None or not isfinite(comparison.difference):
        return 0.0, 0.0
    sign = 1.0 if first == mine.model.folder else -1.0
    scale = comparison.n if money else 1.0
    low, high = comparison.interval
    return sign * comparison.difference * scale, (high - low) / (2 * ENDS) * scale


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
    lag = against[chosen.name]
    shown = "{:+,.0f} ({:+,.0f} to {:+,.0f})" if money else "{:+.4f} ({:+.4f} to {:+.4f})"
    return (
        f"{best.name} is best with {worth}, but {chosen.name} is not surely worse: "
        f"{shown.format(lag.value, lag.low, lag.high)} {unit}, with {chosen.retrainings} retrainings in place of "
        f"{best.retrainings}."
    )
