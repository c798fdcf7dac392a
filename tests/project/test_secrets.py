"""No secret of settings or environment is printed, logged, tagged or stored, however a command fails."""

import base64
import html
import json
import os
import re
import sqlite3
from urllib.parse import quote, quote_plus

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from afterfit.errors import DataError
from afterfit.texts import redaction
from afterfit.texts.redaction import learn, learn_settings, redact, redacted
from made_sizes import made_table


@pytest.fixture(autouse=True)
def _nothing_learned():
    redaction.forget()
    yield
    redaction.forget()


# --- the one function ----------------------------------------------------------------------------------------------

PLACES = {
    "postgresql://me:{}@db:5432/x": "postgresql://me:***@db:5432/x",
    "mysql+pymysql://:{}@h/d?ssl=1": "mysql+pymysql://:***@h/d?ssl=1",
    "clone https://{}@github.com/x": "clone https://***@github.com/x",
    "https://h/x?a=1&token={}&b=2": "https://h/x?a=1&token=***&b=2",
    "https://h/x?X-Amz-Signature={}": "https://h/x?X-Amz-Signature=***",
    "blob?sv=2024&sig={}": "blob?sv=***&sig=***",
    "host=h password={} user=me": "host=h password=*** user=me",
    "Server=h;Pwd={};Database=d": "Server=h;Pwd=***;Database=d",
    "AccountName=a;AccountKey={};EndpointSuffix=s": "AccountName=a;AccountKey=***;EndpointSuffix=s",
    "DRIVER%3Dx%3BPWD%3D{}%3BUID%3Dme": "DRIVER%3Dx%3BPWD%3D***%3BUID%3Dme",
    "Authorization: Bearer {}": "Authorization: ***",
    "{'Authorization': 'Basic {}'}": "{'Authorization': '***'}",
    'sent {"client_secret": "{}", "n": 1}': 'sent {"client_secret": "***", "n": 1}',
    "run --api-key {} --rows 3": "run --api-key *** --rows 3",
    "https://hooks.slack.com/services/{}": "https://hooks.slack.com/services/***",
    "https://discord.com/api/webhooks/{} refused": "https://discord.com/api/webhooks/*** refused",
}
WORDS = st.text("abcXYZ019_-.~", min_size=8, max_size=30).filter(
    lambda word: not word.startswith("--") and word.lower() not in redaction.PUBLIC
)


@given(st.sampled_from(sorted(PLACES)), WORDS)
def test_a_secret_is_known_by_its_place(place, secret):
    cleaned = redact(place.replace("{}", secret))
    assert cleaned == redact(cleaned) == PLACES[place]


