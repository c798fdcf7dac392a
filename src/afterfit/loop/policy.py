"""From what was seen to what is done. Only this module and the gate hold limits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf, isfinite, sqrt
from typing import Any, Literal

from afterfit.data.windows import TimeWindow
from afterfit.loop.observation import Observation
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.metrics import Measured, metric
from afterfit.settings import Policy

Kind = Literal["nothing", "alarm", "retrain", "roll_back"]
SURE = 1.645
"""Standard errors: what is farther from nothing than this is sure; the ends of 90 % intervals."""
LIKELY = 0.8416
"""Standard errors above nothing at which a difference is 4 to 1 a gain."""
ENDS = 1.96
"""Standard errors at which the 95 % intervals of comparisons end."""
MONTH = timedelta(days=30)
NEWS = 0.1
"""To find out what newer rows are worth takes at least so many times the rows of the training."""
SETTLED = 0.9
"""A window whose outcomes are known to this share is settled: what is missing is its last days, not its bad ones."""
PART = 5
"""Training on part of the rows takes at least so many times `minimum_outcomes`; else it takes all."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that is wrong: `key` names it for as long as it lasts, `sentence` says it."""

    kind: str
    key: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done about a window, why in a sentence, and the causes that are to be told now."""

    kind: Kind
    reason: str
    causes: tuple[Cause, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        causes = [{"kind": cause.kind, "key": cause.key, "sentence": cause.sentence} for cause in self.causes]
        return {"kind": self.kind, "reason": self.reason, "causes": causes}


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Production against the version that it replaced, in one window.

    Attributes:
        window: its name.
        difference: by how much production is better, in the primary metric's unit.
        low: lower 95 % end of it.
        high: upper end.
        n: outcomes.
        skill: by how much production is better than the dummy, in the same unit.
    """

    window: str
    difference: float
    low: float
    high: float
    n: int
    skill: float


@dataclass(frozen=True, slots=True)
class State:
    """What the loop remembers from window to window.

    Attributes:
        champion: the version in production.
        previous: the version that it replaced; empty where there is none to go back to.
        trained_rows: rows that the champion was trained on.
        trained_until: time of the last of them.
        outcomes: outcomes known of windows since.
        windows: windows since the last retraining, or since the beginning.
        refusals: candidates refused since the champion came.
        retrained: when retrainings were, the ends of their windows.
        comparisons: the champion against the version that it replaced, by window.
        alarmed: keys of causes that were told and last on.
        drift_since: begin of the first window of the present, or last, stretch of windows with drift or a fall.
        calm: whether the last window had neither.
        pasts: what windows with outcomes showed of the champion, oldest first.
        waiting: windows whose outcomes are not there yet.
        last: name of the last window done.
    """

    champion: str
    previous: str = ""
    trained_rows: int = 0
    trained_until: datetime | None = None
    outcomes: int = 0
    windows: int = 0
    refusals: int = 0
    retrained: tuple[datetime, ...] = ()
    comparisons: tuple[PairedDifference, ...] = ()
    alarmed: tuple[str, ...] = ()
    drift_since: datetime | None = None
    calm: bool = True
    pasts: tuple[CalibrationEvidence, ...] = ()
    waiting: tuple[TimeWindow, ...] = ()
    last: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `told`, `troubled` and `duels` are the keys that stores have for what is named anew here."""
        plain = {name: getattr(self, name) for name in ("champion", "previous", "trained_rows", "outcomes", "windows")}
        plain |= {"refusals": self.refusals, "told": list(self.alarmed), "calm": self.calm, "last": self.last}
        plain |= {"trained_until": _iso(self.trained_until), "troubled": _iso(self.drift_since)}
        plain["retrained"] = [_iso(moment) for moment in self.retrained]
        plain["duels"] = [
            [d.window, d.difference, _finite(d.low), _finite(d.high), d.n, d.skill] for d in self.comparisons
        ]
        plain["pasts"] = [past.to_dict() for past in self.pasts]
        plain["waiting"] = [[span.name, _iso(span.start), _iso(span.end)] for span in self.waiting]
        return plain

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "State":
        """The inverse of `to_dict`.

        Raises:
            ValueError, TypeError, LookupError: it was changed, and is no state.
        """
        given = dict(saved)
        texts, numbers = ("champion", "previous", "last"), ("trained_rows", "outcomes", "windows", "refusals")
        if not all(isinstance(given[key], str) for key in texts) or not all(type(given[key]) is int for key in numbers):
            raise TypeError("names are text, and counts are whole numbers")
        for name, key in (("trained_until", "trained_until"), ("drift_since", "troubled")):
            text = given.pop(key)
            given[name] = None if text is None else datetime.fromisoformat(text)
        given["retrained"] = tuple(datetime.fromisoformat(moment) for moment in saved["retrained"])
        given["alarmed"] = tuple(given.pop("told"))
        given["comparisons"] = tuple(
            PairedDifference(w, d, -inf if low is None else low, inf if high is None else high, n, skill)
            for w, d, low, high, n, skill in given.pop("duels")
        )
        given["pasts"] = tuple(CalibrationEvidence.from_dict(past) for past in saved["pasts"])
        given["waiting"] = tuple(
            TimeWindow(name, datetime.fromisoformat(start), datetime.fromisoformat(end))
            for name, start, end in saved["waiting"]
        )
        return cls(**given)


@dataclass(frozen=True, slots=True)
class PooledDifference:
    """Several windows taken together: mean difference and mean skill by row, and the difference's standard error."""

    difference: float
    error: float
    n: int
    skill: float

    @property
    def likely(self) -> bool:
        """Whether the difference is more than nothing, 4 to 1."""
        return self.difference > LIKELY * self.error

    @property
    def share(self) -> float:
        """The difference as a share of what the better version is worth above the dummy; 0 where that is nothing."""
        return self.difference / self.skill if self.skill > 0 else 0.0

    @property
    def low(self) -> float:
        """The lower end of the 90 % interval."""
        return self.difference - SURE * self.error

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.difference + SURE * self.error


