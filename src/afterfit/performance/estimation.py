"""Performance where outcomes are not there yet: expected from calibrated probabilities, corrected by late outcomes.

A metric is a formula over weighted rows. With each row there once for each class, weighted by the probability of that
class, the same formula gives what the metric is expected to be; exactly where it is a sum over rows. Three things are
put right before: errors that the folds showed in some regions of the inputs count as often as the window's rows lie
there (which is what reweighting by the ratio of densities would do); what the last windows with outcomes showed
against their own probabilities moves the probabilities of this one (`shifts`); and how far that can be trusted, with
how late it is, makes the interval (`levels`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from afterfit.performance import recalibration
from afterfit.performance import recalibration as residuals
from afterfit.performance.bootstrap import Blocks, time_blocks
from afterfit.performance.forecast import LevelObservation, forecast
from afterfit.performance.metrics import Measured, Metric
from afterfit.performance.predictions import FloatArray, Predictions

CONFIDENCE = 0.9
DRAWS = 400
ROWS_OF_DRAWS = 3_000
"""Rows that stand for all of them where the interval is drawn; each is then one of so many."""
FEWEST_ROWS = 50
NUMBERS_OF_DRAWS = 600
"""The same of a regression, where each row has many errors."""
LOST = 0.75
"""Share of rows outside what is known, beyond which nothing can be told."""
OF_FOLDS = 0.2
"""What a fold says of how much windows move, against a window: folds lie close together, within one training."""
UNIT_OF_NUMBERS = 0.4
"""Errors of numbers move by so much of their size where log-odds move by 1."""
LONGEST_GAP = 24.0
"""Windows' lengths beyond which what is long past gets no less certain."""


@dataclass(frozen=True, slots=True)
class CalibrationEvidence:
    """What rows with outcomes showed of one version: how far its answers were off.

    Attributes:
        end: when, as ISO text in the time column's own clock; None without times.
        rows: rows with outcomes.
        off: (d,) the shift of the probabilities, or place and scale of a regression's errors; empty where the rows
            can show neither.
        variance: (d,) of `off`, by chance alone.
        design: (d,) how many times that is larger than for independent rows.
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
        told = {name: list(getattr(self, name)) for name in ("off", "variance", "design")}
        return {"end": self.end, "rows": self.rows, **told, "outside": self.outside}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "CalibrationEvidence":
        """The inverse of `to_dict`."""
        told = {name: tuple(map(float, saved[name])) for name in ("off", "variance", "design")}
        return cls(saved["end"], int(saved["rows"]), **told, outside=float(saved["outside"]))


@dataclass(frozen=True, slots=True, eq=False)
class WindowAnswers:
    """n rows with answers, without outcomes, in order of time.

    Attributes:
        predictions: the answers.
        points: (n, p) what the folds showed of errors where each row lies: the log-odds by which probabilities of two
            classes are off, p = 1, or p errors of a regression; None where nothing is known.
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
        """(n, k) the answers' probabilities, put right by what the folds showed in each region."""
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


def impossible(answers: WindowAnswers, past: Sequence[CalibrationEvidence] = ()) -> str:
    """Why nothing can be estimated, as a sentence; empty where it can."""
    if answers.regression and answers.points is None:
        return "The version carries no errors of rows unseen in training: train a new one to have errors estimated."
    if not answers.regression and answers.predictions.probabilities is None:
        return "The model answers no probabilities, and without them nothing says how sure it is."
    n = len(answers.predictions)
    if n < FEWEST_ROWS:
        return f"An estimate needs at least {FEWEST_ROWS} rows with an answer; there are {n}."
    if answers.outside - max((one.outside for one in past), default=0.0) > LOST:
        return (
            f"{answers.outside:.0%} of the rows lie outside what the version was trained on, and no window with known "
            "outcomes was like that."
        )
    return ""


