"""Predictions over HTTP: equal to the bundle's, logged before they leave, refused in one form."""

import asyncio
import io
import json
import os
import threading
from types import SimpleNamespace

import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.errors import LogError
from afterfit.model.answer import fresh_id
from afterfit.model.bundle import Bundle
from afterfit.prediction_log.entries import unbatch
from afterfit.prediction_log.privacy import LogRedaction
from afterfit.serving.auth import Tokens, tokens_of_environment
from afterfit.serving.engine import FEWEST_FOR_COLUMNS, Engine, engine
from afterfit.serving.metrics import ServerMetrics
from afterfit.serving.service import count
from made_answers import CONTRACT, batches
from serving_client import JSON, asked, client, logged, made_doors, made_service, reopened
from waiting import PATIENCE

ROW = {"when": "2024-01-03T05:00:00", "distance": 500.0, "seats": 120, "carrier": "AA", "secret": "x7"}
INVOCATIONS = {
    "dataframe_records": lambda rows: {"dataframe_records": rows},
    "instances": lambda rows: {"instances": rows},
    "inputs": lambda rows: {"inputs": rows},
    "columns": lambda rows: {"inputs": {name: [row[name] for row in rows] for name in rows[0]}},
    "dataframe_split": lambda rows: {
        "dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    },
}


@pytest.fixture
def service(bundle, tmp_path):
    return made_service(bundle, tmp_path / "log")


@pytest.fixture
def doors(service, tmp_path):
    return made_doors(service, tmp_path)


@pytest.fixture(scope="module")
def lasting(bundle, tmp_path_factory):
    """Doors that many examples of one test go through."""
    folder = tmp_path_factory.mktemp("lasting")
    return made_doors(made_service(bundle, folder), folder, Tokens(webhook=b"secret"))


def same(answer, expected):
    """Equal, but for the id and the last digits of numbers."""
    assert list(answer) == list(expected)
    for name, value in expected.items():
        if isinstance(value, float) or (isinstance(value, dict) and name == "probabilities"):
            assert answer[name] == pytest.approx(value, abs=1e-9)
        elif name != "prediction_id":
            assert answer[name] == value


# --- answers -------------------------------------------------------------------------------------------------------


def test_a_row_is_answered_as_the_bundle_answers_it(doors, bundle):
    response = asked(doors, "/predict", ROW)
    assert response.status_code == 200
    same(response.json(), bundle.answer(ROW))


@pytest.mark.parametrize("kind", ["bundle", "regression_bundle", "multiclass_bundle"])
@pytest.mark.parametrize("form", INVOCATIONS)
@pytest.mark.parametrize("compile_trees", [True, False])
def test_every_form_of_invocations_gives_every_kind_of_model_s_answers(form, kind, compile_trees, request, tmp_path):
    bundle = request.getfixturevalue(kind)
    doors = made_doors(made_service(bundle, tmp_path, log=False, compile_trees=compile_trees), tmp_path)
    rows = [ROW, {**ROW, "carrier": "ZZ"}, {**ROW, "distance": "far"}, {**ROW, "seats": None}]
    response = asked(doors, "/invocations", INVOCATIONS[form](rows))
    assert response.status_code == 200
    for answer, row in zip(response.json()["predictions"], rows, strict=True):
        same(answer, bundle.answer(row))


def test_csv_and_parquet_are_answered_too(doors, bundle):
    csv = "when,distance,seats,carrier,secret\n2024-01-03T05:00:00,500.0,120,AA,x7\n2024-01-03T05:00:00,,120,AA,x7\n"
    found = asked(doors, "/invocations", csv.encode(), {"Content-Type": "text/csv; charset=utf-8"})
    assert found.status_code == 200
    same(found.json()["predictions"][0], bundle.answer(ROW))
    same(found.json()["predictions"][1], bundle.answer({**ROW, "distance": None}))
    written = io.BytesIO()
    pd.DataFrame([ROW, ROW]).assign(when=pd.Timestamp(ROW["when"])).to_parquet(written)
    kind = {"Content-Type": "application/vnd.apache.parquet"}
    found = asked(reopened(doors), "/invocations", written.getvalue(), kind)
    assert found.status_code == 200
    same(found.json()["predictions"][1], bundle.answer(ROW))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["AA", "12.5", "2024-02-01", "inf", "?", "", "far", "x7", "true", "1e400"]),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
)
rows = st.dictionaries(st.sampled_from([*ROW, "other"]), scalars, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, min_size=1, max_size=4))
def test_rows_of_anything_are_answered_as_the_bundle_answers_them_through_both_doors(bundle, tmp_path_factory, given):
    folder = tmp_path_factory.mktemp("doors")
    text = json.dumps(given).encode()
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    for compile_trees in (True, False):
        doors = made_doors(made_service(bundle, folder, log=False, compile_trees=compile_trees), folder)
        many = asked(doors, "/predict", text)
        assert many.status_code == 200, many.text
        wrapped = b'{"dataframe_records": ' + text + b"}"
        other = asked(reopened(doors), "/invocations", wrapped).json()["predictions"]
        one = asked(reopened(doors), "/predict", parsed[0])
        for found in (many.json(), other, [one.json()]):
            for answer, row in zip(found, parsed, strict=False):
                same(answer, json.loads(json.dumps(bundle.answer(row))))


