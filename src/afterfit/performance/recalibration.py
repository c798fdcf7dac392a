"""How far a window's answers are off, as a few numbers fitted to its outcomes.

For class probabilities: a shift of each class's log-odds, and one change of sharpness. For a regression's errors: a
change of their place and of their scale.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MOST_CLASSES = 10
"""Up to so many classes each has a shift of its own; with more classes only the sharpness is fitted."""
MOST_ROWS = 100_000
FLOOR = 1e-6
PRIOR = 1.0
"""Standard deviation of the normal prior of each parameter, which keeps the shift finite in a window of one class."""
STEPS = 30
SMALLEST = 1e-12


def parameters(classes: int) -> int:
    """How many numbers describe a shift: one for each class but the first, and the sharpness."""
    return classes if classes <= MOST_CLASSES else 1


def shift_probabilities(probabilities: Floats, centre: Floats, theta: Floats) -> Floats:
    """Probabilities (n, k) under a shift theta (d,): softmax of log p + a + b (log p - centre).

    With two classes this is logit q = logit p + a + b (logit p - c): calibration in the large and its slope
    (Cox 1958). `centre` are the (k,) logarithms of the classes' usual shares, so that `a` acts where the rows are.
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
    residual = -shift_probabilities(probabilities, centre, theta)
    residual[np.arange(len(y)), y] += 1.0
    sharpness = (residual * _leverage(probabilities, centre)).sum(axis=1)
    return np.column_stack([residual[:, 1:], sharpness]) if len(theta) > 1 else sharpness[:, None]


def information(probabilities: Floats, centre: Floats, theta: Floats) -> Floats:
    """(d, d) expected (Fisher) information of the rows."""
    q = shift_probabilities(probabilities, centre, theta)
    leverage = _leverage(probabilities, centre)
    mean = (q * leverage).sum(axis=1)
    sharpness = float(((q * leverage**2).sum(axis=1) - mean**2).sum())
    if len(theta) == 1:
        return np.array([[sharpness]])
    rest = q[:, 1:]
    fisher = np.empty((len(theta), len(theta)))
    fisher[:-1, :-1] = np.diag(rest.sum(axis=0)) - rest.T @ rest
    fisher[-1, :-1] = fisher[:-1, -1] = (rest * (leverage[:, 1:] - mean[:, None])).sum(axis=0)
    fisher[-1, -1] = sharpness
    return fisher


def variances(fisher: Floats) -> Floats:
    """(d,) variances of the parameters by chance alone, from their information and the prior's."""
    return np.asarray(np.diag(np.linalg.inv(fisher + np.eye(len(fisher)) / PRIOR**2)))


def design(gradient: Floats, fisher: Floats, blocks: npt.NDArray[np.intp], inflation: float) -> Floats:
    """(d,) the design effect: how many times larger variances are because rows of a block are dependent; at least 1.

    The ratio of the variance between blocks (Liang and Zeger 1986) to that of independent rows.
    """
    count = int(blocks.max()) + 1
    if count < 5:
        return np.ones(gradient.shape[1])
    sums = np.stack([np.bincount(blocks, weights=column, minlength=count) for column in gradient.T], axis=1)
    inverse = np.linalg.inv(fisher + np.eye(len(fisher)) / PRIOR**2)
    between = inverse @ (sums.T @ sums) @ inverse * count / (count - 1) * inflation
    return np.maximum(np.diag(between) / np.diag(inverse), 1.0)


def thinned(rows: int, most: int = MOST_ROWS) -> slice:
    """The slice that takes at most so many rows, evenly spaced."""
    return slice(None, None, max(1, -(-rows // most)))


def centre_of(shares: Sequence[float], classes: int) -> Floats:
    """(k,) logarithms of the classes' usual shares."""
    usual = np.asarray(shares, dtype=float) if len(shares) == classes else np.full(classes, 1.0 / classes)
    return np.asarray(np.log(np.clip(usual, 1e-3, 1.0)))


def shift_errors(points: Floats, shift: Floats) -> Floats:
    """Errors (n, p) under `shift`: moved by shift[0] mean absolute errors, their spread times exp(shift[1])."""
    centre, scale = _place_and_scale(points)
    return np.asarray((centre + shift[0] * scale)[:, None] + np.exp(shift[1]) * (points - centre[:, None]))


def fit_errors(prediction: Floats, points: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """How far the errors of n rows are from those that `points` (n, p) expect of them.

    Returns:
        The shift (2,): a ratio of sums, and the logarithm of another one. Then the information (2, 2) and the scores
        (n, 2) of the linearised ratios, in the form in which a likelihood has them.
    """
    centre, scale = _place_and_scale(points)
    error = y - prediction - centre
    place = error.sum() / scale.sum()
    residual = error - place * scale
    scale_ratio = max(np.abs(residual).sum() / scale.sum(), 1e-3)
    deviations = np.column_stack([residual, np.abs(residual) - scale_ratio * scale])
    total = scale.sum() * np.array([1.0, scale_ratio])
    squares = np.maximum((deviations**2).sum(axis=0), SMALLEST)
    return np.array([place, np.log(scale_ratio)]), np.diag(total**2 / squares), deviations * (total / squares)


def _place_and_scale(points: Floats) -> tuple[Floats, Floats]:
    centre = points.mean(axis=1)
    return centre, np.maximum(np.abs(points - centre[:, None]).mean(axis=1), SMALLEST)


def _leverage(probabilities: Floats, centre: Floats) -> Floats:
    return np.asarray(np.log(np.clip(probabilities, FLOOR, 1.0)) - centre)
