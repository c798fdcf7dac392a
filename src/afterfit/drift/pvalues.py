"""P-values that stay honest far out in the tails, where an alarm over hundreds of tests is decided.

All are two-sided and take effective numbers of rows; all are vectorised.
"""

from typing import Any

import numpy as np
from scipy import special

Array = np.ndarray[Any, Any]

RARE = 0.1
"""Shares below this are tested by the binomial distribution, above by a mean with its skewness."""


def of_means(difference: Array, variance: Array, skewness: Array, freedom: Array) -> Array:
    """Two-sided p-values of differences of means.

    Student's t for the roughness of the variance, then the Pearson type III distribution for the skewness on the long
    side (Bobée and Robitaille, 1977) and the normal one on the short side, whichever is the heavier.

    Args:
        difference: (tests,) in any unit.
        variance: (tests,) of the difference, in that unit squared.
        skewness: (tests,) of the difference.
        freedom: (tests,) degrees of freedom of the variance.
    """
    certain = np.copysign(np.where(difference == 0, 0.0, np.inf), difference)  # a score that did not vary and now does
    t = np.where(variance > 0, difference / np.sqrt(np.where(variance > 0, variance, 1.0)), certain)
    upper, lower = _tail(t, skewness, freedom), _tail(-t, -skewness, freedom)
    return np.minimum(1.0, 2.0 * np.minimum(upper, lower))


def _tail(t: Array, skewness: Array, freedom: Array) -> Array:
    """P(T ≥ t), the heavier of the normal and the Pearson III tail."""
    below = special.stdtr(freedom, -t)
    z = np.where(np.isfinite(t), -special.ndtri(np.clip(below, 1e-300, 1.0)), t)
    normal = special.ndtr(-z)
    long = np.maximum(skewness, 1e-3)
    shape = 4.0 / long**2
    bounded = np.clip(shape + np.clip(z, -1e8, 1e8) * np.sqrt(shape), 0.0, None)
    skewed = np.where(skewness > 1e-3, special.gammaincc(shape, bounded), normal)
    return np.where(z > 0, np.maximum(normal, skewed), np.minimum(normal + skewed, 1.0))


def of_shares(count: Array, rows: Array, other: Array, other_rows: Array, *, design: Array, freedom: Array) -> Array:
    """Two-sided p-values that two shares are the same.

    Rare ones by the binomial distribution of one count given their sum (Przyborowski and Wilenski, 1940), which needs
    no large numbers; the others as means. Counts and rows are divided by the design effect first. Where the rows depend
    on each other, a rare share must convince both ways.

    Args:
        count: (tests,) rows of the window that have the property, of `rows`.
        rows: (tests,) rows of the window.
        other: (tests,) the same count in the reference, of `other_rows`.
        other_rows: (tests,) rows of the reference.
        design: (tests,) design effects.
        freedom: (tests,) degrees of freedom of the design effects.
    """
    pooled = (count + other) / (rows + other_rows)
    fewer = np.minimum(pooled, 1.0 - pooled)
    flip = pooled > 0.5
    k, m = np.where(flip, rows - count, count) / design, np.where(flip, other_rows - other, other) / design
    odds = rows / (rows + other_rows)
    binomial = 2.0 * np.minimum(_at_least(k, m, odds), _at_least(m, k, 1.0 - odds))
    variance = pooled * (1.0 - pooled) * (1.0 / rows + 1.0 / other_rows) * design
    skewness = (1.0 - 2.0 * pooled) / np.sqrt(np.maximum(pooled * (1.0 - pooled), 1e-12))
    means = of_means(
        count / rows - other / other_rows, variance, skewness * skew_factor(rows, other_rows, design), freedom
    )
    rough = np.where(design > 1.0, np.maximum(binomial, means), binomial)
    return np.minimum(1.0, np.where(fewer < RARE, rough, means))


def _at_least(k: Array, m: Array, odds: Array) -> Array:
    """P(K ≥ k) for K binomial of k + m trials; both may be broken numbers."""
    return np.where(k > 0, special.betainc(np.maximum(k, 1e-12), m + 1.0, odds), 1.0)


def skew_factor(rows: Array, other_rows: Array, design: Array) -> Array:
    """What the skewness of one row becomes in the difference of two means."""
    here, there = design / rows, design / other_rows
    result: Array = (here**2 - there**2) / (here + there) ** 1.5
    return result
