"""Leakage: how well one column alone predicts the target, columns that add up to it, and copies of the time."""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from afterfit.contract.contract import parse_datetimes

GIVES_AWAY = 0.995  # columns without leakage stay below: at most 0.94 in scikit-learn's breast cancer, 0.98 in its iris
SUSPICIOUS = {"classification": 0.9, "regression": 0.8}
FEWEST_ROWS = 40  # with fewer rows, a perfect column may be chance
LEAVES = 64
MOST_PARTS = 200  # columns that are tried as parts of a sum
EXACT = 1e-6  # largest deviation, in standard deviations of the target or the time
SIGN = 0.01  # how far a part's weight may be from 1 or -1 before its sum is tried
SAME = 0.99  # share of rows in which a copy of the time is equal to it


def strength(column: "pd.Series[Any]", target: "pd.Series[Any]", kind: str, task: str) -> float:
    """The area under the ROC curve (mean over classes, one against the rest) or R2 of the best rule on one column.

    For numbers and dates the rule is a tree of at most 64 leaves, in a regression also a straight line; for categories
    it is the share of each class, or the mean of the target, in each category. It is fitted on half of the rows with a
    target, drawn with a fixed seed, and judged on the other half; missing is a value of its own.

    Returns:
        AUC or R2, at most 1; NaN where fewer than 40 rows have a target, or a class is missing in one of the halves.
    """
    has_target = target.notna().to_numpy()
    if has_target.sum() < FEWEST_ROWS:
        return float("nan")
    x = _as_floats(column[has_target], kind)
    fitted = (
        np.random.default_rng(0).random(int(has_target.sum())) < 0.5
    )  # random: the order of rows may have a pattern
    if task == "regression":
        return _r2(x, pd.to_numeric(target[has_target], errors="coerce").to_numpy(dtype=float), fitted, kind)
    return _auc(x, pd.factorize(target[has_target].astype(str), sort=True)[0], fitted, kind)


def time_copies(frame: pd.DataFrame, time: str, marks: Collection[str] = ()) -> list[str]:
    """The columns of dates or numbers that are the time, in nearly all rows, or count it in another unit.

    Args:
        frame: the rows, with the time column and those to be looked at.
        time: the name of the time column.
        marks: texts that stand for missing.
    """
    moments = _moments(frame[time], marks)
    copies = []
    for name in frame.columns:
        if name == time:
            continue
        is_number = frame[name].dtype.kind in "iuf"
        values = frame[name].to_numpy(dtype=float) if is_number else _moments(frame[name], marks)
        known = np.isfinite(moments) & np.isfinite(values)
        if known.sum() < FEWEST_ROWS or known.sum() < SAME * np.isfinite(moments).sum() or not np.ptp(moments[known]):
            continue
        x, y = values[known], moments[known]
        is_same = (x == y).mean() >= SAME
        if is_same or (is_number and len(np.unique(y)) > 2 and _is_line(x, y)):
            copies.append(str(name))
    return copies


def _moments(column: "pd.Series[Any]", marks: Collection[str]) -> npt.NDArray[np.float64]:
    times = parse_datetimes(column, marks).values
    return np.where(np.isnat(times), np.nan, times.astype(np.int64).astype(float))


def _is_line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> bool:
    """Whether y is a straight line over x, to a millionth of its spread."""
    spread = np.ptp(x)
    if not spread:
        return False
    x, y = (x - x.mean()) / spread, (y - y.mean()) / np.ptp(y)
    slope = float((x * y).sum() / (x * x).sum())
    return bool(np.abs(y - slope * x).max() <= EXACT)


