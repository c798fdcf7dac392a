"""P-values that hold far out in the tails, where an alarm over hundreds of tests is decided.

All are two-sided and take effective numbers of rows; all are vectorised.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

Array = np.ndarray[Any, Any]
RARE = 0.1
"""Shares below this are tested by the binomial distribution, those above as means with their skewness."""


def mean_pvalues(difference: Array, variance: Array, skewness: Array, freedom: Array) -> Array:
    """Two-sided p-values of differences of means.

    Student's t allows for the uncertainty of the variance. Then skewness: on the side of the long tail
    the Pearson type III distribution (Bobée and Robitaille, 1977) or the normal one, whichever gives the larger
    p-value, and on the other side the normal one.

    Args:
        difference: (tests,) in any unit.
        variance: (tests,) of the difference, in that unit squared.
        skewness: (tests,) of the difference.
        freedom: (tests,) degrees of freedom of the variance.
    """
    certain = np.copysign(np.where(difference == 0, 0.0, np.inf), difference)  # the score did not vary, and now it does
    t = np.where(variance > 0, difference / np.sqrt(np.where(variance > 0, variance, 1.0)), certain)
    upper, lower = _tail(t, skewness, freedom), _tail(-t, -skewness, freedom)
    return np.minimum(1.0, 2.0 * np.minimum(upper, lower))


def _tail(t: Array, skewness: Array, freedom: Array) -> Array:
    """P(T ≥ t), the larger of the normal and the Pearson III tail."""
    student_tail = special.stdtr(freedom, -t)
    z = np.where(np.isfinite(t), -special.ndtri(np.clip(student_tail, 1e-300, 1.0)), t)
    normal = special.ndtr(-z)
    positive_skewness = np.maximum(skewness, 1e-3)
    shape = 4.0 / positive_skewness**2
    gamma_quantile = np.clip(shape + np.clip(z, -1e8, 1e8) * np.sqrt(shape), 0.0, None)
    skewed = np.where(skewness > 1e-3, special.gammaincc(shape, gamma_quantile), normal)
    return np.where(z > 0, np.maximum(normal, skewed), np.minimum(normal + skewed, 1.0))


def share_pvalues(
    count: Array, rows: Array, other: Array, other_rows: Array, *, design: Array, freedom: Array
) -> Array:
    """Two-sided p-values that two shares are the same.

    Rare shares are tested by the binomial distribution of one count given the sum of both (Przyborowski and Wilenski,
    1940), which needs no large numbers; other shares are tested as means. Counts and rows are divided by the design
    effect first. Where rows depend on each other, a rare share is tested both ways and the larger p-value counts.

    Args:
        count: (tests,) rows of the window that have the property, of `rows`.
        rows: (tests,) rows of the window.
        other: (tests,) the same count in the reference, of `other_rows`.
        other_rows: (tests,) rows of the reference.
        design: (tests,) design effects.
        freedom: (tests,) degrees of freedom of the design effects.
    """
    pooled = (count + other) / (rows + other_rows)
    rarer_share = np.minimum(pooled, 1.0 - pooled)
    flip = pooled > 0.5
    window_count, reference_count = (
        np.where(flip, rows - count, count) / design,
        np.where(flip, other_rows - other, other) / design,
    )
    window_share = rows / (rows + other_rows)
    by_binomial = 2.0 * np.minimum(
        _binomial_tail(window_count, reference_count, window_share),
        _binomial_tail(reference_count, window_count, 1.0 - window_share),
    )
    variance = pooled * (1.0 - pooled) * (1.0 / rows + 1.0 / other_rows) * design
    skewness = (1.0 - 2.0 * pooled) / np.sqrt(np.maximum(pooled * (1.0 - pooled), 1e-12))
    by_means = mean_pvalues(
        count / rows - other / other_rows, variance, skewness * skew_factor(rows, other_rows, design), freedom
    )
    of_rare = np.where(design > 1.0, np.maximum(by_binomial, by_means), by_binomial)
    return np.minimum(1.0, np.where(rarer_share < RARE, of_rare, by_means))


def _binomial_tail(k: Array, m: Array, share: Array) -> Array:
    """P(K ≥ k) for K binomial of k + m trials; k and m need not be whole numbers."""
    return np.where(k > 0, special.betainc(np.maximum(k, 1e-12), m + 1.0, share), 1.0)


def skew_factor(rows: Array, other_rows: Array, design: Array) -> Array:
    """Skewness of the difference of two means over the skewness of one row."""
    window_weight, reference_weight = design / rows, design / other_rows
    result: Array = (window_weight**2 - reference_weight**2) / (window_weight + reference_weight) ** 1.5
    return result


def holm(pvalues: Sequence[float], share: float = 1.0) -> list[float]:
    """Family-wise p-values by Holm's procedure, of tests that have a share of the rate."""
    adjusted, largest = [1.0] * len(pvalues), 0.0
    for rank, position in enumerate(np.argsort(pvalues, kind="stable").tolist()):
        largest = max(largest, pvalues[position] * (len(pvalues) - rank) / share)
        adjusted[position] = min(largest, 1.0)
    return adjusted
