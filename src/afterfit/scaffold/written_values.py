"""How a raw table writes its numbers and dates, told from whole columns; what can be read in two ways is asked.

A column is recognised only where all of its values fit one reading, beside the few short texts that stand for missing.
Where they fit two readings of different value, such as "1,234" for 1234 or 1.234, a person must choose. The same holds
where the reading is one but its meaning is in doubt: two currencies, or groups of digits that may be names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.columns import LONGEST_MARK, MOST_MARKS, Kind
from afterfit.contract.datetimes import choose_format, read_datetime
from afterfit.contract.number_formats import (
    MINUS,
    POSSIBLE,
    Marks,
    Negative,
    NumberFormat,
    WrittenNumber,
    take_apart,
)
from afterfit.contract.values import (
    decode_text,
    distinct_values,
    is_missing,
    is_missing_word,
    number_text,
    plain_numbers,
)

FIRST_TEXTS = 500
"""Texts that are looked at first: where these are no numbers, the column has none."""
MOST_TEXTS = 100_000
"""Different texts of one column that are looked at, evenly chosen; a later contradiction is an error of its row."""
FEW_DIFFERENT = 10
"""From this many different values on, values alone may say that a column of numbers holds dates."""
NAME_DIGITS = 7
"""From this many digits on, groups of the same number of digits in every row may be names, such as tax numbers."""
BEST_GRADE = 6
PLAIN, _POINTS = Marks("."), Marks(",", ".")
YEARS = ("1990", "2050")
DATE_WORDS = {
    "date", "datum", "day", "dob", "birth", "birthday", "fecha", "jour", "data", "giorno", "when", "created", "updated",
    "modified", "opened", "closed", "ordered", "shipped", "delivered", "paid", "due", "expiry", "expires", "joined",
    "signup", "since", "until", "valid", "seen", "from", "start", "started", "end", "ended",
}  # fmt: skip
TIME_WORDS = DATE_WORDS | {
    "time", "timestamp", "datetime", "ts", "epoch", "unix", "utc", "at", "dt", "zeit", "tijd", "hora",
}  # fmt: skip
DATE_ENDINGS, TIME_ENDINGS = ("date", "datum"), ("date", "datum", "timestamp", "epoch")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WrittenValues:
    """How a column's values seem to be written.

    Attributes:
        kind: what they are.
        formats: the formats that fit, as `columns.formats` has them; none where no format can say it.
        is_sure: whether there is one reading. Where not, a person must choose.
        reason: why, in words.
        marks: the texts among them that seem to stand for missing.
        meanings: what one value is by each of the formats, in words; empty where they are not asked about.
        is_number: whether the column is a number too, and stays one where nobody says otherwise.
    """

    kind: Kind
    formats: tuple[str, ...]
    is_sure: bool
    reason: str
    marks: tuple[str, ...] = ()
    meanings: tuple[str, ...] = ()
    is_number: bool = False


def written_values(table: pd.DataFrame, time: str | None = None) -> dict[str, WrittenValues]:
    """The columns whose values are numbers or dates that need a format.

    Args:
        table: the rows, best as text.
        time: the column that is said to hold times.
    """
    texts = [str(name) for name in table.columns if table[name].dtype.kind not in "biufmM"]
    plain = [name for name in texts if _all_plain(table[name])]
    counts = {name: _counts(table[name]) for name in texts if name not in plain}
    found = {name: numbers_written(seen) for name, seen in counts.items() if seen is not None}
    sure = [seen.formats[0] for seen in found.values() if seen is not None and seen.is_sure]
    with_comma = any(_decimal_of_sample(sample) == "," for sample in sure)
    with_point = any("1,234.5" in sample for sample in sure) or any(_has_decimal_point(table[name]) for name in plain)
    with_point |= any(table[name].dtype.kind == "f" for name in table.columns)
    for name in texts if with_comma else ():
        seen = counts.get(name) or _counts(table[name])
        if seen is not None and found.get(name) is None:
            found[name] = numbers_written(seen, comma_elsewhere=True)
    for name in map(str, table.columns):
        if found.get(name) is None:
            ordered = dates_ordered(counts.get(name) or {})
            found[name] = dates_counted(table[name], name, is_time=name == time) or ordered
    elsewhere = "" if with_comma == with_point else "," if with_comma else "."
    return {name: _with_hint(seen, elsewhere) for name, seen in found.items() if seen is not None}


def dates_ordered(counts: Mapping[str, int]) -> WrittenValues | None:
    """The order of day, month and year in a column of dates that are not ISO; None for anything else.

    Args:
        counts: the column's different texts, and how many rows have each.
    """
    texts = [text for text in counts if not is_missing_word(text)]
    pattern, note = choose_format(texts)
    if pattern is None:
        return None
    unread = [text for text in texts if read_datetime(text, pattern=pattern)[1] is not None]
    marks = _marks(unread, counts, sum(counts[text] for text in texts))
    if marks is None or len(unread) == len(texts):
        return None
    dates = [text for text in texts if text not in set(unread)]
    if not note:
        telling = next((text for text in dates if _in_order(text, _swapped(pattern)) is None), dates[0])
        return WrittenValues("datetime", (pattern,), True, _in_words(telling, pattern), marks)
    telling = next((text for text in dates if _in_order(text, pattern) != _in_order(text, _swapped(pattern))), dates[0])
    both = (pattern, _swapped(pattern))
    reason = f"no value tells day from month ({telling!r})"
    return WrittenValues("datetime", both, False, reason, marks, tuple(_in_words(telling, one) for one in both))


def _swapped(pattern: str) -> str:
    return pattern.translate(str.maketrans("dm", "md"))


def _in_order(text: str, pattern: str) -> int | None:
    return read_datetime(text, pattern=pattern)[0]


def _in_words(text: str, pattern: str) -> str:
    day = np.datetime64(_in_order(text, pattern) or 0, "us").item()
    return f"{text!r} is {day.day} {day:%B %Y}"


def _with_hint(seen: WrittenValues, decimal: str) -> WrittenValues:
    """The likelier of several formats first: the one with the decimal mark of the table's other columns."""
    if len(seen.formats) < 2 or not decimal or seen.kind == "datetime":
        return seen
    order = sorted(range(len(seen.formats)), key=lambda place: _decimal_of_sample(seen.formats[place]) != decimal)
    word = "comma" if decimal == "," else "point"
    meanings = [seen.meanings[place] for place in order]
    meanings[0] += f", and other columns have a decimal {word}"
    return replace(seen, formats=tuple(seen.formats[place] for place in order), meanings=tuple(meanings))


