"""A private column from training to production: its values are nowhere, and the model answers all the same."""

import io
import json
import zipfile

import numpy as np
import pytest

from afterfit.commands import compare_drift, promote, score, serve, train
from afterfit.errors import SettingsError
from afterfit.mlflow_store import registry
from afterfit.settings import SALT
from kept_store import working_in
from made_sizes import made_table, write_use_case

COLOURS = {"red": "zq-crimson", "green": "zq-emerald", "blue": "zq-cobalt"}


def table():
    frame = made_table(rows=400)
    return frame.assign(colour=frame["colour"].map(COLOURS))


def settings(folder, name, private):
    columns = {"features": ["size", "count", "colour"], "private": private}
    log = {"folder": f"{name}-log"} if private else {}
    quick = [{"builder": "linear"}]
    return write_use_case(folder, name, table=table(), columns=columns, candidates=quick, log=log)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, empty_store):
    """The bundle of a version of the same table in which nothing is private."""
    folder = tmp_path_factory.mktemp("plain")
    with working_in(folder, empty_store):
        train.command(str(settings(folder, "plain", [])))
        return registry.load_bundle(registry.version("plain", "1"))


@pytest.fixture(scope="module")
def trained(shared_store):
    """A version with a private colour, in production, and a table that it scored into its log."""
    file = str(settings(shared_store, "secret", ["colour"]))
    train.command(file)
    promote.command(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTERFIT_LOG", str(shared_store / "secret-log"))
        score.command(file, data=str(shared_store / "secret.csv"), out=str(shared_store / "scored.parquet"))
    compare_drift.command(file, data=str(shared_store / "secret.csv"))
    return shared_store


def contents(file):
    """The bytes of a file, and of the files packed in it."""
    content = file.read_bytes()
    yield content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            yield from (packed.read(name) for name in packed.namelist())


def test_no_file_of_the_store_the_log_or_the_answers_holds_a_private_value(trained):
    files = [path for path in trained.rglob("*") if path.is_file() and path != trained / "secret.csv"]
    assert {"mlflow.db", "contract.json", "encoder.json", "profile.json", "scored.parquet"} <= {p.name for p in files}
    assert any("secret-log" in path.parts for path in files)
    assert not [path for path in files if any(b"zq-" in content for content in contents(path))]


@pytest.mark.usefixtures("trained")
def test_the_same_rows_get_the_same_answers_as_without_privacy(plain):
    bundles = [registry.load_bundle(registry.version("secret", "1")), plain]
    rows = table().head(50).drop(columns=["outcome"])
    found = [[answer["probability"] for answer in bundle.answers(rows)] for bundle in bundles]
    assert np.allclose(*found, atol=1e-6)


@pytest.mark.usefixtures("trained")
def test_no_answer_tells_whether_training_saw_a_private_value():
    bundle = registry.load_bundle(registry.version("secret", "1"))
    seen, unseen = (bundle.answer({"size": 1.0, "count": 3, "colour": colour}) for colour in ("zq-crimson", "zq-new"))
    assert seen["warnings"] == unseen["warnings"] == []
    assert "zq" not in json.dumps([seen, unseen])


def test_serve_and_score_refuse_to_hash_without_a_secret_before_they_begin(trained, tmp_path, monkeypatch):
    file = settings(tmp_path, "secret", ["colour"])
    monkeypatch.delenv(SALT)
    with pytest.raises(SettingsError, match=f"Set {SALT} to"):
        serve.command(str(file), port=0)
    with pytest.raises(SettingsError, match=SALT):
        score.command(str(file), data=str(trained / "secret.csv"), out=str(tmp_path / "scored.parquet"))
    assert not list(tmp_path.glob("*.parquet"))


def test_a_slice_by_a_private_column_is_refused_since_its_name_would_tell_the_value(tmp_path):
    from afterfit.use_case import load_use_case

    file = settings(tmp_path, "secret", ["colour"])
    file.write_text(file.read_text() + "metrics: {slices: [colour]}\n")
    with pytest.raises(SettingsError, match=r"metrics\.slices names colour"):
        load_use_case(file)
