"""Which rows train and which judge: folds ordered in time, stratified folds, and hashes of a row's content."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.errors import TrainingError

Rows = npt.NDArray[np.intp]
Hashes = npt.NDArray[np.uint64]
Fold = tuple[Rows, Rows]
_MISSING, _TIME = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


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


def row_hashes(frame: pd.DataFrame, columns: Sequence[str]) -> Hashes:
    """A 64-bit hash of each row's values in these columns, (n,) uint64.

    Equal values have equal hashes in whatever type they are held (1, 1.0 and True; text in any string type; times in
    any unit, with a zone or in UTC), in whatever order the columns come, in every process and release. Not for
    keeping secrets: an attacker can make two rows collide.
    """
    total = np.zeros(len(frame), dtype=np.uint64)
    for column in columns:
        total += _mixed(_value_hashes(frame[column]) ^ _text_hash(str(column)))
    return _mixed(total)


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


def _value_hashes(series: "pd.Series[Any]") -> Hashes:
    dtype = series.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if series.dtype.kind == "M":
        stamps = series.to_numpy().astype("datetime64[us]").view(np.int64).view(np.uint64)
        return np.where(series.isna().to_numpy(), _MISSING, _mixed(stamps ^ _TIME))
    if series.dtype.kind in "iu" and not series.hasnans:
        return _whole_hashes(series.to_numpy())
    if series.dtype.kind in "biuf":
        return _float_hashes(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return _object_hashes(series)


def _float_hashes(values: npt.NDArray[np.float64]) -> Hashes:
    hashes = _mixed((values + 0.0).view(np.uint64))  # adding 0.0 makes one of the two zeros
    return np.where(np.isnan(values), _MISSING, hashes)


def _whole_hashes(values: npt.NDArray[Any]) -> Hashes:
    floats = values.astype(np.float64)
    large = np.abs(floats) > 2**53  # these would collide as floats
    return np.where(large, _mixed(values.astype(np.uint64) ^ _TIME), _float_hashes(floats))


def _object_hashes(series: "pd.Series[Any]") -> Hashes:
    if series.dtype == object and pd.api.types.infer_dtype(series, skipna=True) != "string":
        known: dict[tuple[type, str], np.uint64] = {}
        return np.array([_remembered(value, known) for value in series], dtype=np.uint64)
    codes, uniques = pd.factorize(series)
    table = np.array([*(_object_hash(value) for value in uniques.tolist()), _MISSING], dtype=np.uint64)
    return table[codes]  # the code of a missing value is -1, the last place


def _remembered(value: Any, known: dict[tuple[type, str], np.uint64]) -> np.uint64:
    name = (type(value), repr(value))
    if name not in known:
        known[name] = _object_hash(value)
    return known[name]


def _object_hash(value: Any) -> np.uint64:
    if isinstance(value, str):
        return _text_hash(value)
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return _MISSING
    if isinstance(value, bool | int | float | np.number | np.bool_) or hasattr(value, "isoformat"):
        single = pd.Series([value])
        return np.uint64(_text_hash(str(value)) if single.dtype == object else _value_hashes(single)[0])
    return _text_hash(repr(value))


def _text_hash(text: str) -> np.uint64:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _mixed(bits: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of the input moves half of the output's."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))
