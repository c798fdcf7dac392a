"""Numbers and dates as people write them, read by a column's format."""

import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterfit.contract.columns import Column, formatted_column, read_formatted
from afterfit.contract.contract import Contract, learn
from afterfit.contract.datetimes import read_datetime
from afterfit.contract.number_formats import POSSIBLE, Marks, NumberFormat, number_reader, parse_number_format
from afterfit.errors import SettingsError
from made_numbers import written

UNITS = ("", "%", "€", "$", "USD", "R$", "kr", "zł", "CHF")


formats = st.builds(
    NumberFormat,
    st.sampled_from(POSSIBLE),
    st.sampled_from(UNITS),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["-", "\u2212", "()", "6-"]),
)
numbers = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9).map(
    lambda number: Decimal(f"{number.normalize():f}")
)


@given(formats, numbers)
def test_a_number_written_in_a_format_is_read_back_to_exactly_its_value(form, number):
    assert form.read(written(number, form)) == float(number)


@given(formats)
def test_a_sample_says_the_whole_format(form):
    parsed = parse_number_format(form.sample)
    spaced = form.spaced and bool(form.unit)
    assert parsed == NumberFormat(form.marks, form.unit, form.unit_first and bool(form.unit), spaced, form.negative)


@given(formats, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_a_real_number_is_always_itself(form, number):
    assert number_reader(form.sample)(number) == (float(number), None)


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        ("1.234,5", "12.5"),
        ("1.234,5", "1,234.5"),
        ("1,234.5", "12,5"),
        ("1,234.5", "1.234.567"),
        ("1234,5", "1.234"),
        ("1 234.5", "12 34"),
        ("49%", "€ 49"),
        ("€ 49", "$ 49"),
        ("1,234.5", "(34)"),
        ("(1,234.5)", "34-"),
        ("(1,234.5)", "(-34)"),
        ("(1,234.5)", "(34"),
        ("1.234,5", "1.234,5,6"),
        ("1.234,5", "twelve"),
        ("1.234,5", "1_234"),
        ("1.234,5", "٤٩"),
    ],
)
def test_a_text_that_contradicts_the_format_is_no_number(sample, text):
    number, problem = number_reader(sample)(text)
    assert math.isnan(number)
    assert problem == "invalid_number"


@pytest.mark.parametrize("sample", ["1,234", "1.234", "12,345", "(1.234)", "€ 1,234", "", "abc", "1,2,3", "49%%"])
def test_a_sample_that_is_none_or_can_be_read_in_two_ways_is_refused(sample):
    with pytest.raises(SettingsError):
        parse_number_format(sample)


def test_plain_numbers_units_and_blanks_are_read_where_there_is_one_way_to_read_them():
    read = number_reader("€ 1.234,5")
    texts = ["476", " 1.299,99 ", "€1.299,99", "1.299,99 €", "-€ 44", "€ -44", "\u221244", "+3", ",5", "?"]
    assert [read(text, {"?"})[0] for text in texts[:-1]] == [476, 1299.99, 1299.99, 1299.99, -44, -44, -44, 3, 0.5]
    assert math.isnan(read("?", {"?"})[0])
    assert read("?", {"?"})[1] is None
    assert number_reader("1 234,5")("1\u202f299,5")[0] == number_reader("1 234,5")("1\u00a0299,5")[0] == 1299.5
    assert Marks(".", "'").number("1\u2019234") == 1234


@pytest.mark.parametrize(
    ("form", "value", "moment"),
    [
        ("excel", 45292.5, "2024-01-01T12:00"),
        ("excel", "45292", "2024-01-01"),
        ("excel", 1, "1900-01-01"),
        ("excel", 59, "1900-02-28"),
        ("excel", 61, "1900-03-01"),
        ("epoch s", 1_700_000_000, "2023-11-14T22:13:20"),
        ("epoch s", -5, "1969-12-31T23:59:55"),
        ("epoch ms", "1700000000123", "2023-11-14T22:13:20.123"),
        ("epoch us", np.int64(1_700_000_000_123_456), "2023-11-14T22:13:20.123456"),
        ("%Y%m%d", 20240131, "2024-01-31"),
        ("%Y%m%d", 20240131.0, "2024-01-31"),
        ("%Y%m%d", "20240131", "2024-01-31"),
        ("excel", "2024-01-31", "2024-01-31"),
    ],
)
def test_dates_that_are_numbers_are_read_by_the_column_s_format(form, value, moment):
    microseconds, problem = read_datetime(value, (), form)
    assert problem is None
    assert np.datetime64(microseconds, "us") == np.datetime64(moment)
    read = read_formatted(pd.Series([value, None]), form)
    assert read.values[0] == np.datetime64(moment)
    assert np.isnat(read.values[1])


@pytest.mark.parametrize(
    ("form", "value"),
    [("excel", 60), ("excel", 0), ("excel", 1e300), ("%Y%m%d", 20240231), ("%Y%m%d", 202401), ("epoch s", True)],
)
def test_a_number_that_is_no_such_date_is_invalid(form, value):
    assert read_datetime(value, (), form) == (None, "invalid_datetime")


def test_a_row_and_a_frame_are_read_alike_by_formats_and_the_contract_keeps_them():
    frame = pd.DataFrame(
        {
            "price": ["1.299,99", "17", "3,5", "12.5"],
            "share": ["49%", "3 %", None, "7"],
            "day": [45292, 45293, 45294, 60],
            "seen": pd.Series([1, 2, 3, 2**62], dtype="int64"),
        }
    )
    given_formats = {"price": "1.234,5", "share": "49%", "day": "excel", "seen": "epoch s", "target": "1.234,5"}
    contract = Contract.from_json(learn(frame, formats=given_formats).to_json())
    assert [column.kind for column in contract.columns] == ["number", "number", "datetime", "datetime"]
    checked = contract.check_frame(frame)
    columns = contract.check_columns({name: frame[name].tolist() for name in frame}, 4)
    for number, row in enumerate(frame.astype(object).to_dict("records")):
        one = contract.check_row(row)
        assert one.warnings == checked.row_warnings(number) == columns.row_warnings(number)
        assert one.errors == checked.row_errors(number) == columns.row_errors(number)
    assert [error["code"] for error in contract.check_row(frame.iloc[3].to_dict()).errors] == [
        "invalid_number",
        "invalid_datetime",
        "invalid_datetime",
    ]
    assert "'1.234,5'" in str(contract.check_row({"price": "12.5"}).error)


def test_a_contract_that_was_saved_before_formats_is_read():
    saved = Column("age", "number").to_dict()
    del saved["number_format"]
    assert Column.from_dict(saved) == Column("age", "number")


@pytest.mark.parametrize(
    ("text", "kind"), [("1.234,5", "datetime"), ("excel", "number"), ("49%", "category"), ("1,234", None)]
)
def test_a_format_that_does_not_fit_names_the_column(text, kind):
    with pytest.raises(SettingsError, match="'price'"):
        formatted_column("price", text, kind)
