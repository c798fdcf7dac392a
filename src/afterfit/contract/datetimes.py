"""Dates and times as people write them, read as microseconds since 1970 in UTC.

ISO 8601 is always understood, with a time zone or without one. For dates such as 10/13/2014 it must be known whether
the day or the month comes first: the values of the column decide that once, in training, and the decision is kept.
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from afterfit.contract.values import NO_MARKS, decode_text, distinct_values, is_missing, is_missing_word

Array64 = npt.NDArray[np.datetime64]
Mask = npt.NDArray[np.bool_]
INVALID = "invalid_datetime"
LONGEST = 48  # characters; no date is longer
SECOND, DAY = 1_000_000, 86_400_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on purpose: times without a zone are taken as they are
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
EARLIEST = (date.min.toordinal() - _EPOCH_DAY) * DAY
LATEST = (date.max.toordinal() - _EPOCH_DAY + 1) * DAY - 1
_NAT = np.iinfo(np.int64).min
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(?:([Zz])|([+-])(\d\d):?(\d\d))?)?",
    re.ASCII,
)
EPOCHS = {"epoch s": SECOND, "epoch ms": 1_000, "epoch us": 1}
"""Microseconds in one unit of the counts since 1970-01-01 00:00 UTC."""
NUMBERED = (*EPOCHS, "excel", "%Y%m%d")
"""Formats of dates that are numbers: counts since 1970, Excel's days since 1900, and year, month and day as digits."""
_PATTERN = re.compile(r"(?:%d([/.-])%m|%m([/.-])%d)(?:\1|\2)%[Yy]|%Y([/.-])%m\3%d")
_COUNT = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]*)?", re.ASCII)
_LARGEST_COUNT = 10**19
NO_COUNTS = (bool, np.bool_, np.timedelta64)
_EXCEL_EPOCH = date(1899, 12, 30).toordinal() - _EPOCH_DAY  # days; Excel takes 1900 for a leap year
_NO_DAY = 60  # Excel's 29 February 1900
_PLAIN = r"^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)?$"  # ISO texts that numpy reads in the same way
_SMALLEST = np.frombuffer(b"0000-00-00T00:00:00\n", dtype=np.uint8)[:, None]
# how far the code of a character may be above that in _SMALLEST, at each position
_LARGEST_ABOVE = np.frombuffer(b"9999-99-99T99:99:99\n", dtype=np.uint8)[:, None] - _SMALLEST
_LARGEST_ABOVE[10] = 255  # "T" or a space
FEWEST_PLAIN = 100  # from this many distinct values on, plain texts are read all at once
_NUMERIC_DATE = re.compile(
    r"(\d{1,4})([/.-])(\d{1,2})\2(\d{4}|\d{1,2})"
    r"(?:[T ,]\s?(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:\s?([AaPp])\.?[Mm]\.?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ParsedDatetimes:
    """A column read as dates and times.

    `values` is datetime64[us] (n,), naive UTC, NaT where missing or unreadable. `bad` (n,) marks the unreadable rows.
    `format` is None for ISO, otherwise the pattern of the date part as `strptime` writes it ("%m/%d/%Y"; a time of day
    may follow). `note` says where the order of day and month had to be assumed; otherwise it is empty.
    """

    values: Array64
    format: str | None
    bad: Mask
    note: str


def parse_datetimes(
    series: "pd.Series[Any]", marks: Collection[str] = NO_MARKS, pattern: str | None = None
) -> ParsedDatetimes:
    """Read a column of dates and times in a format (`is_datetime_format`); where None, its own values decide it.

    Accepts datetime64 columns, Python and numpy dates, and texts: ISO 8601, and day, month and year between slashes,
    dots or dashes, with or without a time of day. Numbers are read where the format says what they count. Never raises:
    `bad` marks what could not be read.
    """
    if getattr(series.dtype, "kind", "O") == "M":
        values, is_bad = _read_native(series)
        return ParsedDatetimes(values, None, is_bad, "")
    note = ""
    if pattern is None:
        pattern, note = choose_format(distinct_values(series)[1], marks)
    values, is_bad = to_datetimes(series, marks, pattern)
    return ParsedDatetimes(values, pattern, is_bad, note)


ISO = "iso"
"""The format of columns whose dates and times are all ISO 8601."""


def parse_as(series: "pd.Series[Any]", written: str | None, marks: Collection[str] = NO_MARKS) -> ParsedDatetimes:
    """Read a column of dates and times as they are known to be written.

    Args:
        series: the column.
        written: the format that was learnt before, or `ISO`; where None, the values decide as in `parse_datetimes`.
        marks: texts that count as missing.
    """
    if written is None:
        return parse_datetimes(series, marks)
    pattern = None if written == ISO else written
    values, is_bad = to_datetimes(series, marks, pattern)
    return ParsedDatetimes(values, pattern, is_bad, "")


def as_written(written: str | None) -> str:
    """How dates are known to be written, for a sentence about one that is not; empty where nothing is known."""
    return "" if written is None else f" written as {'ISO 8601' if written == ISO else written}"


def is_datetime_format(text: str) -> bool:
    """Whether a text is a format of dates: `ISO`, one of `NUMBERED`, or day, month and year as in "%d.%m.%Y"."""
    return text in {ISO, *NUMBERED} or _PATTERN.fullmatch(text) is not None


def choose_format(values: Sequence[Any], marks: Collection[str] = NO_MARKS) -> tuple[str | None, str]:
    """The format that reads most of the values that are not ISO, and a note where it had to be assumed.

    Values decide: 13 can only be a day. Where no value decides, the month is taken to come first, except in dates with
    dots (13.10.2014), in which the day comes first by custom.
    """
    if _plain_stamps(values) is not None:
        return None, ""
    votes: dict[str, int] = {}
    for value in values:
        text = value.strip() if isinstance(value, str) else ""
        match = _NUMERIC_DATE.fullmatch(text) if len(text) <= LONGEST and not is_missing_word(text, marks) else None
        if match is not None and _parse_iso(text) is None:
            for pattern in _possible_formats(match):
                votes[pattern] = votes.get(pattern, 0) + 1
    if not votes:
        return None, ""
    most_votes = max(votes.values())
    best = [pattern for pattern, count in votes.items() if count == most_votes]
    chosen = min(best, key=lambda pattern: (pattern.startswith("%d") != ("." in pattern), pattern))
    alternatives = [pattern for pattern in best if sorted(pattern) == sorted(chosen) and pattern != chosen]
    if not alternatives:
        return chosen, ""
    order = "day first" if chosen.startswith("%d") else "month first"
    return chosen, f"no value tells day from month; read as {order} ({chosen})"


def to_datetimes(
    series: "pd.Series[Any]", marks: Collection[str] = NO_MARKS, pattern: str | None = None
) -> tuple[Array64, Mask]:
    """A column as (datetime64[us] (n,), mask (n,) of unreadable rows); each value is read as by `read_datetime`."""
    if getattr(series.dtype, "kind", "O") == "M":
        return _read_native(series)
    if pattern in EPOCHS and isinstance(series.dtype, np.dtype) and series.dtype.kind in "iu":
        return _read_counts(series.to_numpy(), EPOCHS[pattern])
    codes, values = distinct_values(series)
    plain = _plain_stamps(values)
    if plain is not None and frozenset(marks).isdisjoint(values):
        return np.append(plain, _NAT)[codes].view("datetime64[us]"), np.zeros(len(codes), dtype=np.bool_)
    stamps = np.full(len(values) + 1, _NAT, dtype=np.int64)  # the last one stands for code -1
    is_bad = np.zeros(len(values) + 1, dtype=np.bool_)
    for position, value in enumerate(values):
        stamp, problem = read_datetime(value, marks, pattern)
        if stamp is not None:
            stamps[position] = stamp
        is_bad[position] = problem is not None
    return stamps[codes].view("datetime64[us]"), is_bad[codes]


def read_datetime(
    value: Any, marks: Collection[str] = NO_MARKS, pattern: str | None = None
) -> tuple[int | None, str | None]:
    """Read a date or time as whole microseconds since 1970-01-01 00:00 UTC; finer digits are cut off.

    A time with a zone is converted to UTC; one without is taken as it is. Numbers, and numbers written as text, are
    read where the pattern says what they count ("excel", "epoch s", "%Y%m%d"); otherwise they are refused, since they
    could be seconds, milliseconds or days.

    Returns:
        (microseconds, None), (None, None) for a missing value, or (None, "invalid_datetime").
    """
    value = decode_text(value)
    if is_missing_word(value, marks) if isinstance(value, str) else is_missing(value):
        return None, None
    stamp = _parse_text(value.strip(), pattern) if isinstance(value, str) else _stamp_of(value, pattern)
    return (None, INVALID) if stamp is None else (stamp, None)


def _parse_text(text: str, pattern: str | None) -> int | None:
    if len(text) > LONGEST:
        return None
    stamp = _parse_iso(text)
    if stamp is not None:
        return stamp
    if pattern not in NUMBERED:
        return _parse_by_format(text, pattern)
    return _parse_count(Decimal(text), pattern) if _COUNT.fullmatch(text) else None


def _stamp_of(value: Any, pattern: str | None) -> int | None:
    """A date, a time, or a number that counts to one."""
    stamp: int | None = None
    if isinstance(value, pd.Timestamp):
        stamp = _numpy_stamp((value if value.tzinfo is None else value.tz_convert(None)).to_datetime64())
    elif isinstance(value, datetime):
        delta = value - (_EPOCH if value.tzinfo is None else _EPOCH_UTC)
        stamp = (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds
    elif isinstance(value, date):
        stamp = (value.toordinal() - _EPOCH_DAY) * DAY
    elif isinstance(value, np.datetime64):
        stamp = _numpy_stamp(value)
    elif pattern in NUMBERED and isinstance(value, Real | Decimal) and not isinstance(value, NO_COUNTS):
        count = (
            Decimal(int(value))
            if isinstance(value, Integral)
            else Decimal(value if isinstance(value, Decimal) else float(value))
        )
        stamp = _parse_count(count, pattern) if count.is_finite() else None
    return stamp


def plain_datetimes(values: Sequence[Any]) -> Array64 | None:
    """The times (n,) of texts that all are like 2013-01-31T14:05:00 and valid; None for anything else.

    All bytes are compared at once: each text has its digits and separators at the same positions.
    """
    try:
        characters = np.frombuffer(("\n".join(values) + "\n").encode("ascii"), dtype=np.uint8)
    except (TypeError, UnicodeEncodeError):
        return None
    if len(characters) != len(values) * len(_SMALLEST):
        return None
    by_position = np.ascontiguousarray(characters.reshape(len(values), len(_SMALLEST)).T)
    separators = by_position[10]
    if (
        not ((separators == ord("T")) | (separators == ord(" "))).all()
        or not (by_position - _SMALLEST <= _LARGEST_ABOVE).all()
    ):
        return None
    try:
        stamps = np.array(values, dtype="datetime64[us]")
    except ValueError:  # the 30th of February
        return None
    return stamps if stamps.min().astype(np.int64) >= EARLIEST else None


def _time_of_day(
    hour: str | None, minute: str, second: str | None, fraction: str | None, am_or_pm: str | None
) -> int | None:
    """Microseconds since midnight; None where there is no such time."""
    if hour is None:
        return 0
    hours, minutes, seconds = int(hour), int(minute), int(second or 0)
    if am_or_pm is not None:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + (12 if am_or_pm in "pP" else 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    return (hours * 3600 + minutes * 60 + seconds) * SECOND + (int(fraction[:6].ljust(6, "0")) if fraction else 0)


def _microseconds(year: int, month: int, day: int, time_of_day: int | None) -> int | None:
    if time_of_day is None:
        return None
    try:
        return (date(year, month, day).toordinal() - _EPOCH_DAY) * DAY + time_of_day
    except ValueError:
        return None


def _parse_whole_seconds(text: str) -> int | None:
    """The most frequent form, 2013-01-31T14:05:00: read as `_ISO` would, in a fifth of the time."""
    try:
        delta = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        return None
    return (delta.days * 86_400 + delta.seconds) * SECOND


def _parse_iso(text: str) -> int | None:
    if len(text) == 19 and text[4] == text[7] == "-" and text[10] in "T " and text[13] == text[16] == ":":
        return _parse_whole_seconds(text)
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, zone_hours, zone_minutes = match.groups()
    stamp = _microseconds(int(year), int(month), int(day), _time_of_day(hour, minute, second, fraction, None))
    if stamp is None or sign is None:
        return stamp
    if int(zone_hours) > 23 or int(zone_minutes) > 59:
        return None
    offset = (int(zone_hours) * 60 + int(zone_minutes)) * 60 * SECOND
    return _in_range(stamp - offset if sign == "+" else stamp + offset)


def _parse_count(count: Decimal, pattern: str | None) -> int | None:
    """Read a number by one of the formats `NUMBERED`; None where it is no such date.

    Excel's parts of a day are rounded to milliseconds, which is as fine as its floats are.
    """
    if abs(count) > _LARGEST_COUNT:
        return None
    if pattern in EPOCHS:
        return _in_range(math.floor(count * EPOCHS[pattern]))
    if pattern == "%Y%m%d":
        digits = str(int(count))
        is_day = len(digits) == 8 and digits.isdigit() and count == int(count)
        return _microseconds(int(digits[:4]), int(digits[4:6]), int(digits[6:]), 0) if is_day else None
    if count < 1 or math.floor(count) == _NO_DAY:
        return None
    days = count + _EXCEL_EPOCH + (1 if count < _NO_DAY else 0)
    return _in_range(round(days * DAY / 1_000) * 1_000)


def _in_range(stamp: int) -> int | None:
    return stamp if EARLIEST <= stamp <= LATEST else None


def _full_year(text: str) -> int:
    """Two digits as `strptime` reads them: 69 to 99 are 1969 to 1999 (POSIX)."""
    year = int(text)
    return year if len(text) > 2 else year + (1900 if year >= 69 else 2000)


def _possible_formats(match: "re.Match[str]") -> list[str]:
    """The formats by which the text is a date."""
    first, separator, second, third = match.group(1, 2, 3, 4)
    if len(first) == 4:
        return [f"%Y{separator}%m{separator}%d"] if len(third) <= 2 else []
    if len(first) > 2 or len(third) not in {2, 4}:
        return []
    year = "%Y" if len(third) == 4 else "%y"
    orders = [("%m", "%d", int(first), int(second)), ("%d", "%m", int(second), int(first))]
    return [
        f"{first_part}{separator}{second_part}{separator}{year}"
        for first_part, second_part, month, day in orders
        if _microseconds(_full_year(third), month, day, 0) is not None
    ]


def _parse_by_format(text: str, pattern: str | None) -> int | None:
    """Read a date that is not ISO; without a pattern only where there is only one way to read it."""
    match = _NUMERIC_DATE.fullmatch(text)
    if match is None:
        return None
    formats = _possible_formats(match)
    if pattern is None:
        same_day_and_month = match.group(1).zfill(2) == match.group(3).zfill(2)
        if not formats or (len(formats) > 1 and not same_day_and_month):
            return None
        pattern = formats[0]
    elif pattern not in formats:
        return None
    first, _, second, third = match.group(1, 2, 3, 4)
    time_of_day = _time_of_day(*match.group(5, 6, 7, 8, 9))
    if pattern.startswith("%Y"):
        return _microseconds(int(first), int(second), int(third), time_of_day)
    month, day = (first, second) if pattern.startswith("%m") else (second, first)
    return _microseconds(_full_year(third), int(month), int(day), time_of_day)


def _numpy_stamp(value: np.datetime64) -> int | None:
    if not EARLIEST // SECOND <= int(value.astype("datetime64[s]").astype(np.int64)) <= LATEST // SECOND:
        return None
    return int(value.astype("datetime64[us]").astype(np.int64))


def _read_native(series: "pd.Series[Any]") -> tuple[Array64, Mask]:
    has_zone = getattr(series.dtype, "tz", None) is not None or "tz=" in str(series.dtype)
    datetimes = (series.dt.tz_convert(None) if has_zone else series).to_numpy(dtype="datetime64")
    seconds = datetimes.astype("datetime64[s]").astype(np.int64)
    is_bad = (seconds != _NAT) & ((seconds < EARLIEST // SECOND) | (seconds > LATEST // SECOND))
    if is_bad.any():
        datetimes = np.where(is_bad, np.datetime64("NaT"), datetimes)
    return datetimes.astype("datetime64[us]"), is_bad


def _read_counts(counts: npt.NDArray[Any], unit: int) -> tuple[Array64, Mask]:
    """Whole numbers that count units of so many microseconds since 1970."""
    is_bad = (counts > LATEST // unit) | ((counts < 0) & (counts < -(-EARLIEST // unit)))
    stamps = np.where(is_bad, 0, counts).astype(np.int64) * unit
    return np.where(is_bad, _NAT, stamps).view("datetime64[us]"), is_bad


def _plain_stamps(values: Sequence[Any]) -> npt.NDArray[np.int64] | None:
    """The stamps of many texts that are all plain ISO 8601 without a zone; None for anything else."""
    if len(values) < FEWEST_PLAIN or not all(isinstance(value, str) for value in values):
        return None
    try:
        if not pc.all(pc.match_substring_regex(pa.array(values, type=pa.large_string()), _PLAIN)).as_py():
            return None
        stamps = np.array(values, dtype="datetime64[us]").astype(np.int64)
    except ValueError:  # the 30th of February, or half a surrogate pair
        return None
    return stamps if stamps.min() >= EARLIEST else None
