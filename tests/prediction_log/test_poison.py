"""What a log holds already never stops its sealing or reading, whatever it is: it is kept as text, and named."""

import json
import sqlite3

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.prediction_log import entries, spool_file
from afterfit.prediction_log.arrow import FEATURE, LONGEST_NAME, MOST_FEATURES, REST, bounded
from afterfit.prediction_log.entries import BatchRecord, LogEntry, Outcome, text_of
from afterfit.prediction_log.log import log_at, read, seal

NOW = 1_700_000_000_000_000


def entry(number=0, features=b'{"a":1}', **changes):
    known = {"prediction_id": f"id{number}", "time": NOW, "version": "1", "shadow": False, "features": features}
    return LogEntry(**{**dict.fromkeys(LogEntry._fields), **known, "prediction": b"true", **changes})


def record(rows, answers, count=3, **changes):
    texts = {"features": rows, "answers": answers}
    return BatchRecord(
        **{
            "size": count,
            "time": NOW,
            "version": "1",
            "shadow": False,
            "keys": None,
            "seconds": 0.1,
            **texts,
            **changes,
        }
    )


def deep(levels):
    return b"[" * levels + b"1" + b"]" * levels


MANY = ",".join(f'"u{k}":1' for k in range(600)).encode()
ANSWERS = json.dumps([{"prediction_id": f"b{k}", "prediction": True} for k in range(3)]).encode()
POISON = {
    "many names and a deep value": entry(features=b"{" + MANY + b',"deep":' + deep(300) + b"}"),
    "many names and a deeper value": entry(features=b"{" + MANY + b',"deep":' + deep(1_000) + b"}"),
    "a value deeper than a reader reads": entry(features=b'{"deep":' + deep(5_000) + b"}"),
    "deep objects": entry(features=b'{"deep":' + b'{"a":' * 1_010 + b"1" + b"}" * 1_011),
    "no JSON": entry(features=b"\xff\xfe"),
    "nothing": entry(features=None),
    "half a character": entry(features=b'{"a":"\\ud800"}', key='["\\ud800"]'),
    "a name without end": entry(features=json.dumps({"x" * 100_000: 1}).encode()),
    "a prediction that is deep": entry(prediction=deep(300)),
    "a probability that is text": entry(probability="far"),
    "a time that is text": entry(time="soon"),
    "bytes in all texts": entry(version=b"\xff", warnings=b"\xff", error=b"\xff", key=b"\xff"),
    "a record with a row less": record(b"[{}, {}]", ANSWERS),
    "a record with answers of another kind": record(b"[{}, {}, {}]", b"[1, 2, 3]"),
    "a record with a key less": record(b"[{}, {}, {}]", ANSWERS, keys=b'["a"]'),
    "a record that is no list": record(b"3", b"{"),
    "a record of deep rows": record(b"[{},{},{" + MANY + b',"deep":' + deep(300) + b"}]", ANSWERS),
    "a record of deeper rows": record(b"[{},{},{" + MANY + b',"deep":' + deep(2_000) + b"}]", ANSWERS),
}


def rows_of(log):
    return [row for table in read(log, shadow=None) for row in table.to_pylist()]


@pytest.mark.parametrize("poison", POISON)
def test_it_is_read_and_sealed_with_what_stands_around_it(tmp_path, poison):
    log = log_at(str(tmp_path), "made")
    spool = log.spool()
    for one in (entry("before"), POISON[poison], entry("after")):
        spool.write([one])
    unsealed = rows_of(log)
    done = seal(log, [spool])
    found = rows_of(log)
    assert done.answers == len(found) == len(unsealed)
    assert spool.backlog == 0
    ids = [row["prediction_id"] for row in found]
    good = [row for row in found if row["prediction_id"] in {"idbefore", "idafter"}]
    assert [(row["a"], row["prediction"], row["error"]) for row in good] in (
        [(1, True, None)] * 2,
        [("1", "True", None)] * 2,
        [(1, "True", None)] * 2,
    )
    assert len(ids) > 2
    spool.close()


def test_an_outcome_that_no_table_holds_does_not_stop_the_others(tmp_path):
    log = log_at(str(tmp_path), "made")
    spool = log.spool()
    spool.write([entry(k) for k in range(4)])
    given = [("id0", b"true", NOW), ("id1", deep(300), NOW), ("id2", b"\xff", NOW), ("id3", b"true", "never")]
    spool.write_outcomes([Outcome(name, None, value, time) for name, value, time in given])
    assert seal(log, [spool]).outcomes == 4
    found = {row["prediction_id"]: row["outcome"] for row in rows_of(log)}
    assert str(found["id0"]) == str(found["id3"]) == "True"
    spool.close()


