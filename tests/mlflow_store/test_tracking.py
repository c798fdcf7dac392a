"""Runs on a real store: how they end, what is linked, and what is said of a store that is away."""

import socket
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import urllib3
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from afterfit.data.fingerprints import Fingerprint
from afterfit.errors import StoreError, UnknownVersionError
from afterfit.mlflow_store import tracking
from waiting import PATIENCE, eventually


def status(run):
    return MlflowClient().get_run(run.info.run_id).info.status


@pytest.mark.parametrize(
    ("raised", "ending"),
    [(None, "FINISHED"), (ValueError("no"), "FAILED"), (SystemExit(2), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
@pytest.mark.usefixtures("store")
def test_a_run_and_its_nested_run_end_as_the_block_did(raised, ending):
    def block():
        with tracking.run("sizes", "outer") as outer, tracking.run("sizes", "inner") as inner:
            runs.extend([outer, inner])
            if raised is not None:
                raise raised

    runs = []
    if raised is None:
        block()
    else:
        with pytest.raises(type(raised)):
            block()
    assert [status(run) for run in runs] == [ending, ending]
    assert mlflow.active_run() is None
    assert MlflowClient().get_run(runs[1].info.run_id).data.tags["mlflow.parentRunId"] == runs[0].info.run_id
    assert {MlflowClient().get_experiment(run.info.experiment_id).name for run in runs} == {"sizes"}


@pytest.mark.usefixtures("store")
def test_an_interrupt_that_a_library_turned_into_its_own_error_is_still_one():
    def block():
        with tracking.run("sizes", "one"):
            try:
                raise KeyboardInterrupt
            finally:
                Path("no such lock").unlink()

    with pytest.raises(KeyboardInterrupt):
        block()
    [run] = mlflow.search_runs(experiment_names=["sizes"], output_format="list")
    assert run.info.status == "KILLED"


@pytest.mark.usefixtures("store")
def test_a_run_that_mlflow_made_is_joined_once_and_its_parameters_do_not_clash(monkeypatch):
    experiment = tracking.experiment_id("elsewhere")
    made = MlflowClient().create_run(experiment)
    MlflowClient().log_param(made.info.run_id, "builder", "'linear'")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    with tracking.run("sizes", "train linear", {"afterfit.use_case": "sizes"}) as joined:
        tracking.params({"builder": "linear"})
    with tracking.run("sizes", "another") as later:
        pass
    assert joined.info.run_id == made.info.run_id != later.info.run_id
    found = MlflowClient().get_run(made.info.run_id)
    assert found.data.params == {"builder": "'linear'", "model.builder": "linear"}
    assert found.info.run_name == "train linear"
    assert found.info.status == "FINISHED"


def test_an_experiment_keeps_its_files_where_it_was_made(store, monkeypatch):
    first = tracking.experiment_id("sizes")
    (store / "inner").mkdir()
    monkeypatch.chdir(store / "inner")
    assert tracking.experiment_id("sizes") == first
    assert MlflowClient().get_experiment(first).artifact_location == (store / "mlruns" / "sizes").as_uri()


@pytest.mark.usefixtures("store")
def test_a_deleted_experiment_is_named():
    MlflowClient().delete_experiment(tracking.experiment_id("sizes"))
    with pytest.raises(StoreError, match="The experiment 'sizes' was deleted: restore it"):
        tracking.experiment_id("sizes")


@pytest.mark.usefixtures("store")
def test_a_metric_that_is_not_defined_is_left_out_and_the_table_is_described():
    fingerprint = Fingerprint("f" * 64, 10, ("a", "b"), "2024-01-01T00:00:00", None)
    with tracking.run("sizes", "one") as active:
        source = tracking.dataset("s3://sales/a.csv", "sizes", fingerprint, "training")
        tracking.metrics({"auc": 0.8, "other": float("nan")}, dataset=source)
        tracking.metrics({"other": float("nan")})
    found = MlflowClient().get_run(active.info.run_id)
    assert found.data.metrics == {"auc": 0.8}
    assert found.data.params["training.sha256"] == "f" * 64
    described = found.inputs.dataset_inputs[0]
    assert (described.dataset.name, described.dataset.digest) == ("sizes", "f" * 16)
    assert {"sha256": "f" * 64, "rows": "10", "columns": "2"}.items() <= {
        t.key: t.value for t in described.tags
    }.items()


@pytest.mark.usefixtures("store")
def test_parameters_come_from_the_run_of_a_search_only():
    with tracking.run("sizes", "no search") as active:
        pass
    with pytest.raises(UnknownVersionError, match="give the run of a search"):
        tracking.best_of(active.info.run_id)
    with pytest.raises(UnknownVersionError, match="does not know this"):
        tracking.best_of("0" * 32)


def test_a_folder_that_cannot_hold_the_files_is_named(store):
    with tracking.run("sizes", "one"):
        pass
    (store / "mlruns").write_text("a file in place of the folder")
    with pytest.raises(StoreError, match=r"cannot read or write its files .*mlruns"), tracking.run("sizes", "two"):
        tracking.text("hello", "a.txt")
    found = mlflow.search_runs(experiment_names=["sizes"], output_format="list")
    assert {run.info.run_name: run.info.status for run in found} == {"one": "FINISHED", "two": "FAILED"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:9", "refused"),
        ("http://no.such.host.invalid:5000", "cannot be reached"),
        ("sqlite:////proc/nowhere/mlflow.db", "No such file|not permitted|Permission|unable"),
        ("postgresql://u:hunter2@127.0.0.1:9/mlflow", "refused"),
        ("file:///proc/nowhere", "filesystem tracking backend|nowhere"),
        ("no-such-scheme://x", "no-such-scheme"),
    ],
)
def test_a_store_that_is_away_is_a_sentence_after_one_knock_of_few_seconds(tmp_path, monkeypatch, address, said):
    """MLflow, which would try for minutes, is not asked where nobody answers at the address."""
    real, knocks = tracking.socket.create_connection, []

    def knocked(place, timeout):
        knocks.append(timeout)
        return real(place, timeout)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(tracking.socket, "create_connection", knocked)
    with pytest.raises(StoreError, match=said) as raised, tracking.run("sizes", "one"):
        pass
    away = address.startswith(("http", "postgresql"))
    assert knocks == ([5.0] if away else [])
    assert "cannot be reached" in str(raised.value) or not away
    assert "hunter2" not in str(raised.value)
    assert "MLflow at" in str(raised.value)


def test_a_file_in_place_of_the_stores_folder_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(StoreError, match="cannot be reached"):
        tracking.check_reachable()


def test_a_file_that_is_no_database_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").write_text("no database " * 500)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(StoreError), tracking.run("sizes", "one"):
        pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MlflowException("gone", 5), StoreError),
        (OperationalError("SELECT 1", {}, Exception("locked")), StoreError),
        (ConnectionResetError(104, "reset"), StoreError),
        (PermissionError(13, "Permission denied", "/somewhere"), StoreError),
    ],
)
def test_what_mlflow_raises_becomes_a_sentence_with_the_store_in_it(monkeypatch, error, kind):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://reader:hunter2@127.0.0.1:9/x")
    with (
        pytest.raises(kind, match=r"MLflow at http://reader:\*\*\*@127\.0\.0\.1:9/x") as raised,
        tracking.store_errors(),
    ):
        raise error
    assert raised.value.__cause__ is error


