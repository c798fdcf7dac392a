"""The registry over a real store: versions found, and altered or foreign ones refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from afterfit.errors import BundleError, StoreError, UnknownVersionError
from afterfit.mlflow_store import registry
from afterfit.use_case import load_use_case
from made_ledger import make_versions


@pytest.fixture(scope="module")
def trained(shared_store, write_use_case_in):
    """Two versions of `sizes`: a booster, and a linear model that holds the alias `staging`."""
    from afterfit.commands import train

    file = write_use_case_in(shared_store)
    for builder in ("", "linear"):
        train.command(str(file), builder)
    registry.set_alias(registry.version("sizes", "2"), registry.STAGING)
    return load_use_case(file)


@pytest.fixture
def altered(trained):
    """The first version's files, put back after the test."""
    home = registry.model_folder(registry.version(trained.name, "1"))
    copy = home.with_name("untouched")
    shutil.copytree(home, copy)
    yield home
    shutil.rmtree(home, ignore_errors=True)
    copy.rename(home)


@pytest.mark.parametrize(("reference", "number"), [("1", "1"), ("2", "2"), ("latest", "2"), (" staging ", "2")])
@pytest.mark.usefixtures("trained")
def test_a_version_is_found_by_number_alias_or_latest(reference, number):
    found = registry.version("sizes", reference)
    assert (found.number, found.uri) == (number, f"models:/sizes/{number}")


@pytest.mark.parametrize("reference", ["7", "production", "v3", "a b", "²", "", "99999999999999999999999"])
@pytest.mark.usefixtures("trained")
def test_an_unknown_version_lists_what_there_is(reference):
    with pytest.raises(UnknownVersionError, match=r"Versions: 1, 2; aliases: staging \(2\)\.$"):
        registry.version("sizes", reference)


@pytest.mark.parametrize("reference", ["1", "production", "latest"])
@pytest.mark.usefixtures("trained")
def test_an_unknown_model_says_to_train_one(reference):
    with pytest.raises(UnknownVersionError, match="no registered model 'nothing': train one first"):
        registry.version("nothing", reference)


@pytest.mark.usefixtures("trained")
def test_a_store_that_fails_is_not_taken_for_an_empty_production(monkeypatch):
    def fails(*_):
        raise MlflowException("disk I/O error")

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", fails)
    with pytest.raises(StoreError, match="disk I/O error") as raised:
        registry.holder("sizes", "production")
    assert not isinstance(raised.value, UnknownVersionError)


@pytest.mark.usefixtures("trained")
def test_a_version_carries_its_digest_builder_and_description():
    found = registry.version("sizes", "2")
    assert registry.load_bundle(found).digest == found.tags[registry.DIGEST]
    assert found.tags["afterfit.builder"] == "linear"
    assert found.tags["afterfit.trained_until"] == "2024-01-12T15:00:00"
    assert "linear" in MlflowClient().get_model_version("sizes", "2").description


@pytest.mark.usefixtures("trained")
def test_a_version_shows_what_a_person_needs_and_keeps_the_rest_in_one_tag_that_its_page_hides():
    found = registry.version("sizes", "2")
    shown = {key: value for key, value in found.stored.items() if not key.startswith("mlflow.")}
    rows = f"{int(found.tags['afterfit.rows']):,}"
    assert shown == {"status": "trained", "rows": rows, "trained until": "2024-01-12 15:00:00"}
    assert [key for key in found.stored if key.startswith("mlflow.")] == ["mlflow.afterfit"]


@pytest.mark.usefixtures("shared_store")
def test_a_version_is_found_by_a_fact_wherever_the_store_keeps_it():
    make_versions(2, "stepped")
    MlflowClient().set_model_version_tag("stepped", "1", "afterfit.step", "first")
    registry.tag(registry.version("stepped", "2"), {registry.STEP: "second"})
    assert registry.find_by_tag("stepped", "afterfit.step", "first").number == "1"
    assert registry.find_by_tag("stepped", "afterfit.step", "second").number == "2"
    assert registry.find_by_tag("stepped", "afterfit.step", "third") is None


@pytest.mark.usefixtures("shared_store")
def test_a_description_never_outgrows_what_mlflows_tables_hold():
    make_versions(1, "described")
    MlflowClient().update_model_version("described", "1", "The card.")
    for number in range(1, 12):
        registry.extend_description(registry.version("described", "1"), f"## Decision {number}", "x" * 900)
    known = registry.version("described", "1").description
    assert len(known) <= registry.MOST_DESCRIPTION
    assert known.startswith("The card.")
    assert [number for number in range(1, 12) if f"## Decision {number}\n" in known] == [7, 8, 9, 10, 11]