@settings(max_examples=25, deadline=None)
@given(st.lists(scalars, min_size=6, max_size=6), st.lists(scalars, min_size=3, max_size=3))
def test_many_rows_of_one_form_are_answered_as_each_alone(bundle, first, second):
    names = [*ROW, "other"]
    row = dict(zip(names, first, strict=True))
    kept = json.loads(json.dumps([{**row, name: value} for name, value in zip(names, second, strict=False)]))
    found = engine(bundle).answers([*kept, *[{**ROW, "other": None}] * FEWEST_FOR_COLUMNS])
    for answer, one in zip(found, [*kept, {**ROW, "other": None}], strict=False):
        same(answer.to_dict(), bundle.answer(one))


@pytest.mark.parametrize("private", [frozenset(), frozenset({"secret"})])
def test_a_request_of_many_rows_is_logged_as_its_rows_alone_would_be(bundle, private):
    made = engine(bundle, LogRedaction(("seats",), private, "hash", "salt"))
    rows = [
        {**ROW, "distance": 100.0 + k, "carrier": "ZZ" if k % 3 else None, "seats": k}
        for k in range(FEWEST_FOR_COLUMNS)
    ]
    rows[5]["distance"] = "far"
    answers = made.answers(rows)
    alone = [record for row, one in zip(rows, answers, strict=True) for record in made.entries([row], [one], 7, 0.5)]
    for bodies in (None, json.dumps(rows).encode(), json.dumps({"dataframe_records": rows}).encode()):
        (whole,) = made.entries(rows, answers, 7, 0.5, bodies=bodies)
        assert list(unbatch(whole.record())) == [tuple(one) for one in alone]


@settings(max_examples=60, deadline=None)
@given(batches())
def test_counts_of_columns_are_those_of_the_answers(batch):
    bundle = Bundle(SimpleNamespace(contract=CONTRACT), None, "", (), batch.version)
    made = Engine(bundle, None, columns=frozenset(CONTRACT.names), edges=(0.0, 1.0))
    together, apart = ServerMetrics(), ServerMetrics()
    count(together, made, batch)
    count(apart, made, list(batch))
    assert together.counts == apart.counts
    assert {key: one.counts for key, one in together.histograms.items()} == {
        key: one.counts for key, one in apart.histograms.items()
    }


def test_counts_of_many_rows_are_those_of_each_alone(service, doors):
    rows = [
        {**ROW, "distance": 100.0 + 50 * k, "carrier": "ZZ" if k % 3 else None, "odd": 1}
        for k in range(FEWEST_FOR_COLUMNS)
    ]
    for bad in (False, True):
        rows[5]["distance"] = "far" if bad else 1.0
        made = engine(service.engine.bundle)
        together, apart = ServerMetrics(), ServerMetrics()
        count(together, made, made.answers(rows))
        for row in rows:
            count(apart, made, made.answers([row]))
        assert together.counts == apart.counts
        for key, histogram in apart.histograms.items():
            assert together.histograms[key].counts == histogram.counts
            assert together.histograms[key].total == pytest.approx(histogram.total)
    assert asked(doors, "/predict", rows).status_code == 200
    assert (
        len(asked(reopened(doors), "/invocations", {"dataframe_records": rows}).json()["predictions"])
        == FEWEST_FOR_COLUMNS
    )


