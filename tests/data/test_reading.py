"""Tables are read by the contract, never by what one file happens to hold."""

import sqlite3
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afterfit import data
from afterfit.contract.columns import Column
from afterfit.contract.contract import Contract, learn
from afterfit.data.reading import TableReading
from afterfit.data.windows import WindowLength, WindowSplitter
from afterfit.errors import DataError
from afterfit.settings import Source
from afterfit.use_case import UseCase
from made import bench_module

VERSIONS = pd.DataFrame(
    {
        "release": ["1.1", "1.10", "2.0-beta", "1.1", "1.10", "1.1"],
        "country": ["DE", "NA", "FR", "NA", "DE", "FR"],
        "flag": ["true", "false", "maybe", "true", "false", "maybe"],
        "fee": ["1", "n/a", "3.5", "NULL", "2", "7"],
        "paid": ["1", "0", "1", "0", "0", "1"],
    }
)
KINDS = {"release": "category", "country": "category", "flag": "category", "fee": "number"}


def case(**changes):
    given = {"name": "made", "task": "classification", "target": "paid", "source": {"path": "t.csv"}}
    columns = {"kinds": KINDS, **changes.pop("columns", {})}
    return UseCase.model_validate({**given, "columns": columns, **changes})


def codes_of(contract, frame):
    return {name: values.tolist() for name, values in contract.check_frame(frame).values.items()}


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize(
    "rows", [[0, 1, 3, 4, 5], [0, 1], [1, 3], [0, 3, 1, 4]], ids=["all", "versions", "country", "flag"]
)
def test_rows_of_a_file_have_the_values_that_they_have_in_the_whole_table(tmp_path, ending, rows):
    contract = learn(VERSIONS[list(KINDS)], kinds=KINDS)
    part = VERSIONS.iloc[rows].reset_index(drop=True)
    (part.to_parquet if ending == "parquet" else lambda place: part.to_csv(place, index=False))(
        tmp_path / f"t.{ending}"
    )
    frame = data.read(Source(path=f"t.{ending}"), tmp_path, reading=data.reading_of(case(), [contract]))
    whole = codes_of(contract, VERSIONS)
    for name, values in codes_of(contract, frame).items():
        assert values == pytest.approx([whole[name][row] for row in rows], nan_ok=True)
    assert not contract.check_frame(frame).bad.any()


def test_made_tables_are_read_the_same_in_all_parts_and_formats(tmp_path):
    reading = bench_module("quality.reading")
    for seed in range(6):
        (tmp_path / str(seed)).mkdir()
        said, rows, parts = reading.trial(seed, tmp_path / str(seed))
        assert said == []
        assert rows >= 20
        assert parts >= 3


def test_a_version_that_reads_a_column_in_its_own_way_is_given_what_came():
    versions = Contract((Column("release", "category", categories=("1.1", "1.10")),))
    numbers = case(columns={"kinds": {"release": "number"}})
    frame = pd.DataFrame({"release": ["1.10", "1.1"]}, dtype="str")
    assert data.reading_of(numbers, [versions]).typed(frame)["release"].tolist() == ["1.10", "1.1"]
    assert data.reading_of(numbers).typed(frame)["release"].tolist() == [1.1, 1.1]


def test_a_native_value_is_the_category_that_it_stands_for():
    column = Column("c", "category", categories=("4.0", "true", "2024-01-02", "3", "1.5", "1.50"))
    values = [4, True, np.True_, datetime(2024, 1, 2), 3.0, "3", 1.5, "1.5", "1", None, b"true"]  # noqa: DTZ001
    contract = Contract((column,))
    known, unseen = len(column.categories), []
    expected = [0, 1, 1, 2, 3, 3, 4, 4, known, -1, 1]
    for value, code in zip(values, expected, strict=True):
        row = contract.check_row({"c": value}).values[0]
        alone = contract.check_frame(pd.DataFrame({"c": [value]}, dtype=object)).values["c"][0]
        unseen += [value] if row != code or alone != code else []
    assert unseen == []


