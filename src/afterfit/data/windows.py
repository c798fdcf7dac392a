"""Rows cut into windows: by hours, days, weeks or months of their time, or so many rows each."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.datetimes import as_written, parse_as
from afterfit.errors import DataError, SettingsError
from afterfit.settings import order_fault

Unit: TypeAlias = Literal["h", "d", "w", "mo", "rows"]
LENGTHS: dict[Unit, np.timedelta64] = {
    "h": np.timedelta64(1, "h"),
    "d": np.timedelta64(1, "D"),
    "w": np.timedelta64(7, "D"),
}
MONDAY = np.datetime64("1970-01-05", "us")
MOST = 1_000
"""Most windows that one command compares."""
WORDS = re.compile(r"(\d*)\s*(h|hours?|d|days?|w|weeks?|mo|months?|rows?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A window: its name, begin (included) and end (excluded)."""

    name: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class WindowLength:
    """The length of a window: so many units."""

    count: int
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "WindowLength | None":
        """Read `1d`, `1w`, `1mo`, `6h` or `10000rows`; None where the text is empty.

        Raises:
            SettingsError: it is none of these.
        """
        if not text.strip():
            return None
        match = WORDS.fullmatch(text.strip())
        if not match or match[1] in {"0", "00"}:
            raise SettingsError(f"--every '{text}' must be a number and a unit, such as 6h, 1d, 1w, 1mo or 10000rows.")
        word = match[2].lower()
        unit = "mo" if word.startswith("mo") else "rows" if word.startswith("row") else word[0]
        return cls(int(match[1] or 1), cast("Unit", unit))

    def between(self, start: datetime, end: datetime) -> Iterator[TimeWindow]:
        """The whole windows from `start` to `end`. Months are those of the calendar.

        Raises:
            SettingsError: it counts rows, which have no times to cut at.
        """
        if self.unit == "rows":
            raise SettingsError("Windows of so many rows have no begin and end in time: give 6h, 1d, 1w or 1mo.")
        begin = start
        if self.unit == "mo":
            whole = pd.Timestamp(start).to_period("M").start_time
            begin = (whole if whole == pd.Timestamp(start) else whole + pd.DateOffset(months=1)).to_pydatetime()
        for number in range(MOST + 1):
            first, last = self._after(begin, number), self._after(begin, number + 1)
            if last > end:
                return
            yield TimeWindow(self._name(first), first, last)
        raise SettingsError(f"There are more than {MOST:,} windows from {start} to {end}: take longer ones.")

    def _after(self, begin: datetime, number: int) -> datetime:
        """When the window of that number begins."""
        if self.unit == "mo":
            return (pd.Timestamp(begin) + pd.DateOffset(months=number * self.count)).to_pydatetime()
        hours = {"h": 1, "d": 24, "w": 168}[self.unit]
        return begin + timedelta(hours=hours * number * self.count)

    def _name(self, first: datetime) -> str:
        if self.unit == "mo":
            return f"{first:%Y-%m}"
        return (
            f"{first:%Y-%m-%d}" if first.hour == first.minute == 0 and self.unit != "h" else f"{first:%Y-%m-%d %H:%M}"
        )


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What came of the rows of a stream so far.

    Attributes:
        seen, kept, untimed: rows that came, that are in a window, and that have no time.
        first, last: the earliest and the latest time that was kept; None without times.
    """

    seen: int = 0
    kept: int = 0
    untimed: int = 0
    first: np.datetime64 | None = None
    last: np.datetime64 | None = None

    @property
    def span(self) -> str:
        """From when to when the kept rows are, for behind a name; empty without times."""
        if self.first is None or self.last is None:
            return ""
        start, end = (pd.Timestamp(time).strftime("%Y-%m-%d %H:%M") for time in (self.first, self.last))
        return f", {start} to {end}"

    def plus(self, seen: int, times: npt.NDArray[Any] | None, kept: int, untimed: int) -> "RowCounts":
        """With those of one more frame; `times` are the (kept,) times of the rows that are kept."""
        first, last = self.first, self.last
        if times is not None and len(times):
            first = times.min() if first is None else min(first, times.min())
            last = times.max() if last is None else max(last, times.max())
        return RowCounts(self.seen + seen, self.kept + kept, self.untimed + untimed, first, last)


NOTHING = RowCounts()


@dataclass(frozen=True, slots=True)
class WindowSplitter:
    """Cuts a stream of frames by time, or by rows.

    Windows of months are those of the calendar; those of weeks begin on Mondays, unless there is a start.

    Attributes:
        every: the length of a window; None: all rows are one window.
        time: the time column, or None.
        start, end: only rows from start (included) to end (excluded).
        after: only rows later than this; unlike a start, it does not say where windows begin.
        marks: texts in the time column that count as missing.
        written: how its dates are written, where that is known (`data.format_of`); otherwise each frame decides.
    """

    every: WindowLength | None = None
    time: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    after: datetime | None = None
    marks: frozenset[str] = frozenset()
    written: str | None = None

    def __post_init__(self) -> None:
        fault = order_fault(self.start, self.end, ("--start", "--end"))
        if fault:
            raise SettingsError(f"{fault}.")
        timed = self.start or self.end or (self.every and self.every.unit != "rows")
        if self.time is None and timed:
            raise SettingsError("--start, --end and --every by time need a time column: name it with --time.")

    def later_than(self, when: datetime | None) -> "WindowSplitter":
        """One that takes only rows later than this."""
        return replace(self, after=when)

    def written_as(self, written: str | None) -> "WindowSplitter":
        """One that reads dates as they are known to be written; this one where nothing is known."""
        return self if written is None else replace(self, written=written)

    def cut(self, frame: pd.DataFrame, before: RowCounts = NOTHING) -> tuple[dict[int, pd.DataFrame], RowCounts]:
        """One frame's rows by the number of the window that they are in, in order; the time column is parsed.

        Args:
            frame: the next rows of a stream.
            before: what came of the rows before these.

        Returns:
            The rows of each window, and what came of all rows up to these.

        Raises:
            DataError: the time column is absent, or has values that are no times.
        """
        seen, times, untimed = len(frame), None, 0
        if self.time is not None:
            frame, untimed = self._timed(frame)
            times = frame[self.time].to_numpy()
        keys = self._keys(frame, before.kept)
        counts = before.plus(seen, times, len(frame), untimed)
        if not len(frame):
            return {}, counts
        if keys.min() == keys.max():
            return {int(keys[0]): frame}, counts
        order = np.argsort(keys, kind="stable")
        numbers, starts = np.unique(keys[order], return_index=True)
        parts = zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)
        return {number: frame.iloc[rows] for number, rows in parts}, counts

    def gathered(
        self, frames: Iterable[pd.DataFrame], reduced: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    ) -> tuple[dict[int, pd.DataFrame], RowCounts]:
        """All rows of a stream by window, the windows in order; `reduced` takes of some rows what is to be kept."""
        parts: dict[int, list[pd.DataFrame]] = {}
        counts = NOTHING
        for frame in frames:
            cut, counts = self.cut(frame, counts)
            for number, rows in cut.items():
                parts.setdefault(number, []).append(reduced(rows))
        return {number: pd.concat(parts.pop(number), ignore_index=True) for number in sorted(parts)}, counts

    def name(self, number: int) -> str:
        """What a window is called: its first day, month or hour, or its rows."""
        if self.every is None:
            return "all rows"
        if self.every.unit == "rows":
            return f"rows {number * self.every.count + 1:,} to {(number + 1) * self.every.count:,}"
        if self.every.unit == "mo":
            return str(np.datetime64(number * self.every.count, "M"))
        begin = self._anchor + number * self.every.count * LENGTHS[self.every.unit]
        return pd.Timestamp(begin).strftime("%Y-%m-%d %H:%M" if self._has_hours(begin) else "%Y-%m-%d")

    def edges(self, number: int) -> tuple[datetime, datetime] | None:
        """From when (included) to when (excluded) a window of hours, days, weeks or months is; None of others."""
        if self.every is None or self.every.unit == "rows":
            return None
        if self.every.unit == "mo":
            begin, end = (
                np.datetime64(n * self.every.count, "M").astype("datetime64[us]") for n in (number, number + 1)
            )
        else:
            length = LENGTHS[self.every.unit] * self.every.count
            begin, end = self._anchor + number * length, self._anchor + (number + 1) * length
        return pd.Timestamp(begin).to_pydatetime(), pd.Timestamp(end).to_pydatetime()

    def _has_hours(self, begin: np.datetime64) -> bool:
        return (self.every is not None and self.every.unit == "h") or begin != begin.astype("datetime64[D]")

    @property
    def _anchor(self) -> np.datetime64:
        return MONDAY if self.start is None else _naive(self.start)

    def _timed(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
        """The rows that are asked for, with their times parsed, and how many rows have no time."""
        column = str(self.time)
        if column not in frame.columns:
            raise DataError(
                f"The time column '{column}' is not in the table; its columns are: {', '.join(frame.columns[:20])}."
            )
        parsed = parse_as(frame[column], self.written, self.marks)
        if parsed.bad.any():
            row = int(np.flatnonzero(parsed.bad)[0])
            raise DataError(
                f"The time column '{column}' must hold dates or times{as_written(self.written)}; "
                f"{int(parsed.bad.sum()):,} values are none, the first is {str(frame[column].iloc[row])[:60]!r} in row "
                f"{row + 1}."
            )
        times = parsed.values
        inside = ~np.isnat(times)
        untimed = int((~inside).sum())
        if self.start is not None:
            inside &= times >= _naive(self.start)
        if self.after is not None:
            inside &= times > _naive(self.after)
        if self.end is not None:
            inside &= times < _naive(self.end)
        frame = frame.assign(**{column: times})
        return (frame if inside.all() else frame[inside]), untimed

    def _keys(self, frame: pd.DataFrame, before: int) -> npt.NDArray[np.int64]:
        if self.every is None:
            return np.zeros(len(frame), dtype=np.int64)
        if self.every.unit == "rows":
            return np.arange(before, before + len(frame)) // self.every.count
        times: npt.NDArray[Any] = frame[str(self.time)].to_numpy()
        if self.every.unit == "mo":
            return times.astype("datetime64[M]").astype(np.int64) // self.every.count
        length = LENGTHS[self.every.unit] * self.every.count
        return np.asarray((times - self._anchor) // length, dtype=np.int64)


def parse_time(text: str, option: str) -> datetime | None:
    """A time as an option gives it, in UTC where it names a zone, and without one; None where it is empty.

    Raises:
        SettingsError: it is no date or time.
    """
    if not text.strip():
        return None
    try:
        time = pd.Timestamp(text.strip())
        if not pd.isna(time):
            return (time if time.tzinfo is None else time.tz_convert(None)).to_pydatetime()
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"{option} '{text}' must be a date or time, such as 2013-04-01.") from error
    raise SettingsError(f"{option} '{text}' must be a date or time, such as 2013-04-01.")


def _naive(when: datetime) -> np.datetime64:
    stamp = pd.Timestamp(when)
    return np.datetime64((stamp if stamp.tzinfo is None else stamp.tz_convert(None)).to_pydatetime(), "us")