@pytest.mark.usefixtures("trained")
def test_a_loaded_bundle_knows_its_version_and_promise():
    bundle = registry.load_bundle(registry.version("sizes", "1"))
    assert (bundle.version, bundle.manifest.builder) == ("1", "hist_gradient_boosting")
    assert 0 < bundle.manifest.expected["log_loss"]["mean"] < 0.69
    assert bundle.answer(bundle.example[0])["model_version"] == "1"


def _append(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda home: _append(home / "artifacts/bundle/contract.json"), "not the one that was registered"),
        (lambda home: _append(home / "artifacts/bundle/estimator.skops"), "not the one that was registered"),
        (lambda home: (home / "artifacts/bundle/encoder.json").unlink(), "encoder.json is missing"),
        (lambda home: _append(home / "code/afterfit/model/scorer.py"), "scorer.py was altered"),
        (lambda home: (home / "code/afterfit/extra.py").touch(), "extra.py is not one of its files"),
        (lambda home: _append(home / "served.py"), "served.py was altered"),
        (lambda home: shutil.rmtree(home / "code"), "code/afterfit/__init__.py is missing"),
    ],
    ids=["contract", "estimator", "file gone", "code changed", "code added", "loader changed", "code gone"],
)
def test_an_altered_version_loads_neither_here_nor_through_pyfunc(altered, damage, message):
    damage(altered)
    version = registry.version("sizes", "1")
    with pytest.raises(BundleError, match=message):
        registry.load_bundle(version)
    with pytest.raises((BundleError, MlflowException, OSError)):
        mlflow.pyfunc.load_model(version.uri)


def test_a_version_whose_files_are_gone_is_refused_with_a_sentence(altered):
    shutil.rmtree(altered)
    with pytest.raises(BundleError, match="The files of models:/sizes/1 cannot be read"):
        registry.load_bundle(registry.version("sizes", "1"))


@pytest.mark.usefixtures("shared_store")
def test_a_version_that_afterfit_did_not_register_is_refused():
    from sklearn.dummy import DummyClassifier

    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(DummyClassifier().fit([[0], [1]], [0, 1]), name="model", pip_requirements=[])
    mlflow.register_model(logged.model_uri, "foreign")
    version = registry.version("foreign", "latest")
    with pytest.raises(BundleError, match="no recorded digest: it was not registered by Afterfit"):
        registry.load_bundle(version)
    registry.tag(version, {registry.DIGEST: "0" * 64})
    with pytest.raises(BundleError, match="would be unpickled, which is refused"):
        registry.load_bundle(registry.version("foreign", "1"))


def before_the_list(version):
    """The same version as an earlier release registered it: without the digest of a list of its files."""
    return replace(version, stored={registry.DIGEST: version.tags[registry.DIGEST]})


def test_only_a_model_that_runs_our_own_file_is_loaded(altered):
    described = (altered / "MLmodel").read_text()
    (altered / "MLmodel").write_text(described.replace("/served.py", "/other.py"))
    version = registry.version("sizes", "1")
    with pytest.raises(BundleError, match="not a model from code"):
        registry.load_bundle(before_the_list(version))
    with pytest.raises(BundleError, match="MLmodel was altered"):
        registry.load_bundle(version)


def test_an_unreadable_mlmodel_file_is_named(altered):
    (altered / "MLmodel").write_text("flavors: [")
    with pytest.raises(BundleError, match="no readable MLmodel file"):
        registry.load_bundle(before_the_list(registry.version("sizes", "1")))


@pytest.mark.usefixtures("trained")
def test_the_served_model_answers_under_its_version_and_an_alias_resolves():
    for address, number in (("models:/sizes@staging", "2"), ("models:/sizes/1", "1")):
        model = mlflow.pyfunc.load_model(address)
        import pandas as pd

        good, bad = {"size": 1.0, "count": 3, "colour": "red"}, {"size": "many", "count": 3, "colour": "red"}
        answers = model.predict(pd.DataFrame([good, bad]))
        assert [answer["model_version"] for answer in answers] == [number, number]
        assert answers[0]["error"] is None
        assert answers[1]["error"]["column"] == "size"


def test_the_version_of_a_model_outside_the_registry_is_not_known(tmp_path):
    from afterfit import served

    assert served._version(tmp_path) is None
    (tmp_path / "registered_model_meta").write_text("model_name: sizes\nmodel_version: '12'\n")
    assert served._version(tmp_path) == "12"