def together(windows: Sequence[PairedDifference]) -> PooledDifference | None:
    """Several windows' differences as one, windows weighted by their rows and taken to be independent of each other.

    Windows too small to have an interval are left out; None where none is left.
    """
    able = [window for window in windows if isfinite(window.high - window.low)]
    rows = sum(window.n for window in able)
    if not rows:
        return None
    parts = [(window.n / rows, window.difference, (window.high - window.low) / (2 * ENDS)) for window in able]
    error = sqrt(sum((share * spread) ** 2 for share, _, spread in parts))
    skill = sum(window.n / rows * window.skill for window in able)
    return PooledDifference(sum(share * difference for share, difference, _ in parts), error, rows, skill)


def decide(history: Sequence[Observation], state: State, policy: Policy) -> Action:
    """What the last window leads to.

    First whether to roll back, then whether to retrain, then what to tell. Causes are told once for as long as they
    last: those in `state.alarmed` were told before.

    Args:
        history: the champion's windows, the last one being the one that is decided about. With late outcomes, an
            earlier window is there as it looks now.
        state: what the loop remembers, with the comparisons that are known now.
        policy: the limits.
    """
    causes = tuple(causes_of(history, policy))
    fresh = tuple(cause for cause in causes if cause.kind in policy.alarm and cause.key not in state.alarmed)
    gain = together(state.comparisons)
    back = _worse(gain, state, policy)
    if back:
        return Action("roll_back", back, fresh)
    wish = next(_wishes(causes, gain, state, policy), "")
    barred = _barred(history[-1], state, policy) if wish else ""
    if wish and not barred:
        return Action("retrain", wish, fresh)
    put_off = f" {wish} But {barred}" if wish else ""
    if fresh:
        return Action("alarm", " ".join(cause.sentence for cause in fresh) + put_off, fresh)
    lasting = f" What was told before lasts: {', '.join(cause.key for cause in causes)}." if causes else ""
    return Action("nothing", put_off.strip() or f"Nothing asks for an action.{lasting}")


def causes_of(history: Sequence[Observation], policy: Policy) -> Iterator[Cause]:
    """All that is wrong in the last window, whether it was told before or not."""
    seen = history[-1]
    if seen.rows and seen.quality.refused / seen.rows >= policy.refused:
        share = seen.quality.refused / seen.rows
        yield Cause("quality", "quality", f"{share:.1%} of {seen.rows:,} rows got no answer.")
    service = seen.service
    if service is not None and service.answers and service.errors / service.answers >= policy.errors:
        yield Cause("service", "service", f"{service.errors:,} of {service.answers:,} requests failed.")
    if seen.drift is not None and seen.drift.alarm:
        ranked = list(dict.fromkeys(finding.column for finding in seen.drift.ranked))
        names = f" ({', '.join(ranked[:3])})" if ranked else ""
        count = len(ranked) + (sum(relation.alarm for relation in seen.drift.relations) if not ranked else 0)
        what = "columns" if ranked else "relations"
        yield Cause("drift", "drift", f"{count} {what if count > 1 else what[:-1]} changed since training{names}.")
    yield from _fallen(history, policy)


