import codecs
import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.data.column_names import clean_names
from afterfit.data.files import check_writable
from afterfit.data.loading import read, stream
from afterfit.errors import DataError, SourceError
from afterfit.settings import Source

TABLE = (
    "id,zip,when,amount,sold,note\n1,01234,2024-01-01,1.5,true,\n2,10115,2024-01-02,,false,NA\n3,,2024-01-03,N/A,,ok\n"
)


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Source(path=name)


def table(rows=1000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"a": rng.integers(0, 9, rows), "b": rng.normal(size=rows), "c": rng.choice(["x", "yö"], rows)})


def test_a_csv_is_read_with_the_types_that_all_its_values_have(tmp_path):
    frame = read(write(tmp_path, "t.csv", TABLE), tmp_path)
    assert frame["id"].tolist() == [1, 2, 3]
    assert frame["zip"].iloc[:2].tolist() == ["01234", "10115"]
    assert frame["zip"].isna().tolist() == [False, False, True]
    assert frame["amount"].dtype == np.float64
    assert frame["amount"].isna().tolist() == [False, True, True]
    assert frame["sold"].dtype == "boolean"
    assert frame["note"].tolist()[1:] == ["NA", "ok"]


def test_every_part_of_a_csv_has_the_types_of_the_whole(tmp_path):
    source = write(tmp_path, "t.csv", "code\n" + "1\n" * 500_000 + "A1\n")
    parts = list(stream(source, tmp_path, rows=100_000))
    assert sum(len(part) for part in parts) == 500_001
    assert max(len(part) for part in parts) == 100_000
    assert {str(part["code"].dtype) for part in parts} == {str(parts[-1]["code"].dtype)}
    assert parts[0]["code"].iloc[0] == "1"


def test_whole_numbers_that_a_float_would_change_stay_text(tmp_path):
    frame = read(write(tmp_path, "t.csv", "id,n\n12345678901234567890,1\n,2\n"), tmp_path)
    assert frame["id"].iloc[0] == "12345678901234567890"


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_the_delimiter_is_read_from_the_header(tmp_path, delimiter):
    frame = read(write(tmp_path, "t.csv", f'a{delimiter}"b,;x"\n1{delimiter}"y{delimiter}z"\n'), tmp_path)
    assert frame.columns.tolist() == ["a", "b,;x"]
    assert frame["b,;x"].iloc[0] == f"y{delimiter}z"


def test_a_byte_order_mark_spaces_around_names_and_a_nameless_index_are_understood(tmp_path):
    frame = read(write(tmp_path, "t.csv", codecs.BOM_UTF8 + b",  a \n0,1\n"), tmp_path)
    assert frame.columns.tolist() == ["Unnamed: 0", "a"]


def test_compressed_csv_and_parquet_hold_the_same_table_as_csv(tmp_path):
    expected = table()
    text = expected.to_csv(index=False).encode()
    gz = write(tmp_path, "t.csv.gz", gzip.compress(text[:4000]) + gzip.compress(text[4000:]))
    expected.to_parquet(tmp_path / "t.parquet")
    for source in (write(tmp_path, "t.csv", text), gz, Source(path="t.parquet")):
        pd.testing.assert_frame_equal(read(source, tmp_path), expected, check_dtype=False)


