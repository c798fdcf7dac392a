"""Candidate against champion before a promotion: every check, over two bundles and the rows that may judge them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit import data, gate
from afterfit.drift.reference import cleaned, distances
from afterfit.gate import robustness, version_checks
from afterfit.gate.verdict import ComparisonUse, Finding
from afterfit.model.bundle import Bundle
from afterfit.model.training import prepare
from afterfit.performance.evaluation import calibration_error, value_metric
from afterfit.performance.metrics import Metric, metric
from afterfit.performance.paired_comparison import Comparison, compare_performance, compare_slices
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

DAMAGED_ROWS = 2_000
"""Rows on which columns are made missing, at most."""
SLICE_RESAMPLES = 500


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Rows that no compared version was trained on, in order of time, and where they lie in it.

    `inside` rows were left out because a training window holds them, `young` because their outcomes are not complete.
    """

    frame: pd.DataFrame
    y: npt.NDArray[Any]
    times: npt.NDArray[Any] | None
    inside: int = 0
    young: int = 0

    @property
    def name(self) -> str:
        """The window in words."""
        if self.times is None or len(self.times) == 0:
            return "by content hash" if self.times is None else "empty window"
        return f"{pd.Timestamp(self.times[0])} to {pd.Timestamp(self.times[-1])}"

    def take(self, keep: npt.NDArray[np.bool_]) -> "HeldOut":
        """Some of the rows."""
        times = None if self.times is None else self.times[keep]
        return HeldOut(self.frame[keep], self.y[keep], times, self.inside, self.young)

    def window(self, use_case: UseCase) -> dict[str, Any]:
        """What the ledger keeps of these rows."""
        marks = data.row_fingerprints(use_case, self.frame) if len(self.y) else np.empty(0, dtype=np.uint64)
        timed = self.times is not None and len(self.times) > 0
        ends = [pd.Timestamp(self.times[i]).isoformat() if timed and self.times is not None else "" for i in (0, -1)]
        digest = hashlib.sha256(marks.astype("<u8").tobytes()).hexdigest()
        return {"rows": len(self.y), "start": ends[0], "end": ends[1], "sha256": digest[:32]}


@dataclass(frozen=True, slots=True, eq=False)
class LoadedVersion:
    """One of the two: its version, its bundle, and the folder that it was loaded from."""

    number: str
    bundle: Bundle
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class GateInput:
    """What is to be judged.

    Attributes:
        use_case: its limits.
        candidate: wants in.
        champion: is in production; None where nothing is.
        to: staging or production.
        held: the rows.
        past: comparisons of earlier gates.
        unseen: the candidate's answers for the rows by a fit that had not seen them, where it was trained on them.
    """

    use_case: UseCase
    candidate: LoadedVersion
    champion: LoadedVersion | None
    to: str
    held: HeldOut
    past: Sequence[ComparisonUse] = ()
    unseen: Predictions | None = None

    @property
    def use(self) -> ComparisonUse | None:
        """This comparison, for the ledger; None where there is nothing to compare."""
        if self.champion is None or self.champion.number == self.candidate.number:
            return None
        window = self.held.window(self.use_case)
        return ComparisonUse(
            self.candidate.number, self.champion.number, window["sha256"], window["start"], window["end"]
        )

    @property
    def metric(self) -> Metric:
        """The metric that decides."""
        return metric(self.use_case.primary_metric)


def held_out(
    use_case: UseCase,
    bundles: Sequence[Bundle],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    now: datetime | None = None,
) -> HeldOut:
    """The rows that may judge these versions: of the asked window, after all training, with complete outcomes.

    Args:
        use_case: its source, split and gate.
        bundles: the versions; targets are encoded as the first one's classes.
        start: from here (included); what the use case says where both ends are None.
        end: to here (excluded).
        now: the time (UTC, without a zone) from which `label_delay_hours` counts back.
    """
    period = use_case.gate.window or use_case.split.holdout
    if start is None and end is None and period is not None:
        start, end = period.start, period.end
    loaded = data.load(use_case, start=start, end=end)
    frame = loaded.frame
    if start is None and end is None:
        _, rows = data.split(use_case, frame)
        frame = frame.iloc[rows].reset_index(drop=True)
    y = data.encode_target(use_case, frame[use_case.target], bundles[0].scorer.classes or ())
    held = HeldOut(frame, y, frame[use_case.time].to_numpy() if use_case.time else None)
    return _usable(held, [bundle.manifest.window["end"] for bundle in bundles], use_case, now)


def _usable(held: HeldOut, ends: Sequence[str | None], use_case: UseCase, now: datetime | None) -> HeldOut:
    if held.times is None:
        return held
    known = [end for end in ends if end]
    after = held.times > np.datetime64(max(known)) if known else np.ones(len(held.times), dtype=np.bool_)
    old = np.ones(len(held.times), dtype=np.bool_)
    if now is not None:
        old = held.times <= np.datetime64(now - timedelta(hours=use_case.gate.label_delay_hours))
    kept = held.take(after & old)
    return HeldOut(kept.frame, kept.y, kept.times, int((~after).sum()), int((after & ~old).sum()))