def _fallen(history: Sequence[Observation], policy: Policy) -> Iterator[Cause]:
    """The newest window with outcomes enough, and before its outcomes the last one's estimate."""
    name = next(iter(history[-1].promise), "")
    known = [seen for seen in history if name in seen.realised and seen.realised[name].n >= policy.minimum_outcomes]
    windows = [("realised", known[-1])] if known else []
    if not known or known[-1] is not history[-1]:
        windows.append(("estimated", history[-1]))
    for kind, seen in windows:
        measured = getattr(seen, kind).get(name)
        limit = expected_at_least(seen, policy)
        if measured is not None and limit is not None and below(measured, limit, sure=policy.sure):
            yield Cause(
                kind,
                f"{kind} {name}",
                f"{name} is {'' if kind == 'realised' else 'estimated at '}{measured.value:.4f} in {seen.name},"
                f"{' surely' if policy.sure else ''} worse than {limit:.4f}, which was promised.",
            )


def expected_at_least(seen: Observation, policy: Policy) -> float | None:
    """The worst value of the primary metric that is no fall; None without a promise."""
    if not seen.promise:
        return None
    name, promise = next(iter(seen.promise.items()))
    better = metric(name).greater_is_better
    if policy.fall == "range":
        return promise["low"] if better else promise["high"]
    mean = promise["mean"]
    return None if mean is None else mean - policy.fall if better else mean + policy.fall


def below(measured: Measured, limit: float, *, sure: bool) -> bool:
    """Whether a metric is on the bad side of a limit; where it must be sure, the whole interval."""
    greater = metric(measured.metric).greater_is_better
    end = measured.value if not sure else measured.high if greater else measured.low
    if measured.value is None or end is None or not isfinite(end):
        return False
    return end < limit if greater else end > limit


def _worse(gain: PooledDifference | None, state: State, policy: Policy) -> str:
    """Why to roll back; empty where there is no reason."""
    enough = gain is not None and gain.n >= policy.minimum_outcomes
    if not (policy.roll_back and state.previous and gain is not None and enough and gain.high < -policy.worse):
        return ""
    return (
        f"Version {state.champion} is surely worse than version {state.previous}, which it replaced: "
        f"{gain.difference:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) over {gain.n:,} outcomes."
    )


def _wishes(causes: Sequence[Cause], gain: PooledDifference | None, state: State, policy: Policy) -> Iterator[str]:
    """Reasons to retrain, the strongest first."""
    for cause in causes:
        if cause.kind in policy.retrain:
            yield cause.sentence
    if policy.calendar and state.windows >= policy.calendar:
        yield f"{_windows(state.windows)} passed since the last training."
    since = state.outcomes / max(state.trained_rows, 1)
    if policy.while_it_pays and not state.comparisons and not state.refusals and not state.previous and since >= NEWS:
        yield (
            f"{state.outcomes:,} outcomes are newer than the training, and nobody knows yet what newer rows are worth."
        )
    if policy.while_it_pays and gain is not None and gain.likely and gain.share >= policy.pays:
        yield (
            f"The last retraining paid: version {state.champion} is better than version {state.previous} by "
            f"{gain.difference:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) over {gain.n:,} outcomes, {gain.share:.0%} "
            "of what it is worth above the dummy."
        )
    if policy.again is not None and since >= policy.again:
        yield f"The outcomes known since the training ({state.outcomes:,}) are {since:.2f} times the rows trained on."


def _barred(seen: Observation, state: State, policy: Policy) -> str:
    """What speaks against retraining now; empty where nothing does."""
    if state.outcomes < policy.minimum_outcomes:
        return f"only {state.outcomes:,} outcomes are newer than the training; {policy.minimum_outcomes:,} are needed."
    if state.retrained and state.windows < policy.cooldown:
        return f"{_windows(state.windows)} passed since the last retraining, and at least {policy.cooldown} must."
    if state.refusals and not policy.calendar and state.windows < 2**state.refusals:
        return f"the last {state.refusals} did not get in: the next is due {2**state.refusals} windows after it."
    if policy.budget is not None and seen.end is not None:
        spent = sum(moment > seen.end - MONTH for moment in state.retrained)
        if spent >= policy.budget:
            return f"{spent} retrainings of {policy.budget} in 30 days are spent."
    return ""


def remembered(state: State, seen: Observation, action: Action, causes: Sequence[Cause]) -> State:
    """The state after a window was looked at: what was told, and since when there is drift or a fall."""
    lasting = {cause.key for cause in causes}
    alarmed = tuple(sorted((set(state.alarmed) | {cause.key for cause in action.causes}) & lasting))
    trouble = any(cause.kind in {"drift", "estimated", "realised"} for cause in causes)
    since = seen.start if trouble and state.calm else state.drift_since
    return replace(state, alarmed=alarmed, drift_since=since, calm=not trouble, last=seen.name)


def _windows(count: int) -> str:
    return "1 window has" if count == 1 else f"{count} windows have"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
