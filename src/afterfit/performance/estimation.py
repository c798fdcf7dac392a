"""Performance before outcomes are known: expected from calibrated probabilities, corrected by late outcomes.

A metric is a formula over weighted rows. Take each row once for each class, weighted by the probability of that class:
the same formula then gives the expected metric, exactly so where the metric is a sum over rows.

Two corrections come first. The error map of the folds moves the answers in each region of the inputs; errors so count
as often as the window has rows in their region, which is what reweighting by the ratio of densities would do. Then the
last windows with outcomes, compared with their own probabilities, move the probabilities of this one
(`recalibration`). How certain that is, and how long ago those windows were, makes the interval (`forecast`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from afterfit.performance import recalibration
from afterfit.performance.bootstrap import Blocks, time_blocks
from afterfit.performance.forecast import LevelObservation, forecast
from afterfit.performance.metrics import Measured, Metric
from afterfit.performance.predictions import FloatArray, Predictions

CONFIDENCE = 0.9
DRAWS = 400
ROWS_OF_DRAWS = 3_000
"""Size of the sample of rows from which the interval is drawn."""
FEWEST_ROWS = 50
REGRESSION_ROWS_OF_DRAWS = 600
"""The same for a regression, where each row has many errors."""
MOST_OUTSIDE = 0.75
"""Share of rows outside the training range above which nothing can be estimated."""
FOLD_EVIDENCE = 0.2
"""Weight of a fold, against a window's 1, as evidence of how far windows move: all folds are from one training."""
REGRESSION_UNIT = 0.4
"""A change of 1 in log-odds corresponds to a change of errors by this share of their size."""
LONGEST_GAP = 24.0
"""Longest time between windows, in windows' lengths: a longer one makes the past no less certain."""


@dataclass(frozen=True, slots=True)
class CalibrationEvidence:
    """What rows with outcomes showed about one version: how far its answers were off.

    Attributes:
        end: when, as ISO text in the time column's own clock; None without times.
        rows: rows with outcomes.
        off: (d,) the shift of the probabilities, or place and scale of a regression's errors; empty where neither can
            be fitted to these rows.
        variance: (d,) of `off`, by chance alone.
        design: (d,) the design effect: how many times larger that variance is than for independent rows.
        outside: share of rows outside what the version was trained on.
    """

    end: str | None
    rows: int
    off: tuple[float, ...]
    variance: tuple[float, ...]
    design: tuple[float, ...]
    outside: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        arrays = {name: list(getattr(self, name)) for name in ("off", "variance", "design")}
        return {"end": self.end, "rows": self.rows, **arrays, "outside": self.outside}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "CalibrationEvidence":
        """The inverse of `to_dict`."""
        arrays = {name: tuple(map(float, saved[name])) for name in ("off", "variance", "design")}
        return cls(saved["end"], int(saved["rows"]), **arrays, outside=float(saved["outside"]))


@dataclass(frozen=True, slots=True, eq=False)
class WindowAnswers:
    """n rows with answers, without outcomes, in order of time.

    Attributes:
        predictions: the answers.
        points: (n, p) the folds' errors in each row's region: the log-odds by which probabilities of two classes are
            off, p = 1, or p errors of a regression; None where they are unknown.
        centre: (k,) logarithms of the classes' usual shares; empty in regression.
        times: (n,) or None.
        outside: share of rows outside what the version was trained on.
    """

    predictions: Predictions
    points: FloatArray | None
    centre: FloatArray
    times: npt.NDArray[Any] | None = None
    outside: float = 0.0

    @property
    def regression(self) -> bool:
        """Whether the answers are numbers."""
        return self.predictions.classes is None

    @property
    def probabilities(self) -> FloatArray:
        """(n, k) the answers' probabilities, corrected by the folds' errors in each region."""
        table = np.asarray(self.predictions.probabilities)
        if self.points is None or table.shape[1] != 2 or not self.points.any():
            return table
        odds = np.log(np.clip(table, recalibration.FLOOR, 1.0))
        odds[:, 1] += self.points[:, 0]
        return np.asarray(np.exp(odds - np.logaddexp(odds[:, 0], odds[:, 1])[:, None]))

    def take(self, rows: Any) -> "WindowAnswers":
        """The same for some rows."""
        points = None if self.points is None else self.points[rows]
        times = None if self.times is None else self.times[rows]
        return WindowAnswers(self.predictions.take(rows), points, self.centre, times, self.outside)


def why_impossible(answers: WindowAnswers, past: Sequence[CalibrationEvidence] = ()) -> str:
    """Why nothing can be estimated, as a sentence; empty where an estimate is possible."""
    if answers.regression and answers.points is None:
        return "The version carries no errors of rows unseen in training: train a new one to have errors estimated."
    if not answers.regression and answers.predictions.probabilities is None:
        return "The model answers no probabilities, and without them nothing says how sure it is."
    n = len(answers.predictions)
    if n < FEWEST_ROWS:
        return f"An estimate needs at least {FEWEST_ROWS} rows with an answer; there are {n}."
    if answers.outside - max((evidence.outside for evidence in past), default=0.0) > MOST_OUTSIDE:
        return (
            f"{answers.outside:.0%} of the rows lie outside what the version was trained on, and no window with known "
            "outcomes was like that."
        )
    return ""