@pytest.mark.parametrize(
    "text",
    [
        "Version 5 was promoted: roc_auc 0.8 [0.7, 0.9].", "FATAL: password authentication failed for user me",
        "unknown key 'password': did you mean 'path'?", "delivery.secret: must be text (it says 5)", "basic settings",
        "write dialect://user:password@host/database", "http://host:80/x?mail=a@b.c", "sqlite:///file.db", "user@host",
        "s3://bucket/key=1/part", "columns.key: id", "the column 'token' is absent; there are 'secret', 'note'",
        "mlflow-artifacts:/1/0a1b2c3d4e5f60718293a4b5c6d7e8f9/artifacts", "2024-01-01T00:00:00+00:00", "a/b:c@d",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays_as_it_is(text):
    assert redact(text) == text


def forms(secret):
    """What libraries make of a text."""
    yield from (secret, quote(secret, safe=""), quote(secret), quote(secret, safe=" +"), quote_plus(secret))
    yield from (
        quote(quote(secret, safe=""), safe=""),
        re.sub("%..", lambda byte: byte[0].lower(), quote(secret)),
        html.escape(secret),
    )
    yield from (repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield base64.b64encode(secret.encode()).decode()
    yield "".join(f"%{byte:02X}" for byte in secret.encode())


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8, max_size=20).filter(
        lambda text: "*" not in text and text.lower() not in redaction.PUBLIC
    )
)
def test_a_value_that_is_known_is_found_in_every_form_and_cut_off(secret):
    redaction.forget()
    learn(secret)
    for form in forms(secret):
        for text in (f"it said '{form}' and went", f"x={form}", form):
            cleaned = redact(text)
            assert form not in cleaned
            assert secret not in cleaned
    cut = redact(f"it said {secret[:-1]}…")
    assert secret[: redaction.CUT] not in cut


def test_a_password_with_marks_of_an_address_is_found_in_the_pieces_that_parsers_print():
    learn_settings({"source": {"sql": "postgresql://me:s3cr/et:w0rd@x#9zz@db/x"}})
    for said in ("port 's3cr' is no number", "cannot resolve 'w0rd@x#9zz@db'", "me:s3cr%2Fet%3Aw0rd%40x%239zz@db"):
        assert not {"s3cr", "w0rd", "9zz"} & set(
            redact(said).replace("'", " ").replace("@", " ").replace("#", " ").split()
        )


def test_secrets_of_the_environment_are_known_by_their_names_and_addresses(monkeypatch):
    monkeypatch.setenv("SALES_PASSWORD", "hunter2a")
    monkeypatch.setenv("WHERE", "postgresql://me:hunter2b@h/x")
    monkeypatch.setenv("SALES_TOKEN_FILE", "/run/secrets/token-file")
    monkeypatch.setenv("CI_TOKEN", "true")
    for name in ("PWD", "OLDPWD", "HOME", "SSH_AUTH_SOCK", "SALES_KEY_PATH"):
        monkeypatch.setenv(name, "/srv/afterfit")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////srv/build-20240101123456/mlflow.db")
    assert redact("/srv/afterfit/build-20240101123456/x.yaml") == "/srv/afterfit/build-20240101123456/x.yaml"
    assert redact("hunter2a, hunter2b, /run/secrets/token-file, true") == "***, ***, /run/secrets/token-file, true"
    assert str(DataError("no hunter2a here")) == "no *** here"
    assert repr(DataError("no hunter2a here")) == "DataError('no *** here')"
    assert redacted({"hunter2a": ["hunter2a", {"x": ("hunter2b", 3)}]}) == {"hunter2a": ["***", {"x": ["***", 3]}]}


def test_a_name_that_is_no_utf_8_can_be_printed():
    assert redact(os.fsdecode(b"caf\xe9.csv")).encode() == b"caf\\udce9.csv"


@pytest.mark.parametrize(
    "evil", ["a" * 60_000, "x://" * 9_000, "pass_" * 9_000, "'" * 30_000, ";pwd=" * 9_000, "a.b-" * 9_000]
)
def test_a_long_text_costs_no_more_than_its_length(evil):
    assert len(redact(evil)) <= 2 * len(evil)  # a pattern that looks back again and again would not end here


# --- every command -------------------------------------------------------------------------------------------------

SECRET = "hunter2/S3cr3t+w0rd&é"
TELLING = ("hunter2", "S3cr3t", "w0rd", quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode())
PLAIN = "hunter2-S3cr3t-w0rd"


def planted(folder, **changes):
    """A use case with a secret under every key that can hold one."""
    file, database = folder / "sizes.yaml", folder / "sizes.db"
    with sqlite3.connect(database) as connection:
        made_table(160).to_sql("sizes", connection, index=False)
    connection.close()
    settings = {
        "name": "sizes",
        "description": f"Of postgresql://me:{quote(SECRET, safe='')}@db/x",
        "task": "classification",
        "target": "outcome",
        "time": "hour",
        "source": {"sql": f"sqlite:///file:{database}?uri=true&token={PLAIN}", "query": "select * from sizes"},
        "columns": {"features": ["size", "count", "colour"]},
        "split": {"share": 0.3, "folds": 2},
        "candidates": [{"builder": "linear"}],
        "alarms": {
            "webhook": f"http://me:{PLAIN}@127.0.0.1:9/services/T0/{PLAIN}?token={PLAIN}",
            "secret": "SIGNING_KEY",
            "command": ["no such program", f"--password={PLAIN}", "${SIGNING_KEY}"],
        },
    }
    file.write_text(yaml.safe_dump({**settings, **changes}, allow_unicode=True))
    return file


@pytest.fixture
def environment(monkeypatch):
    for name in (
        "SIGNING_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AFTERFIT_PREDICT_TOKEN",
        "MLFLOW_TRACKING_TOKEN",
        "PGPASSWORD",
    ):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("WAREHOUSE", f"postgresql+psycopg://me:{quote(SECRET, safe='')}@127.0.0.1:9/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{quote(SECRET, safe='')}@127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return monkeypatch


def leaks(text):
    return [word for word in TELLING if word in text]


def told_by(command_line, name, folder, **options):
    """All that a command says, and the JSON that it writes."""
    place = folder / "answer.json"
    place.unlink(missing_ok=True)
    code, out, err = command_line(name, json=place, **options)
    return code, out + err + (place.read_text() if place.exists() else "")


READERS = [
    "train",
    "tune",
    "monitor",
    "score",
    "promote",
    "rollback",
    "history",
    "step",
    "outcomes",
    "main",
    "backtest",
]
READERS += ["compare_drift", "compare_performance"]
OPTIONS = {
    "promote": {"version": "1"},
    "rollback": {"reason": "It is bad.", "version": "1"},
    "score": {"out": "scores.parquet"},
    "compare_drift": {"reference": "production"},
}
STORES = [
    f"http://me:{quote(SECRET, safe='')}@127.0.0.1:9",
    f"postgresql+psycopg://me:{quote(SECRET, safe='')}@127.0.0.1:9/x",
    f"postgresql://me:{PLAIN}/x@127.0.0.1:9/x",
    f"nosuch://me:{PLAIN}@h/x",
    f"http://me:{PLAIN}@h:port/",
    f"http://me:{PLAIN}@h:99999/",
    f"postgresql+psycopg://me:{PLAIN}@[::1/x",
    f"http://me:{PLAIN}@{'a' * 70}..x/",
]


@pytest.mark.parametrize("name", READERS)
def test_a_store_that_is_away_is_named_without_its_secret(name, store, command_line, environment):
    file = planted(store)
    for uri in STORES:
        environment.setenv("MLFLOW_TRACKING_URI", uri)
        code, told = told_by(command_line, name, store, config=file, **OPTIONS.get(name, {}))
        assert code
        assert not leaks(told)


SOURCES = [
    {"sql": "${WAREHOUSE}", "query": "select 1"},
    {"sql": f"postgresql+psycopg://me:{PLAIN}@127.0.0.1:9/x", "query": f"select dblink('password={PLAIN}')"},
    {"sql": f"postgresql+psycopg://me:{PLAIN}/{PLAIN}@127.0.0.1:9/x", "query": "select 1"},
    {"sql": f"nosuch://me:{PLAIN}@h/x", "query": "drop table x"},
    {"sql": f"me {PLAIN} no address at all ://", "query": "select 1"},
    {"path": f"https://me:{PLAIN}@h/x.csv"},
    {"path": f"s3://bucket/x.csv?token={PLAIN}"},
    {"sql": [f"postgresql://me:{PLAIN}@h/x"], "query": "select 1"},
    {"sql": f"postgresql://me:{PLAIN}@h/x"},
    {"sql": f"postgresql://me:{PLAIN}@h/x", "password": PLAIN, "query": "x"},
]


@pytest.mark.parametrize("source", SOURCES, ids=range(len(SOURCES)))
@pytest.mark.usefixtures("environment")
def test_a_source_that_fails_is_named_without_its_secret(source, store, command_line):
    file = planted(store, source=source)
    for name in ("train", "compare_drift"):
        code, told = told_by(command_line, name, store, config=file, **OPTIONS.get(name, {}))
        assert code
        assert not leaks(told)


@pytest.mark.parametrize(
    "wrong",
    [
        f'source: {{sql: "postgresql://me:{PLAIN}@db/x, query: select 1',
        f"source:\n  sql: postgresql://me:{PLAIN}@db/x\n query: select\n  - x",
        f"alarms:\n  webhook: [http://h/services/{PLAIN}]\n  secret: 5",
        f"alarms: {{webhook: http://me:{PLAIN}@h/x, secert: {PLAIN}}}",
        f"log: {{folder: 's3://me:{PLAIN}@bucket/x?token={PLAIN}'}}",
        f"postgresql://me:{PLAIN}@db/x",
    ],
)
@pytest.mark.usefixtures("environment")
def test_a_settings_file_that_is_wrong_is_refused_without_its_secrets(wrong, tmp_path, command_line):
    file = tmp_path / "wrong.yaml"
    file.write_text(f"name: wrong\ntask: regression\ntarget: x\n{wrong}\n")
    code, told = told_by(command_line, "train", tmp_path, config=file)
    assert code
    assert not leaks(told)


@pytest.mark.usefixtures("environment")
def test_what_is_trained_and_told_leaves_no_secret_in_the_store(store, command_line, real_pictures):
    del real_pictures
    file = planted(store)
    for name in ("train", "history", "compare_drift"):
        options = {"reference": "latest"} if name == "compare_drift" else {}
        _, told = told_by(command_line, name, store, config=file, **options)
        assert "version 1" in told or name == "history"
        assert not leaks(told)
    for place in store.rglob("*"):
        if place.is_file() and place not in {file, store / "sizes.db"}:
            content = place.read_bytes()
            assert not [word for word in TELLING if word.encode() in content], place


def test_an_alarm_that_fails_is_told_without_its_secrets(environment, tmp_path):
    from afterfit.alarms import delivery
    from afterfit.errors import AlarmError
    from afterfit.use_case import load_use_case

    del environment
    settings = load_use_case(planted(tmp_path)).alarms.model_copy(update={"tries": 1})
    said = ["curl: (22) http://me:$1@h/x refused; $1; Authorization: Bearer $1", "$(printf %s $1 | base64)"]
    for command in (settings.command, *(("sh", "-c", f'echo "{one}"; exit 3', "sh", "${SIGNING_KEY}") for one in said)):
        with pytest.raises(AlarmError) as caught:
            delivery.send(settings.model_copy(update={"command": command}), {"id": "1"}, tmp_path, lambda _: None)
        assert not leaks(str(caught.value))