def test_requests_that_come_together_are_answered_apart_and_counted(service, doors):
    async def ask_all():
        async with client(doors) as one:
            bodies = [json.dumps({**ROW, "distance": 100.0 + k}).encode() for k in range(60)]
            return await asyncio.gather(*(one.post("/predict", content=body, headers=JSON) for body in bodies))

    found = asyncio.run(ask_all())
    assert [answer.status_code for answer in found] == [200] * 60
    engine = service.engine
    for k, answer in enumerate(found):
        same(answer.json(), engine.bundle.answer({**ROW, "distance": 100.0 + k}))
    sizes = service.batch_metrics.histogram("batch_rows")
    assert sizes.total == 60
    assert sum(sizes.counts) < 60  # some went together
    assert service.metrics.counts["requests", "/predict", "200"] == 60


def test_no_rows_get_no_answers(doors):
    assert asked(doors, "/predict", []).json() == []
    assert asked(reopened(doors), "/invocations", {"instances": []}).json() == {"predictions": []}


def test_nan_is_missing_where_mlflow_takes_it_and_no_json_elsewhere(doors, bundle):
    body = json.dumps({"dataframe_records": [{**ROW, "distance": float("nan")}]}).encode()
    assert b"NaN" in body
    same(asked(doors, "/invocations", body).json()["predictions"][0], bundle.answer({**ROW, "distance": None}))
    assert asked(reopened(doors), "/predict", json.dumps({"distance": float("nan")}).encode()).status_code == 400


# --- the log -------------------------------------------------------------------------------------------------------


def test_an_answer_is_in_the_log_with_the_row_as_it_came(service, doors):
    body = b'{"distance": 5.0e2,  "carrier": "ZZ", "extra": [1]}'
    answer = asked(doors, "/predict", body).json()
    [row] = logged(service, "prediction_id, version, shadow, features, prediction, probability, warnings, error")
    assert row[0] == answer["prediction_id"]
    assert row[2] == 0
    assert row[3] == body
    assert json.loads(row[4]) == answer["prediction"]
    assert row[5] == answer["probability"]
    assert json.loads(row[6]) == answer["warnings"]
    assert row[7] is None


def test_every_row_of_a_request_is_in_the_log(service, doors):
    answers = asked(doors, "/invocations", {"dataframe_records": [ROW, {**ROW, "distance": "far"}]}).json()
    found = logged(service, "prediction_id, error, features")
    assert [row[0] for row in found] == [answer["prediction_id"] for answer in answers["predictions"]]
    assert [row[1] is None for row in found] == [True, False]
    assert json.loads(found[0][2]) == ROW


def test_private_columns_are_not_in_the_log_and_keys_are(bundle, tmp_path):
    redaction = LogRedaction(("number",), frozenset({"secret"}), "hash", "salt")
    service = made_service(bundle, tmp_path, redaction=redaction)
    answer = asked(made_doors(service, tmp_path), "/predict", {**ROW, "number": 12}).json()
    assert answer["warnings"] == bundle.answer(ROW)["warnings"]  # the key is no unknown column
    [(key, features)] = logged(service, "key, features")
    assert json.loads(key) == ["12"]
    kept = json.loads(features)
    assert kept["secret"] != "x7"
    assert kept["distance"] == 500.0


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_failing_log_costs_the_answer_only_where_answers_are_acknowledged(service, doors, monkeypatch, acknowledged):
    def fail(_):
        raise LogError("The disk is full: /secret/path.")

    service.acknowledged = acknowledged
    monkeypatch.setattr(type(service.log), "write", lambda _, entries: fail(entries))
    response = asked(doors, "/predict", ROW)
    assert response.status_code == (503 if acknowledged else 200)
    assert "path" not in response.text
    if acknowledged:
        assert response.json()["code"] == "log_unavailable"
        assert "retry-after" in response.headers
    assert service.batch_metrics.counts["log_failures",] == 1


# --- refusals ------------------------------------------------------------------------------------------------------

