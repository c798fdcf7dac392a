"""How far a regression's errors are off in a window: moved by so much, and so many times as large."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SMALLEST = 1e-12


def moved(points: Floats, off: Floats) -> Floats:
    """Errors (n, p) under `off`: moved by off[0] mean absolute errors, their spread times exp(off[1])."""
    centre, scale = _parts(points)
    return np.asarray((centre + off[0] * scale)[:, None] + np.exp(off[1]) * (points - centre[:, None]))


def fit(prediction: Floats, points: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """By how much the errors of n rows are off what `points` (n, p) say of them.

    Returns:
        off (2,): a ratio of sums, and the logarithm of one; the information (2, 2) and the scores (n, 2) that the
        linearised ratios have, as a likelihood would.
    """
    centre, scale = _parts(points)
    error = y - prediction - centre
    move = error.sum() / scale.sum()
    left = error - move * scale
    growth = max(np.abs(left).sum() / scale.sum(), 1e-3)
    rest = np.column_stack([left, np.abs(left) - growth * scale])
    total = scale.sum() * np.array([1.0, growth])
    squares = np.maximum((rest**2).sum(axis=0), SMALLEST)
    return np.array([move, np.log(growth)]), np.diag(total**2 / squares), rest * (total / squares)


def _parts(points: Floats) -> tuple[Floats, Floats]:
    centre = points.mean(axis=1)
    return centre, np.maximum(np.abs(points - centre[:, None]).mean(axis=1), SMALLEST)
