"""The other doors: outcomes, metrics, what is served, the page and its description; requests made from the latter."""

import asyncio
import base64
import json
import re
from dataclasses import replace

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from afterfit import prediction_log
from afterfit.errors import SourceError
from afterfit.model.bundle import save
from afterfit.model.training import train
from afterfit.prediction_log.privacy import LogRedaction
from afterfit.serving import html, metrics
from afterfit.serving.auth import Tokens
from made import BOOSTER, bundled, made_table, posed, use_case
from serving_client import asked, client, logged, made_doors, made_service, reopened

ROW = {"when": "2024-01-03T05:00:00", "distance": 500.0, "seats": 120, "carrier": "AA", "secret": "x7"}


@pytest.fixture
def service(bundle, tmp_path):
    return made_service(bundle, tmp_path / "log", redaction=LogRedaction(("number",)))


@pytest.fixture
def doors(service, tmp_path):
    return made_doors(service, tmp_path)


def got(doors, path):
    return asked(reopened(doors), path, None, {}, "GET")


# --- outcomes ------------------------------------------------------------------------------------------------------


def outcomes(service):
    prediction_log.seal(service.place, [service.log])
    tables = list(prediction_log.read(service.place))
    return {row["prediction_id"]: row["outcome"] for table in tables for row in table.to_pylist()}


def test_outcomes_come_by_id_or_key_and_join_their_predictions(service, doors):
    first, second = (asked(reopened(doors), "/predict", {**ROW, "number": k}).json()["prediction_id"] for k in (7, 8))
    by_id = asked(reopened(doors), "/outcomes", {"prediction_id": first, "value": True})
    assert by_id.json() == {"taken": 1, "unknown": []}
    by_key = asked(reopened(doors), "/outcomes", [{"key": {"number": "8"}, "value": False}] * 2)
    assert by_key.json() == {"taken": 2, "unknown": []}
    found = outcomes(service)
    assert (json.loads(str(found[first]).lower()), json.loads(str(found[second]).lower())) == (True, False)


def test_an_id_that_was_never_given_is_reported(service, doors):
    known = asked(doors, "/predict", ROW).json()["prediction_id"]
    given = [{"prediction_id": known, "value": True}, {"prediction_id": "nobody's", "value": True}]
    assert asked(reopened(doors), "/outcomes", given).json() == {"taken": 1, "unknown": ["nobody's"]}
    assert asked(reopened(doors), "/outcomes", given).json()["unknown"] == ["nobody's"]
    assert service.metrics.counts["outcomes",] == 2


@pytest.mark.parametrize("text", ["538000.0", " 5.38e5 "])
def test_an_outcome_s_number_is_read_from_text_as_a_row_s_is(regression_bundle, tmp_path, text):
    service = made_service(regression_bundle, tmp_path / "log")
    doors = made_doors(service, tmp_path)
    known = asked(doors, "/predict", ROW).json()["prediction_id"]
    given = {"prediction_id": known, "value": text}
    assert asked(reopened(doors), "/outcomes", given).json() == {"taken": 1, "unknown": []}
    assert outcomes(service) == {known: 538000.0}
    for bad in ("", "nan", "inf", "far", True):
        assert asked(reopened(doors), "/outcomes", {**given, "value": bad}).status_code == 422


def test_an_outcome_s_class_is_read_from_its_name(service, doors):
    known = asked(doors, "/predict", ROW).json()["prediction_id"]
    for value in ("true", "True", True):
        given = {"prediction_id": known, "value": value}
        assert asked(reopened(doors), "/outcomes", given).status_code == 200
    assert {str(value) for value in outcomes(service).values()} == {"True"}


def test_an_outcome_that_was_kept_is_no_error_where_its_id_cannot_be_looked_up(service, doors, monkeypatch):
    def away(*_):
        raise SourceError("s3://b/k: the S3 endpoint does not answer")

    monkeypatch.setattr(prediction_log, "unknown_ids", away)
    answer = asked(reopened(doors), "/outcomes", {"prediction_id": "somebody's", "value": True})
    assert (answer.status_code, answer.json()["taken"], answer.json()["unknown"]) == (200, 1, [])
    assert "are kept" in answer.json()["unchecked"]
    assert prediction_log.seal(service.place, [service.log]).outcomes == 1


