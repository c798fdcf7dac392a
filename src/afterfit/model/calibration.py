"""Calibration of probabilities, and prediction intervals: learnt from out-of-fold predictions, kept as numbers."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float64]

SMALLEST_ISOTONIC = 1000
"""Rows of the rarer class from which an isotonic curve is steadier than a sigmoid (Niculescu-Mizil, Caruana 2005)."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One class's map from raw to calibrated probability: a sigmoid of the log-odds, or a piecewise linear curve."""

    method: Literal["sigmoid", "isotonic"]
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, raw: Floats) -> Floats:
        """Map probabilities (n,) to probabilities (n,); never decreasing."""
        if self.method == "isotonic":
            return np.interp(raw, self.x, self.y)
        slope, intercept = self.x[0], self.y[0]
        return np.asarray(1.0 / (1.0 + np.exp(-(slope * _log_odds(raw) + intercept))))


@dataclass(frozen=True, slots=True)
class Calibration:
    """With two classes one curve, of the second class; with more one for each class, and then normalised."""

    curves: tuple[Curve, ...]

    def __call__(self, raw: Floats) -> Floats:
        """Map class probabilities (n, k) to calibrated class probabilities (n, k) with rows that sum to 1."""
        if len(self.curves) == 1:
            positive = self.curves[0](raw[:, 1])
            return np.column_stack([1.0 - positive, positive])
        mapped = np.column_stack([curve(raw[:, k]) for k, curve in enumerate(self.curves)])
        total = mapped.sum(axis=1, keepdims=True)
        return np.where(total > 0, mapped / np.where(total > 0, total, 1.0), raw)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"curves": [{"method": c.method, "x": list(c.x), "y": list(c.y)} for c in self.curves]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Calibration":
        """The inverse of `to_dict`."""
        return cls(tuple(Curve(c["method"], tuple(c["x"]), tuple(c["y"])) for c in data["curves"]))


def fit_calibration(raw: Floats, y: npt.NDArray[np.int64]) -> Calibration | None:
    """Learn calibration from out-of-fold probabilities (n, k) and class indices (n,).

    Each curve is isotonic where the rarer side has at least `SMALLEST_ISOTONIC` rows and a sigmoid (Platt 1999)
    below. The isotonic steps are joined between their centres (Oron, Flournoy 2017), so that rows keep their order.
    None where a class has no rows to learn from.
    """
    columns = [1] if raw.shape[1] == 2 else range(raw.shape[1])
    curves = [_fit_curve(raw[:, k], y == k) for k in columns]
    return Calibration(tuple(curve for curve in curves if curve)) if all(curves) else None


def conformal_offsets(y: Floats, predicted: Floats, coverage: float = 0.9) -> tuple[float, float]:
    """Offsets (low, high) so that `predicted + low` to `predicted + high` covers `coverage` of new outcomes.

    Split-conformal with signed residuals (Linusson, Johansson, Löfström 2014): each tail takes half of the rest.
    Assumes that new rows are exchangeable with the out-of-fold rows. The offsets are in the unit of `y`. With too few
    rows for a tail the largest residual is used, and coverage may differ. Where all residuals lie on one side, the
    interval is extended to the prediction, so that a prediction never lies outside its own interval; coverage only
    grows.
    """
    residuals = np.sort(np.asarray(y, dtype=float) - np.asarray(predicted, dtype=float))
    n, tail = len(residuals), (1 - coverage) / 2
    rank = int(np.floor(tail * (n + 1) + 1e-9))  # 0.05 times 40 is 2, also where 1 - 0.9 is a little less than 0.1
    low = residuals[max(rank - 1, 0)]
    high = residuals[min(n - rank, n - 1)]
    return min(float(low), 0.0), max(float(high), 0.0)


def _fit_curve(raw: Floats, hit: npt.NDArray[np.bool_]) -> Curve | None:
    rarer = int(min(hit.sum(), (~hit).sum()))
    if rarer < 2:
        return None
    return _isotonic(raw, hit) if rarer >= SMALLEST_ISOTONIC else _sigmoid(raw, hit)


def _sigmoid(raw: Floats, hit: npt.NDArray[np.bool_]) -> Curve:
    # Platt's targets: a class never gets probability 1 from a few rows that all agree
    positives, negatives = hit.sum(), (~hit).sum()
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    odds = np.tile(_log_odds(raw), 2)[:, None]
    label = np.repeat([1, 0], len(raw))
    weight = np.concatenate([np.where(hit, high, low), np.where(hit, 1 - high, 1 - low)])
    model = LogisticRegression(C=1e6).fit(odds, label, sample_weight=weight)
    slope = max(float(model.coef_[0, 0]), 0.0)
    return Curve("sigmoid", (slope,), (float(model.intercept_[0]) if slope > 0 else float(_log_odds(hit.mean())),))


def _isotonic(raw: Floats, hit: npt.NDArray[np.bool_]) -> Curve:
    fitted = IsotonicRegression(out_of_bounds="clip").fit_transform(raw, hit.astype(float))
    levels, level = np.unique(fitted, return_inverse=True)
    size = np.bincount(level)
    centre = np.clip(np.bincount(level, weights=raw) / size, 0.0, 1.0)
    # kept away from 0 and 1, like Platt's targets: a class never gets probability 1 from rows that all agree
    positives, negatives = hit.sum(), (~hit).sum()
    floor, ceiling = 1 / (negatives + 2), (positives + 1) / (positives + 2)
    calibrated = floor + (ceiling - floor) * levels
    # the ends continue to 0 and 1, so that different scores get different answers at the edges, too
    left = [(0.0, calibrated[0] / 2)] if centre[0] > 0 else []
    right = [(1.0, (1 + calibrated[-1]) / 2)] if centre[-1] < 1 else []
    points = [*left, *zip(centre.tolist(), calibrated.tolist(), strict=True), *right]
    x, y = np.maximum.accumulate(np.array(points)).T
    return Curve("isotonic", tuple(x.tolist()), tuple(y.tolist()))


def _log_odds(p: Any) -> Floats:
    bounded = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(bounded / (1 - bounded)))
