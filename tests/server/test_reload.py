"""A new version is taken into service between two batches, or refused; what is served goes on in either case."""

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import threading
import time

import pytest

from afterfit.model.bundle import save
from afterfit.model.training import train
from afterfit.prediction_log.privacy import LogRedaction
from afterfit.server import reload
from afterfit.server.reload import Reloader, try_out
from afterfit.serving import auth
from afterfit.serving.auth import Tokens
from afterfit.serving.engine import engine
from afterfit.serving.http_errors import HttpError
from afterfit.serving.service import Shadow
from made import BOOSTER, made_table, manifest, posed, use_case
from serving_client import JSON, asked, client, logged, made_doors, made_service, reopened
from waiting import PATIENCE

ROW = {"when": "2024-01-03T05:00:00", "distance": 500.0, "seats": 120, "carrier": "AA", "secret": "x7"}


@pytest.fixture(scope="module")
def versions(trained, tmp_path_factory):
    """Two bundles as the registry would give them: 1 as made, 2 with other trees."""
    folder = tmp_path_factory.mktemp("versions")
    other = train(posed(use_case(), made_table(seed=5)), "hist_gradient_boosting", {**BOOSTER, "max_iter": 5})
    found = {}
    for number, scorer in {"1": trained.scorer, "2": other.scorer}.items():
        made = save(scorer, manifest(use_case()), [ROW], folder / number)
        found[number] = {
            "version": number,
            "digest": made.digest,
            "home": str(folder),
            "bundle": str(folder / number),
        }
    return found


@pytest.fixture(autouse=True)
def _no_code_beside(monkeypatch):
    """These bundles have no MLflow model around them, and so no code that could have been altered."""
    monkeypatch.setattr(reload, "check_code", lambda *_: None)


def target(shared, served, shadow=None, *, reachable=True):
    told = {"served": served, "shadow": shadow, "registry": {"reachable": reachable, "answered": time.time()}}
    part = shared / "target.part"
    part.write_text(json.dumps(told))
    part.replace(shared / "target.json")


@pytest.fixture
def following(versions, bundle, tmp_path):
    """A service of version 1 and its follower."""
    service = made_service(bundle, tmp_path)
    told = []
    found = Reloader(service, tmp_path, LogRedaction(), told.append)
    target(tmp_path, versions["1"])
    found.look()
    return service, found, told


def test_the_version_that_the_registry_names_is_served(following, versions, tmp_path):
    service, found, told = following
    assert service.engine.bundle.version == "1"
    target(tmp_path, versions["2"])
    found.look()
    assert service.engine.bundle.version == "2"
    assert service.engine.bundle.digest == versions["2"]["digest"]
    assert [sentence.split()[1] for sentence in told] == ["1", "2"]
    assert service.metrics.counts["reloads", "2"] == 1
    doors = made_doors(service, tmp_path)
    assert asked(doors, "/predict", ROW).json()["model_version"] == "2"


def test_a_version_that_was_altered_is_refused_and_the_old_one_goes_on(following, versions, tmp_path):
    service, found, told = following
    shutil.copytree(versions["2"]["bundle"], tmp_path / "altered")
    with (tmp_path / "altered" / "example.json").open("a") as file:
        file.write(" ")
    target(tmp_path, {**versions["2"], "home": str(tmp_path), "bundle": str(tmp_path / "altered")})
    found.look()
    assert service.engine.bundle.version == "1"
    assert "refused" in told[-1]
    [note] = tmp_path.glob("refused-*.json")
    assert "digest" in json.loads(note.read_text())["reason"]
    assert str(tmp_path) not in json.loads(note.read_text())["reason"]
    assert service.metrics.counts["reloads_refused", "2"] == 1


def test_a_version_that_does_not_answer_todays_rows_is_refused(following, versions, tmp_path):
    service, found, told = following
    problem = posed(use_case(columns={"required": ["distance"]}), made_table(seed=5))
    strict = train(problem, "hist_gradient_boosting", BOOSTER).scorer
    made = save(strict, manifest(use_case()), [ROW], tmp_path / "strict")
    asked(made_doors(service, tmp_path), "/predict", {**ROW, "distance": None})
    target(tmp_path, {**versions["2"], "version": "3", "digest": made.digest, "bundle": str(tmp_path / "strict")})
    found.look()
    assert service.engine.bundle.version == "1"
    assert "1 of the last 1 rows" in told[-1]
    target(tmp_path, versions["2"])
    found.look()
    assert service.engine.bundle.version == "2"


