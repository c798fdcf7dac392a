"""What one column must look like: its kind, how that is inferred, what training rows show, and reading by them."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.categories import CategoryCodes, whole_number
from afterfit.contract.datetimes import (
    INVALID,
    ISO,
    choose_format,
    is_datetime_format,
    parse_datetimes,
    read_datetime,
    to_datetimes,
)
from afterfit.contract.masks import MaskedCategories, aliases_of, key_of, masked
from afterfit.contract.number_formats import number_reader, parse_number_format
from afterfit.contract.values import (
    NAN,
    TRUTH_WORDS,
    ArrayF,
    as_floats,
    decode_text,
    distinct_values,
    is_missing,
    is_missing_text,
    is_missing_word,
    objects_as_floats,
    plain_numbers,
    read_boolean,
    read_category,
    read_number,
)
from afterfit.errors import DataError, SettingsError

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
"""Made-up values, in place of those of a private column in examples and trials."""
MOST_CATEGORIES = 10_000
MOST_MARKS = 5  # distinct unreadable texts in a column of numbers or dates that may still be marks
LONGEST_MARK = 12
MOST_DIGITS = 16  # a float holds all whole numbers of 15 digits, and of 16 those that are not names by their length
DATE_FORMATS = "For dates write iso, excel, epoch s, epoch ms, epoch us, %Y%m%d, %d.%m.%Y or %m/%d/%Y."
LATER_FIELDS: dict[str, Any] = {"number_format": None, "mask": "", "aliases": []}
"""Fields that columns of older contracts do not have, and what they mean there."""
Problems = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Column:
    """One feature column as training showed it.

    Attributes:
        name: The column's name.
        kind: What its values are.
        required: Whether a row without a value gets an error instead of a prediction.
        on_invalid: Whether a value that cannot be read is an error of its row or counts as missing, with a warning.
        categories: For a category the texts seen in training, most frequent first, ties by text, at most 10,000.
        low: Smallest trained number; None without any.
        high: Largest trained number; None without any.
        earliest: First trained date or time, ISO 8601 in UTC; None without any.
        latest: Last trained date or time, ISO 8601 in UTC; None without any.
        datetime_format: How dates that are not ISO are read ("%m/%d/%Y", "epoch ms"); None for ISO only.
        missing_share: Share of training rows without a value, 0 to 1; values that could not be read count.
        marks: Texts that count as missing besides empty ones, such as "?".
        private: Whether its values are kept out of warnings and errors, and what training saw of them untold: no
            range is learnt, and no warning says that a value is new.
        note: What had to be assumed, in words; empty where nothing had to.
        number_format: How numbers that are text are written, as a sample ("1.234,5"); None for plain ones ("12.5").
        mask: By what the categories of a private column are hashed (`masks.mask_of`); empty where they stand as they
            are, as in contracts of older releases.
        aliases: Of hashed categories, hashes of what they stand for besides their texts (`masks.aliases_of`).
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
    number_format: str | None = None
    mask: str = ""
    aliases: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The column as JSON knows it; what hashes need is left out where there are none."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in values.items() if self.mask or key not in {"mask", "aliases"}}

    @classmethod
    def from_dict(cls, saved: Any) -> "Column":
        """Read what `to_dict` wrote; a missing, unknown or wrong field is a DataError that names it.

        Fields in `LATER_FIELDS`, which earlier releases did not write, have their defaults where they are absent.

        Raises:
            SettingsError: its categories are hashed by a secret that the environment does not have.
        """
        names = [field.name for field in fields(cls)]
        if isinstance(saved, Mapping):
            saved = {**LATER_FIELDS, **saved}
        if not isinstance(saved, Mapping) or set(saved) != set(names):
            actual = sorted(saved) if isinstance(saved, Mapping) else type(saved).__name__
            raise DataError(f"A saved column must have exactly the fields {sorted(names)}; got {actual}.")
        for name in names:
            if not _FIELD_TESTS[name](saved[name]):
                raise DataError(f"The saved column {saved['name']!r} has a wrong {name}: {saved[name]!r}.")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()
        }
        if values["mask"]:
            key_of(values["mask"])
        return cls(**values)

    def with_categories(self, categories: tuple[str, ...]) -> "Column":
        """The column that knows some of its categories only."""
        aliases = tuple(pair for pair in self.aliases if pair.partition("=")[2] in categories)
        return replace(self, categories=categories, aliases=aliases)

    def codes(self) -> CategoryCodes:
        """The codes of the categories, to be asked for by values as they come."""
        if not self.mask:
            return CategoryCodes(self.categories)
        return MaskedCategories(self.categories, self.mask, self.name, self.aliases)


