"""Dates and times in the ways that people write them, as microseconds since 1970 in UTC.

ISO 8601 is always understood, with a time zone or without one. Dates such as 10/13/2014 need to know whether the day
or the month stands first: a column's own values decide that once, in training, and the decision is kept.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from afterfit.contract.values import NO_MARKS, decoded, distinct, is_missing, is_missing_text

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
_PLAIN = r"^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)?$"  # the ISO texts that numpy reads alike
_FORM = np.frombuffer(b"0000-00-00T00:00:00\n", dtype=np.uint8)[:, None]
_ABOVE = np.frombuffer(b"9999-99-99T99:99:99\n", dtype=np.uint8)[:, None] - _FORM  # how far above it a text may be
_ABOVE[10] = 255  # "T" or a space
MANY = 100  # distinct values from which on the plain ones are worth a way of their own
_PEOPLE = re.compile(
    r"(\d{1,4})([/.-])(\d{1,2})\2(\d{4}|\d{1,2})"
    r"(?:[T ,]\s?(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:\s?([AaPp])\.?[Mm]\.?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ParsedDatetimes:
    """A column read as dates and times.

    `values` is datetime64[us] (n,), naive UTC, NaT where missing or unreadable; `bad` (n,) marks the unreadable rows;
    `format` is None for ISO, otherwise the pattern of the date part as `strptime` writes it ("%m/%d/%Y"; a time of day
    may follow); `note` says so where the order of day and month had to be assumed, and is empty otherwise.
    """

    values: Array64
    format: str | None
    bad: Mask
    note: str


def _clock(hour: str | None, minute: str, second: str | None, fraction: str | None, half: str | None) -> int | None:
    """Microseconds since midnight; None where there is no such time."""
    if hour is None:
        return 0
    hours, minutes, seconds = int(hour), int(minute), int(second or 0)
    if half is not None:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + (12 if half in "pP" else 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    return (hours * 3600 + minutes * 60 + seconds) * SECOND + (int(fraction[:6].ljust(6, "0")) if fraction else 0)


def _stamp(year: int, month: int, day: int, clock: int | None) -> int | None:
    if clock is None:
        return None
    try:
        return (date(year, month, day).toordinal() - _EPOCH_DAY) * DAY + clock
    except ValueError:
        return None


def _to_seconds(text: str) -> int | None:
    """The most frequent form, 2013-01-31T14:05:00, in a fifth of the time; the pattern below reads it alike."""
    try:
        delta = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        return None
    return (delta.days * 86_400 + delta.seconds) * SECOND


def _iso(text: str) -> int | None:
    if len(text) == 19 and text[4] == text[7] == "-" and text[10] in "T " and text[13] == text[16] == ":":
        return _to_seconds(text)
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, zone_hours, zone_minutes = match.groups()
    stamp = _stamp(int(year), int(month), int(day), _clock(hour, minute, second, fraction, None))
    if stamp is None or sign is None:
        return stamp
    if int(zone_hours) > 23 or int(zone_minutes) > 59:
        return None
    offset = (int(zone_hours) * 60 + int(zone_minutes)) * 60 * SECOND
    return _within(stamp - offset if sign == "+" else stamp + offset)


def _within(stamp: int) -> int | None:
    return stamp if EARLIEST <= stamp <= LATEST else None


def _year(text: str) -> int:
    """Two digits as `strptime` reads them: 69 to 99 are 1969 to 1999 (POSIX)."""
    year = int(text)
    return year if len(text) > 2 else year + (1900 if year >= 69 else 2000)


def _formats(match: "re.Match[str]") -> list[str]:
    """The formats under which this text is a date."""
    first, mark, second, third = match.group(1, 2, 3, 4)
    if len(first) == 4:
        return [f"%Y{mark}%m{mark}%d"] if len(third) <= 2 else []
    if len(first) > 2 or len(third) not in {2, 4}:
        return []
    year = "%Y" if len(third) == 4 else "%y"
    orders = [("%m", "%d", int(first), int(second)), ("%d", "%m", int(second), int(first))]
    return [
        f"{one}{mark}{two}{mark}{year}"
        for one, two, month, day in orders
        if _stamp(_year(third), month, day, 0) is not None
    ]


def _by_format(text: str, pattern: str | None) -> int | None:
    """Read a date that is not ISO; without a pattern only where there is one way to read it."""
    match = _PEOPLE.fullmatch(text)
    if match is None:
        return None
    possible = _formats(match)
    if pattern is None:
        same = match.group(1).zfill(2) == match.group(3).zfill(2)
        if not possible or (len(possible) > 1 and not same):
            return None
        pattern = possible[0]
    elif pattern not in possible:
        return None
    first, _, second, third = match.group(1, 2, 3, 4)
    clock = _clock(*match.group(5, 6, 7, 8, 9))
    if pattern.startswith("%Y"):
        return _stamp(int(first), int(second), int(third), clock)
    month, day = (first, second) if pattern.startswith("%m") else (second, first)
    return _stamp(_year(third), int(month), int(day), clock)


def read_datetime(
    value: Any, marks: Collection[str] = NO_MARKS, pattern: str | None = None
) -> tuple[int | None, str | None]:
    """Read a date or time as whole microseconds since 1970-01-01 00:00 UTC; finer digits are cut off.

    With a time zone it is converted to UTC, without one it is taken as it is. Numbers are refused: whether they are
    seconds, milliseconds or days nobody can tell.

    Returns:
        (microseconds, None), (None, None) for a missing value, or (None, "invalid_datetime").
    """
    value = decoded(value)
    stamp: int | None = None
    if isinstance(value, str):
        if is_missing_text(value, marks):
            return None, None
        text = value.strip()
        if len(text) <= LONGEST:
            stamp = _iso(text)
            if stamp is None:
                stamp = _by_format(text, pattern)
    elif is_missing(value):
        return None, None
    elif isinstance(value, pd.Timestamp):
        stamp = _numpy_stamp((value if value.tzinfo is None else value.tz_convert(None)).to_datetime64())
    elif isinstance(value, datetime):
        delta = value - (_EPOCH if value.tzinfo is None else _EPOCH_UTC)
        stamp = (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds
    elif isinstance(value, date):
        stamp = (value.toordinal() - _EPOCH_DAY) * DAY
    elif isinstance(value, np.datetime64):
        stamp = _numpy_stamp(value)
    return (None, INVALID) if stamp is None else (stamp, None)


def _numpy_stamp(value: np.datetime64) -> int | None:
    if not EARLIEST // SECOND <= int(value.astype("datetime64[s]").astype(np.int64)) <= LATEST // SECOND:
        return None
    return int(value.astype("datetime64[us]").astype(np.int64))


def _native(series: "pd.Series[Any]") -> tuple[Array64, Mask]:
    zoned = getattr(series.dtype, "tz", None) is not None or "tz=" in str(series.dtype)
    raw = (series.dt.tz_convert(None) if zoned else series).to_numpy(dtype="datetime64")
    seconds = raw.astype("datetime64[s]").astype(np.int64)
    bad = (seconds != _NAT) & ((seconds < EARLIEST // SECOND) | (seconds > LATEST // SECOND))
    if bad.any():
        raw = np.where(bad, np.datetime64("NaT"), raw)
    return raw.astype("datetime64[us]"), bad


def _plain_stamps(values: Sequence[Any]) -> npt.NDArray[np.int64] | None:
    """The stamps of many texts that are all plain ISO 8601 without a zone; None for anything else."""
    if len(values) < MANY or not all(isinstance(value, str) for value in values):
        return None
    try:
        if not pc.all(pc.match_substring_regex(pa.array(values, type=pa.large_string()), _PLAIN)).as_py():
            return None
        stamps = np.array(values, dtype="datetime64[us]").astype(np.int64)
    except ValueError:  # the 30th of February, or half a surrogate pair
        return None
    return stamps if stamps.min() >= EARLIEST else None


def plain_datetimes(values: Sequence[Any]) -> Array64 | None:
    """(n,) of texts that all are like 2013-01-31T14:05:00 and valid; None for anything else.

    One look at the bytes of all of them: each has its digits and marks where the form has them.
    """
    try:
        raw = np.frombuffer(("\n".join(values) + "\n").encode("ascii"), dtype=np.uint8)
    except (TypeError, UnicodeEncodeError):
        return None
    if len(raw) != len(values) * len(_FORM):
        return None
    places = np.ascontiguousarray(raw.reshape(len(values), len(_FORM)).T)
    between = places[10]
    if not ((between == ord("T")) | (between == ord(" "))).all() or not (places - _FORM <= _ABOVE).all():
        return None
    try:
        stamps = np.array(values, dtype="datetime64[us]")
    except ValueError:  # the 30th of February
        return None
    return stamps if stamps.min().astype(np.int64) >= EARLIEST else None


def to_datetimes(
    series: "pd.Series[Any]", marks: Collection[str] = NO_MARKS, pattern: str | None = None
) -> tuple[Array64, Mask]:
    """A column as (datetime64[us] (n,), mask (n,) of unreadable rows), each value read as `read_datetime` reads it."""
    if getattr(series.dtype, "kind", "O") == "M":
        return _native(series)
    codes, values = distinct(series)
    plain = _plain_stamps(values)
    if plain is not None and frozenset(marks).isdisjoint(values):
        return np.append(plain, _NAT)[codes].view("datetime64[us]"), np.zeros(len(codes), dtype=np.bool_)
    stamps = np.full(len(values) + 1, _NAT, dtype=np.int64)  # the last one answers for code -1
    bad = np.zeros(len(values) + 1, dtype=np.bool_)
    for at, value in enumerate(values):
        stamp, problem = read_datetime(value, marks, pattern)
        if stamp is not None:
            stamps[at] = stamp
        bad[at] = problem is not None
    return stamps[codes].view("datetime64[us]"), bad[codes]


def choose_format(values: Sequence[Any], marks: Collection[str] = NO_MARKS) -> tuple[str | None, str]:
    """The one format that reads most of the values that are not ISO, and a note where it had to be assumed.

    Values decide: a 13 can only be a day. Where none does, the month is taken to stand first, except between dots
    (13.10.2014), where the day does by custom.
    """
    if _plain_stamps(values) is not None:
        return None, ""
    votes: dict[str, int] = {}
    for value in values:
        text = value.strip() if isinstance(value, str) else ""
        match = _PEOPLE.fullmatch(text) if len(text) <= LONGEST and not is_missing_text(text, marks) else None
        if match is not None and _iso(text) is None:
            for pattern in _formats(match):
                votes[pattern] = votes.get(pattern, 0) + 1
    if not votes:
        return None, ""
    most = max(votes.values())
    best = [pattern for pattern, count in votes.items() if count == most]
    chosen = min(best, key=lambda pattern: (pattern.startswith("%d") != ("." in pattern), pattern))
    rivals = [pattern for pattern in best if sorted(pattern) == sorted(chosen) and pattern != chosen]
    if not rivals:
        return chosen, ""
    order = "day first" if chosen.startswith("%d") else "month first"
    return chosen, f"no value tells day from month; read as {order} ({chosen})"


def parse_datetimes(series: "pd.Series[Any]", marks: Collection[str] = NO_MARKS) -> ParsedDatetimes:
    """Read a column of dates and times, deciding its format from its own values.

    Accepts datetime64 columns, Python and numpy dates, and texts: ISO 8601, and day, month and year between slashes,
    dots or dashes with a time of day or without. Never raises; look at `bad`.
    """
    if getattr(series.dtype, "kind", "O") == "M":
        values, bad = _native(series)
        return ParsedDatetimes(values, None, bad, "")
    pattern, note = choose_format(distinct(series)[1], marks)
    values, bad = to_datetimes(series, marks, pattern)
    return ParsedDatetimes(values, pattern, bad, note)
