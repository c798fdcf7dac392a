import dataclasses
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from afterfit import data
from afterfit.data.fingerprints import fingerprint
from afterfit.data.flights import COLUMNS, flights
from afterfit.data.loading import (
    describe,
    load,
    read,
    split,
    stream,
)
from afterfit.data.targets import classes, encode_target, missing_target
from afterfit.errors import DataError, SettingsError
from afterfit.use_case import Source, load_use_case

TABLE = pd.DataFrame(
    {
        "when": ["2024-03-02", "2024-03-01 10:00", "2024-03-01", "2024-03-04", "2024-03-04", "2024-03-06"],
        "x": [1, 2, 3, 4, 5, 6],
        "y": ["no", "yes", "no", "yes", "no", "yes"],
    }
)


@pytest.fixture
def use_case(tmp_path):
    def make(table=TABLE, *, name="table.csv", **settings):
        if name.endswith(".csv"):
            table.to_csv(tmp_path / name, index=False)
        else:
            table.to_parquet(tmp_path / name)
        content = {"name": "trial", "task": "classification", "target": "y", "time": "when", "source": {"path": name}}
        text = yaml.safe_dump({**content, **settings})
        (tmp_path / "trial.yaml").write_text(text)
        return load_use_case(tmp_path / "trial.yaml")

    return make


@pytest.fixture(scope="module")
def table_of_flights():
    return flights()


@pytest.fixture(scope="module")
def flown():
    return load(load_use_case("flights-late"))


def test_the_flights_are_336776_with_an_identifier_of_their_own_and_the_weather_of_the_hour(table_of_flights):
    frame = table_of_flights
    assert (len(frame), tuple(frame.columns)) == (336_776, COLUMNS)
    assert frame["flight_id"].is_unique
    first = frame.iloc[0]
    assert first["flight_id"] == "2013-01-01 UA1545 EWR 0515"
    assert first["scheduled_departure"] == pd.Timestamp("2013-01-01 05:15")
    assert first["scheduled_arrival"] == 8 * 60 + 19
    assert first["temp"] == 39.02
    assert frame["temp"].isna().sum() == 1573
    assert frame["late"].isna().equals(frame["arr_delay"].isna())


def test_flights_without_an_arrival_are_left_out_and_counted(flown):
    assert flown.dropped == {"target is missing": 9_430}
    assert len(flown.frame) == flown.fingerprint.rows == 336_776 - 9_430
    assert flown.frame["scheduled_departure"].is_monotonic_increasing
    assert flown.name == "builtin flights"
    assert "arr_delay" not in flown.frame


def test_the_fingerprint_of_the_flights_is_the_same_in_every_release_of_pandas(flown):
    assert flown.fingerprint.sha256 == "18efd110c2f1389c10f87e1ca9656ed76bd8f6fff3527efe04d025dda8ff2fe8"


def test_the_flights_train_on_three_months_and_are_held_out_in_april(flown):
    use_case = load_use_case("flights-late")
    train, holdout = split(use_case, flown.frame)
    months = flown.frame["scheduled_departure"].dt.month
    assert set(months.iloc[train]) == {1, 2, 3}
    assert set(months.iloc[holdout]) == {4}
    assert classes(use_case, flown.frame["late"]) == (False, True)


def test_the_builtin_table_streams_in_parts(table_of_flights, monkeypatch):
    monkeypatch.setitem(data.BUILTIN, "flights", lambda: table_of_flights)
    parts = list(stream(Source(builtin="flights"), Path(), columns=["dest", "late"], rows=100_000))
    assert [len(part) for part in parts] == [100_000] * 3 + [36_776]
    assert parts[3].columns.tolist() == ["dest", "late"]


def test_an_unknown_builtin_table_names_the_known_ones():
    with pytest.raises(SettingsError, match="no built-in table 'fligths'; there are flights"):
        read(Source(builtin="fligths"), Path())


def test_rows_come_in_the_order_of_their_time_and_rows_of_one_time_keep_theirs(use_case):
    window = load(use_case())
    assert window.frame["x"].tolist() == [3, 2, 1, 4, 5, 6]
    assert window.frame["when"].dtype.kind == "M"
    assert (window.fingerprint.start, window.fingerprint.end) == ("2024-03-01T00:00:00", "2024-03-06T00:00:00")


def test_a_window_has_its_start_and_not_its_end(use_case):
    window = load(use_case(), start=datetime(2024, 3, 1, 10), end=datetime(2024, 3, 4))  # noqa: DTZ001
    assert window.frame["x"].tolist() == [2, 1]
    with pytest.raises(DataError, match=r"start \(2024-03-04 00:00:00\) must be before end \(2024-03-01"):
        load(use_case(), start=datetime(2024, 3, 4), end=datetime(2024, 3, 1))  # noqa: DTZ001
    with pytest.raises(DataError, match=r"no row is from 2025-01-01 .* goes from 2024-03-01 00:00:00 to 2024-03-06"):
        load(use_case(), start=datetime(2025, 1, 1))  # noqa: DTZ001
    with pytest.raises(SettingsError, match="needs a time column"):
        load(use_case(time=None), start=datetime(2025, 1, 1))  # noqa: DTZ001


