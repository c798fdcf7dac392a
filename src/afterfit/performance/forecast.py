"""Forecast of a slowly moving level from noisy observations: a local-level model whose variances are unknown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SCATTER = np.array([0.0, 0.03, 0.06, 0.12, 0.24, 0.48, 0.96])
"""Possible standard deviations of single windows around their level."""
WANDER = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
"""Possible standard deviations of the level's step from one window to the next."""
STAY = np.array([0.3, 0.6, 0.85, 1.0])
"""Possible shares of the level that stay from one window to the next; the rest goes back to 0."""
USUAL_SCATTER, USUAL_WANDER = 0.3, 0.3
START = 0.1
"""Standard deviation of the level before any observation: calibration has just put it at 0."""


@dataclass(frozen=True, slots=True)
class LevelObservation:
    """One observation of the level.

    Attributes:
        value: what was measured.
        variance: of the measurement by chance alone.
        after: time since the observation before, or since the start, in windows' lengths.
        evidence: from 0 to 1, how much it tells about how far the level moves.
    """

    value: float
    variance: float
    after: float
    evidence: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """A mixture of normals: m weights that add up to 1, means and variances."""

    weight: Floats
    mean: Floats
    variance: Floats

    @property
    def centre(self) -> float:
        """The mean of the mixture."""
        return float(self.weight @ self.mean)

    def draws(self, count: int, noise: float, seed: int) -> Floats:
        """(count,) values, with a further variance `noise` of a measurement by chance."""
        random = np.random.default_rng(seed)
        component = random.choice(len(self.weight), size=count, p=self.weight)
        spread = np.sqrt(self.variance[component] + noise)
        return np.asarray(self.mean[component] + spread * random.standard_normal(count))


def forecast(observations: Sequence[LevelObservation], ahead: float) -> Forecast:
    """Where a window will be that lies `ahead` of the last observation.

    A window's value is level + scatter; the level takes independent normal steps (a local-level model, Harvey 1989,
    filtered as by Kalman 1960). The sizes of scatter and steps are unknown: each combination on a grid is weighted by
    how well it predicts the observations, and by a half-Cauchy prior (Gelman 2006). So the forecast is wide where
    there are few observations, and wider the further it reaches.

    Args:
        observations: oldest first.
        ahead: from the last observation to the window in question, in windows' lengths.
    """
    scatter, wander, stay = (grid.ravel() for grid in np.meshgrid(SCATTER**2, WANDER**2, STAY, indexing="ij"))
    likelihood = _PRIOR.copy()
    mean, variance = np.zeros(scatter.size), np.full(scatter.size, START**2)
    for observation in observations:
        persistence = stay**observation.after
        mean, variance = persistence * mean, persistence**2 * variance + wander * observation.after
        total = variance + scatter + observation.variance
        surprise = observation.value - mean
        likelihood -= observation.evidence * 0.5 * (np.log(total) + surprise**2 / total)
        gain = variance / total
        mean, variance = mean + gain * surprise, variance * (1.0 - gain)
    weight, persistence = np.exp(likelihood - likelihood.max()), stay**ahead
    return Forecast(weight / weight.sum(), persistence * mean, persistence**2 * variance + wander * ahead + scatter)


def _prior(grid: Floats, usual: float) -> Floats:
    """Logarithms of half-Cauchy weights of the grid's points, each for the interval around it."""
    width = np.gradient(grid)
    return np.asarray(np.log(width / (1.0 + (grid / usual) ** 2)))


_PRIOR = (
    _prior(SCATTER, USUAL_SCATTER)[:, None, None] + _prior(WANDER, USUAL_WANDER)[:, None] + np.zeros(len(STAY))
).ravel()