def test_an_example_without_a_prediction_speaks_against_a_version(bundle, tmp_path, trained):
    made = save(trained.scorer, manifest(use_case()), [{**ROW, "distance": "far"}], tmp_path / "odd")
    with pytest.raises(reload.BundleError, match="example"):
        try_out(engine(made), None, [])
    try_out(engine(bundle), None, [])


def test_requests_go_on_while_versions_change_and_no_answer_is_mixed(following, versions, tmp_path):
    service, found, _ = following
    expected = {
        number: engine(reload.load(versions_path(versions, number))).answers([ROW])[0].to_dict() for number in versions
    }
    doors = made_doors(service, tmp_path)

    answers, over, came = [], asyncio.Event(), asyncio.Condition()

    async def ask_on(one):
        while not over.is_set():
            response = await one.post("/predict", content=json.dumps([ROW, ROW, ROW]), headers=JSON)
            assert response.status_code == 200
            async with came:
                answers.append(response.json())
                came.notify_all()

    def more_than(count):
        return lambda: len(answers) > count

    async def change():
        for number in range(6):
            target(tmp_path, versions[str(number % 2 + 1)])
            await asyncio.to_thread(found.look)
            async with came:
                await came.wait_for(more_than(len(answers) + 20))
        over.set()

    async def run():
        async with client(doors) as one:
            await asyncio.gather(*(ask_on(one) for _ in range(4)), change())

    asyncio.run(run())
    assert {answer[0]["model_version"] for answer in answers} == {"1", "2"}
    for three in answers:
        assert len({answer["model_version"] for answer in three}) == 1
        for answer in three:
            assert answer["probability"] == pytest.approx(expected[answer["model_version"]]["probability"], abs=1e-9)


def versions_path(versions, number):
    from pathlib import Path

    return Path(versions[number]["bundle"])


def test_a_registry_that_is_away_is_told_and_changes_nothing(following, versions, tmp_path):
    service, found, _ = following
    target(tmp_path, versions["1"], reachable=False)
    found.look()
    doors = made_doors(service, tmp_path)
    ready = asked(doors, "/ready", None, {}, "GET")
    assert ready.status_code == 200
    assert ready.json()["registry"]["reachable"] is False
    metrics = asked(reopened(doors), "/metrics", None, {}, "GET").text
    assert "afterfit_registry_up 0.0" in metrics
    assert asked(reopened(doors), "/predict", ROW).status_code == 200


def test_a_shadow_answers_the_same_rows_into_the_log_under_the_same_ids(following, versions, tmp_path):
    service, found, _ = following
    service.shadow = Shadow(service.log, service.faults)
    target(tmp_path, versions["1"], versions["2"])
    found.look()
    doors = made_doors(service, tmp_path)
    answer = asked(doors, "/predict", ROW).json()
    service.shadow.close()
    [own, behind] = logged(service, "prediction_id, version, shadow, probability")
    assert own[:3] == (answer["prediction_id"], "1", 0)
    assert behind[:3] == (answer["prediction_id"], "2", 1)
    assert behind[3] != own[3]
    assert service.shadow.metrics.counts["shadow_rows", "2"] == 1


def test_a_shadow_that_lags_drops_rows_and_says_so(following, versions, tmp_path, monkeypatch):
    from afterfit.serving import service as shadow

    service, found, _ = following
    monkeypatch.setattr(shadow, "MOST_WAITING", 2)
    service.shadow = Shadow(service.log, service.faults)
    target(tmp_path, versions["1"], versions["2"])
    found.look()
    slow = service.shadow.engine
    offered = threading.Event()
    monkeypatch.setattr(type(slow), "entries", lambda *_, **__: [] if offered.wait(PATIENCE) else None)
    for _ in range(10):
        service.shadow.offer([ROW], service.engine.answers([ROW]), None, 0.0)
    assert service.shadow.dropped >= 10 - 2 - 2, "two wait, and one or two are at work"
    offered.set()
    service.shadow.close()


# --- webhook -------------------------------------------------------------------------------------------------------


def signed(secret=b"secret", body=b"{}", delivery="d1", moment=None):
    moment = str(int(time.time())) if moment is None else moment
    digest = hmac.new(secret, f"{delivery}.{moment}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}",
        "X-MLflow-Timestamp": moment,
        "X-MLflow-Delivery-Id": delivery,
        **JSON,
    }


def test_our_signature_is_mlflows():
    from mlflow.webhooks.delivery import _generate_hmac_signature

    assert auth.signature(b"s3", "id", "17", b'{"a": 1}') == _generate_hmac_signature("s3", "id", "17", '{"a": 1}')


