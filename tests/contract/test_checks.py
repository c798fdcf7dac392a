"""A column of Python objects is held against the contract as the same column of a frame is, only faster."""

import math
from datetime import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from afterfit.contract.categories import CategoryCodes
from afterfit.contract.checks import Checked, check_series, check_values
from afterfit.contract.columns import Column
from afterfit.contract.datetimes import EARLIEST, plain_datetimes, read_datetime, to_datetimes

COLUMNS = [
    Column("n", "number", low=-1.0, high=5.0),
    Column("n", "number", required=True, private=True),
    Column("n", "integer", low=-1.0, high=5.0, on_invalid="missing", marks=("3",)),
    Column("n", "boolean"),
    Column("n", "category", categories=("a", "é", "1"), marks=("?",)),
    Column("n", "category", categories=("a", "True"), private=True, required=True),
    Column("n", "datetime", marks=("2013-01-01T00:00:00",)),
    Column("n", "datetime", datetime_format="%d.%m.%Y", required=True),
]
NUMBERS = [0, 1, 1.0, 0.5, -3, 7.25, -0.0, 1e300]
ODD = [True, None, math.nan, math.inf, 10**400, 2**63, 2**53 + 1, "1", " 2.5", "", "x", [1], {}, Decimal("2.5"), 1 + 2j]
OTHERS = [np.float64(2), np.int8(1), np.bool_(True), np.timedelta64(1, "s"), Decimal("nan"), pd.NA, pd.NaT, b"a"]
TEXTS = ["a", "é", "1", "?", " ", "b", "True", "\ud83d", "٣"]
DATES = ["2013-01-01T00:00:00", "2013-01-31 23:59:59", "9999-12-31T23:59:59", "0001-01-01T00:00:00"]
NO_DATES = [
    *("2013-02-30T00:00:00", "2013-02-29T00:00:00", "2012-02-29T00:00:00", "2013-01-01T23:59:60"),
    *("2013-01-01T24:00:00", "2013-01-01T00:60:00", "0000-01-01T00:00:00", "2013-00-01T00:00:00"),
    *("2013-01-01T00:00:0٣", "2013-01-01", "2013-01-01T00:00", "2013-01-01T00:00:00Z", "2013-01-01T00:00:00.5"),
    *("+013-01-01T00:00:00", "2013-01-01t00:00:00", "2013/01/01T00:00:00", "01.02.2013", "20130101T000000", "NaT"),
    *("2013-01-01T00:00:0\n2", "2013-01-01T00:00:000", "2013-01-01T00:00:0", ""),
]


def lists(*kinds):
    """Lists of one kind of values, and lists with others among them."""
    return st.one_of([st.lists(st.sampled_from(some), min_size=1, max_size=6) for some in kinds])


def told(found, size):
    values, issues = found
    checked = Checked(size, {"n": values}, tuple(one for one in issues if len(one.rows)), [])
    return checked.warnings_by_row(), checked.errors_by_row(), checked.counts


@settings(max_examples=400, deadline=None)
@given(
    lists(
        NUMBERS, [*NUMBERS, *ODD], [*NUMBERS, None], TEXTS, [*TEXTS, None], [*TEXTS, *ODD], DATES, [*DATES, *NO_DATES]
    ),
    st.sampled_from(COLUMNS),
    st.lists(st.sampled_from(OTHERS), max_size=1),
)
@example([5, 2**63, -(2**63), 0.5], COLUMNS[0], [])
@example([1e308, 1e308, -1e308], COLUMNS[0], [])
def test_a_column_of_objects_is_checked_as_that_of_a_frame(values, column, more):
    values = [*values, *more]
    known = CategoryCodes(column.categories)
    found = check_values(tuple(values), column, known)
    expected = check_series(pd.Series(values, dtype=object), column, len(values))
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[0].dtype == expected[0].dtype
    assert repr(told(found, len(values))) == repr(told(expected, len(values)))  # NaN is told as None


@settings(max_examples=300, deadline=None)
@given(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),  # noqa: DTZ001 - texts without a zone
    st.sampled_from("T "),
    st.integers(0, 18),
    st.sampled_from("0123456789-: T٣\n"),
)
def test_a_text_with_a_character_changed_is_read_as_alone_or_not_at_all(moment, between, place, mark):
    text = moment.replace(microsecond=0).isoformat(between)
    whole = plain_datetimes([DATES[0], text])
    assert whole is not None
    assert whole[1].astype(np.int64) == read_datetime(text)[0]
    changed = text[:place] + mark + text[place + 1 :]
    found = plain_datetimes([changed, DATES[0]])
    if found is not None:
        assert found[0].astype(np.int64) == read_datetime(changed)[0]


@pytest.mark.parametrize("text", NO_DATES)
def test_any_other_form_is_left_to_the_readers_of_single_texts(text):
    expected = None if text != "2012-02-29T00:00:00" else read_datetime(text)[0]
    found = plain_datetimes([DATES[0], text])
    assert (None if found is None else int(found[1].astype(np.int64))) == expected


@pytest.mark.parametrize("values", [[], [None], [1], [DATES[0], None], [b"2013-01-01T00:00:00"]])
def test_what_is_no_text_is_no_plain_date(values):
    assert plain_datetimes(values) is None


def test_two_texts_of_wrong_lengths_do_not_make_two_of_the_right_one():
    assert plain_datetimes(["2013-01-01T05:15:0", "02013-01-01T05:15:00"]) is None
    assert plain_datetimes(DATES).min().astype(np.int64) == EARLIEST


def test_a_date_that_stands_for_a_missing_value_is_missing_among_many_too():
    texts = [f"2013-01-01T00:{minute:02}:{second:02}" for minute in range(4) for second in range(60)]
    values, bad = to_datetimes(pd.Series(texts, dtype=object), [texts[0]])
    assert np.isnat(values).tolist() == [True] + [False] * 239
    assert not bad.any()
