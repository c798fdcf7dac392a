"""Candidate against champion before a promotion: every check, over two bundles and the rows that may judge them."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np

from afterfit import data
from afterfit.drift.reference import clear_missing_marks, distances
from afterfit.gate import comparison_checks, robustness, verdict, version_checks
from afterfit.gate.inputs import GateInput, HeldOut
from afterfit.gate.limits import SLICE_TOLERANCE
from afterfit.gate.verdict import Finding
from afterfit.model.training import prepare
from afterfit.performance.evaluation import calibration_error, value_metric
from afterfit.performance.metrics import metric
from afterfit.performance.paired_comparison import Comparison, PairedAnswers, compare_slices
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

DAMAGED_ROWS = 2_000
"""Rows on which columns are made missing, at most."""
SLICE_RESAMPLES = 500


def examine(case: GateInput) -> Iterator[Finding]:
    """Every finding about a candidate whose bundle was loaded; none stops the others."""
    bundle, held, settings = case.candidate.bundle, case.held, case.use_case.gate
    yield version_checks.loads(bundle.digest)
    yield version_checks.example_answered([bundle.answer(row) for row in bundle.example])
    if case.champion is None:
        yield comparison_checks.no_champion()
    else:
        same = bundle.digest == case.champion.bundle.digest
        yield comparison_checks.another_version(case.candidate.number, case.champion.number, same)
    yield comparison_checks.enough_rows(len(held.y), settings.smallest_holdout, held.name, fold=case.by_fold)
    yield comparison_checks.outside_training(held.inside, held.young, len(held.y), fold=case.by_fold)
    if len(held.y):
        yield from _unseen(case)
        yield from _reference(case)
        yield from _answers(case)
    yield from version_checks.costs(case.candidate, case.champion, larger=settings.larger, slower=settings.slower)


def _unseen(case: GateInput) -> Iterator[Finding]:
    """Whether either was trained on the rows."""
    marks = data.row_fingerprints(case.use_case, case.held.frame)
    champion = None if case.champion is None else int(np.isin(marks, case.champion.bundle.rows).sum())
    if case.by_fold:
        yield comparison_checks.judged_by_fold(len(marks), champion)
    else:
        seen = int(np.isin(marks, case.candidate.bundle.rows).sum())
        yield comparison_checks.none_seen(seen, len(marks), "candidate")
    if champion is not None:
        yield comparison_checks.none_seen(champion, len(marks), "champion")


def _reference(case: GateInput) -> Iterator[Finding]:
    """How far the rows lie from what either was trained on."""
    if case.champion is None:
        return
    frame = clear_missing_marks(case.held.frame, case.use_case.columns.missing_marks)
    profiles = [one.bundle.profile for one in (case.candidate, case.champion)]
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
    yield version_checks.varies(robustness.constant(ours), len(held.y))
    number = 1 if case.use is None else verdict.uses(case.past, case.use)
    confidence = verdict.confidence_left(case.use_case.gate.confidence, number)
    yield comparison_checks.fresh(number, confidence)
    yield _beats_dummy(case, held, ours, theirs, confidence)
    yield from _calibrated(case, held, ours, theirs)
    if theirs is not None:
        yield from _against_champion(case, held, PairedAnswers(held.y, ours, theirs, held.times), confidence)
    yield version_checks.not_robust_here() if case.by_fold else _robust(case, held)


def _beats_dummy(
    case: GateInput, held: HeldOut, ours: Predictions, theirs: Predictions | None, confidence: float
) -> Finding:
    settings = {"confidence": confidence, "seed": case.use_case.seed}
    constant = case.candidate.bundle.scorer.constant(len(held.y))
    found = PairedAnswers(held.y, ours, constant, held.times).compared(case.metric, **settings)
    beside = None
    if theirs is not None and found.interval[0] <= 0:
        beside = PairedAnswers(held.y, theirs, constant, held.times).compared(case.metric, **settings).interval
    return comparison_checks.beats_dummy(
        found.metric, found.difference, found.interval, found.n, confidence=confidence, champion=beside
    )


def _against_champion(case: GateInput, held: HeldOut, both: PairedAnswers, confidence: float) -> Iterator[Finding]:
    champion = case.champion.number if case.champion else ""
    settings, common = case.use_case.gate, {"confidence": confidence, "seed": case.use_case.seed}
    margin, tolerance = _margins(case, held)
    require = settings.require if case.to == "production" else "not_worse"
    found = both.compared(case.metric, margin=margin, tolerance=tolerance, **common)
    yield comparison_checks.other_answers(found.identical, champion, found.n)
    yield comparison_checks.primary(found, champion, require)
    for name, allowed in settings.guardrails.items():
        yield comparison_checks.guardrail(both.compared(metric(name), tolerance=allowed, **common))
    yield _slices(case, held, both, found)
    value = case.use_case.metrics.value
    money = value_metric(value, both.candidate.classes)
    if money is not None:
        worth = both.compared(money, tolerance=settings.value_tolerance, **common)
        yield comparison_checks.value(worth, value.unit if value else "")


def _margins(case: GateInput, held: HeldOut) -> tuple[float, float]:
    """Margin and tolerance in the metric's unit; "auto" is measured once for both."""
    asked = (case.use_case.gate.margin, case.use_case.gate.tolerance)
    measured = equal_models_spread(case, held) if "auto" in asked else 0.0
    margin, tolerance = (measured if one == "auto" else float(one) for one in asked)
    return margin, tolerance