def test_times_with_a_zone_become_utc(use_case):
    table = TABLE.assign(when=pd.to_datetime(TABLE["when"], format="ISO8601").dt.tz_localize("America/New_York"))
    for name in ("t.parquet", "t.csv"):
        assert load(use_case(table, name=name)).frame["when"].iloc[0] == pd.Timestamp("2024-03-01 05:00")


def test_rows_without_target_or_time_are_left_out_and_counted(use_case):
    table = TABLE.assign(y=["no", "?", None, " ", "yes", "no"], when=[*TABLE["when"][:5], None])
    window = load(use_case(table, columns={"missing_marks": ["?"]}))
    assert window.dropped == {"target is missing": 3, "time is missing": 1}
    assert window.frame["x"].tolist() == [1, 5]


def test_a_time_that_does_not_parse_is_named_with_its_row(use_case):
    table = TABLE.assign(when=["2024-03-01", "soon", "2024-13-01", *TABLE["when"][3:]])
    with pytest.raises(
        DataError, match=r"'when' has values that are no dates or times: row 2: 'soon', row 3: '2024-13-01'$"
    ):
        load(use_case(table))
    many = pd.concat([TABLE.assign(when="soon")] * 4)
    with pytest.raises(DataError, match="row 5: 'soon' and 19 more"):
        load(use_case(many))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "Y"}, "no column 'Y'; did you mean 'y'"),
        ({"time": "wen"}, "no column 'wen'; did you mean 'when'"),
        ({"columns": {"features": ["x", "z"]}}, "no column 'z'"),
    ],
)
def test_an_absent_column_suggests_the_nearest(use_case, change, message):
    with pytest.raises(DataError, match=message):
        load(use_case(**change))


def test_a_target_or_a_time_that_is_missing_everywhere_is_refused(use_case):
    with pytest.raises(DataError, match="the target 'y' is missing in all 6 rows"):
        load(use_case(TABLE.assign(y="?"), columns={"missing_marks": ["?"]}))
    with pytest.raises(DataError, match="'when' is missing in all 6 rows"):
        load(use_case(TABLE.assign(when=None)))


def test_a_constant_target_cannot_train(use_case):
    constant = use_case(TABLE.assign(y="no"))
    with pytest.raises(DataError, match="is 'no' in all 5 training rows: there is nothing to learn"):
        split(constant, load(constant).frame)
    with pytest.raises(DataError, match="always 'no': a classification needs two classes"):
        classes(constant, load(constant).frame["y"])


def test_csv_and_parquet_of_one_table_have_one_fingerprint_in_any_order_of_columns(use_case):
    first = load(use_case(name="t.csv")).fingerprint
    again = load(use_case(TABLE[["y", "x", "when"]], name="t.parquet")).fingerprint
    assert first.sha256 == again.sha256
    assert first == dataclasses.replace(again, columns=first.columns)


@given(st.integers(0, 5), st.sampled_from(["x", "y"]))
def test_any_changed_value_or_order_changes_the_fingerprint(row, column):
    changed = TABLE.copy()
    changed.loc[row, column] = {"x": 77, "y": "maybe"}[column]
    flights = load_use_case("flights-late").model_copy(update={"time": None})
    tables = (TABLE, changed, TABLE.iloc[::-1], TABLE.rename(columns={"x": "z"}))
    digests = {fingerprint(flights, frame).sha256 for frame in tables}
    assert len(digests) == 4


def test_no_password_reaches_the_name_of_a_window():
    source = Source(sql="postgresql://me:hunter2@db/sales", query="select 1")
    assert describe(source) == "postgresql://me:***@db/sales: select 1"


def test_the_share_is_cut_between_two_times(use_case):
    shared = use_case(split={"share": 0.4})
    frame = load(shared).frame
    train, holdout = split(shared, frame)
    assert frame["when"].iloc[train].max() < frame["when"].iloc[holdout].min()
    assert len(holdout) in {1, 3}


@pytest.mark.parametrize(
    ("windows", "train", "holdout"),
    [
        ({"train": {"end": "2024-03-04"}}, [3, 2, 1], [4, 5, 6]),
        ({"holdout": {"start": "2024-03-05"}}, [3, 2, 1, 4, 5], [6]),
        ({"train": {"start": "2024-03-01", "end": "2024-03-02"}, "holdout": {"start": "2024-03-06"}}, [3, 2], [6]),
    ],
)
def test_windows_say_what_trains_and_what_is_held_out(use_case, windows, train, holdout):
    windowed = use_case(split=windows)
    frame = load(windowed).frame
    sides = split(windowed, frame)
    assert [frame["x"].iloc[side].tolist() for side in sides] == [train, holdout]


