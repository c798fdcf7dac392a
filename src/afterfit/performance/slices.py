"""Cutting rows into slices: the values of a category, or ranges of a number."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RANGES = 4  # a number with more different values than MOST_VALUES is cut at its quartiles
MOST_VALUES = 12
MISSING = "(missing)"
REST = "(rest)"


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Some of the rows: those where `column` has `value`; `rows` are their numbers."""

    column: str
    value: str
    rows: npt.NDArray[np.intp]


def cut(columns: Mapping[str, Any] | pd.DataFrame, n: int, *, smallest: int) -> Iterator[Slice]:
    """The slices of n rows by each column, largest first within a column.

    A number with more than `MOST_VALUES` different values is cut at its quartiles. Missing values are a slice. Values
    with fewer than `smallest` rows are put together as "(rest)"; if those are too few as well they are left out.

    Raises:
        DataError: a column of another length than n.
        SettingsError: `smallest` is not positive.
    """
    if smallest < 1:
        raise SettingsError(f"The smallest slice must have at least one row; {smallest} was asked for.")
    for name in map(str, columns):
        series = pd.Series(np.asarray(columns[name]))
        if len(series) != n:
            raise DataError(f"Slices need one value a row; {name} has {len(series)} values for {n} rows.")
        values = _words(series)
        counts = values.value_counts()
        large = counts.index[counts >= smallest]
        values = values.where(values.isin(large), REST)
        for value in [*large, REST]:
            rows = np.flatnonzero(values == value)
            if len(rows) >= smallest:
                yield Slice(name, str(value), rows)


def _words(series: pd.Series[Any]) -> pd.Series[Any]:
    """Each row's slice as text."""
    missing = series.isna()
    number = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if number and series.nunique() > MOST_VALUES:
        words = pd.Series(_ranges(series.to_numpy(dtype=np.float64, na_value=np.nan)))
    else:
        whole = number and bool((series.dropna() % 1 == 0).all())
        words = (series.astype("Int64") if whole else series).astype(object).map(str)
    return words.where(~missing, MISSING)


def _ranges(values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """The range of each value between the quartiles, as text; a quartile belongs to the range above it."""
    known = np.sort(values[~np.isnan(values)])
    edges = np.unique(known[[len(known) // RANGES * part for part in range(1, RANGES)]])
    texts = [f"{edge:.6g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    names = np.array([f"below {texts[0]}", *between, f"{texts[-1]} or more"], dtype=object)
    words: npt.NDArray[Any] = names[np.searchsorted(edges, values, side="right").clip(0, len(edges))]
    return words
