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
from afterfit.model.bundle import Bundle
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
    """Every finding about a candidate whose bundle was loaded; a failed check does not stop the others."""
    bundle, rows, settings = case.candidate.bundle, case.held, case.use_case.gate
    yield version_checks.loads(bundle.digest)
    yield version_checks.example_answered([bundle.answer(row) for row in bundle.example])
    if case.champion is None:
        yield comparison_checks.no_champion()
    else:
        same = bundle.digest == case.champion.bundle.digest
        yield comparison_checks.another_version(case.candidate.number, case.champion.number, same)
    yield comparison_checks.enough_rows(len(rows.y), settings.smallest_holdout, rows.name, fold=case.by_fold)
    yield comparison_checks.outside_training(rows.inside, rows.young, len(rows.y), fold=case.by_fold)
    if len(rows.y):
        yield from _training_rows(case)
        yield from _reference(case)
        yield from _answers(case)
    yield from version_checks.costs(case.candidate, case.champion, larger=settings.larger, slower=settings.slower)


def equal_models_spread(case: GateInput, rows: HeldOut) -> float:
    """How far two fits of the champion's recipe differ on these rows, where only their seeds differ."""
    assert case.champion is not None  # noqa: S101 - for the reader; the caller has looked
    bundle, use_case = case.champion.bundle, case.use_case
    window, use_case = bundle.manifest.window, bundle.read_on(use_case)
    if use_case.time is None:
        frame = data.load(use_case).frame
        frame = frame.iloc[data.split(use_case, frame)[0]]
    else:
        start, end = datetime.fromisoformat(window["start"]), datetime.fromisoformat(window["end"])
        frame = data.load(use_case, start=start, end=end + timedelta(microseconds=1)).frame
    frame = frame.reset_index(drop=True)
    classes = bundle.scorer.classes
    problem = prepare(use_case, frame, data.encode_target(use_case, frame[use_case.target], classes or ()), classes)
    return robustness.equal_models_spread(bundle, problem, rows, case.metric)


def limits_hash(use_case: UseCase) -> str:
    """The hash of the limits in force: the settings of the gate and of the metrics."""
    return verdict.policy_hash(
        {"gate": use_case.gate.model_dump(mode="json"), "metrics": use_case.metrics.model_dump(mode="json")}
    )


def _training_rows(case: GateInput) -> Iterator[Finding]:
    """Whether candidate or champion was trained on the rows."""
    rows = len(case.held.y)
    champion_seen = None if case.champion is None else _seen(case, case.champion.bundle)
    if case.by_fold:
        yield comparison_checks.judged_by_fold(rows, champion_seen)
    else:
        yield comparison_checks.none_seen(_seen(case, case.candidate.bundle), rows, "candidate")
    if champion_seen is not None:
        yield comparison_checks.none_seen(champion_seen, rows, "champion")


def _seen(case: GateInput, bundle: Bundle) -> int:
    """How many of the rows a version was trained on."""
    return int(np.isin(bundle.row_fingerprints(case.use_case, case.held.frame), bundle.rows).sum())


def _reference(case: GateInput) -> Iterator[Finding]:
    """How far the rows lie from the training rows of candidate and champion."""
    if case.champion is None:
        return
    frame = clear_missing_marks(case.held.frame, case.use_case.columns.missing_marks)
    profiles = [version.bundle.profile for version in (case.candidate, case.champion)]
    candidate_distances, champion_distances = (
        {} if profile is None else distances(profile, profile.measure(frame)) for profile in profiles
    )
    yield version_checks.reference_as_close(
        candidate_distances, champion_distances, case.use_case.gate.farther, len(frame)
    )


def _answers(case: GateInput) -> Iterator[Finding]:
    rows = case.held
    checked, candidate_predictions = case.candidate.bundle.scorer.score(rows.frame)
    candidate_predictions = candidate_predictions if case.unseen is None else case.unseen
    answered = ~checked.bad
    yield version_checks.answers_all(int(checked.bad.sum()), len(rows.y))
    undefined = answered & ~candidate_predictions.finite
    yield version_checks.finite(int(undefined.sum()), int(answered.sum()))
    keep = answered & ~undefined
    champion_predictions = None
    if case.champion is not None:
        champion_checked, champion_predictions = case.champion.bundle.scorer.score(rows.frame)
        keep &= ~champion_checked.bad & champion_predictions.finite
        champion_predictions = champion_predictions.take(keep)
    if keep.any():
        yield from _comparisons(case, rows.take(keep), candidate_predictions.take(keep), champion_predictions)