@dataclass(frozen=True, slots=True)
class Reading:
    """A column's values by its kind, and the problem code of each row that could not be read (None: no such row).

    `values` has the shape (n,): float64 with NaN for missing (number, integer, boolean); int32 codes into the column's
    categories, the number of categories for any other one and -1 for missing (category); or datetime64[us] with NaT for
    missing (datetime).
    """

    values: npt.NDArray[Any]
    problems: Problems | None


def check_kind(kind: Any, name: str) -> Kind:
    """The kind, if it is one; otherwise a DataError names the possible kinds."""
    if kind not in KINDS:
        raise DataError(f"The kind of column {name!r} must be one of {', '.join(KINDS)}; got {kind!r}.")
    return cast("Kind", kind)


def infer_kind(series: "pd.Series[Any]", marks: Iterable[str] = ()) -> Kind:
    """The kind of a column, from its type and, where that is text or mixed, from all of its values.

    Floats are integers only where missing values explain the type. Numbers written with a leading zero (postal codes)
    are categories. A column without any value is a number where its type says so, otherwise a category.
    """
    kind_of_type = getattr(series.dtype, "kind", "O")
    if kind_of_type == "M":
        return "datetime"
    floats = as_floats(series)
    if floats is not None:
        return {"b": "boolean", "i": "integer", "u": "integer"}.get(kind_of_type) or _kind_of_floats(floats)  # type: ignore[return-value]
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "category"
    missing_marks = frozenset(marks)
    codes, distinct = distinct_values(series)
    values = [value for value in map(decode_text, distinct) if not _is_missing_value(value, missing_marks)]
    if not values:
        return "category"
    gaps = len(values) < len(distinct) or bool((codes < 0).any())
    return _kind_of_values(values, whole_floats=gaps)


def formatted_column(name: str, text: str, kind: Kind | None = None) -> Column:
    """A column whose values are written in a format of the settings: a number's sample, or a format of dates.

    Without a kind it is a number or a datetime, as the format says.

    Raises:
        SettingsError: the text is no format, or the kind has none.
    """
    is_date = is_datetime_format(text)
    if not is_date:
        try:
            parse_number_format(text)
        except SettingsError as error:
            raise SettingsError(f"columns.formats of {name!r}: {error} {DATE_FORMATS}") from error
    possible = ("datetime",) if is_date else ("number", "integer")
    if kind is not None and kind not in possible:
        raise SettingsError(
            f"columns.formats gives {name!r} the format {text!r}, which is one of {possible[0]}s, and columns.kinds "
            f"says {kind}: take one of them out."
        )
    if is_date:
        return Column(name, "datetime", datetime_format=None if text == ISO else text)
    return Column(name, kind or "number", number_format=text)


def read_formatted(series: "pd.Series[Any]", text: str, marks: Iterable[str] = ()) -> Reading:
    """Read a column that is no feature, such as the target or the time, by its format in the settings.

    Raises:
        SettingsError: the text is no format.
    """
    return read_series(series, replace(formatted_column(str(series.name), text), marks=tuple(marks)))


def suggest_marks(series: "pd.Series[Any]") -> tuple[str, ...]:
    """The few unreadable texts in a column of numbers or dates that seem to stand for a missing value, such as "?".

    They are suggested where at least nine of ten values can be read as a number or a date, and at most five distinct
    short texts cannot. Returns them by frequency; empty where there are none.
    """
    if as_floats(series) is not None or getattr(series.dtype, "kind", "O") == "M":
        return ()
    codes, values = distinct_values(series)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    pattern, _ = choose_format(values)
    rows_of_text: dict[Any, int] = {}
    total = 0
    for value, count in zip(values, counts.tolist(), strict=True):
        if _is_missing_value(value, frozenset()):
            continue
        if isinstance(value, str) and is_missing_word(value):
            continue
        total += count
        if read_number(value)[1] is not None and read_datetime(value, pattern=pattern)[1] is not None:
            if not isinstance(value, str) or len(value.strip()) > LONGEST_MARK:
                return ()
            rows_of_text[value.strip()] = rows_of_text.get(value.strip(), 0) + count
    if len(rows_of_text) > MOST_MARKS or 10 * sum(rows_of_text.values()) > total:
        return ()
    return tuple(sorted(rows_of_text, key=lambda text: (-rows_of_text[text], text)))


