"""How well one column alone predicts the target, on rows that it was not fitted on: what is too good gives it away."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from afterfit.contract.contract import parse_datetimes

GIVES_AWAY = 0.995  # honest columns stay below: at most 0.94 in scikit-learn's breast cancer table, 0.98 in its irises
SUSPICIOUS = {"classification": 0.9, "regression": 0.8}
SMALLEST = 40  # rows; below, a perfect column may be chance
LEAVES = 64


def strength(column: "pd.Series[Any]", target: "pd.Series[Any]", kind: str, task: str) -> float:
    """The area under the ROC curve (mean over classes, one against the rest) or R2 of the best rule on one column.

    The rule is a tree of at most 64 leaves for numbers and dates (and for a regression also a straight line), and the
    classes' shares for categories. It is fitted on half of the rows with a target, drawn with a fixed seed, and judged
    on the others; missing values are a value of their own.

    Returns:
        0.5 to 1 or up to 1; NaN where there are fewer than 40 rows with a target, or a class is on one side only.
    """
    known = target.notna().to_numpy()
    if known.sum() < SMALLEST:
        return float("nan")
    x = _numbers(column[known], kind)
    fit = np.random.default_rng(0).random(int(known.sum())) < 0.5  # not by position: rows may take turns
    if task == "regression":
        return _r2(x, pd.to_numeric(target[known], errors="coerce").to_numpy(dtype=float), fit, kind)
    return _auc(x, pd.factorize(target[known].astype(str), sort=True)[0], fit, kind)


def _numbers(column: "pd.Series[Any]", kind: str) -> npt.NDArray[np.float64]:
    """One float a value, NaN for missing: numbers, microseconds, or a category's number."""
    if kind == "datetime":
        parsed = parse_datetimes(column)
        times = parsed.values
        return np.where(np.isnat(times), np.nan, times.astype(np.int64).astype(float))
    if kind in {"number", "integer"}:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        return np.asarray(np.clip(numbers, -1e30, 1e30))  # trees take float32
    codes = pd.factorize(column.astype(object).where(column.notna()).map(str, na_action="ignore"))[0].astype(float)
    return np.where(codes < 0, np.nan, codes)


def _auc(x: npt.NDArray[np.float64], y: npt.NDArray[np.intp], fit: npt.NDArray[np.bool_], kind: str) -> float:
    classes = np.unique(y)
    if len(np.unique(y[fit])) < len(classes) or len(np.unique(y[~fit])) < len(classes):
        return float("nan")
    truth = np.eye(len(classes))[np.searchsorted(classes, y)]
    if kind in {"category", "boolean"}:
        shares = _mean_by_category(x, truth, fit)
    else:
        tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=3, random_state=0)
        shares = tree.fit(x[fit, None], y[fit]).predict_proba(x[~fit, None])
    return float(np.mean([roc_auc_score(truth[~fit, i], shares[:, i]) for i in range(len(classes))]))


def _r2(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], fit: npt.NDArray[np.bool_], kind: str) -> float:
    finite = np.isfinite(y)
    x, y, fit = x[finite], y[finite], fit[finite]
    if fit.sum() < SMALLEST // 4 or not np.var(y[~fit]) or not np.var(y[fit]):
        return float("nan")
    if kind in {"category", "boolean"}:
        guesses = [_mean_by_category(x, y[:, None], fit)[:, 0]]
    else:
        tree = DecisionTreeRegressor(max_leaf_nodes=LEAVES, min_samples_leaf=3, random_state=0)
        guesses = [tree.fit(x[fit, None], y[fit]).predict(x[~fit, None]), _line(x, y, fit)]
    return max(1 - float(np.mean((y[~fit] - guess) ** 2) / np.var(y[~fit])) for guess in guesses)


def _line(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], fit: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    there = fit & ~np.isnan(x)
    guess = np.full(int((~fit).sum()), y[fit].mean())
    spread = np.var(x[there]) if there.any() else 0.0
    if spread > 0 and np.isfinite(spread):
        slope = np.mean((x[there] - x[there].mean()) * (y[there] - y[there].mean())) / spread
        rest = x[~fit]
        guess = np.where(np.isnan(rest), guess, y[there].mean() + slope * (rest - x[there].mean()))
    return guess


def _mean_by_category(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], fit: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """For each judged row the mean of y in its category among the fitted rows; the overall mean for unseen ones."""
    codes = np.where(np.isnan(x), -1, x).astype(int) + 1
    count = np.bincount(codes[fit], minlength=codes.max() + 1)
    sums = np.stack([np.bincount(codes[fit], weights=column[fit], minlength=codes.max() + 1) for column in y.T], axis=1)
    means = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], y[fit].mean(axis=0))
    return np.asarray(means[codes[~fit]])
