"""How far class probabilities are off in a window: a shift of each class and one change of sharpness.

How far a regression's errors are off in a window: moved by so much, and so many times as large.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MOST_CLASSES = 10
"""Classes up to which each has a shift of its own; with more only the sharpness is looked at."""
MOST_ROWS = 100_000
FLOOR = 1e-6
PRIOR = 1.0
"""Standard deviation of the normal prior of each parameter, which keeps a window of one class from infinity."""
STEPS = 30


def parameters(classes: int) -> int:
    """How many numbers describe a shift: one a class but the first, and the sharpness."""
    return classes if classes <= MOST_CLASSES else 1


def shifted(probabilities: Floats, centre: Floats, theta: Floats) -> Floats:
    """Probabilities (n, k) under a shift theta (d,): softmax of log p + a + b (log p - centre).

    With two classes this is logit q = logit p + a + b (logit p - c): calibration in the large and its slope
    (Cox 1958). `centre` are the (k,) logarithms of the classes' usual shares, so that `a` is felt where rows are.
    """
    logs = np.log(np.clip(probabilities, FLOOR, 1.0))
    logs += theta[-1] * (logs - centre)
    if len(theta) > 1:
        logs[:, 1:] += theta[:-1]
    logs -= logs.max(axis=1, keepdims=True)
    shares = np.exp(logs)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def fit_shift(probabilities: Floats, y: npt.NDArray[np.intp], centre: Floats) -> Floats:
    """The shift (d,) under which the outcomes are most likely, by Newton's method with a weak prior."""
    theta = np.zeros(parameters(probabilities.shape[1]))
    for _ in range(STEPS):
        gradient = scores(probabilities, y, centre, theta).sum(axis=0) - theta / PRIOR**2
        step = np.linalg.solve(information(probabilities, centre, theta) + np.eye(len(theta)) / PRIOR**2, gradient)
        theta = np.clip(theta + np.clip(step, -1.0, 1.0), -6.0, 6.0)
        if np.abs(step).max() < 1e-8:
            break
    return theta


def scores(probabilities: Floats, y: npt.NDArray[np.intp], centre: Floats, theta: Floats) -> Floats:
    """(n, d) each row's derivative of the log-likelihood."""
    off = -shifted(probabilities, centre, theta)
    off[np.arange(len(y)), y] += 1.0
    sharp = (off * _leverage(probabilities, centre)).sum(axis=1)
    return np.column_stack([off[:, 1:], sharp]) if len(theta) > 1 else sharp[:, None]


def information(probabilities: Floats, centre: Floats, theta: Floats) -> Floats:
    """(d, d) expected information of the rows."""
    q = shifted(probabilities, centre, theta)
    lever = _leverage(probabilities, centre)
    mean = (q * lever).sum(axis=1)
    sharp = float(((q * lever**2).sum(axis=1) - mean**2).sum())
    if len(theta) == 1:
        return np.array([[sharp]])
    rest = q[:, 1:]
    found = np.empty((len(theta), len(theta)))
    found[:-1, :-1] = np.diag(rest.sum(axis=0)) - rest.T @ rest
    found[-1, :-1] = found[:-1, -1] = (rest * (lever[:, 1:] - mean[:, None])).sum(axis=0)
    found[-1, -1] = sharp
    return found


def variances(found: Floats) -> Floats:
    """(d,) variances of the parameters by chance alone, from their information and the prior's."""
    return np.asarray(np.diag(np.linalg.inv(found + np.eye(len(found)) / PRIOR**2)))


def design(gradient: Floats, found: Floats, blocks: npt.NDArray[np.intp], inflation: float) -> Floats:
    """(d,) how many times larger the variances are because rows of one block share their luck; at least 1.

    The ratio of the variance between blocks (Liang and Zeger 1986) to that of independent rows.
    """
    count = int(blocks.max()) + 1
    if count < 5:
        return np.ones(gradient.shape[1])
    sums = np.stack([np.bincount(blocks, weights=column, minlength=count) for column in gradient.T], axis=1)
    inverse = np.linalg.inv(found + np.eye(len(found)) / PRIOR**2)
    between = inverse @ (sums.T @ sums) @ inverse * count / (count - 1) * inflation
    return np.maximum(np.diag(between) / np.diag(inverse), 1.0)


def thinned(rows: int, most: int = MOST_ROWS) -> slice:
    """At most so many rows, evenly spaced."""
    return slice(None, None, max(1, -(-rows // most)))


def centre_of(shares: Sequence[float], classes: int) -> Floats:
    """(k,) logarithms of the classes' usual shares."""
    usual = np.asarray(shares, dtype=float) if len(shares) == classes else np.full(classes, 1.0 / classes)
    return np.asarray(np.log(np.clip(usual, 1e-3, 1.0)))


def _leverage(probabilities: Floats, centre: Floats) -> Floats:
    return np.asarray(np.log(np.clip(probabilities, FLOOR, 1.0)) - centre)


SMALLEST = 1e-12


def shifted_errors(points: Floats, off: Floats) -> Floats:
    """Errors (n, p) under `off`: moved by off[0] mean absolute errors, their spread times exp(off[1])."""
    centre, scale = _parts(points)
    return np.asarray((centre + off[0] * scale)[:, None] + np.exp(off[1]) * (points - centre[:, None]))


def fit_errors(prediction: Floats, points: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
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