@pytest.mark.parametrize(
    "outcome",
    [
        {"prediction_id": "a"},
        {"value": True},
        {"prediction_id": "a", "key": {"number": 1}, "value": True},
        {"prediction_id": "", "value": True},
        {"prediction_id": 3, "value": True},
        {"prediction_id": "a", "value": None},
        {"prediction_id": "a", "value": "perhaps"},
        {"prediction_id": "a", "value": 1},
        {"prediction_id": "a", "value": True, "more": 1},
        {"key": {"other": 1}, "value": True},
        {"key": {"number": None}, "value": True},
    ],
    ids=str,
)
def test_an_outcome_that_cannot_be_joined_is_refused(doors, outcome):
    response = asked(doors, "/outcomes", outcome)
    assert response.status_code == 422
    assert response.json()["message"].endswith(".")
    assert doors.service.metrics.counts["request_errors", "/outcomes", response.json()["code"]] == 1


def test_without_a_log_outcomes_have_no_place(bundle, tmp_path):
    doors = made_doors(made_service(bundle, tmp_path, log=False), tmp_path)
    assert asked(doors, "/outcomes", {"prediction_id": "a", "value": True}).json()["code"] == "no_log"


def test_a_key_that_no_text_can_hold_costs_no_answer(service, doors):
    body = b'{"instances": [{"number": "\\ud800", "distance": NaN}, {"number": "7", "distance": 1.0}]}'
    response = asked(doors, "/invocations", body)
    assert (response.status_code, len(response.json()["predictions"])) == (200, 2)
    assert [key for (key,) in logged(service, "key")] == ['["\\ud800"]', '["7"]']


# --- metrics -------------------------------------------------------------------------------------------------------


def test_metrics_count_requests_rows_warnings_errors_and_predictions(doors):
    asked(doors, "/predict", [ROW, {**ROW, "carrier": "ZZ", "other": 1}, {**ROW, "distance": "far"}])
    asked(reopened(doors), "/predict", b"{")
    text = got(doors, "/metrics").text
    for line in [
        'afterfit_requests_total{door="/predict",status="200"} 1.0',
        'afterfit_requests_total{door="/predict",status="400"} 1.0',
        'afterfit_request_errors_total{code="invalid_json",door="/predict"} 1.0',
        'afterfit_rows_total{version=""} 3.0',
        'afterfit_warnings_total{code="unseen_category",column="carrier"} 1.0',
        'afterfit_warnings_total{code="unknown_column",column="other"} 1.0',
        'afterfit_row_errors_total{code="invalid_number",column="distance"} 1.0',
        'afterfit_request_seconds_count{door="/predict"} 2.0',
        "afterfit_batch_rows_count 1.0",
        "afterfit_workers 1.0",
    ]:
        assert line in text, line
    predicted = re.findall(r"^afterfit_predictions_total\{.*\} (\S+)$", text, re.MULTILINE)
    assert sum(map(float, predicted)) == 2
    assert 'alias="production"' in text


def test_foreign_column_names_never_become_labels(service, doors):
    asked(doors, "/predict", [{**ROW, f"column {k}": 1} for k in range(50)])
    columns = {key[1] for key in service.batch_metrics.counts if key[0] == "warnings"}
    assert columns <= {*ROW, "other"}


def test_counts_of_processes_that_are_gone_stay_in_the_sum_and_their_gauges_do_not(tmp_path):
    gone, own = metrics.ServerMetrics(), metrics.ServerMetrics()
    for one in (gone, own):
        one.counts["rows", "1"] += 3
        one.gauges["workers",] = 1
        one.histogram("batch_rows").observe(2)
    (tmp_path / "metrics-999999999.json").write_bytes(gone.text())
    (tmp_path / "metrics-999999998.json").write_bytes(b"cut o")
    text = metrics.exposed(metrics.joined(tmp_path, own)).decode()
    assert 'afterfit_rows_total{version="1"} 6.0' in text
    assert "afterfit_workers 1.0" in text
    assert "afterfit_batch_rows_sum 4.0" in text
    assert 'afterfit_batch_rows_bucket{le="2.0"} 2.0' in text


# --- what is served ------------------------------------------------------------------------------------------------