def learn_column(series: "pd.Series[Any]", blank: Column) -> Column:
    """The column with what the training rows show: categories, range, format, share of missing values."""
    fields_of_column = asdict(blank)
    if blank.kind == "category":
        rows_of_text, missing_share = _count_categories(series, frozenset(blank.marks))
        if blank.mask:
            key = key_of(blank.mask)
            fields_of_column["aliases"] = aliases_of(rows_of_text, key, blank.name)
            rows_of_text = {masked(text, key, blank.name): rows for text, rows in rows_of_text.items()}
        ranked = sorted(rows_of_text, key=lambda text: (-rows_of_text[text], text))[:MOST_CATEGORIES]
        return Column(**fields_of_column | {"categories": tuple(ranked), "missing_share": missing_share})
    if blank.kind == "datetime" and blank.datetime_format is None and getattr(series.dtype, "kind", "O") != "M":
        pattern, note = choose_format(distinct_values(series)[1], blank.marks)
        fields_of_column |= {"datetime_format": pattern, "note": note}
    values = read_series(series, Column(**fields_of_column)).values
    known = values[~np.isnat(values)] if blank.kind == "datetime" else values[~np.isnan(values)]
    if blank.private:
        fields_of_column["note"] = ""  # it may name a value, as both ends of the range are values
    elif len(known) and blank.kind == "datetime":
        fields_of_column |= {"earliest": known.min().item().isoformat(), "latest": known.max().item().isoformat()}
    elif len(known):
        fields_of_column |= {"low": float(known.min()), "high": float(known.max())}
    return Column(**fields_of_column | {"missing_share": 1 - len(known) / len(values)})


def read_series(series: "pd.Series[Any]", column: Column) -> Reading:
    """Read a column; values that cannot be read are missing and have a problem code."""
    marks = frozenset(column.marks)
    if column.kind == "category":
        return Reading(_category_codes(series, column, marks), None)
    if column.kind == "datetime":
        stamps, is_bad = to_datetimes(series, marks, column.datetime_format)
        return Reading(stamps, _problems(is_bad, INVALID) if is_bad.any() else None)
    floats = objects_as_floats(series) if series.dtype == "object" else as_floats(series)
    if floats is not None:
        return _read_floats(floats, truths=column.kind == "boolean")
    if column.kind != "boolean" and column.number_format is None and isinstance(series.dtype, pd.StringDtype):
        floats = plain_numbers(series)
        if floats is not None:
            return Reading(floats, None)
    read_value = read_boolean if column.kind == "boolean" else number_reader(column.number_format)
    codes, values = distinct_values(series)
    numbers = np.full(len(values) + 1, NAN)  # the last one stands for code -1
    problems: Problems = np.full(len(values) + 1, None, dtype=object)
    for position, value in enumerate(values):
        numbers[position], problems[position] = read_value(value, marks)
    return Reading(numbers[codes], problems[codes] if any(problems) else None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_none_or(test: Callable[[Any], bool], value: Any) -> bool:
    return value is None or test(value)


_FIELD_TESTS: dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "kind": lambda value: value in KINDS,
    "required": _is_boolean,
    "on_invalid": lambda value: value in get_args(OnInvalid),
    "categories": lambda value: _is_text_list(value) and len(set(value)) == len(value),
    "low": partial(_is_none_or, _is_finite),
    "high": partial(_is_none_or, _is_finite),
    "earliest": partial(_is_none_or, _is_text),
    "latest": partial(_is_none_or, _is_text),
    "datetime_format": partial(_is_none_or, _is_text),
    "missing_share": lambda value: _is_finite(value) and 0 <= value <= 1,
    "marks": _is_text_list,
    "private": _is_boolean,
    "note": _is_text,
    "number_format": partial(_is_none_or, _is_text),
    "mask": _is_text,
    "aliases": lambda value: _is_text_list(value) and all("=" in pair for pair in value),
}