def test_windows_that_overlap_or_hold_nothing_are_refused(use_case):
    overlapping = use_case(split={"train": {"end": "2024-03-05"}, "holdout": {"start": "2024-03-02"}})
    with pytest.raises(SettingsError, match="overlap: rows that train cannot judge"):
        split(overlapping, load(overlapping).frame)
    empty = use_case(split={"train": {"end": "2024-03-05"}, "holdout": {"start": "2025-01-01"}})
    with pytest.raises(DataError, match=r"no rows to hold out of 6 .when goes from 2024-03-01"):
        split(empty, load(empty).frame)


def test_without_a_time_a_row_stays_on_its_side_whatever_is_added(use_case):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": np.arange(2000), "x": rng.normal(size=2000), "y": rng.choice(["no", "yes"], 2000)})
    timeless = use_case(table, time=None, key=["id"])
    held = set(table["id"].iloc[split(timeless, table)[1]])
    assert 330 < len(held) < 470
    more = pd.concat([table.assign(id=table["id"] + 2000), table.assign(x=0.0)], ignore_index=True)
    assert set(more["id"].iloc[split(timeless, more)[1]]) & set(table["id"]) == held


@pytest.mark.parametrize(
    ("values", "positive", "expected"),
    [
        ([True, False, True], None, (False, True)),
        ([1.0, 0.0, np.nan], None, (0, 1)),
        ([1, 0, 1], True, (0, 1)),
        (["1.1", "1.10"], None, ("1.1", "1.10")),
        (["01", "02"], None, ("01", "02")),
        (["yes", "no"], "no", ("yes", "no")),
        (["c", "a", "b"], None, ("a", "b", "c")),
        ([10, 9, 2], None, (2, 9, 10)),
        ([1.5, 0.5], None, (0.5, 1.5)),
        (pd.Categorical(["u", "v", "u"]), None, ("u", "v")),
        (pd.array([True, None, False], dtype="boolean"), True, (False, True)),
    ],
)
def test_classes_are_plain_values_with_the_positive_one_last(use_case, values, positive, expected):
    case = use_case(positive=positive)
    target = pd.Series(values)
    found = classes(case, target)
    assert found == expected
    assert [type(label) for label in found] == [type(label) for label in expected]
    known = target[~missing_target(case, target)]
    back = [expected[code] for code in encode_target(case, known, found)]
    assert back == known.tolist()


@pytest.mark.parametrize(
    ("values", "same"),
    [
        (["True", "False", "True"], [True, False, True]),
        (["true", "false", "TRUE"], [True, False, True]),
        (["1", "0", "1.0"], [1, 0, 1]),
        ([b"no", b"yes", b"no"], ["no", "yes", "no"]),
        (pd.array([1, 0, None], dtype="Int64"), [1, 0]),
    ],
)
def test_labels_have_one_reading_in_whatever_type_they_come(use_case, values, same):
    target, plain = pd.Series(values).dropna(), pd.Series(same)
    found = classes(use_case(), target)
    assert found == classes(use_case(), plain)
    assert [type(label) for label in found] == [type(label) for label in classes(use_case(), plain)]
    for brought in (target, plain, plain.astype(str)):
        assert encode_target(use_case(), brought, found).tolist() == [found.index(value) for value in same]


def test_a_positive_class_that_is_not_there_or_is_one_of_three_is_refused(use_case):
    with pytest.raises(SettingsError, match=r"positive: 'maybe' is no class of the target 'y' \('no', 'yes'\)"):
        classes(use_case(positive="maybe"), TABLE["y"])
    with pytest.raises(SettingsError, match="positive is for two classes; the target 'y' has 3"):
        classes(use_case(positive="yes"), pd.Series(["yes", "no", "maybe"]))
    with pytest.raises(DataError, match=r"300 different values.*is it a regression"):
        classes(use_case(), pd.Series(range(300)))


def test_a_label_that_was_not_there_in_training_is_named_with_its_row(use_case):
    with pytest.raises(DataError, match="'y' is none of 'no', 'yes': row 2: 'maybe'"):
        encode_target(use_case(), pd.Series(["yes", "maybe"]), ("no", "yes"))


def test_numbers_written_as_text_are_a_regression_target_and_words_are_not(use_case):
    case = use_case(task="regression")
    assert encode_target(case, pd.Series(["1.5", "2"])).tolist() == [1.5, 2.0]
    with pytest.raises(DataError, match="must be a number: row 2: 'two', row 3: 'inf'"):
        encode_target(case, pd.Series(["1.5", "two", "inf"]))