def learn(answers: WindowAnswers, y: npt.NDArray[Any], end: datetime | None = None) -> CalibrationEvidence:
    """How far the answers for n rows with known outcomes were off."""
    until = None if end is None else end.isoformat()
    if why_impossible(replace(answers, outside=0.0)):
        return CalibrationEvidence(until, len(y), (), (), (), answers.outside)
    sample = recalibration.thinned(len(y))
    outside, rows = answers.outside, len(y)
    answers, y = answers.take(sample), y[sample]
    if answers.regression:
        shift, information, scores = recalibration.fit_errors(
            answers.predictions.prediction, np.asarray(answers.points), y
        )
    else:
        table, y = answers.probabilities, y.astype(np.intp)
        shift = recalibration.fit_shift(table, y, answers.centre)
        information = recalibration.information(table, answers.centre, shift)
        scores = recalibration.scores(table, y, answers.centre, shift)
    blocks = Blocks(np.arange(len(y)), len(y))
    if answers.times is not None:
        blocks = time_blocks(answers.times, scores[:, 0])
    design = recalibration.design(scores, information, blocks.ids, blocks.inflation)
    variance = design * recalibration.variances(information)
    return CalibrationEvidence(
        until,
        rows,
        tuple(shift.tolist()),
        tuple(variance.tolist()),
        tuple(design.tolist()),
        outside,
    )


def estimate(
    metrics: Sequence[Metric],
    answers: WindowAnswers,
    folds: Sequence[CalibrationEvidence] = (),
    past: Sequence[CalibrationEvidence] = (),
    seed: int = 0,
) -> dict[str, Measured]:
    """Each metric of n rows without their outcomes, with an interval that holds 90 % of the values realised later.

    Args:
        metrics: which ones.
        answers: the rows.
        folds: what the version's folds showed, oldest first.
        past: what windows with outcomes showed about this version, oldest first; all before these rows.
        seed: of the draws that make the interval.
    """
    n, reason = len(answers.predictions), why_impossible(answers, past)
    if reason:
        return {metric.name: Measured(metric.name, None, n=n, reason=reason) for metric in metrics}
    sample = _sample(answers, seed)
    evidence = [(fold, FOLD_EVIDENCE) for fold in folds] + [(window, 1.0) for window in past]
    centre, draws = _draw_shifts([(record, weight) for record, weight in evidence if record.off], answers, seed)
    estimates = {}
    for metric in metrics:
        why = _why_not_measurable(metric, answers)
        estimates[metric.name] = (
            Measured(metric.name, None, n=n, reason=why)
            if why
            else _estimate_metric(metric, answers, sample, centre, draws)
        )
    return estimates


def plug_in(metrics: Sequence[Metric], answers: WindowAnswers) -> dict[str, float]:
    """Each metric as the answers themselves expect it, without any correction."""
    bare = replace(answers, points=answers.points if answers.regression else None)
    width = 2 if answers.regression else recalibration.parameters(bare.probabilities.shape[1])
    return {metric.name: float(_expected(metric, bare, np.zeros((1, width)))[0]) for metric in metrics}


def _why_not_measurable(metric: Metric, answers: WindowAnswers) -> str:
    predictions = answers.predictions
    if metric.needs == "interval" and predictions.lower is None:
        return f"{metric.name} needs the ends of intervals, and the model answers none."
    return ""


def _sample(answers: WindowAnswers, seed: int) -> WindowAnswers:
    n, most = len(answers.predictions), REGRESSION_ROWS_OF_DRAWS if answers.regression else ROWS_OF_DRAWS
    if n <= most:
        return answers
    rows = np.random.default_rng(seed).choice(n, most, replace=False)
    return answers.take(np.sort(rows))


def _draw_shifts(
    evidence: Sequence[tuple[CalibrationEvidence, float]], answers: WindowAnswers, seed: int
) -> tuple[FloatArray, FloatArray]:
    """How far these answers will be off: the mean (d,), and draws (DRAWS, d) that include chance."""
    records = [record for record, _ in evidence]
    steps, ahead = _gaps(records, answers.times)
    chance = _chance_variances(answers)
    whole = len(answers.predictions) <= (REGRESSION_ROWS_OF_DRAWS if answers.regression else ROWS_OF_DRAWS)
    designs = np.mean([record.design for record in records], axis=0) if records else np.ones(len(chance))
    noise = chance * (designs - (1.0 if whole else 0.0))
    centre, drawn = np.zeros(len(chance)), np.zeros((DRAWS, len(chance)))
    unit = REGRESSION_UNIT if answers.regression else 1.0
    for j in range(len(chance)):
        observations = [
            LevelObservation(record.off[j] / unit, record.variance[j] / unit**2, step, weight)
            for (record, weight), step in zip(evidence, steps, strict=True)
        ]
        prediction = forecast(observations, ahead)
        centre[j] = unit * prediction.centre
        drawn[:, j] = unit * prediction.draws(DRAWS, float(noise[j]) / unit**2, seed + j)
    return centre, drawn