BAD = [
    ("/predict", b"", JSON, 400),
    ("/predict", b"{", JSON, 400),
    ("/predict", b"\xff\xfe", JSON, 400),
    ("/predict", b'{"a": "\xed\xa0\x80"}', JSON, 400),
    ("/predict", b"[" * 100_000, JSON, 400),
    ("/predict", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, JSON, 400),
    ("/predict", b"3", JSON, 422),
    ("/predict", b"[1]", JSON, 422),
    ("/predict", b"[[]]", JSON, 422),
    ("/predict", b"null", JSON, 422),
    ("/predict", b"{}", {"Content-Type": "text/plain"}, 415),
    ("/predict", b"{}", {}, 415),
    ("/invocations", b"{}", JSON, 400),
    ("/invocations", b"[NaN", JSON, 400),
    ("/invocations", b"[" * 100_000 + b"NaN", JSON, 400),
    ("/invocations", b'{"instances": [], "inputs": []}', JSON, 400),
    ("/invocations", b'{"instances": [[1, 2]]}', JSON, 400),
    ("/invocations", b'{"dataframe_records": {"a": 1}}', JSON, 400),
    ("/invocations", b'{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}', JSON, 400),
    ("/invocations", b'{"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}', JSON, 400),
    ("/invocations", b'{"dataframe_split": {"columns": 3, "data": []}}', JSON, 400),
    ("/invocations", b'{"inputs": {"a": [1, 2], "b": [1]}}', JSON, 400),
    ("/invocations", b"a,b\n1\n", {"Content-Type": "text/csv"}, 400),
    ("/invocations", b"", {"Content-Type": "text/csv"}, 400),
    ("/invocations", b'a\n"1', {"Content-Type": "text/csv"}, 400),
    ("/invocations", b"PAR1PAR1", {"Content-Type": "application/vnd.apache.parquet"}, 400),
    ("/invocations", b"{}", {}, 415),
    ("/invocations", b"{}", {"Content-Type": "application/json; charset=latin-1"}, 415),
    ("/outcomes", b"{", JSON, 400),
    ("/outcomes", b"3", JSON, 422),
    ("/nothing", b"{}", JSON, 404),
    ("/ready", b"{}", JSON, 405),
]


@pytest.mark.parametrize(("path", "body", "headers", "status"), BAD, ids=lambda value: str(value)[:40])
def test_a_body_that_cannot_be_read_gets_a_status_and_a_sentence(doors, path, body, headers, status):
    response = asked(doors, path, body, headers)
    assert response.status_code == status, response.text
    told = response.json()
    assert set(told) == {"code", "message", "detail"}
    assert told["message"].endswith(".")
    assert "Traceback" not in response.text
    assert "tmp/" not in response.text


def test_an_unexpected_error_shows_nothing_and_is_told_to_the_operator(service, doors, monkeypatch):
    told = []
    service.faults = lambda identity, error: told.append((identity, str(error)))
    monkeypatch.setattr(type(service.engine), "answers", lambda *_: 1 / 0)
    response = asked(doors, "/predict", ROW, {**JSON, "X-Request-Id": "abc-1"})
    assert response.status_code == 500
    assert "division" not in response.text
    assert told == [("abc-1", "division by zero")]


@settings(max_examples=150, deadline=None)
@given(
    body=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)),
    path=st.sampled_from(["/predict", "/invocations", "/outcomes", "/webhook"]),
    kind=st.sampled_from(["application/json", "text/csv", "application/vnd.apache.parquet", "text/plain", "a;b=c"]),
)
def test_no_bytes_whatever_make_the_server_fail(lasting, body, path, kind):
    response = asked(reopened(lasting), path, body, {"Content-Type": kind})
    assert response.status_code < 500, response.text


# --- limits --------------------------------------------------------------------------------------------------------


def test_rows_that_could_be_of_any_size_are_answered_and_not_kept_in_memory(service, doors):
    odd = [{"carrier": "x" * 10_000}, {"x" * 10_000: 1}, {"distance": [0] * 10_000}, {str(k): 1 for k in range(1_000)}]
    assert asked(doors, "/predict", [{**ROW, **one} for one in odd]).status_code == 200
    assert not service.recent
    contract = service.engine.bundle.scorer.contract
    for size in range(1_000, 1_300):
        contract.check_row({"y" * size: 1})
    assert sum(len(name) for names in contract._remembered_notes for name in names) < 10_000
    assert asked(reopened(doors), "/predict", ROW).status_code == 200
    assert len(service.recent) == 1


def test_large_bodies_and_many_rows_are_too_large(bundle, tmp_path):
    doors = made_doors(made_service(bundle, tmp_path, log=False, body_bytes=1000, rows=3), tmp_path)
    assert asked(doors, "/predict", b" " * 1001).status_code == 413
    assert asked(reopened(doors), "/predict", [{}] * 4).status_code == 413
    assert asked(reopened(doors), "/predict", [{}] * 3).status_code == 200

    async def unannounced():
        async with client(reopened(doors)) as one:

            async def parts():
                for _ in range(30):
                    yield b" " * 100

            return await one.post("/predict", content=parts(), headers=JSON)

    assert asyncio.run(unannounced()).status_code == 413


