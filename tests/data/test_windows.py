"""Cutting rows into windows: by the calendar, by a start, by rows, in whatever parts the rows come."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterfit.data.windows import WindowLength, WindowSplitter, parse_time
from afterfit.errors import DataError, SettingsError

DAYS = pd.DataFrame({"when": pd.date_range("2013-01-30", periods=100, freq="12h"), "x": range(100)})

FEBRUARY = parse_time("2013-02-01", "--start")


def windows(splitter, *frames):
    """Each window's name and the values of x in it."""
    rows, _ = splitter.gathered(frames)
    return {splitter.name(number): list(window["x"]) for number, window in rows.items()}


@pytest.mark.parametrize(
    ("text", "count", "unit"),
    [
        ("1d", 1, "d"),
        ("w", 1, "w"),
        ("3mo", 3, "mo"),
        ("6 h", 6, "h"),
        ("500rows", 500, "rows"),
        ("2 weeks", 2, "w"),
        ("1 Month", 1, "mo"),
    ],
)
def test_a_windows_length_is_read_in_its_usual_spellings(text, count, unit):
    assert WindowLength.parse(text) == WindowLength(count, unit)


@pytest.mark.parametrize("text", ["m", "1y", "0d", "-1d", "d1", "1.5d", "1d 2h"])
def test_a_length_that_is_none_is_refused_with_examples(text):
    with pytest.raises(SettingsError, match="must be a number and a unit, such as 6h, 1d, 1w, 1mo or 10000rows"):
        WindowLength.parse(text)


def test_no_length_means_one_window():
    assert WindowLength.parse(" ") is None
    assert windows(WindowSplitter(), DAYS) == {"all rows": list(range(100))}


def test_months_are_those_of_the_calendar():
    found = windows(WindowSplitter(WindowLength(1, "mo"), "when"), DAYS)
    assert {name: len(rows) for name, rows in found.items()} == {"2013-01": 4, "2013-02": 56, "2013-03": 40}


def test_weeks_begin_on_mondays_and_with_a_start_on_its_day():
    assert next(iter(windows(WindowSplitter(WindowLength(1, "w"), "when"), DAYS))) == "2013-01-28"
    started = windows(WindowSplitter(WindowLength(1, "w"), "when", start=FEBRUARY), DAYS)
    assert list(started)[:2] == ["2013-02-01", "2013-02-08"]
    assert [len(rows) for rows in started.values()][:2] == [14, 14]


def test_hours_say_the_hour():
    assert list(windows(WindowSplitter(WindowLength(6, "h"), "when"), DAYS))[:2] == [
        "2013-01-30 00:00",
        "2013-01-30 12:00",
    ]


def test_start_is_included_and_end_is_not():
    splitter = WindowSplitter(None, "when", parse_time("2013-02-01", "--start"), parse_time("2013-02-02", "--end"))
    assert windows(splitter, DAYS) == {"all rows": [4, 5]}
    assert splitter.cut(DAYS)[1].span == ", 2013-02-01 00:00 to 2013-02-01 12:00"


def test_rows_that_are_too_early_do_not_move_the_beginning_of_weeks():
    found = windows(WindowSplitter(WindowLength(1, "w"), "when", after=FEBRUARY), DAYS)
    assert list(found)[:2] == ["2013-01-28", "2013-02-04"]
    assert found["2013-01-28"][0] == 5, "later than, not from then on"


@given(cuts=st.lists(st.integers(0, 100), max_size=6), every=st.sampled_from(["7rows", "1d", "1w", "1mo"]))
def test_the_windows_do_not_depend_on_the_parts_that_rows_come_in(cuts, every):
    ends = [0, *sorted(cuts), 100]
    parts = [DAYS.iloc[one:other] for one, other in pairwise(ends)]
    whole = windows(WindowSplitter(WindowLength.parse(every), "when"), DAYS)
    assert windows(WindowSplitter(WindowLength.parse(every), "when"), *parts) == whole
    assert sum(map(len, whole.values())) == 100


def test_times_as_text_are_read_and_rows_without_one_are_counted():
    frame = pd.DataFrame({"when": ["2013-02-01", None, "?", "2013-02-03 10:00"], "x": range(4)})
    splitter = WindowSplitter(WindowLength(1, "d"), "when", marks=frozenset("?"))
    assert windows(splitter, frame) == {"2013-02-01": [0], "2013-02-03": [3]}
    counts = splitter.gathered([frame[:2], frame[2:]])[1]
    assert (counts.seen, counts.kept, counts.untimed) == (4, 2, 2)


def test_a_splitter_that_was_used_cuts_the_next_stream_alike():
    splitter = WindowSplitter(WindowLength(7, "rows"), "when")
    assert windows(splitter, DAYS) == windows(splitter, DAYS)
    assert splitter.gathered([DAYS])[1] == splitter.gathered([DAYS[:50], DAYS[50:]])[1]


def test_a_time_that_is_none_is_named():
    with pytest.raises(DataError, match=r"'when' must hold dates or times; 1 values are none, the first is 'soon'"):
        windows(
            WindowSplitter(WindowLength(1, "d"), "when"), pd.DataFrame({"when": ["2013-02-01", "soon"], "x": [0, 1]})
        )


def test_an_absent_time_column_is_named_with_those_that_are_there():
    with pytest.raises(DataError, match="'when' is not in the table; its columns are: x"):
        windows(WindowSplitter(WindowLength(1, "d"), "when"), DAYS[["x"]])


@pytest.mark.parametrize("asked", [{"every": WindowLength(1, "d")}, {"start": FEBRUARY}])
def test_cutting_by_time_needs_a_time_column(asked):
    with pytest.raises(SettingsError, match="need a time column: name it with --time"):
        WindowSplitter(**asked)


def test_a_start_after_the_end_is_refused():
    with pytest.raises(SettingsError, match="must be before --end"):
        WindowSplitter(None, "when", FEBRUARY, parse_time("2013-01-01", "--end"))


@pytest.mark.parametrize("text", ["soon", "2013-13-01", "NaT"])
def test_a_moment_that_is_none_is_refused(text):
    with pytest.raises(SettingsError, match=r"--start '.*' must be a date or time, such as 2013-04-01"):
        parse_time(text, "--start")


def test_a_moment_with_a_zone_is_turned_to_utc():
    frame = pd.DataFrame({"when": pd.to_datetime(["2013-01-01 22:30", "2013-01-01 23:30"]), "x": [0, 1]})
    splitter = WindowSplitter(None, "when", parse_time("2013-01-02T00:00+01:00", "--start"))
    assert windows(splitter, frame) == {"all rows": [1]}
    assert splitter.cut(frame)[1].first == np.datetime64("2013-01-01T23:30")
    assert parse_time("2013-01-02T00:00+01:00", "--now") == parse_time("2013-01-01T23:00", "--now")