def _comparisons(
    case: GateInput, rows: HeldOut, candidate_predictions: Predictions, champion_predictions: Predictions | None
) -> Iterator[Finding]:
    yield version_checks.varies(robustness.constant(candidate_predictions), len(rows.y))
    use = 1 if case.use is None else verdict.uses(case.past, case.use)
    confidence = verdict.confidence_left(case.use_case.gate.confidence, use)
    yield comparison_checks.fresh(use, confidence)
    yield _beats_dummy(case, rows, candidate_predictions, champion_predictions, confidence)
    yield from _calibrated(case, rows, candidate_predictions, champion_predictions)
    if champion_predictions is not None:
        yield from _against_champion(
            case, rows, PairedAnswers(rows.y, candidate_predictions, champion_predictions, rows.times), confidence
        )
    yield version_checks.not_robust_here() if case.by_fold else _robust(case, rows)


def _beats_dummy(
    case: GateInput,
    rows: HeldOut,
    candidate_predictions: Predictions,
    champion_predictions: Predictions | None,
    confidence: float,
) -> Finding:
    settings = {"confidence": confidence, "seed": case.use_case.seed}
    constant = case.candidate.bundle.scorer.constant(len(rows.y))
    comparison = PairedAnswers(rows.y, candidate_predictions, constant, rows.times).compared(case.metric, **settings)
    champion_interval = None
    if champion_predictions is not None and comparison.interval[0] <= 0:
        champion_interval = (
            PairedAnswers(rows.y, champion_predictions, constant, rows.times).compared(case.metric, **settings).interval
        )
    return comparison_checks.beats_dummy(
        comparison.metric,
        comparison.difference,
        comparison.interval,
        comparison.n,
        confidence=confidence,
        champion=champion_interval,
    )


def _against_champion(case: GateInput, rows: HeldOut, answers: PairedAnswers, confidence: float) -> Iterator[Finding]:
    champion = case.champion.number if case.champion else ""
    settings, common = case.use_case.gate, {"confidence": confidence, "seed": case.use_case.seed}
    margin, tolerance = _margins(case, rows)
    require = settings.require if case.to == "production" else "not_worse"
    primary = answers.compared(case.metric, margin=margin, tolerance=tolerance, **common)
    yield comparison_checks.other_answers(primary.identical, champion, primary.n)
    yield comparison_checks.primary(primary, champion, require)
    for name, allowed in settings.guardrails.items():
        yield comparison_checks.guardrail(answers.compared(metric(name), tolerance=allowed, **common))
    yield _slices(case, rows, answers, primary)
    value = case.use_case.metrics.value
    money = value_metric(value, answers.candidate.classes)
    if money is not None:
        comparison = answers.compared(money, tolerance=settings.value_tolerance, **common)
        yield comparison_checks.value(comparison, value.unit if value else "")


def _margins(case: GateInput, rows: HeldOut) -> tuple[float, float]:
    """Margin and tolerance in the metric's unit; "auto" is measured once for both."""
    limits = (case.use_case.gate.margin, case.use_case.gate.tolerance)
    spread = equal_models_spread(case, rows) if "auto" in limits else 0.0
    margin, tolerance = (spread if limit == "auto" else float(limit) for limit in limits)
    return margin, tolerance


def _slices(case: GateInput, rows: HeldOut, answers: PairedAnswers, whole: Comparison) -> Finding:
    settings, columns = case.use_case.gate, list(case.use_case.metrics.slices)
    if not columns:
        return comparison_checks.slices(())
    tolerance = settings.slice_tolerance
    comparisons = compare_slices(
        rows.y,
        answers.champion,
        answers.candidate,
        rows.frame[columns],
        metric=case.metric,
        blocks=rows.times,
        smallest=case.use_case.metrics.smallest_slice,
        tolerance=SLICE_TOLERANCE * whole.tolerance if tolerance is None else tolerance,
        confidence=whole.confidence,
        resamples=SLICE_RESAMPLES,
        seed=case.use_case.seed,
    )
    return comparison_checks.slices(comparisons)


def _calibrated(
    case: GateInput, rows: HeldOut, candidate_predictions: Predictions, champion_predictions: Predictions | None
) -> Iterator[Finding]:
    error, chance = calibration_error(rows.y, candidate_predictions)
    champion_error = None if champion_predictions is None else calibration_error(rows.y, champion_predictions)[0]
    if np.isfinite(error):
        yield version_checks.calibrated(
            error, chance, case.use_case.gate.calibration_error, champion_error, len(rows.y)
        )


def _robust(case: GateInput, rows: HeldOut) -> Finding:
    positions = np.arange(len(rows.y))
    if len(positions) > DAMAGED_ROWS:
        positions = np.sort(np.random.default_rng(case.use_case.seed).choice(positions, DAMAGED_ROWS, replace=False))
    champion = None if case.champion is None else case.champion.bundle.scorer
    frame = rows.frame.iloc[positions].reset_index(drop=True)
    falls = robustness.falls(case.candidate.bundle.scorer, champion, frame, rows.y[positions], case.metric)
    return version_checks.robust(falls, case.metric.name, case.use_case.gate.fall_allowed, len(positions))