def last_fold(
    use_case: UseCase, candidate: Bundle, champion: Bundle | None, rows: HeldOut
) -> tuple[HeldOut, Predictions | None]:
    """The rows of the candidate's last fold that come after the champion's training, and the fold's answers for them.

    For a candidate that was trained on everything up to now, of which no other rows can tell anything yet. What they
    tell is what its recipe did with somewhat older rows: good enough to see a training gone wrong.

    Args:
        use_case: says what a row's fingerprint is.
        candidate: the version; where it kept no answers, no row is left.
        champion: what is in production, or None.
        rows: among which to look, in order of time.
    """
    if candidate.unseen is None:
        return rows.take(np.zeros(len(rows.y), dtype=np.bool_)), None
    known, place = candidate.unseen.find(data.row_fingerprints(use_case, rows.frame))
    end = None if champion is None else champion.manifest.window["end"]
    after = np.ones(len(known), dtype=np.bool_)
    if end is not None and rows.times is not None:
        after = rows.times > np.datetime64(end)
    held = rows.take(known & after)
    inside = HeldOut(held.frame, held.y, held.times, int((known & ~after).sum()), rows.young)
    return inside, candidate.unseen.predictions.take(place[after[known]])


def examine(case: GateInput) -> Iterator[Finding]:
    """Every finding about a candidate whose bundle was loaded; none stops the others."""
    bundle, held = case.candidate.bundle, case.held
    yield version_checks.loads(bundle.digest)
    yield version_checks.example_answered([bundle.answer(row) for row in bundle.example])
    if case.champion is None:
        yield gate.no_champion()
    else:
        same = bundle.digest == case.champion.bundle.digest
        yield gate.another_version(case.candidate.number, case.champion.number, same)
    yield gate.enough_rows(len(held.y), case.use_case.gate.smallest_holdout, held.name)
    yield gate.outside_training(held.inside, held.young, len(held.y))
    if len(held.y):
        yield from _unseen(case)
        yield from _reference(case)
        yield from _answers(case)
    sides, settings = [side for side in (case.candidate, case.champion) if side is not None], case.use_case.gate
    kept = [(side.bundle, side.folder) for side in sides]
    yield from version_checks.costs(kept, larger=settings.larger, slower=settings.slower)


def _unseen(case: GateInput) -> Iterator[Finding]:
    marks = data.row_fingerprints(case.use_case, case.held.frame)
    for who, side in (("candidate", case.candidate), ("champion", case.champion)):
        if who == "candidate" and case.unseen is not None:
            yield gate.judged_by_fold(len(marks))
        elif side is not None:
            seen = int(np.isin(marks, side.bundle.rows).sum())
            yield gate.none_seen(seen, len(marks), who)


def _reference(case: GateInput) -> Iterator[Finding]:
    """How far the rows lie from what either was trained on."""
    if case.champion is None:
        return
    frame = cleaned(case.held.frame, case.use_case.columns.missing_marks)
    profiles = [side.bundle.profile for side in (case.candidate, case.champion)]
    ours, theirs = ({} if one is None else distances(one, one.measure(frame)) for one in profiles)
    yield version_checks.reference_as_close(ours, theirs, case.use_case.gate.farther, len(frame))


def _answers(case: GateInput) -> Iterator[Finding]:
    held = case.held
    checked, ours = case.candidate.bundle.scorer.score(held.frame)
    ours = ours if case.unseen is None else case.unseen
    good = ~checked.bad
    yield version_checks.answers_all(int(checked.bad.sum()), len(held.y))
    undefined = good & ~ours.finite
    yield version_checks.finite(int(undefined.sum()), int(good.sum()))
    keep = good & ~undefined
    theirs = None
    if case.champion is not None:
        their_checked, theirs = case.champion.bundle.scorer.score(held.frame)
        keep &= ~their_checked.bad & theirs.finite
        theirs = theirs.take(keep)
    if keep.any():
        yield from _compared(case, held.take(keep), ours.take(keep), theirs)


def _compared(case: GateInput, held: HeldOut, ours: Predictions, theirs: Predictions | None) -> Iterator[Finding]:
    bundle, settings = case.candidate.bundle, case.use_case.gate
    yield version_checks.varies(robustness.constant(ours), len(held.y))
    use = case.use
    number = 1 if use is None else gate.uses(case.past, use)
    confidence = gate.confidence_left(settings.confidence, number)
    yield gate.fresh(number, confidence)

    def compare(by: Metric, other: Predictions, better: Predictions = ours, **margins: float) -> Comparison:
        return compare_performance(
            held.y,
            other,
            better,
            by,
            blocks=held.times,
            margin=margins.get("margin", 0.0),
            tolerance=margins.get("tolerance"),
            confidence=confidence,
            seed=case.use_case.seed,
        )

    constant = bundle.scorer.constant(len(held.y))
    dummy = compare(case.metric, constant)
    beside = None
    if theirs is not None and dummy.interval[0] <= 0:
        beside = compare(case.metric, constant, theirs).interval
    yield gate.beats_dummy(
        dummy.metric, dummy.difference, dummy.interval, dummy.n, confidence=confidence, champion=beside
    )
    yield from _calibrated(case, held, ours, theirs)
    if theirs is not None and case.champion is not None:
        yield from _against_champion(case, held, ours, theirs, compare)
    yield _robust(case, held) if case.unseen is None else version_checks.not_robust_here()


