"""One window of one version, measured: quality, drift, performance estimated and realised, calibration, slices."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit import estimate
from afterfit.bundle import Bundle
from afterfit.checks import Checked
from afterfit.estimate import Past
from afterfit.findings import DriftReport
from afterfit.measures import Metric, metric
from afterfit.metrics import interval, value_metric
from afterfit.observation import Measured, Observation, Quality, Service, SliceSeen
from afterfit.predictions import FloatArray, Predictions
from afterfit.reference import Reference, cleaned, compare, expected, predicted, renamed, with_time
from afterfit.shifts import centre_of
from afterfit.slices import cut
from afterfit.trials import calibration_error, defined
from afterfit.usecase import UseCase

__all__ = ["Past", "Served", "answered", "observe", "past_of"]

RATE = 0.01
"""False-alarm rate of a window's drift, over all columns together."""
CONFIDENCE = 0.9
"""Of the intervals of realised metrics; those of the estimated ones and of the promise have it too."""
RESAMPLES = 1_000
SLICE_RESAMPLES = 400


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """n rows of one window as one version answered them, in order of time.

    Attributes:
        frame: features as received; also the time and key columns where the use case has them.
        predictions: n answers; anything in rows with an error.
        bad: (n,) rows without an answer.
        y: (n,) outcomes as `data.encode_target` gives them, nan where not known (yet).
        times: (n,) datetime64[us], or None.
        service: rate, errors and latency, where the rows come from a prediction log.
    """

    frame: pd.DataFrame
    predictions: Predictions
    bad: npt.NDArray[np.bool_]
    y: FloatArray
    times: npt.NDArray[Any] | None
    service: Service | None = None

    @property
    def sound(self) -> npt.NDArray[np.bool_]:
        """(n,) rows whose answer is a number."""
        return ~self.bad & defined(self.predictions)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(n,) rows with an answer and a known outcome."""
        return self.sound & np.isfinite(self.y)


def answered(bundle: Bundle, frame: pd.DataFrame, y: npt.ArrayLike, times: npt.NDArray[Any] | None) -> Served:
    """Rows as a version answers them now.

    Args:
        bundle: the version.
        frame: (n rows) features, in order of time; other columns are carried along.
        y: (n,) outcomes as `data.encode_target` gives them, nan where not known.
        times: (n,) times, or None.
    """
    checked, predictions = bundle.scorer.score(frame)
    return Served(frame, predictions, checked.bad, np.asarray(y, dtype=np.float64), times)


def observe(
    use_case: UseCase,
    bundle: Bundle,
    window: Served,
    *,
    name: str,
    start: datetime | None,
    end: datetime | None,
    complete: bool,
    past: Sequence[Past] = (),
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
    checked = bundle.scorer.contract.check_frame(window.frame)
    times = None if window.times is None else window.times[known]
    return Observation(
        name=name,
        start=start,
        end=end,
        version=str(bundle.version or ""),
        quality=quality(use_case, checked, window),
        drift=drift(use_case, bundle, window),
        estimated=_estimated(use_case, bundle, (checked, window), past, seed),
        realised=realised,
        outcomes=int(known.sum()),
        known_up_to=pd.Timestamp(times.max()).to_pydatetime() if times is not None and len(times) else None,
        complete=complete,
        calibration=_calibration(window),
        slices=tuple(_slices(use_case, window, seed)),
        service=window.service,
        promise=bundle.manifest.promise,
    )


def past_of(use_case: UseCase, bundle: Bundle, window: Served, *, end: datetime | None) -> Past:
    """What a window whose outcomes are known showed of a version, for the estimates of later windows."""
    del use_case
    known = window.known
    rows = _answers(bundle, bundle.scorer.contract.check_frame(window.frame[known]), window, known)
    return estimate.learn(rows, _outcomes(window)[known], end)


def metrics_of(use_case: UseCase, predictions: Predictions) -> list[Metric]:
    """The primary metric, those beside it that these predictions have, and the value in money."""
    names = dict.fromkeys([use_case.primary_metric, *use_case.metrics.also])
    money = value_metric(use_case.metrics.value, predictions.classes)
    return [*map(metric, names), *([money] if money else [])]


def quality(use_case: UseCase, checked: Checked, window: Served) -> Quality:
    """What the contract says of the rows."""
    counts: tuple[dict[tuple[str, str], int], dict[tuple[str, str], int]] = ({}, {})
    for issue in checked.issues:
        said = (issue.column.name, issue.code)
        counts[issue.error][said] = counts[issue.error].get(said, 0) + len(issue.rows)
    aside = {use_case.target, use_case.time, *use_case.key, *use_case.columns.ignore, *use_case.metrics.slices}
    unknown = tuple(str(one["column"]) for one in checked.unknown if one["column"] not in aside)
    key = [name for name in use_case.key if name in window.frame.columns]
    doubled = int(window.frame.duplicated(key).sum()) if key and len(key) == len(use_case.key) else 0
    return Quality(len(window.frame), int(window.bad.sum()), counts[0], counts[1], unknown, doubled)


def drift(use_case: UseCase, bundle: Bundle, window: Served) -> DriftReport | None:
    """The window against the version's reference; None where the version has none or the window no rows."""
    known = bundle.reference
    if known is None or not len(window.frame):
        return None
    frame = window.frame
    features = known.features.measure(
        cleaned(expected(known.features, use_case, frame), use_case.columns.missing_marks)
    )
    answers = truth = None
    sound, told = window.sound, window.known
    if known.predictions is not None:
        rows = renamed(predicted(window.predictions.take(sound)), known.predictions)
        answers = known.predictions.measure(with_time(rows, frame[sound], known.predictions))
    if known.outcomes is not None and told.any():
        labels = bundle.scorer.classes
        y = _outcomes(window)[told]
        rows = pd.DataFrame({use_case.target: y if labels is None else np.asarray(labels, dtype=object)[y]})
        truth = known.outcomes.measure(with_time(rows, frame[told], known.outcomes))
    return compare(known, Reference(features, answers, truth), RATE)


