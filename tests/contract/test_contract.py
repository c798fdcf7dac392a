# ruff: noqa: DTZ001 - naive dates are part of what comes; values are those of checked rows

import json
import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.contract.contract import Column, Contract, infer_kind, learn, parse_datetimes, suggest_marks
from afterfit.contract.encoder import fit_encoder
from afterfit.errors import DataError, SchemaError


def training(rows=40):
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "dest": np.where(number % 4 == 0, "LAX", "ORD"),
            "distance": number * 2.5,
            "seats": number,
            "late": number % 2 == 0,
            "departure": pd.Timestamp("2013-01-01") + pd.to_timedelta(number * 13, unit="h"),
        }
    )


GOOD = {"dest": "ORD", "distance": 7.5, "seats": 3, "late": True, "departure": "2013-01-05T10:00:00"}


def both(contract, *rows):
    """The rows' (values, warnings, errors) by the frame form, which must be those of the row form."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}, index=range(len(rows))
    )
    checked = contract.check_frame(frame)
    warnings, errors = checked.warnings_by_row(), checked.errors_by_row()
    columns = contract.check_columns({name: [row.get(name) for row in rows] for name in names}, len(rows))
    assert (columns.warnings_by_row(), columns.errors_by_row(), columns.unknown) == (warnings, errors, checked.unknown)
    for name in contract.names:
        np.testing.assert_array_equal(columns.values[name], checked.values[name])
        assert columns.values[name].dtype == checked.values[name].dtype
    encoder = fit_encoder(contract, contract.check_frame(training()))
    matrix = encoder.encode_frame(checked)
    answers = []
    for at, row in enumerate(rows):
        full = {name: row.get(name) for name in names}
        single = contract.check_row(full)
        assert single.warnings == warnings.get(at, []) + checked.unknown
        assert checked.row_warnings(at) == warnings.get(at, [])
        assert single.errors == errors.get(at, []) == checked.row_errors(at)
        assert (single.error is not None) == checked.bad[at]
        np.testing.assert_array_equal(encoder.encode_row(single), matrix[at])
        json.dumps([single.warnings, single.errors], allow_nan=False)
        answers.append((dict(zip(contract.names, single.values, strict=True)), single.warnings, single.errors))
    return answers if len(answers) > 1 else answers[0]


def coded(notes):
    return [(one["column"], one["code"], one["value"]) for one in notes]


def test_a_good_row_passes_without_a_word():
    values, warnings, errors = both(learn(training()), GOOD)
    assert (warnings, errors) == ([], [])
    assert values["dest"] == 0
    assert values["distance"] == 7.5


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, pd.NaT, "", "  ", np.float32("nan"), Decimal("NaN")])
@pytest.mark.parametrize("column", list(GOOD))
def test_a_missing_value_is_predicted_with_a_warning(column, nothing):
    _, warnings, errors = both(learn(training()), GOOD | {column: nothing})
    assert coded(warnings) == [(column, "missing", None)]
    assert errors == []


@pytest.mark.parametrize("column", list(GOOD))
def test_an_absent_column_is_predicted_with_a_warning(column):
    row = {name: value for name, value in GOOD.items() if name != column}
    _, warnings, errors = both(learn(training()), row)
    assert coded(warnings) == [(column, "absent_column", None)]
    assert errors == []


@pytest.mark.parametrize("row", [GOOD | {"dest": None}, {name: GOOD[name] for name in GOOD if name != "dest"}])
def test_a_required_column_without_a_value_refuses_that_row(row):
    _, warnings, errors = both(learn(training(), required=["dest"]), row)
    assert warnings == []
    assert coded(errors) == [("dest", "required_missing", None)]


def test_a_category_never_seen_in_training_gets_a_warning_that_names_it_not_an_error():
    values, warnings, errors = both(learn(training()), GOOD | {"dest": "LEX"})
    assert coded(warnings) == [("dest", "unseen_category", "LEX")]
    assert errors == []
    assert values["dest"] == 2


@pytest.mark.parametrize(
    ("column", "given_value", "read"),
    [
        ("distance", "12.5", 12.5),
        ("distance", " 12.5 ", 12.5),
        ("distance", "1e1", 10.0),
        ("distance", Decimal("12.5"), 12.5),
        ("distance", b"12.5", 12.5),
        ("distance", True, 1.0),
        ("seats", "12", 12.0),
        ("seats", np.int8(12), 12.0),
        ("late", "true", 1.0),
        ("late", "No", 0.0),
        ("late", 0, 0.0),
        ("late", np.bool_(True), 1.0),
        ("dest", "ORD", 0),
        ("dest", b"ORD", 0),
        ("departure", "2013-01-05", 1357344000000000),
        ("departure", "2013-01-05 02:00", 1357351200000000),
        ("departure", "2013-01-05T02:00:00Z", 1357351200000000),
        ("departure", "2013-01-05T02:00:00.5+02:00", 1357344000500000),
        ("departure", date(2013, 1, 5), 1357344000000000),
        ("departure", datetime(2013, 1, 5, 2), 1357351200000000),
        ("departure", datetime(2013, 1, 5, 2, tzinfo=timezone(timedelta(hours=2))), 1357344000000000),
        ("departure", pd.Timestamp("2013-01-05", tz="UTC"), 1357344000000000),
        ("departure", np.datetime64("2013-01-05"), 1357344000000000),
        ("departure", "1/15/2013 14:05", 1358258700000000),
        ("departure", "15.1.2013", 1358208000000000),
    ],
)
def test_values_of_the_right_kind_in_another_form_are_read_silently(column, given_value, read):
    values, warnings, errors = both(learn(training()), GOOD | {column: given_value})
    assert (warnings, errors) == ([], [])
    assert values[column] == read


@pytest.mark.parametrize(
    ("column", "wrong", "code"),
    [
        ("distance", "far", "invalid_number"),
        ("distance", "1_000", "invalid_number"),
        ("distance", [1.0], "invalid_number"),
        ("distance", {"km": 1}, "invalid_number"),
        ("distance", date(2013, 1, 5), "invalid_number"),
        ("seats", "a dozen", "invalid_number"),
        ("late", "perhaps", "invalid_boolean"),
        ("late", 2, "invalid_boolean"),
        ("departure", "soon", "invalid_datetime"),
        ("departure", 1357344000, "invalid_datetime"),
        ("departure", "2013-02-30", "invalid_datetime"),
        ("departure", "2013-01-05T25:00", "invalid_datetime"),
        ("departure", "1/2/2013", "invalid_datetime"),  # January or February? training did not say
    ],
)
def test_a_value_that_cannot_be_read_is_an_error_of_its_row_or_on_request_missing(column, wrong, code):
    _, warnings, errors = both(learn(training()), GOOD | {column: wrong})
    assert warnings == []
    assert [(one["column"], one["code"]) for one in errors] == [(column, code)]
    assert column in errors[0]["message"]
    _, warnings, errors = both(learn(training(), on_invalid="missing"), GOOD | {column: wrong})
    assert [(one["column"], one["code"]) for one in warnings] == [(column, "invalid")]
    assert errors == []


def test_an_unreadable_value_of_a_required_column_stays_an_error_even_where_invalid_counts_as_missing():
    _, _, errors = both(learn(training(), on_invalid="missing", required=["seats"]), GOOD | {"seats": "x"})
    assert coded(errors) == [("seats", "invalid_number", "x")]


@pytest.mark.parametrize("number", [-1.0, 1e30, 1e308, 10**30, "1e5"])
def test_a_number_outside_the_trained_range_is_predicted_with_a_warning(number):
    values, warnings, errors = both(learn(training()), GOOD | {"distance": number})
    assert coded(warnings) == [("distance", "out_of_range", float(number))]
    assert errors == []
    assert values["distance"] == float(number)


@pytest.mark.parametrize("endless", [math.inf, -math.inf, "inf", "1e999", 10**400, np.float32("inf")])
@pytest.mark.parametrize("on_invalid", ["error", "missing"])
def test_infinities_are_errors(endless, on_invalid):
    _, _, errors = both(learn(training(), on_invalid=on_invalid), GOOD | {"distance": endless})
    assert [(one["column"], one["code"]) for one in errors] == [("distance", "infinite")]


def test_a_fraction_for_an_integer_is_predicted_with_a_warning():
    _, warnings, _ = both(learn(training()), GOOD | {"seats": 3.5})
    assert coded(warnings) == [("seats", "not_integer", 3.5)]


def test_an_unknown_column_is_ignored_and_named_once_for_a_frame():
    contract = learn(training())
    frame = training().assign(weather="fine")
    assert coded(contract.check_frame(frame).unknown) == [("weather", "unknown_column", None)]
    assert contract.check_frame(frame).warnings_by_row() == {}
    assert coded(contract.check_row(GOOD | {"weather": "fine"}).warnings) == [("weather", "unknown_column", None)]


def test_a_rename_is_suggested_where_one_column_is_absent_and_one_unknown():
    contract = learn(training().rename(columns={"dest": "dst_airport"}))
    _, warnings, _ = both_without_encoder(contract, GOOD)
    assert {"column": "dest", "code": "unknown_column", "value": None, "suggestion": "dst_airport"} in warnings
    two = contract.unknown_columns(["distance", "seat", "late", "destination", "departure"])
    assert {one["column"]: one["suggestion"] for one in two} == {"seat": "seats", "destination": None}


def both_without_encoder(contract, row):
    checked = contract.check_frame(pd.DataFrame([row]))
    single = contract.check_row(row)
    assert single.warnings == checked.row_warnings(0) + checked.unknown
    return single.values, single.warnings, single.errors


def test_many_unknown_columns_are_counted_rather_than_listed():
    notes = learn(training()).unknown_columns([*GOOD, *(f"extra{number}" for number in range(500))])
    assert len(notes) == 21
    assert notes[-1]["value"] == "480 more columns"


def test_one_bad_row_among_good_ones_leaves_the_good_ones_alone():
    contract = learn(training())
    first, second, third = both(contract, GOOD, GOOD | {"distance": "far", "late": "maybe"}, GOOD)
    assert first == third
    assert first[1:] == ([], [])
    assert coded(second[2]) == [("distance", "invalid_number", "far"), ("late", "invalid_boolean", "maybe")]


def test_a_row_that_is_no_mapping_is_refused_in_a_sentence():
    with pytest.raises(DataError, match="mapping of column names"):
        learn(training()).check_row([1, 2])


# fmt: off
ODD_VALUES = [
    None, math.nan, pd.NA, pd.NaT, math.inf, -math.inf, 1e308, -1e308, 0.0, -0.0, "", " 12.5 ", "1e5", "true", "False",
    "nan", "None", "null", "?", "1.0", "1", True, False, b"12", b"\xff", [], [1, 2], {}, {"a": None}, (1,), {1},
    np.int64(5), np.float32(1.5), np.float64("nan"), np.bool_(False), np.str_("ORD"), np.array([1, 2]), 1j, object,
    Decimal("1.5"), Decimal("NaN"), Decimal("sNaN"), Decimal("1e400"), 2**53 + 1, -(2**63), 10**400, 10**5000,
    datetime(2013, 1, 2, 3, 4, 5, 6), datetime(1, 1, 1), datetime(9999, 12, 31, tzinfo=timezone.utc), date(2013, 1, 2),
    pd.Timestamp("2013-01-02 03:04:05.123456789"), pd.Timestamp("1960-01-02", tz="Asia/Tokyo"), timedelta(1),
    np.datetime64("2013-01-02T03"), np.datetime64("NaT"), np.datetime64("2500-01-01", "s"), np.timedelta64(5, "s"),
    pd.Timedelta(1, "s"), "x" * 10_000, "1" * 10_000, "\ud800", "ORD", "LAX ", "é", "13.1.2013", "1/13/2013 2:05 PM",
    "2013-01-02T03:04:05.123456789Z", "0001-01-01T00:00+14:00",
]
# fmt: on
NASTY = st.one_of(
    st.sampled_from(ODD_VALUES),
    st.text(max_size=5),
    st.floats(),
    st.integers(),
    st.datetimes().map(str),
)
CONTRACT = learn(training(), marks=["?"], kinds={"seats": "integer"}, required=["late"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys([*GOOD, "extra"], NASTY)), min_size=2, max_size=4))
def test_frame_and_single_rows_agree_whatever_comes(rows):
    names = {name for row in rows for name in row}
    full = [{name: row.get(name) for name in names} for row in rows]
    both(CONTRACT, *full)


NATIVE = st.one_of(
    st.lists(st.floats(), min_size=1).map(lambda values: pd.Series(values, dtype="float64")),
    st.lists(st.floats(width=32), min_size=1).map(lambda values: pd.Series(values, dtype="float32")),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1).map(lambda values: pd.Series(values, dtype="int64")),
    st.lists(st.none() | st.integers(-9, 9), min_size=1).map(lambda values: pd.Series(values, dtype="Int64")),
    st.lists(st.none() | st.booleans(), min_size=1).map(lambda values: pd.Series(values, dtype="boolean")),
    st.lists(st.booleans(), min_size=1).map(lambda values: pd.Series(values, dtype="bool")),
    st.lists(st.none() | st.sampled_from(["ORD", "1", "x", ""]), min_size=1).map(pd.Series),
    st.lists(st.none() | st.sampled_from(["ORD", "1", "x"]), min_size=1).map(
        lambda values: pd.Series(values, dtype="category")
    ),
    st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), min_size=1).map(
        lambda values: pd.Series(pd.to_datetime(values).astype("datetime64[ns]"))
    ),
    st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), min_size=1).map(
        lambda values: pd.Series(pd.to_datetime(values).tz_localize("UTC"))
    ),
)


@settings(max_examples=150, deadline=None)
@given(NATIVE, st.sampled_from(list(GOOD)))
def test_columns_of_native_types_agree_with_their_rows(series, column):
    checked = CONTRACT.check_frame(pd.DataFrame({column: series}))
    for at, value in enumerate(series.tolist()):
        single = CONTRACT.check_row({column: value})
        assert single.warnings == checked.row_warnings(at)
        assert single.errors == checked.row_errors(at)
        found = checked.values[column][at].item()
        expected = single.values[CONTRACT.names.index(column)]
        found = (found - datetime(1970, 1, 1)) // timedelta(microseconds=1) if isinstance(found, datetime) else found
        np.testing.assert_equal(found, expected)  # missing is NaN on both sides


def test_a_number_given_for_a_category_has_one_text_however_it_comes():
    contract = learn(pd.DataFrame({"gate": [1, 2, 2, 10]}), kinds={"gate": "category"})
    assert contract.columns[0].categories == ("2", "1", "10")
    for value in (1, 1.0, "1", np.int8(1), Decimal("1.0")):
        assert contract.check_row({"gate": value}).values == (1,)
    for series in (pd.Series([1.0, None]), pd.Series([1, None], dtype="Int64"), pd.Series(["1", None])):
        assert contract.check_frame(pd.DataFrame({"gate": series})).values["gate"].tolist() == [1, -1]


def test_marks_count_as_missing_and_may_differ_by_column():
    frame = pd.DataFrame({"age": ["1", "?", "3"], "city": ["?", "Ulm", "Ulm"]})
    contract = learn(frame, marks={"age": ["?"]})
    assert [column.kind for column in contract.columns] == ["integer", "category"]
    assert contract.columns[0].missing_share == pytest.approx(1 / 3)
    assert contract.columns[1].categories == ("Ulm", "?")


def test_values_of_private_columns_are_never_shown():
    contract = learn(training(), private=["dest", "distance", "late"])
    _, warnings, errors = both(contract, GOOD | {"dest": "SECRET", "distance": 987654.0, "late": "SECRET"})
    assert [one["code"] for one in (*warnings, *errors)] == ["invalid_boolean"]
    assert not any(word in json.dumps([warnings, errors]) for word in ("SECRET", "987654"))


def test_shown_values_are_short():
    _, warnings, _ = both(learn(training()), GOOD | {"dest": "x" * 10_000})
    assert len(warnings[0]["value"]) == 100


def test_counts_of_issues_need_no_objects_for_each_row():
    frame = training().assign(distance=np.nan, dest="XXX").drop(columns="seats")
    counts = learn(training()).check_frame(frame).counts
    absent = {("seats", "absent_column"): 40}
    assert counts == {("dest", "unseen_category"): 40, ("distance", "missing"): 40} | absent


def test_a_frame_without_rows_is_checked_to_nothing():
    checked = learn(training()).check_frame(training().iloc[:0].drop(columns="dest"))
    assert (checked.size, checked.issues) == (0, ())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "integer"),
        ([1.0, None], "integer"),
        ([1.0, 2.0], "number"),
        (["1", "2"], "integer"),
        (["1.5", "", None], "number"),
        (["00501", "10001"], "category"),
        ([True, False], "boolean"),
        ([True, None], "boolean"),
        (["yes", "no", "Yes"], "boolean"),
        (["a", "1"], "category"),
        ([None, None], "category"),
        (["2013-01-05", "2013-01-06T10:00Z"], "datetime"),
        (["10/13/2014", "1/2/2014 14:05"], "datetime"),
        (["13.10.2014"], "datetime"),
        ([date(2014, 1, 1)], "datetime"),
        ([[1], [2]], "category"),
        (["1e999", "1"], "number"),
    ],
)
def test_the_kind_of_a_column_is_found_from_its_values(values, kind):
    assert infer_kind(pd.Series(values)) == kind
    if not isinstance(values[0], float):
        assert infer_kind(pd.Series(values, dtype=object)) == kind


def test_odd_marks_among_numbers_are_suggested_and_categories_are_left_alone():
    assert suggest_marks(pd.Series(["1", "2"] * 20 + ["?", "?", "-", "N/A"])) == ("?", "-")  # N/A always is
    assert suggest_marks(pd.Series(["2013-01-05"] * 20 + ["-"])) == ("-",)
    assert suggest_marks(pd.Series(["a", "b", "1"])) == ()
    assert suggest_marks(pd.Series([1.0, 2.0])) == ()


@pytest.mark.parametrize(
    ("texts", "pattern", "first", "assumed"),
    [
        (["10/11/2014", "10/13/2014"], "%m/%d/%Y", datetime(2014, 10, 11), False),
        (["10/11/2014", "13/10/2014 08:30"], "%d/%m/%Y", datetime(2014, 11, 10), False),
        (["10/11/2014", "9/8/2014"], "%m/%d/%Y", datetime(2014, 10, 11), True),
        (["10.11.2014"], "%d.%m.%Y", datetime(2014, 11, 10), True),
        (["10/11/14 1:05 PM"], "%m/%d/%y", datetime(2014, 10, 11, 13, 5), True),
        (["2014/10/11"], "%Y/%m/%d", datetime(2014, 10, 11), False),
        (["2014-10-11T01:00-05:00"], None, datetime(2014, 10, 11, 6), False),
    ],
)
def test_the_order_of_day_and_month_is_decided_by_the_data_and_kept(texts, pattern, first, assumed):
    parsed = parse_datetimes(pd.Series(texts))
    assert parsed.format == pattern
    assert parsed.values[0].item() == first
    assert not parsed.bad.any()
    assert bool(parsed.note) is assumed
    contract = learn(pd.DataFrame({"day": texts}))
    assert contract.columns[0].datetime_format == pattern
    assert Contract.from_json(contract.to_json()).check_row({"day": texts[0]}).errors == []


def test_unreadable_dates_are_marked_by_row():
    parsed = parse_datetimes(pd.Series(["2013-01-05", "soon", None, "2013-13-05"]))
    assert parsed.bad.tolist() == [False, True, False, True]
    assert np.isnat(parsed.values).tolist() == [False, True, True, True]


@pytest.mark.parametrize("odd", [None, "soon", "2013-02-30", "0000-01-01", "2013-01-01T10:00Z", 5])
def test_thousands_of_dates_are_read_as_each_of_them_is(odd):
    texts = [str(datetime(2013, 1, 1) + timedelta(minutes=37, microseconds=1) * number) for number in range(1_500)]
    contract = learn(pd.DataFrame({"day": texts}))
    checked = contract.check_frame(pd.DataFrame({"day": [*texts, odd]}))
    rows = [contract.check_row({"day": text}) for text in [*texts, odd]]
    missing = np.iinfo(np.int64).min
    stamps = [missing if row.values[0] is None else row.values[0] for row in rows]
    assert checked.values["day"].astype(np.int64).tolist() == stamps
    assert checked.row_errors(1_500) == rows[-1].errors


TWO_DIGITS = st.integers(0, 99).map("{:02}".format)


@given(st.integers(0, 9999), st.lists(TWO_DIGITS, min_size=5, max_size=5), st.sampled_from("T "))
def test_a_date_with_seconds_is_read_the_same_with_and_without_a_fraction(year, parts, between):
    month, day, hour, minute, second = parts
    text = f"{year:04}-{month}-{day}{between}{hour}:{minute}:{second}"
    contract = learn(pd.DataFrame({"day": ["2013-01-05"]}))
    assert contract.check_row({"day": text}).values == contract.check_row({"day": text + ".0"}).values


def test_column_names_that_are_no_texts_are_unknown_in_both_forms():
    contract = learn(pd.DataFrame({"5": [1, 2]}))
    assert coded(contract.check_row({5: 1}).warnings) == [("5", "absent_column", None), ("5", "unknown_column", None)]
    assert contract.check_frame(pd.DataFrame({5: [1]})).counts == {("5", "absent_column"): 1}


def test_one_mark_may_be_given_as_plain_text():
    frame = pd.DataFrame({"age": ["1", "N/A"]})
    assert learn(frame, marks="N/A") == learn(frame, marks={"age": "N/A"}) == learn(frame, marks=["N/A"])


def test_a_contract_is_the_same_after_json_and_reads_strictly():
    contract = learn(training(), required=["dest"], private=["late"], marks=["?"], on_invalid="missing")
    assert Contract.from_json(contract.to_json()) == contract
    assert contract.columns[1] == Column("distance", "number", on_invalid="missing", low=0.0, high=97.5, marks=("?",))
    saved = contract.to_dict()
    column = saved["columns"][0]
    for broken in (
        [],
        saved | {"format": 2},
        saved | {"extra": 1},
        saved | {"columns": {}},
        saved | {"columns": [column, column]},
        saved | {"columns": [column | {"kind": "text"}]},
        saved | {"columns": [column | {"low": "0"}]},
        saved | {"columns": [column | {"low": 10**400}]},
        saved | {"columns": [{name: value for name, value in column.items() if name != "low"}]},
    ):
        with pytest.raises(DataError):
            Contract.from_dict(broken)
    with pytest.raises(DataError, match="JSON"):
        Contract.from_json("{")


@pytest.mark.parametrize(
    ("frame", "options", "words"),
    [
        (pd.DataFrame({"a": []}), {}, "none"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, "more than once"),
        (pd.DataFrame([[1, 2]]), {}, "must be texts"),
        (pd.DataFrame({"a": [1]}), {"ignore": ["a"]}, "at least one feature"),
        (pd.DataFrame({"dest": [1]}), {"required": ["dst"]}, "Did you mean 'dest'"),
        (pd.DataFrame({"a": [1]}), {"kinds": {"a": "text"}}, "must be one of number, integer"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_in_a_sentence(frame, options, words):
    with pytest.raises(DataError, match=words):
        learn(frame, **options)


def test_a_frame_with_a_column_twice_is_refused_when_checked():
    with pytest.raises(SchemaError, match="dest came more than once"):
        learn(training()).check_frame(pd.concat([training(), training()[["dest"]]], axis=1))


def test_differences_name_every_column_that_does_not_fit():
    contract = learn(training())
    other = training().drop(columns="late").rename(columns={"dest": "dst"}).assign(distance="far")
    assert contract.differences(other) == [
        "dest: absent; category is expected.",
        "distance: number is expected; 40 of 40 rows have invalid_number (first in row 0: 'far').",
        "late: absent; boolean is expected.",
        "dst: not in the contract; was dest meant?",
    ]
    assert contract.differences(training()) == []
    assert contract.differences(learn(other))[1] == "distance: number is expected, category came."
    assert contract.differences(contract) == []


def test_only_the_most_frequent_categories_are_kept_ties_by_text():
    frame = pd.DataFrame({"id": [f"{number:05}x" for number in range(10_050)] + ["zz"] * 3})
    (column,) = learn(frame).columns
    assert len(column.categories) == 10_000
    assert column.categories[:2] == ("zz", "00000x")
