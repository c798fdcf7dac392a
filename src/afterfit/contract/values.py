"""Single foreign values read as a number, a boolean or a category's text; and the distinct values of a column.

The readers take any Python object (JSON values, numpy scalars, pandas' missing values) and never raise: each returns
what was read and, where nothing could be read, the code of the problem. Of a column each distinct value is read once by
the same readers, so that a frame and its single rows give the same values.
"""

import math
import reprlib
from collections.abc import Collection
from datetime import date
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

NAN = math.nan
LONGEST_SHOWN = 100  # characters of a foreign value that a warning repeats
TRUTH_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
TRUTH_TEXTS = TRUTH_WORDS | {"t": 1.0, "y": 1.0, "1": 1.0, "1.0": 1.0, "f": 0.0, "n": 0.0, "0": 0.0, "0.0": 0.0}
NO_MARKS: frozenset[str] = frozenset()
MISSING_WORDS = frozenset(
    {"na", "n/a", "#n/a", "#n/a n/a", "#na", "<na>", "nan", "-nan", "+nan", "1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind",
     "nat", "null", "none"}
)  # fmt: skip
"""Words that other programs write for a missing number, truth value or date, in any case. A category may be called so:
"NA" is Namibia. There they count as missing only where a column's marks name them."""
EXACT = 2**53  # JSON readers keep whole numbers up to here
PRINTABLE_BITS = 1100  # Python refuses to print far longer integers; a float has at most 1024 bits
_PLAIN_NUMBER = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
ArrayF = npt.NDArray[np.float64]
ArrayI = npt.NDArray[np.int64]


def is_missing(value: Any) -> bool:
    """Whether a value that is not text is missing: None, NaN of any type, NA, NaT."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, float | np.floating):
        return bool(value != value)  # noqa: PLR0124 - the definition of NaN
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value))


def is_missing_text(text: str, marks: Collection[str]) -> bool:
    """Whether a text counts as missing: empty, only white space, or one of the column's marks."""
    text = text.strip()
    return not text or text in marks


def is_missing_word(text: str, marks: Collection[str] = NO_MARKS) -> bool:
    """Whether a text stands for a missing number, truth value or date: as `is_missing_text`, or a missing word."""
    return is_missing_text(text, marks) or text.strip().lower() in MISSING_WORDS


def decode_text(value: Any) -> Any:
    """Bytes as text, read as UTF-8; anything else unchanged."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else value


def read_number(value: Any, marks: Collection[str] = NO_MARKS) -> tuple[float, str | None]:
    """Read a number.

    Text is read as Python's `float` reads it, without digit-grouping underscores; `MISSING_WORDS` are missing values.
    Booleans are 1 and 0. Integers beyond 2**53 are rounded to the nearest float, as every estimator would.

    Returns:
        (number, None), (NaN, None) for a missing value, or (NaN, "invalid_number" | "infinite").
    """
    value = decode_text(value)
    if isinstance(value, str):
        if is_missing_word(value, marks):
            return NAN, None
    elif is_missing(value):
        return NAN, None
    try:
        number = _to_float(value)
    except (ValueError, TypeError):
        return NAN, "invalid_number"
    except OverflowError:
        return NAN, "infinite"
    return (NAN, "infinite") if math.isinf(number) else (number, None)


def read_boolean(value: Any, marks: Collection[str] = NO_MARKS) -> tuple[float, str | None]:
    """Read a boolean as 1.0 or 0.0: true, 1, "true", "yes", "t", "y", "1" and their opposites, in any case.

    Returns:
        (1.0 or 0.0, None), (NaN, None) for a missing value, or (NaN, "invalid_boolean").
    """
    value = decode_text(value)
    if isinstance(value, str):
        if is_missing_word(value, marks):
            return NAN, None
        truth = TRUTH_TEXTS.get(value.strip().lower())
        return (NAN, "invalid_boolean") if truth is None else (truth, None)
    number, problem = read_number(value)
    if problem is None and (number in {0.0, 1.0} or math.isnan(number)):
        return number, None
    return NAN, "invalid_boolean"


def read_category(value: Any, marks: Collection[str] = NO_MARKS) -> str | None:
    """Read a category's text; None for a missing value.

    Text stays exactly as it is, with its spaces and its case. Numbers become the text of `number_text`, booleans
    "True" and "False", dates and times their ISO text with a space ("2013-01-31 14:00:00"), bytes the text that they
    encode. Anything else is what `str` makes of it.
    """
    value = decode_text(value)
    if isinstance(value, str):
        return None if is_missing_text(value, marks) else str(value)
    if is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if is_number(value):
        return number_text(value)
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    elif isinstance(value, np.timedelta64):
        value = pd.Timedelta(value)
    try:
        return str(value)
    except RecursionError:  # nested deeper than the stack reaches
        return reprlib.repr(value)


def number_text(value: Any) -> str:
    """A number's text as a category; equal numbers have equal texts: 1 and 1.0 are both "1", 1.5 is "1.5"."""
    if not isinstance(value, Integral):
        number = float(value)
        if not number.is_integer():
            return repr(number)
        value = number
    whole = int(value)
    return str(whole) if whole.bit_length() <= PRINTABLE_BITS else hex(whole)