def test_the_model_tells_what_it_is(doors, bundle):
    told = got(doors, "/model").json()
    assert (told["name"], told["alias"], told["digest"]) == ("made", "production", bundle.digest)
    assert [column["name"] for column in told["contract"]["columns"]] == list(ROW)
    assert told["compiled"] is True


def test_nothing_is_ready_before_a_version_is_loaded(service, tmp_path):
    service.engine = None
    doors = made_doors(service, tmp_path)
    for path in ("/ping", "/health", "/ready", "/model", "/openapi.json"):
        assert got(doors, path).status_code == 503, path
    assert asked(reopened(doors), "/predict", ROW).status_code == 503
    for path in ("/live", "/metrics", "/", "/version"):
        assert got(doors, path).status_code == 200, path


def test_a_log_that_cannot_be_written_makes_an_acknowledging_server_unready(service, doors, monkeypatch):
    assert got(doors, "/ready").json()["ready"] is True
    monkeypatch.setattr("afterfit.serving.routes._writable", lambda _: False)
    response = got(doors, "/ready")
    assert (response.status_code, response.json()["log_writable"]) == (503, False)
    service.acknowledged = False
    assert got(doors, "/ready").status_code == 200


def test_a_log_that_is_not_sealed_any_more_is_told_and_the_server_stays_ready(service, doors):
    assert got(doors, "/ready").json()["log_sealed"] is True
    assert "afterfit_log_seals 1.0" in got(doors, "/metrics").text
    for how in ({"seal_fails": True}, {"seal_fails": False, "sealed": 0.0}):
        for name, value in how.items():
            setattr(service, name, value)
        found = got(doors, "/ready")
        assert (found.status_code, found.json()["log_sealed"]) == (200, False)
        assert "afterfit_log_seals 0.0" in got(doors, "/metrics").text


def test_counts_that_many_ask_for_at_once_are_made_once(doors, monkeypatch):
    made = []
    original = metrics.exposed
    monkeypatch.setattr(metrics, "exposed", lambda counters: made.append(1) or original(counters))

    async def ask_all():
        async with client(doors) as one:
            return await asyncio.gather(*(one.get("/metrics") for _ in range(50)))

    assert {answer.status_code for answer in asyncio.run(ask_all())} == {200}
    assert len(made) < 25


# --- private columns, and who may look ------------------------------------------------------------------------------

DESCRIBED = ("/model", "/openapi.json", "/docs", "/")


@pytest.fixture(scope="module")
def discreet(trained, tmp_path_factory):
    """A bundle whose saved example holds a private value."""
    return bundled(trained, tmp_path_factory.mktemp("discreet"), use_case(), [{**ROW, "seats": 120.0}])


@pytest.mark.parametrize("path", DESCRIBED)
def test_nothing_of_a_private_column_s_values_is_shown(discreet, tmp_path, path):
    shown = got(made_doors(made_service(discreet, tmp_path), tmp_path), path).text
    assert "x7" not in shown
    assert "y8" not in shown
    assert "secret" in shown
    assert '"private"' in shown.replace("&quot;", '"')  # what stands in its place


def test_a_private_number_s_range_is_not_shown(tmp_path):
    case = use_case(columns={"private": ["secret", "seats"], "required": ["seats"]})
    found = bundled(train(posed(case, made_table()), "hist_gradient_boosting", BOOSTER), tmp_path / "b", case, [ROW])
    doors = made_doors(made_service(found, tmp_path), tmp_path)
    [seats] = [one for one in got(doors, "/model").json()["contract"]["columns"] if one["name"] == "seats"]
    assert (seats["low"], seats["high"], seats["kind"]) == (None, None, "integer")
    row = got(doors, "/openapi.json").json()["components"]["schemas"]["Row"]
    assert (row["examples"][0]["seats"], row["properties"]["seats"]["examples"]) == (0, [0])
    assert "Trained on" not in row["properties"]["seats"]["description"]