def _against_champion(
    case: GateInput, held: HeldOut, ours: Predictions, theirs: Predictions, compare: Callable[..., Comparison]
) -> Iterator[Finding]:
    assert case.champion is not None  # noqa: S101 - for the reader; the caller has looked
    settings = case.use_case.gate
    margin, tolerance = _margins(case, held)
    require = settings.require if case.to == "production" else "not_worse"
    found = compare(case.metric, theirs, margin=margin, tolerance=tolerance)
    yield gate.other_answers(found.identical, case.champion.number, found.n)
    yield gate.primary(found, case.champion.number, require)
    for name, allowed in settings.guardrails.items():
        yield gate.guardrail(compare(metric(name), theirs, tolerance=allowed))
    yield _slices(case, held, (ours, theirs), found)
    money = value_metric(case.use_case.metrics.value, ours.classes)
    if money is not None:
        worth = compare(money, theirs, tolerance=settings.value_tolerance)
        yield gate.value(worth, case.use_case.metrics.value.unit if case.use_case.metrics.value else "")


def _margins(case: GateInput, held: HeldOut) -> tuple[float, float]:
    """Margin and tolerance in the metric's unit; "auto" is measured once for both."""
    asked = (case.use_case.gate.margin, case.use_case.gate.tolerance)
    measured = equal_models_spread(case, held) if "auto" in asked else 0.0
    margin, tolerance = (measured if one == "auto" else float(one) for one in asked)
    return margin, tolerance


def equal_models_spread(case: GateInput, held: HeldOut) -> float:
    """How far two fits of the champion's recipe differ on these rows, by their seeds alone."""
    assert case.champion is not None  # noqa: S101 - as above
    bundle, use_case = case.champion.bundle, case.use_case
    window = bundle.manifest.window
    if use_case.time is None:
        frame = data.load(use_case).frame
        frame = frame.iloc[data.split(use_case, frame)[0]]
    else:
        start, end = datetime.fromisoformat(window["start"]), datetime.fromisoformat(window["end"])
        frame = data.load(use_case, start=start, end=end + timedelta(microseconds=1)).frame
    frame = frame.reset_index(drop=True)
    classes = bundle.scorer.classes
    problem = prepare(use_case, frame, data.encode_target(use_case, frame[use_case.target], classes or ()), classes)
    recipe = (bundle.manifest.builder, bundle.manifest.params)
    return robustness.equal_models_spread(problem, recipe, bundle.scorer, (held.frame, held.y), case.metric)


def _slices(case: GateInput, held: HeldOut, sides: tuple[Predictions, Predictions], whole: Comparison) -> Finding:
    settings, named = case.use_case.gate, list(case.use_case.metrics.slices)
    if not named:
        return gate.slices(())
    allowed = 2 * whole.tolerance if settings.slice_tolerance is None else settings.slice_tolerance
    found = compare_slices(
        held.y,
        sides[1],
        sides[0],
        held.frame[named],
        metric=case.metric,
        blocks=held.times,
        smallest=case.use_case.metrics.smallest_slice,
        tolerance=allowed,
        confidence=whole.confidence,
        resamples=SLICE_RESAMPLES,
        seed=case.use_case.seed,
    )
    return gate.slices(found)


def _calibrated(case: GateInput, held: HeldOut, ours: Predictions, theirs: Predictions | None) -> Iterator[Finding]:
    error, chance = calibration_error(held.y, ours)
    beside = None if theirs is None else calibration_error(held.y, theirs)[0]
    if np.isfinite(error):
        yield version_checks.calibrated(error, chance, case.use_case.gate.calibration_error, beside, len(held.y))


def _robust(case: GateInput, held: HeldOut) -> Finding:
    rows = np.arange(len(held.y))
    if len(rows) > DAMAGED_ROWS:
        rows = np.sort(np.random.default_rng(case.use_case.seed).choice(rows, DAMAGED_ROWS, replace=False))
    settings = case.use_case.gate
    tolerance = 0.01 if settings.tolerance == "auto" else settings.tolerance
    limit = 5 * tolerance if settings.missing_fall is None else settings.missing_fall
    champion = None if case.champion is None else case.champion.bundle.scorer
    frame = held.frame.iloc[rows].reset_index(drop=True)
    found = robustness.falls(case.candidate.bundle.scorer, champion, frame, held.y[rows], case.metric)
    return version_checks.robust(found, case.metric.name, limit, len(rows))


def policy(use_case: UseCase) -> str:
    """The hash of the limits in force: the gate's settings and the metrics that they speak of."""
    return gate.policy_hash(
        {"gate": use_case.gate.model_dump(mode="json"), "metrics": use_case.metrics.model_dump(mode="json")}
    )


def use_of(use: ComparisonUse | None) -> dict[str, str]:
    """A comparison as the ledger keeps it."""
    return {} if use is None else asdict(use)