def display_value(value: Any) -> str | float | bool | None:
    """A foreign value as a warning may repeat it: safe in JSON, at most 100 characters."""
    value = decode_text(value)
    if isinstance(value, str):
        return _shorten(value)
    if is_missing(value):
        return None
    return (
        _display_number(value) if is_number(value) and not isinstance(value, Decimal) else _shorten(_print_value(value))
    )


def as_floats(series: "pd.Series[Any]") -> ArrayF | None:
    """A column of a native numeric or boolean type as float64 (n,), NaN where missing; None for any other type.

    The array may share the column's memory: do not write to it.
    """
    if getattr(series.dtype, "kind", "O") not in "fiub":
        return None
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy(dtype=np.float64)
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def objects_as_floats(series: "pd.Series[Any]") -> ArrayF | None:
    """A column of Python numbers and missing values as float64 (n,), NaN where missing; None for anything else."""
    objects = series.to_numpy()
    if pd.api.types.infer_dtype(objects, skipna=True) not in {"integer", "floating", "mixed-integer-float", "boolean"}:
        return None
    known = ~pd.isna(objects)
    floats = np.full(len(objects), NAN)
    try:
        floats[known] = objects[known].astype(np.float64)
    except OverflowError:
        return None
    return floats


def plain_numbers(series: "pd.Series[Any]") -> ArrayF | None:
    """A column of texts that all are plain decimal numbers as float64 (n,), NaN where missing; None for anything else.

    The values are those of `read_number`: both round to the nearest float.
    """
    try:
        texts = pa.array(series.array, type=pa.large_string(), from_pandas=True)
        if not pc.all(pc.match_substring_regex(texts, _PLAIN_NUMBER)).as_py():
            return None
        floats = pc.cast(texts, pa.float64())
    except (UnicodeEncodeError, pa.ArrowException):  # half a surrogate pair
        return None
    if isinstance(floats, pa.ChunkedArray):
        floats = floats.combine_chunks()
    values: ArrayF = floats.to_numpy(zero_copy_only=False)
    return None if np.isinf(values).any() else values


def distinct_values(series: "pd.Series[Any]") -> tuple[ArrayI, list[Any]]:
    """A column as (codes (n,), values): row i holds values[codes[i]], a code of -1 is a missing value.

    Values of native types and texts come once each, as Python objects. A column of mixed Python objects comes row by
    row, as it is: 1, 1.0 and True would otherwise count as the same value.
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return series.cat.codes.to_numpy().astype(np.int64), series.cat.categories.tolist()
    if isinstance(dtype, pd.StringDtype):
        return _distinct_texts(series.array)
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        objects = series.to_numpy()
        if pd.api.types.infer_dtype(objects, skipna=True) == "string":
            try:
                return _distinct_texts(objects)
            except (UnicodeEncodeError, pa.ArrowException):
                pass  # half a surrogate pair, as JSON can bring it, is no text for Arrow
        return np.arange(len(objects), dtype=np.int64), objects.tolist()
    codes, uniques = pd.factorize(series)
    return codes.astype(np.int64, copy=False), uniques.tolist()


def is_truth(value: Any) -> bool:
    """Whether a value is a truth value, Python's or NumPy's."""
    return isinstance(value, bool | np.bool_)


def is_number(value: Any) -> bool:
    """Whether a value is a number of any type, not a text of one; truth values are numbers, durations are not."""
    if isinstance(value, int | float | np.bool_):
        return True
    return isinstance(value, Real | Decimal) and not isinstance(value, np.timedelta64)


def _to_float(value: Any) -> float:
    if isinstance(value, str):
        if "_" in value:
            raise ValueError
    elif not is_number(value):
        raise TypeError
    return float(value)


def _shorten(text: str) -> str:
    text = text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")


def _print_value(value: Any) -> str:
    return str(value) if isinstance(value, date | Decimal | np.generic) else reprlib.repr(value)


def _display_number(value: Any) -> str | float | bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value) if abs(int(value)) <= EXACT else _shorten(number_text(value))
    number = float(value)
    return number if math.isfinite(number) else repr(number)


def _distinct_texts(texts: Any) -> tuple[ArrayI, list[Any]]:
    encoded = pa.array(texts, type=pa.large_string(), from_pandas=True)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    encoded = encoded.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()