def learn(answers: WindowAnswers, y: npt.NDArray[Any], end: datetime | None = None) -> CalibrationEvidence:
    """What n rows with known outcomes show."""
    until = None if end is None else end.isoformat()
    if impossible(replace(answers, outside=0.0)):
        return CalibrationEvidence(until, len(y), (), (), (), answers.outside)
    kept = recalibration.thinned(len(y))
    outside, rows = answers.outside, len(y)
    answers, y = answers.take(kept), y[kept]
    if answers.regression:
        off, information, scores = residuals.fit_errors(answers.predictions.prediction, np.asarray(answers.points), y)
    else:
        table, y = answers.probabilities, y.astype(np.intp)
        off = recalibration.fit_shift(table, y, answers.centre)
        information = recalibration.information(table, answers.centre, off)
        scores = recalibration.scores(table, y, answers.centre, off)
    blocks = Blocks(np.arange(len(y)), len(y))
    if answers.times is not None:
        blocks = time_blocks(answers.times, scores[:, 0])
    design = recalibration.design(scores, information, blocks.ids, blocks.inflation)
    variance = design * recalibration.variances(information)
    return CalibrationEvidence(
        until,
        rows,
        tuple(off.tolist()),
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
    """Each metric of n rows without their outcomes, with the interval that holds 90 % of what is realised later.

    Args:
        metrics: what is wanted.
        answers: the rows.
        folds: what the version's folds showed, oldest first.
        past: what windows with outcomes showed of this version, oldest first; all before these rows.
        seed: of the draws that make the interval.
    """
    n, reason = len(answers.predictions), impossible(answers, past)
    if reason:
        return {one.name: Measured(one.name, None, n=n, reason=reason) for one in metrics}
    sample = _sample(answers, seed)
    evidence = [(one, OF_FOLDS) for one in folds] + [(one, 1.0) for one in past]
    centre, draws = _offs([(one, share) for one, share in evidence if one.off], answers, seed)
    found = {}
    for one in metrics:
        why = _unfit(one, answers)
        found[one.name] = (
            Measured(one.name, None, n=n, reason=why) if why else _one(one, answers, sample, centre, draws)
        )
    return found


def _unfit(one: Metric, answers: WindowAnswers) -> str:
    predictions = answers.predictions
    if one.needs == "interval" and predictions.lower is None:
        return f"{one.name} needs the ends of intervals, and the model answers none."
    return ""


def _sample(answers: WindowAnswers, seed: int) -> WindowAnswers:
    n, most = len(answers.predictions), NUMBERS_OF_DRAWS if answers.regression else ROWS_OF_DRAWS
    if n <= most:
        return answers
    rows = np.random.default_rng(seed).choice(n, most, replace=False)
    return answers.take(np.sort(rows))


def _offs(
    evidence: Sequence[tuple[CalibrationEvidence, float]], answers: WindowAnswers, seed: int
) -> tuple[FloatArray, FloatArray]:
    """How far these answers will be off: the mean (d,), and draws (DRAWS, d) with what chance adds."""
    looks = [one for one, _ in evidence]
    steps, ahead = _gaps(looks, answers.times)
    chance = _chance(answers)
    whole = len(answers.predictions) <= (NUMBERS_OF_DRAWS if answers.regression else ROWS_OF_DRAWS)
    designs = np.mean([one.design for one in looks], axis=0) if looks else np.ones(len(chance))
    noise = chance * (designs - (1.0 if whole else 0.0))
    centre, drawn = np.zeros(len(chance)), np.zeros((DRAWS, len(chance)))
    unit = UNIT_OF_NUMBERS if answers.regression else 1.0
    for j in range(len(chance)):
        seen = [
            LevelObservation(one.off[j] / unit, one.variance[j] / unit**2, step, share)
            for (one, share), step in zip(evidence, steps, strict=True)
        ]
        coming = forecast(seen, ahead)
        centre[j] = unit * coming.centre
        drawn[:, j] = unit * coming.draws(DRAWS, float(noise[j]) / unit**2, seed + j)
    return centre, drawn


def _chance(answers: WindowAnswers) -> FloatArray:
    """(d,) variances of what these rows will show, were they independent."""
    if answers.regression:
        assert answers.points is not None  # noqa: S101 - `impossible` has looked
        return np.full(2, 1.0 / len(answers.predictions))
    kept = recalibration.thinned(len(answers.predictions))
    fewer = answers.take(kept)
    table = fewer.probabilities
    theta = np.zeros(recalibration.parameters(table.shape[1]))
    scale = len(fewer.predictions) / len(answers.predictions)
    return recalibration.variances(recalibration.information(table, answers.centre, theta)) * scale


def _gaps(looks: Sequence[CalibrationEvidence], times: npt.NDArray[Any] | None) -> tuple[list[float], float]:
    """Windows' lengths between one look and the next, and from the last one to these rows; 1 without times."""
    ends = [np.datetime64(one.end, "s") if one.end else None for one in looks]
    if times is None or not len(times) or not looks or any(end is None for end in ends):
        return [1.0] * len(looks), 1.0
    stamps = np.array([*ends, np.datetime64(times[-1], "s")]).astype(np.int64).astype(np.float64)
    length = max(float((times[-1] - times[0]) / np.timedelta64(1, "s")), 1.0)
    gaps = np.clip(np.diff(stamps) / length, 0.0, LONGEST_GAP).tolist()
    return [1.0, *gaps[:-1]], gaps[-1]


def _one(one: Metric, answers: WindowAnswers, sample: WindowAnswers, centre: FloatArray, draws: FloatArray) -> Measured:
    """One metric: its value over all rows, and the interval from draws over the sample."""
    n = len(answers.predictions)
    value = _expected(one, answers, centre[None, :])[0]
    if not np.isfinite(value):
        return Measured(one.name, None, n=n, reason=f"{one.name} is not defined on such rows.")
    values = _expected(one, sample, draws, drawn=sample is answers)
    beside = _expected(one, sample, centre[None, :])[0] if sample is not answers else value
    values = values[np.isfinite(values)] + (value - beside)
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = max(min(float(low), value), one.bounds[0]), min(max(float(high), value), one.bounds[1])
    return Measured(one.name, float(value), low, high, n)


def _expected(one: Metric, answers: WindowAnswers, offs: FloatArray, *, drawn: bool = False) -> FloatArray:
    """The metric under each of r ways to be off, (r,); with outcomes drawn where `drawn`, else by expectation."""
    random = np.random.default_rng(len(offs))
    if answers.regression:
        return np.array([_of_numbers(one, answers, off, random if drawn else None) for off in offs])
    return _of_classes(one, answers, offs, random if drawn else None)


def _of_classes(
    one: Metric, answers: WindowAnswers, offs: FloatArray, random: np.random.Generator | None
) -> FloatArray:
    table = answers.probabilities
    n, k = table.shape
    y, rows = np.repeat(np.arange(k), n), np.tile(np.arange(n), k)
    if len(offs) == 1 and random is None:
        return np.array(
            [one(y, answers.predictions.take(rows), recalibration.shifted(table, answers.centre, offs[0]).T.ravel())]
        )
    side = one.formula(y, answers.predictions.take(rows), np.arange(n * k), n * k)
    values = []
    for part in np.array_split(offs, max(1, len(offs) * n * k // 2**22)):
        weights = np.stack(
            [_outcomes(recalibration.shifted(table, answers.centre, off), random).T.ravel() for off in part]
        )
        values.append(side(weights))
    return np.concatenate(values)


def _outcomes(shares: FloatArray, random: np.random.Generator | None) -> FloatArray:
    """(n, k) the shares themselves, or one class a row drawn by them."""
    if random is None:
        return shares
    chosen = (random.random((len(shares), 1)) > np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)
    drawn: FloatArray = np.eye(shares.shape[1])[chosen]
    return drawn


def _of_numbers(one: Metric, answers: WindowAnswers, off: FloatArray, random: np.random.Generator | None) -> float:
    predictions, points = answers.predictions, residuals.shifted_errors(np.asarray(answers.points), off)
    n, p = points.shape
    if random is not None:
        return one(predictions.prediction + points[np.arange(n), random.integers(0, p, n)], predictions)
    return one((predictions.prediction[:, None] + points).ravel(), predictions.take(np.repeat(np.arange(n), p)))


def plug_in(metrics: Sequence[Metric], answers: WindowAnswers) -> dict[str, float]:
    """Each metric as the answers themselves expect it, without any correction."""
    bare = replace(answers, points=answers.points if answers.regression else None)
    width = 2 if answers.regression else recalibration.parameters(bare.probabilities.shape[1])
    return {one.name: float(_expected(one, bare, np.zeros((1, width)))[0]) for one in metrics}
