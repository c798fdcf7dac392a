"""What one column must look like: its kind and what training showed of it; inference, and reading a column by it."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.datetimes import INVALID, choose_format, parse_datetimes, read_datetime, to_datetimes
from afterfit.contract.values import (
    NAN,
    TRUTH_WORDS,
    ArrayF,
    as_floats,
    decoded,
    distinct,
    is_missing,
    is_missing_text,
    objects_as_floats,
    read_boolean,
    read_category,
    read_number,
)
from afterfit.errors import DataError

Kind = Literal["number", "integer", "boolean", "category", "datetime"]
OnInvalid = Literal["error", "missing"]
KINDS: tuple[str, ...] = get_args(Kind)
PLACEHOLDERS: dict[Kind, Any] = {
    "number": 0.0,
    "integer": 0,
    "boolean": False,
    "category": "private",
    "datetime": "2000-01-01T00:00:00",
}
"""Made values, shown and tried where a private column's own must not be."""
MOST_CATEGORIES = 10_000
MOST_MARKS = 5  # distinct odd texts in a column of numbers or dates that still look like marks
LONGEST_MARK = 12
Problems = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Column:
    """One feature column as training showed it.

    Attributes:
        name: The column's name.
        kind: What its values are.
        required: Whether a row without a value gets an error in place of a prediction.
        on_invalid: Whether a value that cannot be read is an error of its row or counts as missing, with a warning.
        categories: For a category the texts seen in training, most frequent first, ties by text, at most 10,000.
        low: Smallest trained number; None without any.
        high: Largest trained number; None without any.
        earliest: First trained date or time, ISO 8601 in UTC; None without any.
        latest: Last trained date or time, ISO 8601 in UTC; None without any.
        datetime_format: How dates that are not ISO are read ("%m/%d/%Y"); None for ISO only.
        missing_share: Share of training rows without a value, 0 to 1; values that could not be read count.
        marks: Texts that count as missing besides empty ones, such as "?".
        private: Whether its values are kept out of warnings and errors.
        note: What had to be assumed, in a sentence; empty otherwise.
    """

    name: str
    kind: Kind
    required: bool = False
    on_invalid: OnInvalid = "error"
    categories: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    earliest: str | None = None
    latest: str | None = None
    datetime_format: str | None = None
    missing_share: float = 0.0
    marks: tuple[str, ...] = ()
    private: bool = False
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The column as JSON knows it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, saved: Any) -> "Column":
        """Read what `to_dict` wrote; a missing, unknown or wrong field is a DataError that names it."""
        names = [field.name for field in fields(cls)]
        if not isinstance(saved, Mapping) or set(saved) != set(names):
            came = sorted(saved) if isinstance(saved, Mapping) else type(saved).__name__
            raise DataError(f"A saved column must have exactly the fields {sorted(names)}; got {came}.")
        for name in names:
            if not _FIELD_TESTS[name](saved[name]):
                raise DataError(f"The saved column {saved['name']!r} has a wrong {name}: {saved[name]!r}.")
        read: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
        return cls(**read)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _or_none(test: Callable[[Any], bool], value: Any) -> bool:
    return value is None or test(value)


_FIELD_TESTS: dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "kind": lambda value: value in KINDS,
    "required": _is_truth,
    "on_invalid": lambda value: value in get_args(OnInvalid),
    "categories": lambda value: _is_texts(value) and len(set(value)) == len(value),
    "low": partial(_or_none, _is_finite),
    "high": partial(_or_none, _is_finite),
    "earliest": partial(_or_none, _is_text),
    "latest": partial(_or_none, _is_text),
    "datetime_format": partial(_or_none, _is_text),
    "missing_share": lambda value: _is_finite(value) and 0 <= value <= 1,
    "marks": _is_texts,
    "private": _is_truth,
    "note": _is_text,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """A column's values by its kind, and the problem code of each row that could not be read (None: no such row).

    `values` is float64 (number, integer, boolean; NaN missing), int32 codes into the column's categories (their number
    stands for any other category, -1 for missing) or datetime64[us] (NaT missing); shape (n,).
    """

    values: npt.NDArray[Any]
    problems: Problems | None


def read_series(series: "pd.Series[Any]", column: Column) -> Reading:
    """Read a column; values that cannot be read are missing and have a problem code."""
    marks = frozenset(column.marks)
    if column.kind == "category":
        return Reading(_codes(series, column, marks), None)
    if column.kind == "datetime":
        stamps, bad = to_datetimes(series, marks, column.datetime_format)
        return Reading(stamps, _problems(bad, INVALID) if bad.any() else None)
    floats = objects_as_floats(series) if series.dtype == "object" else as_floats(series)
    if floats is not None:
        return _read_floats(floats, truths=column.kind == "boolean")
    read = read_boolean if column.kind == "boolean" else read_number
    codes, values = distinct(series)
    numbers = np.full(len(values) + 1, NAN)  # the last one answers for code -1
    problems: Problems = np.full(len(values) + 1, None, dtype=object)
    for at, value in enumerate(values):
        numbers[at], problems[at] = read(value, marks)
    return Reading(numbers[codes], problems[codes] if any(problems) else None)


def _problems(bad: npt.NDArray[np.bool_], code: str) -> Problems:
    problems: Problems = np.full(len(bad), None, dtype=object)
    problems[bad] = code
    return problems


def _read_floats(floats: ArrayF, *, truths: bool) -> Reading:
    if truths:
        bad, code = ~((floats == 0) | (floats == 1) | np.isnan(floats)), "invalid_boolean"
    else:
        bad, code = np.isinf(floats), "infinite"
    if not bad.any():
        return Reading(floats, None)
    return Reading(np.where(bad, NAN, floats), _problems(bad, code))