def _outcomes(window: Served) -> npt.NDArray[Any]:
    """(n,) class indices (0 where not known), or numbers."""
    if window.predictions.classes is None:
        return window.y
    return np.nan_to_num(window.y).astype(np.intp)


def _estimated(
    use_case: UseCase, bundle: Bundle, rows: tuple[Checked, Served], past: Sequence[Past], seed: int
) -> Mapping[str, Measured]:
    checked, window = rows
    sound = window.sound
    answers = _answers(
        bundle, checked if sound.all() else bundle.scorer.contract.check_frame(window.frame[sound]), window, sound
    )
    folds = bundle.unseen.folds if bundle.unseen is not None else ()
    return estimate.estimate(metrics_of(use_case, answers.predictions), answers, folds, past, seed)


def _answers(bundle: Bundle, checked: Checked, window: Served, rows: npt.NDArray[np.bool_]) -> estimate.Answers:
    """Some rows' answers as an estimate needs them; `checked` is of those rows."""
    predictions = window.predictions.take(rows)
    points, classes = None, predictions.classes
    if bundle.unseen is not None and bundle.unseen.points:
        points = bundle.unseen.errors_at(bundle.scorer.encoder.encode_frame(checked), predictions)
    centre = np.empty(0) if classes is None else centre_of(bundle.scorer.baseline, len(classes))
    times = None if window.times is None else window.times[rows]
    return estimate.Answers(predictions, points, centre, times, _outside(checked))


def _outside(checked: Checked) -> float:
    """Share of rows with a value outside the trained range, or a category never seen in training."""
    outside = np.zeros(checked.size, dtype=np.bool_)
    for issue in checked.issues:
        if issue.code in {"out_of_range", "unseen_category"}:
            outside[issue.rows] = True
    return float(outside.mean()) if checked.size else 0.0


def _realised(use_case: UseCase, window: Served, seed: int) -> dict[str, Measured]:
    known = window.known
    predictions = window.predictions.take(known)
    y, blocks = _outcomes(window)[known], None if window.times is None else window.times[known]
    return {
        one.name: _measured(one, y, predictions, blocks, (RESAMPLES, seed)) for one in metrics_of(use_case, predictions)
    }


def _measured(
    one: Metric, y: npt.NDArray[Any], predictions: Predictions, blocks: Any, draws: tuple[int, int]
) -> Measured:
    if not len(y):
        return Measured(one.name, None, reason="No outcome is known yet.")
    if one.needs in {"score", "probability"} and predictions.probabilities is None:
        return Measured(one.name, None, n=len(y), reason=f"{one.name} needs probabilities, and the model answers none.")
    value, low, high = interval(
        one, y, predictions, blocks=blocks, resamples=draws[0], seed=draws[1], confidence=CONFIDENCE
    )
    if not isfinite(value):
        return Measured(one.name, None, n=len(y), reason=f"{one.name} is not defined on the {len(y):,} outcomes.")
    return Measured(one.name, value, low, high, len(y))


def _calibration(window: Served) -> float | None:
    known = window.known
    if not known.any():
        return None
    error, _ = calibration_error(_outcomes(window)[known], window.predictions.take(known))
    return error if isfinite(error) else None


def _slices(use_case: UseCase, window: Served, seed: int) -> Iterator[SliceSeen]:
    known, named = window.known, [name for name in use_case.metrics.slices if name in window.frame.columns]
    if not named or not known.any():
        return
    one, y = metric(use_case.primary_metric), _outcomes(window)[known]
    predictions, blocks = window.predictions.take(known), None if window.times is None else window.times[known]
    for part in cut(window.frame.loc[known, named], len(y), smallest=use_case.metrics.smallest_slice):
        times = None if blocks is None else blocks[part.rows]
        found = _measured(one, y[part.rows], predictions.take(part.rows), times, (SLICE_RESAMPLES, seed))
        yield SliceSeen(part.column, part.value, found)
