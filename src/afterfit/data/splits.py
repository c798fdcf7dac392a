"""Which rows train and which judge: folds ordered in time, stratified folds, and how rows without a time are parted."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.errors import TrainingError

Rows = npt.NDArray[np.intp]
Fold = tuple[Rows, Rows]


def ordered_folds(times: npt.ArrayLike, k: int, *, labels: npt.ArrayLike | None = None) -> list[Fold]:
    """Expanding windows: fold i trains on the first i of k + 1 parts of time and judges on the next one.

    The parts have about the same number of rows, and rows of one time stay together, since they share their
    circumstances and often their fate. Thus no fold learns from what comes after it, as in production.

    Args:
        times: (n,) the rows' times, in any order.
        k: the number of folds.
        labels: (n,) the classes of a classification. Each training part must have all of them, and each judging
            part more than one.

    Returns:
        k pairs (training rows, judging rows) of positions, each ascending.

    Raises:
        TrainingError: too few distinct times, or a fold lacks a class; it names the fold and its time range.
    """
    when = np.asarray(times)
    distinct, block = np.unique(when, return_inverse=True)
    if len(distinct) < k + 1:
        raise TrainingError(
            f"{k} folds in order of time need at least {k + 1} distinct times, and there are {len(distinct)}: "
            "use fewer folds (split.folds) or more rows"
        )
    part = _parts(np.bincount(block), k + 1)[block]
    folds = [(np.flatnonzero(part < i), np.flatnonzero(part == i)) for i in range(1, k + 1)]
    if labels is not None:
        for number, fold in enumerate(folds, start=1):
            seen = when[fold[1]]
            _all_classes(fold, np.asarray(labels), f"Fold {number} of {k} ({_said(seen.min())} to {_said(seen.max())})")
    return folds


def shuffled_folds(y: npt.ArrayLike, k: int, seed: int, task: str) -> list[Fold]:
    """Folds without an order in time; in a classification each has its share of every class.

    Returns:
        k pairs (training rows, judging rows) of positions, each ascending. The same seed gives the same folds.

    Raises:
        TrainingError: fewer rows than folds, or a fold lacks a class.
    """
    values = np.asarray(y)
    if len(values) < k:
        raise TrainingError(f"{k} folds need at least {k} rows, and there are {len(values)}: use fewer folds")
    order = np.random.default_rng(seed).permutation(len(values))
    if task == "classification":
        order = order[np.argsort(values[order], kind="stable")]
    fold_of = np.empty(len(values), dtype=np.intp)
    fold_of[order] = np.arange(len(values)) % k
    folds = [(np.flatnonzero(fold_of != i), np.flatnonzero(fold_of == i)) for i in range(k)]
    if task == "classification":
        for number, fold in enumerate(folds, start=1):
            _all_classes(fold, values, f"Fold {number} of {k}")
    return folds


def _parts(rows: npt.NDArray[np.intp], parts: int) -> Rows:
    """The part of each block of rows: nearly equal in rows, and never empty."""
    middle = np.cumsum(rows) - rows / 2
    part: Rows = np.minimum((middle / rows.sum() * parts).astype(np.intp), parts - 1)
    for i in range(len(part)):  # no part is skipped from below, and enough blocks are left for those above
        lowest = 0 if i == 0 else part[i - 1]
        part[i] = min(max(part[i], lowest, parts - (len(part) - i)), lowest + 1 if i else 0)
    return part


def _all_classes(fold: Fold, labels: npt.NDArray[Any], name: str) -> None:
    train, judge = labels[fold[0]], labels[fold[1]]
    lacking = [_said(label) for label in np.unique(labels) if label not in train]
    advice = "use fewer folds (split.folds) or more rows"
    if lacking:
        raise TrainingError(f"{name} would train without a row of the class {', '.join(lacking)}: {advice}")
    if len(np.unique(judge)) < 2:
        raise TrainingError(f"{name} would judge on one class only, {_said(judge[0])}: {advice}")


def _said(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return str(pd.Timestamp(value))
    return str(value.item() if isinstance(value, np.generic) else value)