def numbers_written(counts: Mapping[str, int], *, comma_elsewhere: bool = False) -> WrittenValues | None:
    """The format of numbers that are written as people write them; None for anything else, and for plain numbers.

    Args:
        counts: the column's different texts, and how many rows have each.
        comma_elsewhere: whether other columns of the table have a decimal comma, so that "1.234" may be 1234.
    """
    first = [text for text in islice(counts, FIRST_TEXTS) if not is_missing_word(text)]
    if not _may_be_written(first, comma_elsewhere=comma_elsewhere):
        return None
    stride = len(counts) // MOST_TEXTS + 1
    texts = [text for text in islice(counts, 0, None, stride) if not is_missing_word(text)]
    taken = {text: take_apart(text) for text in texts}
    numbers = {text: number for text, number in taken.items() if number is not None and _is_number(text, number)}
    marks = _marks([text for text in texts if text not in numbers], counts, sum(counts[text] for text in texts))
    if not numbers or marks is None or _are_names(numbers):
        return None
    if all(_is_plain(number) for number in numbers.values()) and not comma_elsewhere:
        return None
    cores = [number.core for number in numbers.values()]
    fitting = [way for way in POSSIBLE if all(way.number(core) is not None for core in cores)]
    if not fitting:
        each_fits = all(any(way.number(core) is not None for way in POSSIBLE) for core in cores)
        shown = f"its numbers are written in more than one way ({_differing(numbers)})"
        return WrittenValues("number", (), False, f"{shown}: write them alike", marks) if each_fits else None
    seen = _judged(numbers, fitting, marks)
    plain_only = all(_is_plain(number) for number in numbers.values())
    return None if seen is None or (plain_only and seen.is_sure) else seen