def test_a_signed_webhook_has_the_registry_asked_at_once(following, tmp_path):
    service, _, _ = following
    doors = made_doors(service, tmp_path, Tokens(webhook=b"secret"))
    assert asked(doors, "/webhook", b"{}", signed(delivery="fresh")).status_code == 200
    assert (tmp_path / "poke").exists()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (signed(b"other", delivery="a1"), "invalid_signature"),
        (signed(body=b"{} ", delivery="a2"), "invalid_signature"),
        (signed(delivery="a3", moment="1000000000"), "stale_delivery"),
        (signed(delivery="a4", moment="soon"), "stale_delivery"),
        (JSON, "invalid_signature"),
    ],
)
def test_a_webhook_of_somebody_else_or_of_old_is_refused(following, tmp_path, headers, code):
    service, _, _ = following
    response = asked(made_doors(service, tmp_path, Tokens(webhook=b"secret")), "/webhook", b"{}", headers)
    assert (response.status_code, response.json()["code"]) == (401, code)
    assert not (tmp_path / "poke").exists()


def test_a_webhook_is_taken_once_by_whichever_worker_and_never_without_a_secret(tmp_path):
    now = time.time()
    headers = {key.lower(): value for key, value in signed(delivery="once", moment=str(int(now))).items()}
    auth.check(b"secret", headers, b"{}", now, tmp_path)
    with pytest.raises(HttpError, match="came before"):
        auth.check(b"secret", headers, b"{}", now, tmp_path)
    with pytest.raises(HttpError, match="No webhooks"):
        auth.check(None, headers, b"{}", now, tmp_path)
    auth.check(b"secret", headers, b"{}", now, _other(tmp_path))
    assert len(list(tmp_path.glob("delivery-*"))) == 1


def _other(folder):
    (folder / "other").mkdir()
    return folder / "other"


def test_what_is_remembered_of_webhooks_is_forgotten_once_their_time_would_not_pass(tmp_path):
    later = time.time() + 3 * auth.OLDEST
    for delivery, moment in [("first", time.time()), ("second", later)]:
        headers = {key.lower(): value for key, value in signed(delivery=delivery, moment=str(int(moment))).items()}
        auth.check(b"secret", headers, b"{}", moment, tmp_path)
        if delivery == "first":
            [first] = tmp_path.glob("delivery-*")
    assert not first.exists()


@pytest.mark.parametrize(
    ("told", "ours"),
    [
        ({"entity": "model_version_alias", "action": "created"}, True),
        ({"entity": "model_version_alias", "action": "deleted"}, False),
        ({"entity": "model_version_tag", "action": "created"}, False),
        ({"entity": "model_version_alias", "action": "created", "data": {"name": "made", "alias": "staging"}}, False),
        ({"entity": "model_version_alias", "action": "created", "data": []}, False),
        ([], False),
    ],
    ids=str,
)
def test_a_webhook_that_says_the_alias_was_set_has_refused_versions_tried_again(following, tmp_path, told, ours):
    service, _, _ = following
    body = told if isinstance(told, list) else {"data": {"name": "made", "alias": "production", "version": "2"}, **told}
    text = json.dumps(body).encode()
    doors = made_doors(service, tmp_path, Tokens(webhook=b"secret"))
    assert asked(doors, "/webhook", text, signed(body=text, delivery="told")).status_code == 200
    assert (tmp_path / "again").exists() is ours


# --- refused, and tried again --------------------------------------------------------------------------------------


def test_a_refused_version_is_tried_again_once_it_was_fetched_anew(following, versions, tmp_path):
    service, found, told = following
    wrong = {**versions["2"], "digest": "0" * 64, "attempt": "2"}
    for _ in range(2):
        target(tmp_path, wrong)
        found.look()
    assert len([sentence for sentence in told if "refused" in sentence]) == 1
    target(tmp_path, {**wrong, "attempt": "3"})
    found.look()
    assert len(list(tmp_path.glob("refused-*.json"))) == 2
    target(tmp_path, {**versions["2"], "attempt": "4"})
    found.look()
    assert service.engine.bundle.version == "2"


def test_a_version_that_was_replaced_while_it_was_read_is_not_refused(following, versions, tmp_path, monkeypatch):
    service, found, _ = following
    gone = {**versions["2"], "bundle": str(tmp_path / "gone")}
    original = reload.loaded

    def overtaken(wanted, redaction):
        if wanted == gone:
            target(tmp_path, versions["2"])
        return original(wanted, redaction)

    monkeypatch.setattr(reload, "loaded", overtaken)
    target(tmp_path, gone)
    found.look()
    assert not list(tmp_path.glob("refused-*.json"))
    found.look()
    assert service.engine.bundle.version == "2"