def _codes(series: "pd.Series[Any]", column: Column, marks: frozenset[str]) -> npt.NDArray[np.int32]:
    code_of = {text: code for code, text in enumerate(column.categories)}
    codes, values = distinct(series)
    other = len(code_of)
    texts = (read_category(value, marks) for value in values)
    known = [-1 if text is None else code_of.get(text, other) for text in texts]
    return np.array([*known, -1], dtype=np.int32)[codes]


def check_kind(kind: Any, name: str) -> Kind:
    """The kind, or a DataError that names the possible ones."""
    if kind not in KINDS:
        raise DataError(f"The kind of column {name!r} must be one of {', '.join(KINDS)}; got {kind!r}.")
    return cast("Kind", kind)


def infer_kind(series: "pd.Series[Any]", marks: Iterable[str] = ()) -> Kind:
    """The kind of a column from its type and, where that is text or mixed, from all of its values.

    Floats are integers only where missing values explain the type; numbers written with a leading zero (postal codes)
    are categories; a column without any value is a number where its type says so, otherwise a category.
    """
    kind_of_type = getattr(series.dtype, "kind", "O")
    if kind_of_type == "M":
        return "datetime"
    floats = as_floats(series)
    if floats is not None:
        return {"b": "boolean", "i": "integer", "u": "integer"}.get(kind_of_type) or _float_kind(floats)  # type: ignore[return-value]
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "category"
    skip = frozenset(marks)
    values = [value for value in map(decoded, distinct(series)[1]) if not _is_nothing(value, skip)]
    return _kind_of(values) if values else "category"


def _is_nothing(value: Any, marks: frozenset[str]) -> bool:
    return is_missing_text(value, marks) if isinstance(value, str) else is_missing(value)


def _float_kind(floats: ArrayF) -> Kind:
    known = floats[~np.isnan(floats)]
    whole = 0 < len(known) < len(floats) and np.isfinite(known).all() and (known == np.floor(known)).all()
    return "integer" if whole else "number"


def _kind_of(values: Sequence[Any]) -> Kind:
    if all(_is_truth_word(value) for value in values):
        return "boolean"
    if all(_is_numeric(value) for value in values) and not any(_has_leading_zero(value) for value in values):
        return "integer" if all(read_number(value)[0].is_integer() for value in values) else "number"
    bad = parse_datetimes(pd.Series(values, dtype=object)).bad
    return "category" if bad.any() else "datetime"


def _is_truth_word(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or (isinstance(value, str) and value.strip().lower() in TRUTH_WORDS)


def _is_numeric(value: Any) -> bool:
    return read_number(value)[1] in {None, "infinite"}


def _has_leading_zero(value: Any) -> bool:
    text = value.strip() if isinstance(value, str) else ""
    return len(text) > 1 and text[0] == "0" and text.isdigit()


def suggest_marks(series: "pd.Series[Any]") -> tuple[str, ...]:
    """The few odd texts in a column of numbers or dates that seem to stand for a missing value, such as "?".

    Suggested where at least nine of ten values read as a number or a date and at most five distinct short texts do
    not. Returns them by frequency; empty where there are none.
    """
    if as_floats(series) is not None or getattr(series.dtype, "kind", "O") == "M":
        return ()
    codes, values = distinct(series)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    pattern, _ = choose_format(values)
    odd: dict[Any, int] = {}
    total = 0
    for value, count in zip(values, counts.tolist(), strict=True):
        if _is_nothing(value, frozenset()):
            continue
        total += count
        if read_number(value)[1] is not None and read_datetime(value, pattern=pattern)[1] is not None:
            if not isinstance(value, str) or len(value.strip()) > LONGEST_MARK:
                return ()
            odd[value.strip()] = odd.get(value.strip(), 0) + count
    if len(odd) > MOST_MARKS or 10 * sum(odd.values()) > total:
        return ()
    return tuple(sorted(odd, key=lambda text: (-odd[text], text)))


def learn_column(series: "pd.Series[Any]", blank: Column) -> Column:
    """Fill in what the training rows show: categories, range, format, share of missing values."""
    learnt = asdict(blank)
    if blank.kind == "category":
        learnt["categories"], missing = _learn_categories(series, frozenset(blank.marks))
        return Column(**learnt | {"missing_share": missing})
    if blank.kind == "datetime" and getattr(series.dtype, "kind", "O") != "M":
        pattern, note = choose_format(distinct(series)[1], blank.marks)
        learnt |= {"datetime_format": pattern, "note": note}
    values = read_series(series, Column(**learnt)).values
    known = values[~np.isnat(values)] if blank.kind == "datetime" else values[~np.isnan(values)]
    if len(known) and blank.kind == "datetime":
        learnt |= {"earliest": known.min().item().isoformat(), "latest": known.max().item().isoformat()}
    elif len(known):
        learnt |= {"low": float(known.min()), "high": float(known.max())}
    return Column(**learnt | {"missing_share": 1 - len(known) / len(values)})


def _learn_categories(series: "pd.Series[Any]", marks: frozenset[str]) -> tuple[tuple[str, ...], float]:
    codes, values = distinct(series)
    tally: dict[str, int] = {}
    for value, count in zip(values, np.bincount(codes[codes >= 0], minlength=len(values)).tolist(), strict=True):
        text = read_category(value, marks)
        if text is not None and count:
            tally[text] = tally.get(text, 0) + count
    ranked = sorted(tally, key=lambda text: (-tally[text], text))
    return tuple(ranked[:MOST_CATEGORIES]), 1 - sum(tally.values()) / len(series)
