"""Performance where outcomes are not there yet: expected from calibrated probabilities, corrected by late outcomes.

A metric is a formula over weighted rows. With each row there once for each class, weighted by the probability of that
class, the same formula gives what the metric is expected to be; exactly where it is a sum over rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from afterfit.measures import Metric
from afterfit.observation import Measured
from afterfit.predictions import FloatArray, Predictions

CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Past:
    """What a window with outcomes showed of one version.

    Attributes:
        end: the window's end in the time column's own clock, ISO text; None without times.
        rows: rows with outcomes.
        errors: for each metric, realised less estimated without any correction.
    """

    end: str | None
    rows: int
    errors: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"end": self.end, "rows": self.rows, "errors": dict(self.errors)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Past":
        """The inverse of `to_dict`."""
        return cls(saved["end"], int(saved["rows"]), dict(saved["errors"]))


def expected(metric: Metric, predictions: Predictions, probabilities: FloatArray) -> float:
    """The metric where outcomes have these probabilities, (n, k)."""
    n, k = probabilities.shape
    y = np.repeat(np.arange(k), n)
    rows = np.tile(np.arange(n), k)
    return metric(y, predictions.take(rows), probabilities.T.ravel())


def learn(metrics: Sequence[Metric], y: npt.NDArray[Any], predictions: Predictions, end: str | None) -> Past:
    """What n rows with known outcomes show."""
    errors = {}
    for one in metrics:
        if predictions.probabilities is not None and len(y):
            error = one(y, predictions) - expected(one, predictions, predictions.probabilities)
            if np.isfinite(error):
                errors[one.name] = error
    return Past(end, len(y), errors)


def estimate(metrics: Sequence[Metric], predictions: Predictions, past: Sequence[Past]) -> dict[str, Measured]:
    """Each metric of n rows without their outcomes, with its 90 % interval."""
    n, found = len(predictions), {}
    for one in metrics:
        if predictions.probabilities is None or n < 2:
            found[one.name] = Measured(one.name, None, n=n, reason="The model answers no probabilities.")
            continue
        value = expected(one, predictions, predictions.probabilities)
        seen = [window.errors[one.name] for window in past if one.name in window.errors]
        spread = float(np.std(seen)) if len(seen) > 1 else abs(seen[0]) if seen else np.inf
        value += float(np.mean(seen[-2:])) if seen else 0.0
        reach = 1.645 * spread
        found[one.name] = Measured(one.name, value, value - reach, value + reach, n)
    return found
