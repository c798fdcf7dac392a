"""One window of one version, measured: quality, drift, performance estimated and realised, calibration, slices."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.checks import Checked
from afterfit.drift.reference import (
    Reference,
    add_time,
    clear_missing_marks,
    comparable_columns,
    compare,
    prediction_columns,
    rename_columns,
)
from afterfit.drift.report import DriftReport
from afterfit.loop.observation import DataQuality, Observation, ServiceHealth, SliceSeen
from afterfit.model.bundle import Bundle
from afterfit.performance import estimation
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.evaluation import calibration_error, cut, interval, value_metric
from afterfit.performance.metrics import Measured, Metric, metric
from afterfit.performance.paired_comparison import PairedAnswers
from afterfit.performance.predictions import FloatArray, Predictions
from afterfit.performance.recalibration import centre_of, thinned
from afterfit.use_case import UseCase

__all__ = ["AnsweredRows", "CalibrationEvidence", "SomeRows", "answered", "observe", "paired", "past_of", "profiled"]

Values = TypeVar("Values")
RATE = 0.01
"""False-alarm rate of a window's drift, over all columns together."""
CONFIDENCE = 0.9
"""Of the intervals of realised metrics; those of the estimated ones and of the promise have it too."""
RESAMPLES = 1_000
SLICE_RESAMPLES = 400
MOST_RESAMPLED = 60_000
"""Rows from which on an interval's width is taken from so many of them, evenly spaced: a little too wide then."""
MOST_CLASSES, MOST_NUMBERS = 100_000, 20_000
"""Rows that an estimate looks at, of classes and of numbers."""
CHUNK = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredRows:
    """n rows of one window as one version answered them, in order of time.

    Attributes:
        frame: features as received; also the time and key columns where the use case has them.
        predictions: n answers; anything in rows with an error.
        bad: (n,) rows without an answer.
        y: (n,) outcomes as `data.encode_target` gives them, nan where not known (yet).
        times: (n,) datetime64[us], or None.
        service: rate, errors and latency, where the rows come from a prediction log.
        hidden: private columns, of which a prediction log holds hashes or nothing: nothing is said of them.
    """

    frame: pd.DataFrame
    predictions: Predictions
    bad: npt.NDArray[np.bool_]
    y: FloatArray
    times: npt.NDArray[Any] | None
    service: ServiceHealth | None = None
    hidden: frozenset[str] = frozenset()

    @property
    def sound(self) -> npt.NDArray[np.bool_]:
        """(n,) rows with a usable answer: one that is served, and no error."""
        return ~self.bad & self.predictions.finite

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(n,) rows with an answer and a known outcome."""
        return self.sound & np.isfinite(self.y)

    @property
    def outcomes(self) -> npt.NDArray[Any]:
        """(n,) class indices (0 where not known), or numbers."""
        return self.y if self.predictions.classes is None else np.nan_to_num(self.y).astype(np.intp)


def paired(candidate: AnsweredRows, champion: AnsweredRows) -> PairedAnswers:
    """The rows of a window that two versions answered and whose outcomes are known, as the candidate counts classes."""
    keep = candidate.known & champion.sound
    times = None if candidate.times is None else candidate.times[keep]
    answers = candidate.predictions.take(keep), champion.predictions.take(keep)
    return PairedAnswers(candidate.outcomes[keep], *answers, times)


def answered(bundle: Bundle, frame: pd.DataFrame, y: npt.ArrayLike, times: npt.NDArray[Any] | None) -> AnsweredRows:
    """Rows as a version answers them now.

    Args:
        bundle: the version.
        frame: (n rows) features, in order of time; other columns are carried along.
        y: (n,) outcomes as `data.encode_target` gives them, nan where not known.
        times: (n,) times, or None.
    """
    bad = np.zeros(len(frame), dtype=np.bool_)
    parts = []
    for some in _chunks(len(frame)):
        checked, predictions = bundle.scorer.score(frame.iloc[some])
        bad[some] = checked.bad
        parts.append(predictions)
    return AnsweredRows(frame, Predictions.joined(parts), bad, np.asarray(y, dtype=np.float64), times)


def observe(
    use_case: UseCase,
    bundle: Bundle,
    window: AnsweredRows,
    *,
    name: str,
    start: datetime | None,
    end: datetime | None,
    complete: bool,
    past: Sequence[CalibrationEvidence] = (),
    seed: int = 0,
) -> Observation:
    """Measure one window of one version; nothing is judged.

    Args:
        use_case: metrics, slices, key.
        bundle: the version that answered.
        window: its rows.
        name: the window in words.
        start: its begin (included), or None.
        end: its end (excluded), or None.
        complete: whether all outcomes are there, or would be by the label delay.
        past: what earlier windows of the same version with outcomes showed, oldest first.
        seed: of the intervals.
    """
    known = window.known
    realised = _realised(use_case, window, seed)
    times = None if window.times is None else window.times[known]
    return Observation(
        name=name,
        start=start,
        end=end,
        version=str(bundle.version or ""),
        quality=quality(use_case, bundle, window),
        drift=drift(use_case, bundle, window),
        estimated=_estimated(use_case, bundle, window, past, seed),
        realised=realised,
        outcomes=int(known.sum()),
        known_up_to=pd.Timestamp(times.max()).to_pydatetime() if times is not None and len(times) else None,
        complete=complete,
        calibration=_calibration(window),
        slices=tuple(_slices(use_case, window, seed)),
        service=window.service,
        promise=bundle.manifest.expected,
    )


def past_of(use_case: UseCase, bundle: Bundle, window: AnsweredRows, *, end: datetime | None) -> CalibrationEvidence:
    """What a window whose outcomes are known showed of a version, for the estimates of later windows."""
    del use_case
    rows = np.flatnonzero(window.known)
    past = estimation.learn(_answers(bundle, window, rows), window.outcomes[_thinned(window, rows)], end)
    return replace(past, rows=len(rows))


def metrics_of(use_case: UseCase, predictions: Predictions) -> list[Metric]:
    """The primary metric, those beside it that these predictions have, and the value in money."""
    names = dict.fromkeys([use_case.primary_metric, *use_case.metrics.also])
    money = value_metric(use_case.metrics.value, predictions.classes)
    return [*map(metric, names), *([money] if money else [])]


def quality(use_case: UseCase, bundle: Bundle, window: AnsweredRows) -> DataQuality:
    """What the contract says of the rows."""
    counts: tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]] = (Counter(), Counter())
    unknown: dict[str, None] = {}
    for some in _chunks(len(window.frame)):
        checked = bundle.scorer.contract.check_frame(window.frame.iloc[some])
        for issue in (issue for issue in checked.issues if issue.column.name not in window.hidden):
            counts[issue.error][issue.column.name, issue.code] += len(issue.rows)
        unknown |= dict.fromkeys(str(note["column"]) for note in checked.unknown)
    aside = {use_case.target, use_case.time, *use_case.key, *use_case.columns.ignore, *use_case.metrics.slices}
    key = [name for name in use_case.key if name in window.frame.columns]
    doubled = int(window.frame.duplicated(key).sum()) if key and len(key) == len(use_case.key) else 0
    left = tuple(name for name in unknown if name not in aside)
    return DataQuality(len(window.frame), int((~window.sound).sum()), dict(counts[0]), dict(counts[1]), left, doubled)


def drift(use_case: UseCase, bundle: Bundle, window: AnsweredRows) -> DriftReport | None:
    """The window against the version's reference; None where the version has none or the window no rows."""
    reference, classes = bundle.reference, bundle.scorer.classes
    if reference is None or not len(window.frame):
        return None
    sound, known = window.sound, window.known
    y = window.outcomes[known]
    outcomes = y if classes is None else np.asarray(classes, dtype=object)[y]
    profiles = profiled(
        reference,
        use_case,
        window.frame,
        answers=SomeRows(window.predictions.take(sound), sound),
        outcomes=SomeRows(outcomes, known) if len(y) else None,
    )
    return compare(reference, profiles, RATE).without(window.hidden)