def test_a_private_columns_native_values_are_the_categories_that_they_stand_for(tmp_path):
    pq.write_table(pa.table({"c": pa.array([True, False, None])}), tmp_path / "t.parquet")
    contract = learn(
        pd.DataFrame({"c": ["true", "false", "maybe"]}), kinds={"c": "category"}, private=["c"], mask="open:made"
    )
    frame = data.read(Source(path="t.parquet"), tmp_path, reading=data.reading_of(case(), [contract]))
    expected = [contract.check_row({"c": value}).values[0] for value in ("true", "false", None)]
    assert contract.check_frame(frame).values["c"].tolist() == expected


def test_whole_numbers_that_a_float_column_wrote_are_whole_numbers():
    contract = learn(pd.DataFrame({"store": ["100.0", "101.0", None]}, dtype="str"), kinds={"store": "category"})
    assert contract.columns[0].categories == ("100", "101")
    for value in ("100", "100.0", 100, 100.0):
        assert contract.check_row({"store": value}).values == (0,)


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "datetime"])
@pytest.mark.parametrize("word", ["NA", "n/a", "NULL", "None", "nan", "<NA>", "NaT", "#N/A", " null "])
def test_missing_words_are_missing_at_every_door(kind, word):
    column = Column("x", kind)
    row = Contract((column,)).check_row({"x": word})
    assert row.errors == []
    assert [note["code"] for note in row.warnings] == ["missing"]
    for dtype in ("str", object):
        checked = Contract((column,)).check_frame(pd.DataFrame({"x": [word, word]}, dtype=dtype))
        assert checked.counts == {("x", "missing"): 2}