def _may_be_written(texts: Sequence[str], *, comma_elsewhere: bool) -> bool:
    """A first look at some texts: whether all but a few are numbers; plain ones with points between thousands."""
    taken = [number for number in map(take_apart, texts) if number is not None]
    if len(texts) - len(taken) > MOST_MARKS:
        return False
    return not (comma_elsewhere and any(_POINTS.number(number.core) is None for number in taken))


def _judged(
    numbers: Mapping[str, WrittenNumber], fitting: Sequence[Marks], marks: tuple[str, ...]
) -> WrittenValues | None:
    """One format for numbers that fit some marks, or the formats between which a person must choose."""
    readings: dict[tuple[float | None, ...], Marks] = {}
    for way in fitting:
        readings.setdefault(tuple(way.number(number.core) for number in numbers.values()), way)
    ways = list(readings.values())
    units = sorted({number.unit for number in numbers.values() if number.unit})
    styles = sorted({number.negative for number in numbers.values()} & {"()", "6-"})
    if len(units) > 1 or len(styles) > 1:
        said = " and ".join(units if len(units) > 1 else ["(34)", "34-"])
        return WrittenValues("number", (), False, f"its numbers are written with {said}: make one of them", marks)
    formats = [_format(numbers, way, units, styles) for way in ways]
    samples = tuple(form.sample for form in formats)
    if len(ways) > 1:
        text = max(numbers, key=lambda text: len({way.number(numbers[text].core) for way in ways}))
        meant = [_plain_text(form.read(text)) for form in formats]
        reason = f"its values can be read in two ways: {text!r} is {' or '.join(meant)}"
        meanings = tuple(f"{text!r} is {value}" for value in meant)
        return WrittenValues("number", samples, False, reason, marks, meanings)
    doubt = _doubt(numbers, formats[0])
    text = max(numbers, key=lambda text: (not _is_plain(numbers[text]), len(numbers[text].core), text))
    shown = f"{text!r} is {_plain_text(formats[0].read(text))}"
    reason = doubt or f"all of its values are {_described(formats[0])}: {shown}"
    if formats[0].unit == "%" and not doubt:
        reason += ", not a hundredth of it"
    return WrittenValues("number", samples, not doubt, reason, marks, (shown,) * bool(doubt))


def _format(
    numbers: Mapping[str, WrittenNumber], way: Marks, units: Sequence[str], styles: Sequence[str]
) -> NumberFormat:
    with_unit = [number for number in numbers.values() if number.unit]
    is_first = 2 * sum(number.unit_first for number in with_unit) > len(with_unit)
    is_spaced = 2 * sum(number.spaced for number in with_unit) > len(with_unit)
    negative: Negative = "-"
    if styles:
        negative = "()" if styles[0] == "()" else "6-"
    elif any(number.negative == MINUS for number in numbers.values()):
        negative = "\u2212"
    return NumberFormat(way, units[0] if units else "", is_first, is_spaced, negative)


def _described(form: NumberFormat) -> str:
    """A format in words."""
    marks = {",": "commas", ".": "points", " ": "blanks", "'": "apostrophes"}
    parts = ["a decimal comma"] * (form.marks.decimal == ",")
    parts += [f"{marks[form.marks.thousands]} between thousands"] if form.marks.thousands else []
    parts += [f"a unit ({form.unit})"] * bool(form.unit)
    parts += ["parentheses or a minus behind where negative"] * (form.negative in {"()", "6-"})
    parts += ["a long minus"] * (form.negative == MINUS)
    return f"numbers with {' and '.join(parts)}"