@pytest.mark.parametrize("path", DESCRIBED)
def test_what_tells_of_the_model_needs_the_token_as_a_program_or_a_browser_gives_it(service, tmp_path, path):
    doors = made_doors(service, tmp_path, Tokens(b"first", b"second"))

    def status(authorization):
        return asked(reopened(doors), path, None, {"Authorization": authorization}, "GET").status_code

    person, other = (base64.b64encode(text).decode() for text in (b"ada:first", b"ada:second"))
    assert [status(f"Bearer {token}") for token in ("first", "second", "")] == [200, 401, 401]
    assert [status(f"Basic {said}") for said in (person, other, "%%%", "")] == [200, 401, 401, 401]
    refused = got(doors, path)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert "Basic realm" in refused.headers["www-authenticate"]


def test_a_whole_number_is_shown_whole_and_dates_say_what_training_showed(discreet, tmp_path):
    doors = made_doors(made_service(discreet, tmp_path), tmp_path)
    row = got(doors, "/openapi.json").json()["components"]["schemas"]["Row"]
    assert row["properties"]["when"]["description"].startswith("Trained on 2024-01-01")
    assert "120.0" not in got(doors, "/docs").text


def test_the_model_does_not_tell_where_its_table_lay(discreet, tmp_path):
    manifest = replace(discreet.manifest, window={**discreet.manifest.window, "name": "/home/ada/secret place/t.csv"})
    found = save(discreet.scorer, manifest, [ROW], tmp_path / "bundle")
    assert got(made_doors(made_service(found, tmp_path), tmp_path), "/model").json()["window"]["name"] == "t.csv"


def test_a_browser_s_password_opens_pages_and_never_predicts(service, tmp_path):
    doors = made_doors(service, tmp_path, Tokens(b"first"))
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {base64.b64encode(b'a:first').decode()}"}
    assert asked(doors, "/predict", ROW, headers).status_code == 401


def test_health_and_counts_are_open_where_tokens_are_set(service, tmp_path):
    doors = made_doors(service, tmp_path, Tokens(b"first", b"second"))
    for path in ("/live", "/ready", "/ping", "/health", "/version", "/metrics"):
        assert got(doors, path).status_code == 200, path


# --- pages ---------------------------------------------------------------------------------------------------------

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"


def test_the_page_shows_what_is_served_and_loads_nothing_from_elsewhere(doors, tmp_path):
    decision = {"number": 3, "verdict": "REJECT", "version": "2", "alias": "production", "reason": HOSTILE}
    (tmp_path / "ledger.json").write_text(json.dumps([decision]))
    asked(doors, "/predict", ROW)
    for path in ("/", "/docs"):
        response = got(doors, path)
        assert response.status_code == 200
        assert "http://" not in response.text.replace("http://HOST:PORT", "")
        assert "https://" not in response.text
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy).group(1)
        assert f'<style nonce="{nonce}">' in response.text
    text = got(doors, "/").text
    assert "REJECT" in text
    assert HOSTILE not in text
    assert "&lt;/script&gt;" in text
    assert "&quot;distance&quot;: 500.0" in text


def test_a_foreign_name_is_escaped_on_the_page(service):
    service.metrics.counts["warnings", HOSTILE, "missing"] += 1
    text, _ = html.front(service, service.metrics, [])
    assert HOSTILE not in text


# --- requests made from the description ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bundle", "regression_bundle", "multiclass_bundle"])
def test_requests_made_from_the_description_are_answered_as_it_says(kind, request, tmp_path):
    service = made_service(request.getfixturevalue(kind), tmp_path, redaction=LogRedaction(("number",)))
    doors = made_doors(service, tmp_path)
    described = got(doors, "/openapi.json").json()
    schema = schemathesis.openapi.from_dict(described)
    # a value of another type than the schema's costs its row, not the request: that is answered, and no failure
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    quick = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    asked_for = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @quick
        @schemathesis_given(operation)
        def ask(case):
            nonlocal asked_for
            asked_for += 1
            response = sent(doors, case)
            case.validate_response(response, checks=checks)

        ask()
    assert asked_for > 20


def schemathesis_given(operation):
    from hypothesis import given

    return given(case=operation.as_strategy())


def sent(doors, case):
    """A case through the doors."""
    import httpx

    told = case.as_transport_kwargs(base_url="http://server")
    prepared = httpx.Request(
        told["method"], told["url"], headers=told.get("headers"), json=told.get("json"), content=told.get("data")
    )
    return asked(reopened(doors), prepared.url.path, prepared.content, dict(prepared.headers), told["method"])