def test_a_hexadecimal_number_is_no_number_in_training_either(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n0x1f,1\n0x20,2\n")
    frame = data.read(Source(path="t.csv"), tmp_path)
    assert frame["x"].tolist() == ["0x1f", "0x20"]
    assert learn(frame).columns[0].kind == "category"


# Dates.


def day_first(days):
    return [(datetime(2025, 1, 1) + timedelta(days=day)).strftime("%d/%m/%Y") for day in days]  # noqa: DTZ001


def test_the_order_of_day_and_month_is_kept_from_the_training_table(tmp_path):
    known = case(time="when")
    pd.DataFrame({"when": day_first(range(365)), "fee": 1, "paid": [0, 1] * 182 + [0]}).to_csv(tmp_path / "t.csv")
    window = data.load(known.model_copy(update={"root": tmp_path}))
    assert window.formats == {"when": "%d/%m/%Y"}
    later = data.with_formats(known, window.formats)
    frame = pd.DataFrame({"when": day_first(range(12)), "fee": 1, "paid": [0, 1] * 6})
    with pytest.raises(DataError, match=r"no value tells day from month.*%m/%d/%Y.*%d/%m/%Y"):
        data.window(known, frame, "t")
    assert (data.window(later, frame, "t").frame["when"].dt.month == 1).all()
    splitter = WindowSplitter(WindowLength(1, "mo"), "when").written_as(data.format_of(later, "when"))
    parts, _ = splitter.cut(frame)
    assert [len(rows) for rows in parts.values()] == [12]


@pytest.mark.parametrize("kinds", [{}, {"joined": "datetime"}], ids=["inferred", "declared"])
def test_a_feature_of_dates_keeps_its_order_in_the_contract(tmp_path, kinds):
    rows = pd.DataFrame({"joined": day_first(range(365)), "paid": [0, 1] * 182 + [0]})
    rows.to_csv(tmp_path / "t.csv", index=False)
    known = case(columns={"kinds": kinds}).model_copy(update={"root": tmp_path})
    contract = learn(data.load(known).frame[["joined"]], kinds=kinds)
    later = pd.DataFrame({"joined": day_first(range(12))})
    by_version = data.reading_of(data.inherit(known, contract, {}), [contract])
    assert (by_version.typed(later)["joined"].dt.month == 1).all()
    assert not contract.check_frame(later).bad.any()
    assert contract.check_row({"joined": "05/01/2025"}).errors == []


def test_a_date_that_contradicts_the_known_order_is_an_error_that_names_row_and_value():
    later = data.with_formats(case(time="when"), {"when": "%d/%m/%Y"})
    frame = pd.DataFrame({"when": ["01/02/2025", "01/13/2025"], "fee": 1, "paid": [0, 1]})
    with pytest.raises(DataError, match=r"written as %d/%m/%Y: row 2: '01/13/2025'"):
        data.window(later, frame, "t")
    with pytest.raises(DataError, match=r"written as %d/%m/%Y; 1 values are none, the first is '01/13/2025' in row 2"):
        WindowSplitter(time="when").written_as("%d/%m/%Y").cut(frame)


# Parquet.


def test_durations_and_times_of_day_are_seconds_and_bytes_are_text(tmp_path):
    table = pa.table(
        {
            "wait": pa.array([timedelta(minutes=2), None], pa.duration("ms")),
            "at": pa.array([3_600_000_000_000, 1], pa.time64("ns")),
            "from": pa.array([60_000, None], pa.time32("ms")),
            "name": pa.array([b"caf\xc3\xa9", None], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    frame = data.read(Source(path="t.parquet"), tmp_path)
    assert frame["wait"].tolist() == [120.0, pytest.approx(np.nan, nan_ok=True)]
    assert frame["at"].tolist() == [3600.0, 1e-9]
    assert frame["from"].tolist() == [60.0, pytest.approx(np.nan, nan_ok=True)]
    assert frame["name"].iloc[0] == "café"
    assert [column.kind for column in learn(frame).columns] == ["integer", "number", "integer", "category"]


def test_a_column_of_bytes_that_are_no_text_is_refused_by_name(tmp_path):
    pq.write_table(pa.table({"x": [1], "picture": pa.array([b"\x89PNG\xff"])}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet: the column 'picture' holds bytes that are no UTF-8 text"):
        data.read(Source(path="t.parquet"), tmp_path)


def test_large_whole_numbers_with_gaps_keep_their_digits_in_every_format(tmp_path):
    number = 2**53 + 1
    pq.write_table(pa.table({"x": pa.array([number, None], pa.int64())}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text(f"x,y\n{number},1\n,2\n")
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("create table t (x integer)")
        connection.executemany("insert into t values (?)", [(number,), (None,)])
    connection.close()
    reading = TableReading({"x": Column("x", "category")})
    sources = [
        Source(path="t.parquet"),
        Source(path="t.csv"),
        Source(sql=f"sqlite:///{tmp_path}/t.db", query="select x from t"),
    ]
    for source in sources:
        frame = data.read(source, tmp_path, reading=reading)
        assert str(frame["x"].iloc[0]) == str(number)
        assert pd.isna(frame["x"].iloc[1])


# What is typed.


def test_reading_twice_changes_nothing():
    reading = TableReading({name: Column(name, kind) for name, kind in KINDS.items()})
    once = reading.typed(VERSIONS)
    pd.testing.assert_frame_equal(reading.typed(once), once)
    assert once["fee"].tolist() == pytest.approx([1.0, np.nan, 3.5, np.nan, 2.0, 7.0], nan_ok=True)


def test_what_cannot_be_read_stays_as_it_came_beside_what_can():
    columns = {"n": Column("n", "number"), "b": Column("b", "boolean"), "t": Column("t", "datetime")}
    frame = pd.DataFrame({"n": ["1", "x", "NA"], "b": ["yes", "2", ""], "t": ["2024-01-02", "soon", None]}, dtype="str")
    typed = TableReading(columns).typed(frame)
    assert typed["n"].tolist() == [1.0, "x", None]
    assert typed["b"].tolist() == [1.0, "2", None]
    assert typed["t"].tolist() == [datetime(2024, 1, 2), "soon", None]  # noqa: DTZ001