def _doubt(numbers: Mapping[str, WrittenNumber], form: NumberFormat) -> str:
    """Why numbers that have one reading may mean something else; empty where nothing speaks for it."""
    values = {text: form.read(text) or 0.0 for text in numbers}
    digits = {text: sum(char.isdigit() for char in number.core) for text, number in numbers.items()}
    is_whole = all(value.is_integer() for value in values.values())
    first = next(iter(numbers))
    is_grouped = form.marks.thousands and all(not number.core.isdigit() for number in numbers.values())
    is_long = len(numbers) > 1 and set(digits.values()) == {digits[first]} and digits[first] >= NAME_DIGITS
    if is_grouped and is_whole and not form.unit and is_long:
        return f"they are numbers, or names such as {first!r}: all have {digits[first]} digits"
    if form.negative == "6-" and is_whole and not form.unit and max(map(abs, values.values())) <= BEST_GRADE:
        return f"they are numbers, or grades such as {max(numbers, key=len)!r}"
    plain = [value for text, value in values.items() if form.unit == "%" and not numbers[text].unit and value]
    if plain and max(map(abs, plain)) <= 1:
        return f"some have no %, and may be shares: is {_plain_text(plain[0])} a hundred times as much"
    return ""


def _is_number(text: str, number: WrittenNumber) -> bool:
    """Whether a text that can be taken apart is written as a number is: no leading zero, no plus before blanks."""
    core = number.core
    if len(core) > 1 and core[0] == "0" and core[1].isdigit():
        return False
    return not (text.strip().startswith("+") and not core.isdigit() and " " in core)


def _are_names(numbers: Mapping[str, WrittenNumber]) -> bool:
    """Addresses of the internet, and names such as CAD123: a code of a currency, and always as many digits."""
    groups = [number.core.split(".") for number in numbers.values()]
    if all(len(some) == 4 and all(part.isdigit() and int(part) <= 255 for part in some) for some in groups):
        return True
    glued = all(number.unit.isalpha() and number.unit_first and not number.spaced for number in numbers.values())
    lengths = {len(number.core) for number in numbers.values()}
    return glued and len(lengths) == 1 and len(numbers) > 1 and all(n.core.isdigit() for n in numbers.values())


def _is_plain(number: WrittenNumber) -> bool:
    return not number.unit and number.negative in {"", "-"} and PLAIN.number(number.core) is not None


def _marks(strange: Sequence[str], counts: Mapping[str, int], rows: int) -> tuple[str, ...] | None:
    """The texts that are no numbers, where they may stand for missing; None where they are too many, or too long."""
    short = {text.strip(): 0 for text in strange}
    for text in strange:
        short[text.strip()] += counts[text]
    if len(short) > MOST_MARKS or any(len(text) > LONGEST_MARK for text in short) or 10 * sum(short.values()) > rows:
        return None
    return tuple(sorted(short, key=lambda text: (-short[text], text)))


def _differing(texts: Mapping[str, WrittenNumber]) -> str:
    """Two of the texts that no marks read together."""
    ways = {text: {way for way in POSSIBLE if way.number(number.core) is not None} for text, number in texts.items()}
    first = min(ways, key=lambda text: len(ways[text]))
    other = next((text for text in ways if not ways[text] & ways[first]), next(reversed(ways)))
    return f"{first!r}, {other!r}"


def _decimal_of_sample(sample: str) -> str:
    """The decimal mark of a format, where it shows one."""
    number = take_apart(sample)
    return "" if number is None else re.sub("[0-9]", "", number.core)[-1:]


def _has_decimal_point(series: "pd.Series[Any]") -> bool:
    """Whether a column of plain numbers has a point that cannot stand between thousands, among its first values."""
    first = series.dropna().head(1000).astype(str).str.strip()
    return bool(first.str.fullmatch(r"-?[0-9]+\.(?:[0-9]{1,2}|[0-9]{4,})").any())


def _all_plain(series: "pd.Series[Any]") -> bool:
    """Whether all of a column's texts are numbers that need no format; the fast answer for most columns."""
    return isinstance(series.dtype, pd.StringDtype) and plain_numbers(series) is not None


def _counts(series: "pd.Series[Any]") -> dict[str, int] | None:
    """The different texts of a column, and how many rows have each; None where it holds other things than text."""
    codes, values = distinct_values(series)
    rows = np.bincount(codes[codes >= 0], minlength=len(values)).tolist()
    counts: dict[str, int] = {}
    for value, count in zip(map(decode_text, values), rows, strict=True):
        if isinstance(value, str):
            counts[value] = counts.get(value, 0) + count
        elif not is_missing(value) and not isinstance(value, int | float | np.number):
            return None
    return counts or None


