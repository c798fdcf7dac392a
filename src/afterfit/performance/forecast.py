"""Where a slowly wandering level will be next, from noisy looks at it: a local-level model, its variances unknown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SCATTER = np.array([0.0, 0.03, 0.06, 0.12, 0.24, 0.48, 0.96])
"""Standard deviations of single windows around their level that are thought possible."""
WANDER = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
"""Standard deviations of the level's step from one window to the next that are thought possible."""
STAY = np.array([0.3, 0.6, 0.85, 1.0])
"""Shares of the level that are thought to stay from one window to the next; the rest goes back to 0."""
USUAL_SCATTER, USUAL_WANDER = 0.3, 0.3
START = 0.1
"""Standard deviation of the level where nothing was seen: calibration has just put it at 0."""


@dataclass(frozen=True, slots=True)
class LevelObservation:
    """One look at the level.

    Attributes:
        value: what was measured.
        variance: of the measurement by chance alone.
        after: windows' lengths since the look before, or since the start.
        evidence: from 0 to 1, how much it says of how much the level moves.
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
        which = random.choice(len(self.weight), size=count, p=self.weight)
        spread = np.sqrt(self.variance[which] + noise)
        return np.asarray(self.mean[which] + spread * random.standard_normal(count))


def forecast(looks: Sequence[LevelObservation], ahead: float) -> Forecast:
    """Where a window `ahead` of the last look will be.

    A window's value is level + scatter; the level takes independent normal steps (a local-level model, Harvey 1989,
    filtered as by Kalman 1960). How large scatter and steps are is not known: each pair of a grid is weighted by how
    well it foretells the looks and by a half-Cauchy prior (Gelman 2006). With few looks the forecast is thus wide,
    and wider the further it reaches.

    Args:
        looks: oldest first.
        ahead: from the last look to the window in question, in windows' lengths.
    """
    scatter, wander, stay = (grid.ravel() for grid in np.meshgrid(SCATTER**2, WANDER**2, STAY, indexing="ij"))
    likelihood = _PRIOR.copy()
    mean, variance = np.zeros(scatter.size), np.full(scatter.size, START**2)
    for look in looks:
        kept = stay**look.after
        mean, variance = kept * mean, kept**2 * variance + wander * look.after
        total = variance + scatter + look.variance
        off = look.value - mean
        likelihood -= look.evidence * 0.5 * (np.log(total) + off**2 / total)
        gain = variance / total
        mean, variance = mean + gain * off, variance * (1.0 - gain)
    weight, kept = np.exp(likelihood - likelihood.max()), stay**ahead
    return Forecast(weight / weight.sum(), kept * mean, kept**2 * variance + wander * ahead + scatter)


def _prior(grid: Floats, usual: float) -> Floats:
    """Logarithms of half-Cauchy weights of the grid's points, each for the stretch around it."""
    width = np.gradient(grid)
    return np.asarray(np.log(width / (1.0 + (grid / usual) ** 2)))


_PRIOR = (
    _prior(SCATTER, USUAL_SCATTER)[:, None, None] + _prior(WANDER, USUAL_WANDER)[:, None] + np.zeros(len(STAY))
).ravel()