def _chance_variances(answers: WindowAnswers) -> FloatArray:
    """(d,) variances of the shift that these rows will show by chance, if they were independent."""
    if answers.regression:
        assert answers.points is not None  # noqa: S101 - `why_impossible` has checked it
        return np.full(2, 1.0 / len(answers.predictions))
    rows = recalibration.thinned(len(answers.predictions))
    sample = answers.take(rows)
    table = sample.probabilities
    theta = np.zeros(recalibration.parameters(table.shape[1]))
    scale = len(sample.predictions) / len(answers.predictions)
    return recalibration.variances(recalibration.information(table, answers.centre, theta)) * scale


def _gaps(records: Sequence[CalibrationEvidence], times: npt.NDArray[Any] | None) -> tuple[list[float], float]:
    """Time from each record to the next, and from the last to these rows, in windows' lengths; 1 without times."""
    ends = [np.datetime64(record.end, "s") if record.end else None for record in records]
    if times is None or not len(times) or not records or any(end is None for end in ends):
        return [1.0] * len(records), 1.0
    stamps = np.array([*ends, np.datetime64(times[-1], "s")]).astype(np.int64).astype(np.float64)
    length = max(float((times[-1] - times[0]) / np.timedelta64(1, "s")), 1.0)
    gaps = np.clip(np.diff(stamps) / length, 0.0, LONGEST_GAP).tolist()
    return [1.0, *gaps[:-1]], gaps[-1]


def _estimate_metric(
    metric: Metric, answers: WindowAnswers, sample: WindowAnswers, centre: FloatArray, draws: FloatArray
) -> Measured:
    """One metric: its value over all rows, and the interval from draws over the sample."""
    n = len(answers.predictions)
    value = _expected(metric, answers, centre[None, :])[0]
    if not np.isfinite(value):
        return Measured(metric.name, None, n=n, reason=f"{metric.name} is not defined on such rows.")
    values = _expected(metric, sample, draws, drawn=sample is answers)
    sample_value = _expected(metric, sample, centre[None, :])[0] if sample is not answers else value
    values = values[np.isfinite(values)] + (value - sample_value)
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = max(min(float(low), value), metric.bounds[0]), min(max(float(high), value), metric.bounds[1])
    return Measured(metric.name, float(value), low, high, n)


def _expected(metric: Metric, answers: WindowAnswers, shifts: FloatArray, *, drawn: bool = False) -> FloatArray:
    """The metric under each of r shifts, (r,): with drawn outcomes where `drawn`, else in expectation."""
    random = np.random.default_rng(len(shifts))
    if answers.regression:
        return np.array([_expect_regression(metric, answers, shift, random if drawn else None) for shift in shifts])
    return _expect_classes(metric, answers, shifts, random if drawn else None)


def _expect_classes(
    metric: Metric, answers: WindowAnswers, shifts: FloatArray, random: np.random.Generator | None
) -> FloatArray:
    table = answers.probabilities
    n, k = table.shape
    y, rows = np.repeat(np.arange(k), n), np.tile(np.arange(n), k)
    if len(shifts) == 1 and random is None:
        return np.array(
            [
                metric(
                    y,
                    answers.predictions.take(rows),
                    recalibration.shift_probabilities(table, answers.centre, shifts[0]).T.ravel(),
                )
            ]
        )
    evaluate = metric.formula(y, answers.predictions.take(rows), np.arange(n * k), n * k)
    values = []
    for part in np.array_split(shifts, max(1, len(shifts) * n * k // 2**22)):
        weights = np.stack(
            [
                _outcomes(recalibration.shift_probabilities(table, answers.centre, shift), random).T.ravel()
                for shift in part
            ]
        )
        values.append(evaluate(weights))
    return np.concatenate(values)


def _outcomes(shares: FloatArray, random: np.random.Generator | None) -> FloatArray:
    """(n, k) the shares themselves, or one class for each row, drawn with these shares."""
    if random is None:
        return shares
    chosen = (random.random((len(shares), 1)) > np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)
    drawn: FloatArray = np.eye(shares.shape[1])[chosen]
    return drawn


def _expect_regression(
    metric: Metric, answers: WindowAnswers, shift: FloatArray, random: np.random.Generator | None
) -> float:
    predictions, points = answers.predictions, recalibration.shift_errors(np.asarray(answers.points), shift)
    n, p = points.shape
    if random is not None:
        return metric(predictions.prediction + points[np.arange(n), random.integers(0, p, n)], predictions)
    return metric((predictions.prediction[:, None] + points).ravel(), predictions.take(np.repeat(np.arange(n), p)))