def _plain_text(number: float | None) -> str:
    return "nothing" if number is None else number_text(number)


# Dates that are numbers.


def dates_counted(series: "pd.Series[Any]", name: str, *, is_time: bool = False) -> WrittenValues | None:
    """The format of a column of numbers that are dates: by its values, and mostly by its name too.

    A date written as 20240131 shows itself in many values. Counts of seconds or days are dates only where the name says
    so, or, of milliseconds, where they rise from row to row; else they may be, and `is_sure` is False.
    """
    numbers = _plain_numbers(series)
    if numbers is None or not len(numbers):
        return None
    form = next((form for form, low, high in _COUNTS if numbers.min() >= low and numbers.max() < high), None)
    if form is None:
        return None
    different = _different(numbers)
    if form in _WHOLE and not (numbers == np.floor(numbers)).all():
        return None
    if form == "%Y%m%d" and any(read_datetime(number, (), form)[0] is None for number in different):
        return None
    words = {word for part in re.split(r"[\W_0-9]+", name) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", part)}
    lower = {word.lower() for word in words}
    known, endings = (DATE_WORDS, DATE_ENDINGS) if form == "excel" else (TIME_WORDS, TIME_ENDINGS)
    by_name = bool(lower & known) or any(word.endswith(endings) for word in lower)
    by_values = len(different) >= FEW_DIFFERENT and (
        form == "%Y%m%d" or (form in {"epoch ms", "epoch us"} and bool((np.diff(numbers) >= 0).all()))
    )
    if not (by_name or by_values or is_time or _may_be(form, numbers)):
        return None
    first = np.datetime64(int(read_datetime(different[0], (), form)[0] or 0), "us").astype("datetime64[s]")
    reason = (
        f"its numbers are {_COUNTED[form]}: {number_text(float(numbers[0]))} is {str(first).replace('T00:00:00', '')}"
    )
    return WrittenValues("datetime", (form,), by_name or by_values or is_time, reason, is_number=True)


def _moment(year: str) -> float:
    return float(np.datetime64(f"{year}-01-01", "s").astype(np.int64))


_LOW, _HIGH = _moment(YEARS[0]), _moment(YEARS[1])
_COUNTS = (
    ("excel", _LOW / 86_400 + 25_569, _HIGH / 86_400 + 25_569),
    ("%Y%m%d", 19_000_101, 21_000_101),
    ("epoch s", _LOW, _HIGH),
    ("epoch ms", _LOW * 1e3, _HIGH * 1e3),
    ("epoch us", _LOW * 1e6, _HIGH * 1e6),
)
"""Formats of dates that are numbers, with the numbers from 1990 to 2050; of days as digits those from 1900 to 2100."""
_WHOLE = {"%Y%m%d", "epoch ms", "epoch us"}
_COUNTED = {
    "excel": "days as Excel counts them",
    "%Y%m%d": "year, month and day as digits",
    "epoch s": "seconds since 1970",
    "epoch ms": "milliseconds since 1970",
    "epoch us": "microseconds since 1970",
}


def _may_be(form: str, numbers: Floats) -> bool:
    """Whether values alone make dates likely enough to be mentioned: they lie within 20 years."""
    years = {"excel": 365.25, "epoch s": 31_557_600, "epoch ms": 3.15576e10, "epoch us": 3.15576e13}
    if form not in years:
        return True
    return len(_different(numbers)) >= FEW_DIFFERENT and float(numbers.max() - numbers.min()) <= 20 * years[form]


def _different(numbers: Floats) -> list[float]:
    return list(dict.fromkeys(numbers.tolist()))


def _plain_numbers(series: "pd.Series[Any]") -> Floats | None:
    """The values of a column of plain numbers that are not missing; None for any other column."""
    if getattr(series.dtype, "kind", "O") in "bmM":
        return None
    numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    known = series.notna().to_numpy()
    if series.dtype.kind not in "iuf":
        texts = series[known & np.isnan(numbers)]
        if not all(isinstance(text, str) and is_missing_word(text) for text in texts):
            return None
    values: Floats = numbers[~np.isnan(numbers)]
    return values if np.isfinite(values).all() else None