@dataclass(frozen=True, slots=True, eq=False)
class SomeRows(Generic[Values]):
    """What some of n rows have: m values, and (n,) which rows those are."""

    values: Values
    rows: npt.NDArray[np.bool_]


def profiled(
    reference: Reference,
    use_case: UseCase | None,
    frame: pd.DataFrame,
    *,
    answers: SomeRows[Predictions] | None = None,
    outcomes: SomeRows[npt.NDArray[Any]] | None = None,
) -> Reference:
    """Profiles of n rows over a reference's bins, to be compared with it.

    Args:
        reference: what they will be compared with. What it has no profile of is not profiled.
        use_case: its settings; None where a table is compared with a table.
        frame: the rows as received.
        answers: those that count, or None.
        outcomes: those that are known, as labels or numbers, or None.
    """
    marks = use_case.columns.missing_marks if use_case else ()
    features = reference.features.measure(
        clear_missing_marks(comparable_columns(reference.features, use_case, frame), marks)
    )
    given = truth = None
    if reference.predictions is not None and answers is not None:
        rows = rename_columns(prediction_columns(answers.values), reference.predictions)
        given = reference.predictions.measure(add_time(rows, frame[answers.rows], reference.predictions))
    if reference.outcomes is not None and outcomes is not None and use_case is not None:
        rows = pd.DataFrame({use_case.target: outcomes.values})
        truth = reference.outcomes.measure(add_time(rows, frame[outcomes.rows], reference.outcomes))
    return Reference(features, given, truth)


def _estimated(
    use_case: UseCase, bundle: Bundle, window: AnsweredRows, past: Sequence[CalibrationEvidence], seed: int
) -> Mapping[str, Measured]:
    answers = _answers(bundle, window, np.flatnonzero(window.sound))
    folds = bundle.errormap.folds if bundle.errormap is not None else ()
    return estimation.estimate(metrics_of(use_case, answers.predictions), answers, folds, past, seed)