def parts_of_sum(frame: pd.DataFrame, target: str) -> dict[str, int]:
    """The columns of numbers whose sum or difference is the target, with the sign of each; empty without such.

    At least two columns must add up, in all rows in which none is missing (at least 40), to a millionth of the
    target's spread. A missing value in a part counts as 0 where only that makes the sum.
    """
    numbers = frame.apply(pd.to_numeric, errors="coerce").astype(float)
    y = numbers.pop(target).to_numpy()
    kept = numbers.loc[:, numbers.min() < numbers.max()].iloc[:, :MOST_PARTS].fillna(0.0)
    known = np.isfinite(y) & np.isfinite(kept.to_numpy()).all(axis=1)
    x, y = kept.to_numpy()[known], y[known]
    if len(y) < max(FEWEST_ROWS, 2 * x.shape[1]) or x.shape[1] < 2 or not np.std(y):
        return {}
    scale = np.abs(x).max(axis=0)
    weights = np.linalg.lstsq(x / scale, y, rcond=None)[0] / scale
    parts = {
        str(name): int(np.sign(w)) for name, w in zip(kept.columns, weights, strict=True) if abs(abs(w) - 1) < SIGN
    }
    if len(parts) < 2:
        return {}
    total = sum(sign * kept[name].to_numpy()[known] for name, sign in parts.items())
    return parts if np.abs(y - total).max() <= EXACT * np.std(y) else {}


def _as_floats(column: "pd.Series[Any]", kind: str) -> npt.NDArray[np.float64]:
    """One float for each value, NaN for missing: the number, microseconds, or the code of the category."""
    if kind == "datetime":
        parsed = parse_datetimes(column)
        times = parsed.values
        return np.where(np.isnat(times), np.nan, times.astype(np.int64).astype(float))
    if kind in {"number", "integer"}:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        return np.asarray(np.clip(numbers, -1e30, 1e30))  # trees take float32
    codes = pd.factorize(column.astype(object).where(column.notna()).map(str, na_action="ignore"))[0].astype(float)
    return np.where(codes < 0, np.nan, codes)


def _auc(x: npt.NDArray[np.float64], y: npt.NDArray[np.intp], fitted: npt.NDArray[np.bool_], kind: str) -> float:
    classes = np.unique(y)
    if len(np.unique(y[fitted])) < len(classes) or len(np.unique(y[~fitted])) < len(classes):
        return float("nan")
    indicators = np.eye(len(classes))[np.searchsorted(classes, y)]
    if kind in {"category", "boolean"}:
        shares = _predict_by_category(x, indicators, fitted)
    else:
        tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=3, random_state=0)
        shares = tree.fit(x[fitted, None], y[fitted]).predict_proba(x[~fitted, None])
    return float(np.mean([roc_auc_score(indicators[~fitted, i], shares[:, i]) for i in range(len(classes))]))


def _r2(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], fitted: npt.NDArray[np.bool_], kind: str) -> float:
    finite = np.isfinite(y)
    x, y, fitted = x[finite], y[finite], fitted[finite]
    if fitted.sum() < FEWEST_ROWS // 4 or not np.var(y[~fitted]) or not np.var(y[fitted]):
        return float("nan")
    if kind in {"category", "boolean"}:
        predictions = [_predict_by_category(x, y[:, None], fitted)[:, 0]]
    else:
        tree = DecisionTreeRegressor(max_leaf_nodes=LEAVES, min_samples_leaf=3, random_state=0)
        predictions = [tree.fit(x[fitted, None], y[fitted]).predict(x[~fitted, None]), _predict_by_line(x, y, fitted)]
    return max(1 - float(np.mean((y[~fitted] - prediction) ** 2) / np.var(y[~fitted])) for prediction in predictions)


def _predict_by_line(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], fitted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    usable = fitted & ~np.isnan(x)
    prediction = np.full(int((~fitted).sum()), y[fitted].mean())
    variance = np.var(x[usable]) if usable.any() else 0.0
    if variance > 0 and np.isfinite(variance):
        slope = np.mean((x[usable] - x[usable].mean()) * (y[usable] - y[usable].mean())) / variance
        x_judged = x[~fitted]
        prediction = np.where(np.isnan(x_judged), prediction, y[usable].mean() + slope * (x_judged - x[usable].mean()))
    return prediction


def _predict_by_category(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], fitted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """For each judged row the mean of y over the fitted rows of its category; for a new category their overall mean."""
    codes = np.where(np.isnan(x), -1, x).astype(int) + 1
    count = np.bincount(codes[fitted], minlength=codes.max() + 1)
    sums = np.stack(
        [np.bincount(codes[fitted], weights=column[fitted], minlength=codes.max() + 1) for column in y.T], axis=1
    )
    means = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], y[fitted].mean(axis=0))
    return np.asarray(means[codes[~fitted]])