def test_too_many_requests_at_once_are_told_to_come_again(bundle, tmp_path, monkeypatch):
    service = made_service(bundle, tmp_path, requests=2)
    original, refused = service.log.write, threading.Event()

    def later(entries):
        assert refused.wait(PATIENCE)
        original(entries)

    monkeypatch.setattr(type(service.log), "write", lambda _, entries: later(entries))

    async def ask_all():
        async with client(made_doors(service, tmp_path)) as one:
            asking = [asyncio.create_task(one.post("/predict", json=ROW)) for _ in range(6)]
            for first in asyncio.as_completed(asking):
                await first
                if sum(task.done() for task in asking) == 4:  # the other two wait for the log
                    refused.set()
            return [task.result() for task in asking]

    found = asyncio.run(ask_all())
    assert sorted(answer.status_code for answer in found) == [200, 200, 429, 429, 429, 429]
    turned_away = next(answer for answer in found if answer.status_code == 429)
    assert int(turned_away.headers["retry-after"]) >= 1
    assert turned_away.json()["code"] == "too_many_requests"


def test_an_answer_that_takes_too_long_is_a_timeout(bundle, tmp_path, monkeypatch):
    service = made_service(bundle, tmp_path, seconds=0.2)
    answered = threading.Event()
    monkeypatch.setattr(type(service.log), "write", lambda *_: answered.wait(PATIENCE))

    async def ask():
        async with client(made_doors(service, tmp_path)) as one:
            response = await one.post("/predict", json=ROW)
            answered.set()
            return response

    assert asyncio.run(ask()).status_code == 504


def test_a_body_that_never_arrives_is_a_timeout(bundle, tmp_path):
    service = made_service(bundle, tmp_path, log=False, seconds=0.2)

    async def ask():
        async with client(made_doors(service, tmp_path)) as one:

            async def parts():
                yield b"{"
                await asyncio.Event().wait()

            return await one.post("/predict", content=parts(), headers=JSON)

    assert asyncio.run(ask()).status_code == 408


def test_a_stopping_server_takes_nothing_new(service, doors):
    service.stopping = True
    response = asked(doors, "/predict", ROW)
    assert (response.status_code, response.json()["code"]) == (503, "stopping")
    assert asked(reopened(doors), "/ready", None, {}, "GET").status_code == 503
    assert asked(reopened(doors), "/live", None, {}, "GET").status_code == 200


# --- who asks ------------------------------------------------------------------------------------------------------


def test_tokens_guard_predictions_and_outcomes_apart(service, tmp_path):
    doors = made_doors(service, tmp_path, Tokens(b"first", b"second"))
    for path, body, good, bad in [
        ("/predict", ROW, "first", "second"),
        ("/invocations", {"instances": [ROW]}, "first", ""),
        ("/outcomes", [], "second", "first"),
    ]:
        for token, status in [(good, 200), (bad, 401), (f"{good}x", 401)]:
            headers = {**JSON, "Authorization": f"Bearer {token}"}
            assert asked(reopened(doors), path, body, headers).status_code == status
        refused = asked(reopened(doors), path, body)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_tokens_come_from_files_and_the_environment(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("of a file\n")
    monkeypatch.setenv("AFTERFIT_PREDICT_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AFTERFIT_OUTCOMES_TOKEN", "plain")
    assert tokens_of_environment() == Tokens(b"of a file", b"plain", None)


def test_a_request_id_is_taken_where_it_is_plain_and_made_otherwise(doors):
    taken = asked(doors, "/predict", ROW, {**JSON, "X-Request-Id": "job-7:3"})
    assert taken.headers["x-request-id"] == "job-7:3"
    for odd in ("a b", "x" * 200, "<script>", "a\tb"):
        made = asked(reopened(doors), "/live", None, {"X-Request-Id": odd}, "GET").headers["x-request-id"]
        assert made != odd
        assert len(made) == 16


def test_ids_are_never_given_twice_not_even_after_a_fork():
    own = [fresh_id() for _ in range(1_000)]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "\n".join(fresh_id() for _ in range(300)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 2**16).decode().split("\n")
    os.close(read)
    os.close(write)
    after = [fresh_id() for _ in range(1_000)]
    assert len({*own, *theirs, *after}) == 2_300
    assert {len(one) for one in own} == {32}