def test_values_with_line_breaks_and_quotes_come_through(tmp_path):
    expected = pd.DataFrame({"a": ['two\nlines, "quoted"', "plain"], "b": [1, 2]})
    frame = read(write(tmp_path, "t.csv", expected.to_csv(index=False)), tmp_path)
    assert frame["a"].tolist() == expected["a"].tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False)), min_size=1)
)
def test_numbers_written_as_csv_are_read_unchanged(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("numbers")
    source = write(folder, "t.csv", "n,o\n" + "".join(f"{number!r},0\n" for number in numbers))
    assert read(source, folder)["n"].astype(float).tolist() == [float(number) for number in numbers]


def test_a_folder_is_all_its_files_in_order_of_name_whatever_the_order_of_their_columns(tmp_path):
    write(tmp_path, "d/2.csv", "b,a\n4,3\n")
    write(tmp_path, "d/1.csv", "a,b\n1,2\n")
    write(tmp_path, "d/more/3.csv", "a,b\n5,6\n")
    write(tmp_path, "d/_SUCCESS", "")
    write(tmp_path, "d/.hidden.csv", "nothing")
    assert read(Source(path="d"), tmp_path).to_dict("list") == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_columns_come_in_the_order_asked_for(tmp_path):
    table().to_parquet(tmp_path / "t.parquet")
    assert read(Source(path="t.parquet"), tmp_path, columns=["c", "a"]).columns.tolist() == ["c", "a"]


def peak_while_streaming(folder, name, rows):
    if name == "t.csv":
        table(rows).to_csv(folder / name, index=False)
    else:
        table(rows).to_parquet(folder / name, row_group_size=20_000)
    peak = count = 0
    for part in stream(Source(path=name), folder, rows=10_000):
        assert len(part) <= 10_000
        count += len(part)
        peak = max(peak, pa.total_allocated_bytes())
    assert count == rows
    return peak


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_streaming_takes_memory_for_a_part_not_for_the_whole(tmp_path, name):
    before = pa.total_allocated_bytes()
    short, long = (peak_while_streaming(tmp_path, name, rows) - before for rows in (150_000, 600_000))
    assert long < 1.3 * short


BAD = {
    "absent": (None, SourceError, "There is no file or folder .*t.csv"),
    "empty": ("", DataError, "the file is empty"),
    "blank": ("\n\n", DataError, "the file is empty"),
    "header only": ("a,b\n", DataError, "there is a header .'a', 'b'. and no row below it"),
    "duplicates": ("a,b,a\n1,2,3\n", DataError, "more than one column is named 'a'"),
    "duplicates by spaces": ("a,b, a\n1,2,3\n", DataError, "more than one column is named 'a'"),
    "ragged": ("a,b\n1,2\n3,4,5\n", SourceError, "Row #3: Expected 2 columns, got 3"),
    "latin-1": ("a,b\n1,2\n3,ä\n".encode("latin-1"), SourceError, r"not UTF-8 in line 3 \(byte 0xe4\)"),
    "latin-1 header": ("ä,b\n1,2\n".encode("latin-1"), SourceError, r"not UTF-8 in line 1"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), SourceError, "not UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_csv_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, name):
    content, kind, message = BAD[name]
    source = Source(path="t.csv") if content is None else write(tmp_path, "t.csv", content)
    with pytest.raises(kind, match=message):
        read(source, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv.gz", b"no gzip", "cannot be read"),
        ("t.csv.gz", gzip.compress(TABLE.encode() * 3, mtime=0)[:-20], "cannot be read"),
        ("t.parquet", b"PAR1 and then nothing", "cannot be read as Parquet"),
        ("t.parquet", b"", "the file is empty"),
        ("t.xlsx", b"x", "its name must end in '.csv'"),
    ],
)
def test_a_broken_file_is_refused_with_its_name(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, name, content), tmp_path)
    assert name in str(caught.value)


def test_a_missing_file_suggests_the_nearest_name(tmp_path):
    write(tmp_path, "sales.csv", "a\n1\n")
    with pytest.raises(SourceError, match=r"did you mean 'sales.csv'"):
        read(Source(path="sale.csv"), tmp_path)


def test_a_folder_without_tables_and_one_with_different_tables_are_refused(tmp_path):
    write(tmp_path, "none/readme.md", "x")
    with pytest.raises(SourceError, match=r"no file that ends in '.csv'"):
        read(Source(path="none"), tmp_path)
    write(tmp_path, "mixed/1.csv", "a,b\n1,2\n")
    write(tmp_path, "mixed/2.csv", "a,c\n1,2\n")
    with pytest.raises(DataError, match=r"2.csv: its columns are not those of .*1.csv: it lacks 'b' and has 'c' more"):
        read(Source(path="mixed"), tmp_path)


def test_an_absent_column_suggests_the_nearest_names(tmp_path):
    with pytest.raises(DataError, match="no column 'Amout'; did you mean 'amount'"):
        read(write(tmp_path, "t.csv", TABLE), tmp_path, columns=["id", "Amout"])


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path):
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="more than one column is named 'a'"):
        read(Source(path="t.parquet"), tmp_path)


def test_decimals_dates_and_booleans_of_parquet_become_what_a_model_can_use(tmp_path):
    from datetime import date
    from decimal import Decimal

    frame = pd.DataFrame({"d": [Decimal("1.50"), None], "t": [date(2024, 1, 1), None], "b": [True, None]})
    frame.to_parquet(tmp_path / "t.parquet")
    found = read(Source(path="t.parquet"), tmp_path)
    assert found["d"].dtype == np.float64
    assert found["t"].dtype.kind == "M"
    assert found["b"].dtype == "boolean"


@given(st.lists(st.text(max_size=5), min_size=1, max_size=6))
def test_clean_names_are_unique_or_an_error(names):
    try:
        clean = clean_names(names, "t")
    except DataError:
        return
    assert len(set(clean)) == len(names)
    assert all(name == name.strip() != "" for name in clean)


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    assert check_writable(tmp_path / "kept.txt").read_text() == "kept"
    check_writable(tmp_path / "new" / "file.parquet")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("place", ["", "file/below.parquet"])
def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match=r"cannot be written here|is a folder"):
        check_writable(tmp_path / place)


def test_a_folder_without_permission_is_refused(tmp_path):
    place = Path("/proc/afterfit") if os.geteuid() == 0 else tmp_path / "closed"
    if place.parent == tmp_path:
        place.mkdir(mode=0o500)
    with pytest.raises(SourceError, match="cannot be written here"):
        check_writable(place / "out.parquet")