def _problems(is_bad: npt.NDArray[np.bool_], code: str) -> Problems:
    problems: Problems = np.full(len(is_bad), None, dtype=object)
    problems[is_bad] = code
    return problems


def _read_floats(floats: ArrayF, *, truths: bool) -> Reading:
    if truths:
        is_bad, code = ~((floats == 0) | (floats == 1) | np.isnan(floats)), "invalid_boolean"
    else:
        is_bad, code = np.isinf(floats), "infinite"
    if not is_bad.any():
        return Reading(floats, None)
    return Reading(np.where(is_bad, NAN, floats), _problems(is_bad, code))


def _category_codes(series: "pd.Series[Any]", column: Column, marks: frozenset[str]) -> npt.NDArray[np.int32]:
    codes, values = distinct_values(series)
    known = column.codes()
    return np.array([*(known.code(value, marks) for value in values), -1], dtype=np.int32)[codes]


def _is_missing_value(value: Any, marks: frozenset[str]) -> bool:
    return is_missing_text(value, marks) if isinstance(value, str) else is_missing(value)


def _kind_of_floats(floats: ArrayF) -> Kind:
    known = floats[~np.isnan(floats)]
    all_whole = 0 < len(known) < len(floats) and np.isfinite(known).all() and (known == np.floor(known)).all()
    return "integer" if all_whole else "number"


def _kind_of_values(values: Sequence[Any], *, whole_floats: bool) -> Kind:
    """The kind of a column's values; `whole_floats` says whether 1.0 may be a whole number, as where some are missing.

    Missing words are such beside numbers, truth values or dates; they are categories among other texts, and alone.
    """
    values = [value for value in values if not (isinstance(value, str) and is_missing_word(value))]
    if not values:
        return "category"
    if all(_is_boolean_word(value) for value in values):
        return "boolean"
    if all(_is_numeric(value) for value in values) and not any(_is_name_of_digits(value) for value in values):
        return "integer" if all(_is_whole(value, whole_floats=whole_floats) for value in values) else "number"
    bad = parse_datetimes(pd.Series(values, dtype=object)).bad
    return "category" if bad.any() else "datetime"


def _is_boolean_word(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or (isinstance(value, str) and value.strip().lower() in TRUTH_WORDS)


def _is_numeric(value: Any) -> bool:
    return read_number(value)[1] in {None, "infinite"}


def _is_whole(value: Any, *, whole_floats: bool) -> bool:
    if not whole_floats and isinstance(value, str) and not value.strip().lstrip("+-").isdigit():
        return False
    return read_number(value)[0].is_integer()


def _is_name_of_digits(value: Any) -> bool:
    """Whether a text of digits is a name, not a number: a leading zero, or more digits than a float holds."""
    digits = value.strip().lstrip("+-") if isinstance(value, str) else ""
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return True
    return len(digits) > MOST_DIGITS and digits.isdigit()


def _count_categories(series: "pd.Series[Any]", marks: frozenset[str]) -> tuple[dict[str, int], float]:
    """The rows of each category, and the share of rows without one."""
    codes, values = distinct_values(series)
    rows_of_text: dict[str, int] = {}
    for value, count in zip(values, np.bincount(codes[codes >= 0], minlength=len(values)).tolist(), strict=True):
        text = read_category(value, marks)
        if text is not None and count:
            rows_of_text[text] = rows_of_text.get(text, 0) + count
    return _without_zero_fractions(rows_of_text), 1 - sum(rows_of_text.values()) / len(series)


def _without_zero_fractions(rows_of_text: dict[str, int]) -> dict[str, int]:
    """Whole numbers that a float column wrote as 17.0, as 17, where all of the categories are whole numbers."""
    rows_of_number: dict[str, int] = {}
    for text, rows in rows_of_text.items():
        number = whole_number(text)
        if number is None:
            return rows_of_text
        rows_of_number[number] = rows_of_number.get(number, 0) + rows
    return rows_of_number
