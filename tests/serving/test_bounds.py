"""What a body may unfold to: a small one that would hurt is refused with a sentence, and a large usual one is not."""

import asyncio
import gzip
import io
import json

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit import prediction_log
from afterfit.prediction_log.privacy import LogRedaction
from afterfit.serving.bounds import check_depth
from afterfit.serving.http_errors import HttpError
from afterfit.serving.parquet_body import parquet_rows
from afterfit.serving.parquet_pages import PageError, footer, pages
from afterfit.settings import Serving
from serving_client import JSON, asked, client, logged, made_doors, made_service, reopened

ROW = {"when": "2024-01-03T05:00:00", "distance": 500.0, "seats": 120, "carrier": "AA", "secret": "x7"}
CSV, PARQUET = {"Content-Type": "text/csv"}, {"Content-Type": "application/vnd.apache.parquet"}
LIMIT = 1_000_000


@pytest.fixture
def service(bundle, tmp_path):
    return made_service(bundle, tmp_path / "log", unfolded_bytes=LIMIT)


@pytest.fixture
def doors(service, tmp_path):
    return made_doors(service, tmp_path)


def written(table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def outcome_of(body):
    """The status that a Parquet body gets."""
    try:
        parquet_rows(body, Serving(unfolded_bytes=LIMIT))
    except HttpError as error:
        return error.status
    return 200


def once(text, rows):
    """A column in which a text stands once, for all rows."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text])


# --- names and values of many rows ---------------------------------------------------------------------------------

NAME = "x" * 3_000
FORMS = {
    "dataframe_split": (json.dumps({"dataframe_split": {"columns": [NAME], "data": [[1]] * 900}}), JSON),
    "inputs": (json.dumps({"inputs": {NAME: [1] * 900}}), JSON),
    "instances": (json.dumps({"instances": {NAME: [1] * 900}}), JSON),
    "CSV": (f"{NAME}\n" + "1\n" * 900, CSV),
    "Parquet": (written(pa.table({NAME: [1] * 900})), PARQUET),
    "a text of Parquet": (written(pa.table({"a": once(NAME, 900)})), PARQUET),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_once_and_is_meant_for_many_rows_is_counted_for_each_of_them(service, doors, form):
    body, headers = FORMS[form]
    body = body if isinstance(body, bytes) else body.encode()
    assert len(body) < 20_000
    refused = asked(doors, "/invocations", body, headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "unfold" in refused.json()["message"]
    assert logged(service) == []


@pytest.mark.parametrize("form", ["dataframe_split", "inputs", "CSV", "Parquet", "a text of Parquet"])
def test_the_same_is_answered_and_logged_below_the_limit(bundle, tmp_path, form):
    service = made_service(bundle, tmp_path, unfolded_bytes=10 * LIMIT)
    body, headers = FORMS[form]
    body = body if isinstance(body, bytes) else body.encode()
    found = asked(made_doors(service, tmp_path), "/invocations", body, headers)
    assert (found.status_code, len(found.json()["predictions"])) == (200, 900)
    prediction_log.seal(service.place, [service.log])
    assert sum(table.num_rows for table in prediction_log.read(service.place)) == 900


def test_rows_with_long_names_are_logged_as_records_that_are_small_when_they_are_read(service):
    from afterfit.serving import engine

    rows = [{NAME: k} for k in range(100)]
    made = service.engine
    answers = made.answers(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "MOST_BYTES", 50_000)
        records = made.entries(rows, answers, 7, 0.5)
    assert [record.size for record in records] == [16] * 6 + [4]


def test_as_many_usual_rows_and_columns_as_before_are_taken():
    numbers = np.random.default_rng(0).integers(0, 9, 10_000)
    columns = {f"a_column_of_a_sensor_{k:03d}": pa.array(numbers) for k in range(500)}
    assert len(parquet_rows(written(pa.table(columns)), Serving())) == 10_000


def test_a_row_may_have_many_unknown_columns_and_not_without_end(bundle, tmp_path):
    doors = made_doors(made_service(bundle, tmp_path, log=False, unknown_columns=5), tmp_path)
    few, many = ({**ROW, **{f"n{k}": 1 for k in range(count)}} for count in (5, 6))
    assert asked(doors, "/predict", few).status_code == 200
    for body in (many, [ROW, few, many]):
        refused = asked(reopened(doors), "/predict", body)
        assert refused.status_code == 422
        assert "6 columns that the model does not know" in refused.json()["message"]


def test_bodies_that_wait_are_bounded_together_and_a_single_one_always_fits(bundle, tmp_path):
    doors = made_doors(made_service(bundle, tmp_path, log=False, body_bytes=2_000, waiting_bytes=1_000), tmp_path)
    body = json.dumps({**ROW, "carrier": "x" * 1_500}).encode()

    async def ask_all():
        async with client(doors) as one:
            begun, arrived = asyncio.Event(), asyncio.Event()

            async def slow():
                yield body
                begun.set()
                await arrived.wait()
                yield b" "

            first = asyncio.create_task(one.post("/predict", content=slow(), headers=JSON))
            await begun.wait()
            second = await one.post("/predict", content=body, headers=JSON)
            arrived.set()
            return (await first).status_code, second.status_code

    assert asyncio.run(ask_all()) == (200, 429)
    assert doors.held == 0


# --- depth ---------------------------------------------------------------------------------------------------------

HOLDERS = {
    "a row": ("/predict", '{"carrier": VALUE}'),
    "rows": ("/predict", '[{}, {"carrier": VALUE}]'),
    "records": ("/invocations", '{"dataframe_records": [{"carrier": VALUE}]}'),
    "split": ("/invocations", '{"dataframe_split": {"columns": ["carrier"], "data": [[VALUE]]}}'),
    "columns": ("/invocations", '{"inputs": {"carrier": VALUE}}'),
    "lenient": ("/invocations", '{"instances": [{"carrier": VALUE, "distance": NaN}]}'),
    "an outcome": ("/outcomes", '{"prediction_id": "a", "value": VALUE}'),
    "a key": ("/outcomes", '{"key": {"number": VALUE}, "value": true}'),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_deep_value_is_refused_wherever_json_is_read(bundle, tmp_path, holder):
    service = made_service(bundle, tmp_path, redaction=LogRedaction(("number",)))
    doors, (path, text) = made_doors(service, tmp_path), HOLDERS[holder]
    for opened, closed in (("[", "]"), ('{"a":', "}")):
        for depth in (40, 254, 1_000, 1_023, 1_100, 50_000):
            value = opened * depth + "1" + closed * depth
            refused = asked(reopened(doors), path, text.replace("VALUE", value).encode())
            assert refused.status_code == 400, refused.text
            assert refused.json()["code"] in {"too_deep", "invalid_json"}


nested = st.recursive(
    st.one_of(st.none(), st.text(alphabet='a[]{}"\\', max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=20,
)


@given(nested, st.integers(1, 6))
def test_depth_is_that_of_lists_and_objects_and_brackets_in_texts_do_not_count(content, most):
    def depth(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    try:
        check_depth(content, orjson.dumps(content), most)
    except HttpError:
        assert depth(content) > most
    else:
        assert depth(content) <= most


# --- Parquet -------------------------------------------------------------------------------------------------------

COLUMNS = {
    "a text for many rows": once("x" * 200_000, 9_000),
    "many empty texts": pa.nulls(9_000, pa.string()),
    "a list": pa.array([[1]] * 9),
    "a struct": pa.array([{"a": 1}] * 9),
    "a map": pa.array([[("a", 1)]] * 9, pa.map_(pa.string(), pa.int64())),
    "texts that repeat what stands before": pa.array(["x" * 2_000] * 900),
    "bytes of one width": pa.array([b"x" * 2_000] * 900, pa.binary(2_000)),
}
STATUS = {"many empty texts": 200, "a list": 400, "a struct": 400, "a map": 400}


@pytest.mark.parametrize("column", COLUMNS)
def test_parquet_that_unfolds_to_much_is_refused_before_it_is_unfolded(column):
    for compression in ("zstd", "gzip", "snappy", "none"):
        for page in ("1.0", "2.0"):
            options = {"compression": compression, "data_page_version": page, "store_schema": page == "1.0"}
            if column.startswith("texts that"):
                options |= {"use_dictionary": False, "column_encoding": {"a": "DELTA_BYTE_ARRAY"}}
            body = written(pa.table({"a": COLUMNS[column]}), **options)
            assert outcome_of(body) == STATUS.get(column, 413), options


def test_all_types_of_plain_columns_come_as_pandas_would_write_them():
    table = pa.table(
        {
            "text": ["a", None, "a"],
            "coded": pa.array(["b", "c", "b"]).dictionary_encode(),
            "whole": pa.array([1, None, 3], pa.int8()),
            "number": [0.5, 1.5, None],
            "truth": [True, None, False],
            "time": pa.array([0, 1, None], pa.timestamp("us")),
            "day": pa.array([0, 1, None], pa.date32()),
            "bytes": [b"x", None, b"y"],
            "a.dotted": ["d", "e", "f"],
        }
    )
    for rows in (1, 2, 9):
        found = parquet_rows(written(table, row_group_size=rows), Serving())
        assert found == table.to_pylist()
    assert parquet_rows(written(table.slice(0, 0)), Serving()) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.sampled_from(["zstd", "none"]), st.sampled_from(["1.0", "2.0"]))
def test_pages_are_counted_as_the_footer_counts_them(rows, distinct, compression, version):
    table = pa.table({"text": [f"t{k % distinct}" for k in range(rows)], "number": [float(k) for k in range(rows)]})
    body = written(table, compression=compression, data_page_version=version, data_page_size=200)
    known, told = footer(body), pq.read_metadata(io.BytesIO(body))
    assert [column.name for column in known.columns] == table.column_names
    assert known.rows == rows == told.num_rows
    for group, (count, chunks) in enumerate(known.groups):
        assert count == told.row_group(group).num_rows
        for place, chunk in enumerate(chunks):
            column = told.row_group(group).column(place)
            found = list(pages(body, chunk.begin, chunk.length))
            assert sum(page.values for page in found) == chunk.values == column.num_values
            dictionary = 16 * len(set(table.column(place).to_pylist())) if column.has_dictionary_page else 0
            heads = column.total_uncompressed_size - sum(page.size for page in found) + dictionary
            assert 0 <= heads <= 100 * len(found)  # the heads themselves are no part of what unfolds


def test_a_page_that_says_a_thing_twice_or_lies_outside_its_column_is_refused():
    good = bytes([0x15, 0, 0x15, 20, 0x15, 4, 0x2C, 0x15, 2, 0x15, 0, 0, 0]) + b"ab"
    [page] = pages(good, 0, len(good))
    assert (page.size, page.values) == (10, 1)
    twice = bytes([0x15, 0, 0x15, 20, 0x05, 4, 20, 0x15, 4, 0x2C, 0x15, 2, 0x15, 0, 0, 0]) + b"ab"
    for bad in (twice, good[:-1], good[:5], b"\x15" + b"\xff" * 20, b"\x1c" * 30, b"\x19\x15\x00\x00"):
        with pytest.raises(PageError):
            list(pages(bad, 0, len(bad)))
    with pytest.raises(PageError):
        list(pages(good, 0, len(good) + 1))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_parquet_with_any_byte_changed_is_read_or_refused_and_never_ends_the_process(data):
    body = bytearray(BODY)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert outcome_of(bytes(body)) in {200, 400, 413}


def test_a_footer_that_does_not_agree_with_itself_is_refused_before_arrow_sees_it(monkeypatch):
    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(pq, "ParquetFile", fail)
    at = BODY.rindex(bytes([0x16, 0xD8, 0x04]))  # 300 as a 64-bit number, field by field: the row group's rows
    for bad in (
        b"",
        b"PAR1",
        BODY[:-8] + b"\xff\xff\xff\x7fPAR1",
        BODY[:-4] + b"PARE",
        BODY[: at + 1] + b"\x02\x00" + BODY[at + 3 :],
    ):
        assert outcome_of(bad) == 400


BODY = written(pa.table({"a": once("x" * 50, 300), "b": list(range(300))}), store_schema=False, compression="zstd")


# --- other forms ---------------------------------------------------------------------------------------------------

TEXT = json.dumps(ROW)


@pytest.mark.parametrize(("headers", "path"), [(JSON, "/predict"), (JSON, "/invocations"), (CSV, "/invocations")])
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (TEXT.encode("utf-16"), 400, "UTF-8"),
        (TEXT.encode("utf-16-be"), 400, "UTF-8"),
        (TEXT.encode("utf-32"), 400, "UTF-8"),
        (gzip.compress(TEXT.encode()), 415, "compressed"),
        (gzip.compress(b" " * 1_000_000), 415, "compressed"),
    ],
)
def test_a_body_in_another_encoding_is_told_what_to_do(doors, headers, path, body, status, said):
    refused = asked(doors, path, body, headers)
    assert refused.status_code == status, refused.text
    assert said in refused.json()["message"]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_csv_is_read_by_the_delimiter_that_its_first_line_has_as_a_file_is(doors, mark):
    lines = [mark.join(ROW), mark.join(map(str, ROW.values()))]
    found = asked(doors, "/invocations", "\n".join(["", *lines, ""]).encode(), CSV)
    assert found.status_code == 200, found.text
    [answer] = found.json()["predictions"]
    assert (answer["warnings"], answer["error"]) == ([], None)


def test_csv_of_too_many_lines_is_not_read_to_its_end(bundle, tmp_path):
    doors = made_doors(made_service(bundle, tmp_path, log=False, rows=3), tmp_path)
    assert asked(doors, "/invocations", b"a\n" + b"1\n" * 4, CSV).status_code == 413
    assert asked(reopened(doors), "/invocations", b"a\n" + b"\n" * 9 + b"1\n" * 3, CSV).status_code == 200


# --- what an answer says of a row ----------------------------------------------------------------------------------


def test_a_row_with_several_errors_is_told_all_of_them_alone_and_among_many(doors, bundle):
    bad = {**ROW, "distance": "far", "seats": "many"}
    single = asked(doors, "/predict", bad).json()["error"]
    many = asked(reopened(doors), "/predict", [ROW] * 70 + [bad]).json()[-1]["error"]
    assert single == many == bundle.answer(bad)["error"]
    assert single["column"] == "distance"
    assert "distance must be" in single["message"]
    assert "seats must be" in single["message"]


def test_what_the_model_is_known_not_to_use_is_no_unknown_column(bundle, tmp_path):
    redaction = LogRedaction(("number",), aside=frozenset({"notes"}))
    service = made_service(bundle, tmp_path, redaction=redaction)
    row = {**ROW, bundle.manifest.target: True, "number": 7, "notes": "x", "carier": "AA"}
    answers = [
        asked(made_doors(service, tmp_path), "/predict", row).json(),
        asked(made_doors(service, tmp_path), "/predict", [row] * 70).json()[0],
    ]
    for answer in answers:
        assert [note["column"] for note in answer["warnings"]] == ["carier"]
    assert bundle.answer({**ROW, bundle.manifest.target: True})["warnings"] == []
    kept = json.loads(logged(service, "features")[0][0])
    assert kept == row
