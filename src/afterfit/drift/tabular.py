"""Columns of any part of a table, one at a time: the kind of each, and its values as plain arrays.

A part is a pandas frame, an Arrow table or an Arrow record batch; only this module knows which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from afterfit.errors import DataError

Kind: TypeAlias = Literal["number", "boolean", "category", "datetime"]
KINDS: tuple[Kind, ...] = ("number", "boolean", "category", "datetime")


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column read as numbers: `floats` is float64 (rows,), NaN missing; `invalid` counts values that are none."""

    floats: np.ndarray[Any, Any]
    invalid: int


@dataclass(frozen=True, slots=True)
class Names:
    """A column read as names: `codes` (rows,) point into `names`; -1 is missing."""

    codes: np.ndarray[Any, Any]
    names: list[str]


def is_part(value: Any) -> bool:
    """Whether a value is a part of a table, as this module reads them."""
    return isinstance(value, pd.DataFrame) or (hasattr(value, "schema") and hasattr(value, "num_rows"))


def column_names(part: Any) -> list[str]:
    """The names of a part's columns, as text, in order; a name that comes twice is a DataError."""
    names = [str(name) for name in (part.columns if isinstance(part, pd.DataFrame) else part.schema.names)]
    if len(set(names)) < len(names):
        duplicates = sorted({name for name in names if names.count(name) > 1})
        raise DataError(
            f"Column names must be unique; these come more than once: {', '.join(duplicates[:10])}. Rename them."
        )
    return names


def row_count(part: Any) -> int:
    """Number of rows of a part."""
    return len(part) if isinstance(part, pd.DataFrame) else int(part.num_rows)


def series(part: Any, position: int) -> "pd.Series[Any]":
    """The column at a position, as a pandas series."""
    if isinstance(part, pd.DataFrame):
        return part.iloc[:, position]
    column = part.column(position)
    if str(column.type) in {"string", "large_string"}:
        return pd.Series(pd.arrays.ArrowExtensionArray(column))
    return pd.Series(column.to_pandas())


def kind_of(values: "pd.Series[Any]") -> Kind:
    """The kind of a column by its type, and of Python objects by their values."""
    kinds = pd.api.types
    if kinds.is_bool_dtype(values.dtype) and not isinstance(values.dtype, pd.CategoricalDtype):
        return "boolean"
    if kinds.is_complex_dtype(values.dtype):
        return "category"
    if kinds.is_numeric_dtype(values.dtype):
        return "number"
    if kinds.is_datetime64_any_dtype(values.dtype):
        return "datetime"
    if values.dtype == object:
        return _kind_of_objects(values)
    return "category"


def _kind_of_objects(values: "pd.Series[Any]") -> Kind:
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    if inferred in {"integer", "floating", "mixed-integer-float", "decimal"}:
        return "number"
    if inferred == "boolean":
        return "boolean"
    return "datetime" if inferred in {"datetime", "datetime64", "date"} else "category"


def as_numbers(values: "pd.Series[Any]") -> Numbers:
    """Read a column as numbers; text is parsed; values that do not parse are missing, and count as invalid."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "fiub":
        return Numbers(values.to_numpy().astype(np.float64, copy=False), 0)
    if pd.api.types.is_datetime64_any_dtype(values.dtype) or pd.api.types.is_complex_dtype(values.dtype):
        return Numbers(np.full(len(values), np.nan), int(values.notna().sum()))
    if pd.api.types.is_numeric_dtype(values.dtype):
        return Numbers(values.to_numpy(dtype=np.float64, na_value=np.nan), 0)
    plain = values.astype(object)
    parsed = pd.to_numeric(plain, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return Numbers(parsed, int((np.isnan(parsed) & plain.notna().to_numpy()).sum()))


def as_names(values: "pd.Series[Any]") -> Names:
    """Read a column as names: text as it is, whole numbers without a point, booleans as true and false."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes = values.cat.codes.to_numpy().astype(np.int64)
        return Names(codes, [_name_of(name) for name in values.cat.categories.tolist()])
    if values.dtype == object:
        values = _objects_as_text(values)
    codes, uniques = pd.factorize(values)
    names = uniques.tolist()
    return Names(codes, names if isinstance(values.dtype, pd.StringDtype) else [_name_of(name) for name in names])


def _objects_as_text(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Objects by their names, one by one: pandas takes True for 1, and cannot compare lists."""
    if pd.api.types.infer_dtype(values, skipna=True) in {"string", "empty"}:
        return values
    return values.map(_name_of, na_action="ignore").astype(object)


def _name_of(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)


def as_seconds(values: "pd.Series[Any]", column: str) -> np.ndarray[Any, Any]:
    """Read a time column as whole seconds since 1970 (UTC), int64; a missing time is the smallest int64."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        raise DataError(
            f"The time column '{column}' must hold dates or times, and holds numbers ({values.dtype}). "
            "Convert it with pandas.to_datetime first."
        )
    if not pd.api.types.is_datetime64_any_dtype(values.dtype):
        values = _parsed_times(values, column)
    if getattr(values.dtype, "tz", None) is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return values.to_numpy().astype("datetime64[s]").astype(np.int64)


def _parsed_times(values: "pd.Series[Any]", column: str) -> "pd.Series[Any]":
    try:
        return pd.Series(pd.to_datetime(values, utc=True, format="ISO8601"))
    except (ValueError, TypeError) as error:
        raise DataError(f"The time column '{column}' must hold dates or times in ISO 8601: {error}") from error


def choose_kinds(part: Any, skip: str | None, kinds: Mapping[str, Kind] | None) -> dict[str, Kind]:
    """The kind of each column: as the caller says, else by its type; the time column is left out."""
    names = column_names(part)
    given = dict(kinds or {})
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise DataError(f"Kinds were given for columns that are not there: {', '.join(unknown)}.")
    wrong = sorted({kind for kind in given.values() if kind not in KINDS})
    if wrong:
        raise DataError(f"A kind must be one of {', '.join(KINDS)}, and came as {', '.join(map(str, wrong))}.")
    return {
        name: given.get(name) or kind_of(series(part, position)) for position, name in enumerate(names) if name != skip
    }
