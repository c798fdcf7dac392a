"""What should be served, as the process that talks to the registry decides it: over a real store, without workers."""

import hashlib
import json
import time
from pathlib import Path

import pytest

from afterfit.errors import StoreError, UnknownVersionError
from afterfit.mlflow_store import ledger, registry, tracking
from afterfit.mlflow_store.decisions import Decision
from afterfit.mlflow_store.registry import DIGEST, FILES, LOADER
from afterfit.server import registry_watcher, supervisor
from afterfit.server import registry_watcher as copies
from afterfit.server.options import ServerOptions
from afterfit.server.registry_watcher import RegistryWatcher

DESCRIBED = f"""
flavors:
  python_function: {{loader_module: mlflow.pyfunc.loaders.code_model, model_code_path: {LOADER}}}
"""


@pytest.fixture
def watching(store, write_use_case, monkeypatch):
    """Three versions whose files are there, the first in production, and a watcher of them."""
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model("sizes")
    run = client.create_run(tracking.experiment_id("nothing"))
    files = {"MLmodel": DESCRIBED, "artifacts/bundle/manifest.json": "{}"}
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    files["files.json"] = json.dumps({"format": 1, "model": "sizes", "files": sums})
    listed = hashlib.sha256(files["files.json"].encode()).hexdigest()
    for number in "123":
        for name, text in files.items():
            client.log_text(run.info.run_id, text, f"{number}/{name}")
        client.create_model_version(
            "sizes", f"{run.info.artifact_uri}/{number}", run.info.run_id, {DIGEST: number * 64, FILES: listed}
        )
    at("1")
    (store / "shared").mkdir()
    clock = Clock()
    monkeypatch.setattr(registry_watcher.time, "monotonic", clock)
    found = RegistryWatcher(ServerOptions(str(write_use_case(store)), "production", str(store / "shared")))
    found.ask()
    return found, store / "shared", clock


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        self.now += 1e-3
        return self.now


def at(number):
    registry.set_alias(registry.version("sizes", number), "production")


def served(shared):
    return json.loads((shared / "target.json").read_text())["served"]


def refuse(shared, reason="It cannot answer.", worker=1):
    """What a worker writes that could not take the version into service."""
    wanted = served(shared)
    (shared / f"refused-{worker}-{wanted['version']}.json").write_text(json.dumps({**wanted, "reason": reason}))


def refusals():
    return [one.decision for one in ledger.entries("sizes") if one.decision.verdict == "REFUSED"]


def test_a_version_is_copied_and_what_becomes_of_its_files_does_not_matter(watching):
    _, shared, _ = watching
    wanted = served(shared)
    assert (wanted["version"], wanted["digest"]) == ("1", "1" * 64)
    assert wanted["bundle"].startswith(str(shared))
    (registry.model_folder(registry.version("sizes", "1")) / "MLmodel").unlink()
    assert "code_model" in Path(wanted["home"], "MLmodel").read_text()


def test_the_current_copy_and_two_to_go_back_to_are_kept(watching, monkeypatch):
    found, shared, _ = watching
    monkeypatch.setattr(copies, "KEPT", 2)
    for number in "2323":
        at(number)
        found.ask()
    assert served(shared)["version"] == "3"
    assert sorted(place.name for place in (shared / "versions").iterdir()) == ["2-2", "3-3"]


def test_a_refused_version_is_noted_once_and_the_one_before_is_served(watching):
    found, shared, _ = watching
    at("2")
    found.ask()
    assert served(shared)["version"] == "2"
    refuse(shared, worker=1)
    refuse(shared, worker=2)
    found.ask()
    found.ask()
    assert served(shared)["version"] == "1"
    [decision] = refusals()
    assert decision.version == "2"
    assert "version 1 goes on: It cannot answer." in decision.reason
    assert registry.aliases("sizes") == {"production": "2"}


def test_a_refusal_never_moves_an_alias_that_somebody_set_by_hand(watching):
    found, shared, _ = watching
    ledger.record("sizes", Decision("promotion", "PROMOTE", "1", "production", moves=True), 0)
    at("2")
    found.ask()
    refuse(shared)
    found.ask()
    assert len(refusals()) == 1
    assert registry.aliases("sizes")["production"] == "2"


def test_a_refused_version_is_tried_again_after_some_minutes_and_noted_no_second_time(watching):
    found, shared, clock = watching
    at("2")
    found.ask()
    refuse(shared)
    found.ask()
    clock.now += copies.AGAIN - 10
    found.ask()
    assert served(shared)["version"] == "1"
    clock.now += 20
    found.ask()
    assert (served(shared)["version"], served(shared)["attempt"]) == ("2", "3")
    refuse(shared)
    found.ask()
    assert served(shared)["version"] == "1"
    assert len(refusals()) == 1


def again_by_hand(_):
    at("1")
    yield
    at("2")


def again_by_promotion(_):
    registry.tag(registry.version("sizes", "2"), {"afterfit.production_since": "2024-01-01T00:00:00"})
    yield


def again_by_webhook(shared):
    (shared / "again").touch()
    (shared / "poke").touch()
    yield


@pytest.mark.parametrize("again", [again_by_hand, again_by_promotion, again_by_webhook])
def test_a_refused_version_is_tried_again_when_the_alias_is_set_again(watching, again):
    found, shared, _ = watching
    at("2")
    found.ask()
    refuse(shared)
    found.ask()
    for _ in again(shared):
        found._wait(0.003)
        found.ask()
    found.ask()
    assert (served(shared)["version"], served(shared)["attempt"]) == ("2", "3")


def test_a_version_whose_files_are_not_ours_is_refused_before_a_worker_sees_it(watching):
    found, shared, _ = watching
    (registry.model_folder(registry.version("sizes", "2")) / "MLmodel").write_text("flavors: {sklearn: {}}")
    at("2")
    found.ask()
    found.ask()
    assert served(shared)["version"] == "1"
    assert "MLmodel was altered" in refusals()[0].reason


def test_an_alias_that_nothing_holds_ends_the_server_at_once(watching, tmp_path):
    _, shared, _ = watching
    RegistryWatcher(ServerOptions(str(tmp_path / "sizes.yaml"), "nobody", str(shared))).ask()
    with pytest.raises(UnknownVersionError, match="no version 'nobody'"):
        supervisor._check_target(shared)


def test_a_note_waits_in_the_shared_folder_until_the_store_is_back(watching, monkeypatch):
    found, shared, _ = watching

    def away(*_):
        raise StoreError("The store is away.")

    at("2")
    found.ask()
    refuse(shared)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "version", away)
        patch.setattr(ledger, "note", away)
        found.ask()
        found.ask()
    assert served(shared)["version"] == "1"
    assert not refusals()
    assert len(list(shared.glob("pending-note-*.json"))) == 1
    found.ask()
    assert len(refusals()) == 1
    assert not list(shared.glob("pending-note-*.json"))


def test_a_command_at_work_puts_a_note_off_and_the_alias_is_followed(watching, monkeypatch):
    from afterfit.mlflow_store.lock import locked

    found, shared, _ = watching
    monkeypatch.setattr(registry_watcher, "LOCK_SECONDS", 0.1)
    at("2")
    found.ask()
    refuse(shared)
    monkeypatch.setattr(registry_watcher.time, "monotonic", time.perf_counter)
    with locked("sizes.ledger-lock", "somebody"):
        at("3")
        found.ask()
        assert served(shared)["version"] == "3"
        assert not refusals()
    found.ask()
    assert len(refusals()) == 1