def equal_models_spread(case: GateInput, held: HeldOut) -> float:
    """How far two fits of the champion's recipe differ on these rows, by their seeds alone."""
    assert case.champion is not None  # noqa: S101 - for the reader; the caller has looked
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
    return robustness.equal_models_spread(bundle, problem, held, case.metric)


def _slices(case: GateInput, held: HeldOut, both: PairedAnswers, whole: Comparison) -> Finding:
    settings, named = case.use_case.gate, list(case.use_case.metrics.slices)
    if not named:
        return comparison_checks.slices(())
    asked = settings.slice_tolerance
    found = compare_slices(
        held.y,
        both.champion,
        both.candidate,
        held.frame[named],
        metric=case.metric,
        blocks=held.times,
        smallest=case.use_case.metrics.smallest_slice,
        tolerance=SLICE_TOLERANCE * whole.tolerance if asked is None else asked,
        confidence=whole.confidence,
        resamples=SLICE_RESAMPLES,
        seed=case.use_case.seed,
    )
    return comparison_checks.slices(found)


def _calibrated(case: GateInput, held: HeldOut, ours: Predictions, theirs: Predictions | None) -> Iterator[Finding]:
    error, chance = calibration_error(held.y, ours)
    beside = None if theirs is None else calibration_error(held.y, theirs)[0]
    if np.isfinite(error):
        yield version_checks.calibrated(error, chance, case.use_case.gate.calibration_error, beside, len(held.y))


def _robust(case: GateInput, held: HeldOut) -> Finding:
    rows = np.arange(len(held.y))
    if len(rows) > DAMAGED_ROWS:
        rows = np.sort(np.random.default_rng(case.use_case.seed).choice(rows, DAMAGED_ROWS, replace=False))
    champion = None if case.champion is None else case.champion.bundle.scorer
    frame = held.frame.iloc[rows].reset_index(drop=True)
    found = robustness.falls(case.candidate.bundle.scorer, champion, frame, held.y[rows], case.metric)
    return version_checks.robust(found, case.metric.name, case.use_case.gate.fall_allowed, len(rows))


def policy(use_case: UseCase) -> str:
    """The hash of the limits in force: the gate's settings and the metrics that they speak of."""
    return verdict.policy_hash(
        {"gate": use_case.gate.model_dump(mode="json"), "metrics": use_case.metrics.model_dump(mode="json")}
    )
