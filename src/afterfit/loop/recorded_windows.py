"""Windows that were recorded before: what they remember, which of them count, and what the policy says of the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from afterfit.loop import policy
from afterfit.loop.observation import DataQuality, Observation
from afterfit.loop.policy import Action, State
from afterfit.loop.window_rows import WindowRows
from afterfit.model.bundle import Bundle
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.metrics import Measured
from afterfit.use_case import UseCase


@dataclass(frozen=True, slots=True)
class RecordedWindow:
    """A window that was recorded: where it lies, which version answered, its metrics, and what it showed of it."""

    run_id: str
    name: str
    start: datetime | None
    end: datetime | None
    version: str
    step: int
    complete: bool
    metrics: Mapping[str, float]
    past: CalibrationEvidence | None
    causes: tuple[str, ...] = ()

    def remembered(self, promise: Mapping[str, Mapping[str, float | None]]) -> Observation:
        """The window as far as its metrics tell it."""
        realised = {}
        for name in promise:
            value, low, high = (self.metrics.get(f"realised_{name}{end}") for end in ("", "_low", "_high"))
            if value is not None:
                realised[name] = Measured(name, value, low, high, int(self.metrics.get("outcomes", 0)))
        quality = DataQuality(int(self.metrics.get("rows", 0)), int(self.metrics.get("refused", 0)))
        return Observation(self.name, self.start, self.end, self.version, quality, realised=realised, promise=promise)


def to_do(
    use_case: UseCase, bundle: Bundle, seen: Observation, earlier: Sequence[RecordedWindow]
) -> tuple[Action, tuple[str, ...]]:
    """What the policy says of a window, as far as one version's windows tell, and the keys of all that is wrong.

    How production compares with what it replaced is known to the loop only, so that nothing is rolled back from here.

    Args:
        use_case: its policy.
        bundle: the version.
        seen: the window.
        earlier: windows before it.
    """
    window, mine = bundle.manifest.window, [old for old in earlier if old.version == seen.version]
    known = sum(int(old.metrics.get("outcomes", 0)) for old in apart(mine, seen.start)) + seen.outcomes
    state = State(
        seen.version,
        trained_rows=int(window["rows"] or 0),
        outcomes=known,
        windows=len(mine) + 1,
        alarmed=mine[-1].causes if mine else (),
    )
    history = [*(old.remembered(seen.promise) for old in mine), seen]
    action = policy.decide(history, state, use_case.policy)
    return action, tuple(cause.key for cause in policy.causes_of(history, use_case.policy))


def apart(windows: Sequence[RecordedWindow], begin: datetime | None) -> list[RecordedWindow]:
    """Those that have no row in common with each other, and end by a time: of windows that overlap the latest."""
    kept: list[RecordedWindow] = []
    for old in sorted(windows, key=lambda old: (old.end or datetime.min, old.start or datetime.min), reverse=True):  # noqa: DTZ901
        if begin is None or old.start is None or old.end is None:
            kept.insert(0, old)
        elif old.end <= begin:
            kept.insert(0, old)
            begin = old.start
    return kept


def due(end: datetime | None, delay: timedelta, now: datetime) -> bool:
    """Whether the outcomes of all rows before `end` have come by `now`, as far as the label delay tells."""
    return end is not None and end + delay <= now


def settled(end: datetime | None, delay: timedelta, now: datetime, *, known: int = 0, sound: int = 0) -> bool:
    """Whether a window counts for what comes after it: all its outcomes are due, or nearly all are known.

    The loop asks at the end of each window with the outcomes that were known then. The monitor asks afterwards, when
    nobody can tell any more how many were known at an earlier time: it goes by the delay alone.

    Args:
        end: where the window ends.
        delay: the time from a row to its outcome.
        now: the time in question.
        known: rows with an answer whose outcome was known then.
        sound: rows with an answer.
    """
    return due(end, delay, now) or (sound > 0 and known >= policy.SETTLED * sound)


def known_by(
    before: Sequence[RecordedWindow], version: str, window: WindowRows, delay: timedelta
) -> list[CalibrationEvidence]:
    """What earlier windows of a version showed, of those whose outcomes were there when this one ended.

    Oldest first; of windows that overlap the latest.
    """
    if window.end is None or window.start is None:
        return []
    mine = [old for old in before if old.version == version and old.past is not None and old.start is not None]
    counted = [old for old in mine if settled(old.end, delay, window.end)]
    return [old.past for old in apart(counted, window.start) if old.past is not None]


def step_of(start: datetime | None, number: int = 0) -> int:
    """A window's place in the series: hours since 1970 at its begin; its number where there are no times."""
    return number if start is None else int(start.replace(tzinfo=timezone.utc).timestamp() // 3_600)