def test_a_row_that_cannot_be_a_row_is_kept_as_text_and_its_error_says_why(tmp_path):
    log = log_at(str(tmp_path), "made")
    spool = log.spool()
    spool.write([entry("bad", probability="far"), entry("good")])
    seal(log, [spool])
    errors = {row["prediction_id"]: row["error"] for row in rows_of(log)}
    assert errors["idgood"] is None
    told = json.loads(errors["idbad"])
    assert (told["code"], "far" in told["value"]) == ("unreadable", True)
    spool.close()


def test_a_record_that_unfolds_to_too_much_stays_packed_and_says_so(tmp_path, monkeypatch):
    log = log_at(str(tmp_path), "made")
    spool = log.spool()
    spool.write([record(json.dumps([{"x" * 50_000: k} for k in range(3)]).encode(), ANSWERS), entry("good")])
    monkeypatch.setattr(entries, "MOST_UNFOLDED", 100_000)
    assert seal(log, [spool]).answers == 4
    found = rows_of(log)
    assert [row["prediction"] for row in found] == [True] * 4
    assert [row["prediction_id"] for row in found if row["packed"]] == ["b0"]
    assert "more than 100,000 bytes" in next(row["unreadable"] for row in found if row["prediction_id"] == "b2")
    spool.close()


def test_ranges_and_pieces_are_bounded_by_bytes_and_lose_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_file, "RANGE_BYTES", 30_000)
    monkeypatch.setattr(spool_file, "CHUNK_BYTES", 5_000)
    log = log_at(str(tmp_path), "made")
    spool = log.spool()
    many = [{"b": "y" * 4_000} for _ in range(3)]
    for number in range(10):
        spool.write([entry(number, json.dumps({"a": "x" * 9_000}).encode())])
        spool.write([record(json.dumps(many).encode(), ANSWERS.replace(b'"b', f'"{number}-'.encode()))])
    with sqlite3.connect(spool.path) as connection:
        pieces = [*spool_file.read_in_chunks(connection, "answers", spool_file.RowRange(1, 40), 1_000)]
    connection.close()
    assert max(sum(len(row[5]) for row in piece) for piece in pieces) < 15_000
    assert len(rows_of(log)) == 40
    done = seal(log, [spool])
    assert (done.answers, done.parts) == (40, 10)
    assert len({row["prediction_id"] for row in rows_of(log)}) == 40
    spool.close()


def test_a_part_has_no_more_columns_than_it_may_and_none_with_a_name_without_end(tmp_path):
    log = log_at(str(tmp_path), "made")
    spool = log.spool()
    for number in range(0, 3_000, 3):
        names = {f"n{number + k}": 1 for k in range(3)} | {"x" * (LONGEST_NAME + 1): 2, "common": 3}
        spool.write([entry(number, json.dumps(names).encode())])
    seal(log, [spool])
    [table] = read(log)
    features = [name for name in table.column_names if name == "common" or name.startswith(("n", "x"))]
    assert "common" in features
    assert len(features) <= MOST_FEATURES
    assert max(map(len, features)) <= LONGEST_NAME
    spool.close()


def test_what_has_no_column_of_its_own_stands_beside_what_had_none_before():
    names = [f"{FEATURE}n{k}" for k in range(MOST_FEATURES)]
    wide = pa.table({REST: pa.nulls(2, pa.string()), **{name: [1, 2] for name in names}})
    other = pa.table({REST: ['{"old":1}', '"no JSON"'], f"{FEATURE}rare": [None, 7], f"{FEATURE}n0": [5, 5]})
    first, second = bounded([wide, other])
    assert first is wide
    assert second.column_names == [f"{FEATURE}n0", REST]
    assert [json.loads(text) for text in second[REST].to_pylist()] == [{"old": 1}, {"": "no JSON", "rare": 7}]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5_000), st.sampled_from(["list", "object"]), st.booleans())
def test_any_value_has_a_text(levels, kind, wrapped):
    value = "\ud800"
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    text = text_of({"deep": value, "other": 1} if wrapped else value)
    found = entries.loaded(text)
    if wrapped:
        assert found["other"] == 1