def _thinned(window: AnsweredRows, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """So many of the rows as an estimate needs, evenly spaced."""
    most = MOST_NUMBERS if window.predictions.classes is None else MOST_CLASSES
    return rows[thinned(len(rows), most)]


def _answers(bundle: Bundle, window: AnsweredRows, rows: npt.NDArray[np.intp]) -> estimation.WindowAnswers:
    """Some rows' answers, or an even sample of them, as an estimate needs them."""
    rows = _thinned(window, rows)
    predictions, classes = window.predictions.take(rows), window.predictions.classes
    outside, points = np.zeros(len(rows), dtype=np.bool_), []
    known = bundle.errormap is not None and bool(bundle.errormap.points)
    for some in _chunks(len(rows)):
        checked = bundle.scorer.contract.check_frame(window.frame.iloc[rows[some]])
        outside[some] = _outside(checked, window.hidden)
        if bundle.errormap is not None and known:
            matrix = bundle.scorer.encoder.encode_frame(checked)
            points.append(np.asarray(bundle.errormap.errors_at(matrix, predictions.take(_mask(some)))))
    centre = np.empty(0) if classes is None else centre_of(bundle.scorer.baseline, len(classes))
    times = None if window.times is None else window.times[rows]
    share = float(outside.mean()) if len(rows) else 0.0
    return estimation.WindowAnswers(predictions, np.concatenate(points) if known else None, centre, times, share)


def _mask(some: slice) -> npt.NDArray[np.intp]:
    return np.arange(some.start, some.stop)


def _chunks(rows: int) -> Iterator[slice]:
    """Stretches of rows that bound memory; one empty stretch where there are no rows."""
    for start in range(0, max(rows, 1), CHUNK):
        yield slice(start, min(start + CHUNK, rows))


def _outside(checked: Checked, hidden: frozenset[str]) -> npt.NDArray[np.bool_]:
    """(n,) rows with a value outside the trained range, or a category never seen in training."""
    outside = np.zeros(checked.size, dtype=np.bool_)
    for issue in checked.issues:
        if issue.code in {"out_of_range", "unseen_category"} and issue.column.name not in hidden:
            outside[issue.rows] = True
    return outside


def _realised(use_case: UseCase, window: AnsweredRows, seed: int) -> dict[str, Measured]:
    known = window.known
    predictions = window.predictions.take(known)
    y, blocks = window.outcomes[known], None if window.times is None else window.times[known]
    return {by.name: _measured(by, y, predictions, blocks, RESAMPLES, seed) for by in metrics_of(use_case, predictions)}


def _measured(  # noqa: PLR0917 - two calls, here
    by: Metric, y: npt.NDArray[Any], predictions: Predictions, blocks: Any, resamples: int, seed: int
) -> Measured:
    name = by.name
    if not len(y):
        return Measured(name, None, reason="No outcome is known yet.")
    if by.needs in {"score", "probability"} and predictions.probabilities is None:
        return Measured(name, None, n=len(y), reason=f"{name} needs probabilities, and the model answers none.")
    kept = thinned(len(y), MOST_RESAMPLED)
    value, low, high = interval(
        by,
        y[kept],
        predictions.take(np.arange(len(y))[kept]),
        blocks=None if blocks is None else blocks[kept],
        resamples=resamples,
        seed=seed,
        confidence=CONFIDENCE,
    )
    if kept.step > 1:  # the interval's width from a sample of the rows, its place from all
        whole = by(y, predictions)
        value, low, high = whole, low + whole - value, high + whole - value
    if not isfinite(value):
        return Measured(name, None, n=len(y), reason=f"{name} is not defined on the {len(y):,} outcomes.")
    few = "" if np.isfinite([low, high]).all() else f"The {len(y):,} outcomes lie too close in time for an interval."
    return Measured(name, value, low, high, len(y), few)


def _calibration(window: AnsweredRows) -> float | None:
    known = window.known
    if not known.any():
        return None
    error, _ = calibration_error(window.outcomes[known], window.predictions.take(known))
    return error if isfinite(error) else None


def _slices(use_case: UseCase, window: AnsweredRows, seed: int) -> Iterator[SliceSeen]:
    known, named = window.known, [name for name in use_case.metrics.slices if name in window.frame.columns]
    if not named or not known.any():
        return
    by, y = metric(use_case.primary_metric), window.outcomes[known]
    predictions, blocks = window.predictions.take(known), None if window.times is None else window.times[known]
    for part in cut(window.frame.loc[known, named], len(y), smallest=use_case.metrics.smallest_slice):
        times = None if blocks is None else blocks[part.rows]
        measured = _measured(by, y[part.rows], predictions.take(part.rows), times, SLICE_RESAMPLES, seed)
        yield SliceSeen(part.column, part.value, measured)