SERVER = ["--backend-store-uri", "sqlite:///{0}/mlflow.db", "--artifacts-destination", "{0}/files", "--workers", "1"]


@pytest.fixture
def server(store, monkeypatch):
    """A real `mlflow server` over the store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    options = [option.format(store) for option in SERVER]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with (store / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--port", str(port), *options],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    assert eventually(is_reachable, process), (store / "server.log").read_text()
    yield process
    stop(process)


def is_reachable():
    try:
        tracking.check_reachable()
    except StoreError:
        return False
    return True


def stop(process):
    import os
    import signal
    from contextlib import suppress

    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)


@pytest.mark.slow
def test_over_http_versions_are_text_and_a_server_that_goes_away_is_a_sentence(
    store, server, write_use_case, command_line, monkeypatch
):
    from afterfit.mlflow_store import registry

    file = write_use_case(store)
    code, out, err = command_line("train", config=file, builder="linear")
    assert code == 0, out + err
    code, out, err = command_line("promote", config=file, to="staging")
    assert code == 0, out + err
    assert registry.holder("sizes", "staging").number == "1"
    with pytest.raises(UnknownVersionError, match=r"Versions: 1; aliases: staging \(1\)"):
        registry.version("sizes", "9")

    def stop_the_server_and_log(_):
        stop(server)
        tracking.metrics({"rows": 1.0})

    tries = []
    real = urllib3.util.connection.create_connection

    def tried(*arguments, **options):
        tries.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", tried)
    monkeypatch.setattr("afterfit.lifecycle.training_run.load_table", stop_the_server_and_log)
    code, out, err = command_line("train", config=file, builder="linear")
    assert code == 1
    assert err.count("\n") == 1
    assert "cannot be reached" in err
    assert 0 < len(tries) <= 6, "its request and the run's end, each tried three times; MLflow would take minutes"
