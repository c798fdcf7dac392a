"""The ledger over `mlflow server` with a PostgreSQL store: the same decisions, races, and a server that goes away."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from afterfit.errors import StoreError
from afterfit.lifecycle.smoke_test import free_port
from afterfit.mlflow_store import decisions, ledger
from made_ledger import FORK, consistent, make_versions, promote, promotion
from waiting import PATIENCE, eventually

pytestmark = pytest.mark.slow


def postgres_programs():
    """The folder of initdb and postgres: Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def wait_for(port, process):
    def listens():
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
            return True
        return False

    assert eventually(listens, process), f"{process.args} does not listen on port {port}; code {process.poll()}"


def unprivileged():
    """PostgreSQL refuses to run as root: another user of this machine then, else None for this one."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The address of an empty PostgreSQL database of its own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: no driver for PostgreSQL")
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user, folder = unprivileged(), Path("/tmp") / f"afterfit-postgres-{os.getpid()}"  # noqa: S108 - others must reach it
    folder.mkdir(mode=0o700)
    if user:
        shutil.chown(folder, user)
    data, port = folder / "data", free_port()
    made = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        "afterfit",
        "--auth=trust",
        "--no-sync",
        "--encoding=UTF8",
        "--locale=C",
    ]
    subprocess.run(made, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)
    command = [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1", "-F"]
    with (tmp_path_factory.mktemp("logs") / "postgres.log").open("wb") as log:
        process = subprocess.Popen(command, user=user, cwd="/", stdout=log, stderr=log)
    try:
        wait_for(port, process)
        yield f"postgresql+psycopg://afterfit@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """`mlflow server` over the database, that can be stopped and started."""

    def __init__(self, database, folder):
        self.database, self.folder, self.port = database, folder, free_port()
        self.process = None

    def start(self, workers):
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            self.database,
            "--port",
            str(self.port),
        ]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--workers", str(workers)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self.port, self.process)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    started = Server(database, tmp_path_factory.mktemp("server"))
    try:
        started.start(workers=2)
        yield started
    finally:
        started.stop()


@pytest.fixture
def over_rest(server, tmp_path, monkeypatch):
    """This process works with that server, in a folder of its own."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    yield server
    while mlflow.active_run() is not None:
        mlflow.end_run()


@pytest.fixture
def versions(over_rest):
    """Ten versions of a fresh model 'sizes'."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    for leftover in client.search_registered_models():
        client.delete_registered_model(leftover.name)
    known = client.get_experiment_by_name("sizes.ledger")
    if known is not None:
        client.rename_experiment(known.experiment_id, f"sizes.{time.time_ns()}")
    with pytest.raises(MlflowException):
        client.get_registered_model("sizes")
    make_versions(10)
    return over_rest


def record_one(barrier, version, folder):
    seen = len(ledger.entries("sizes"))
    barrier.wait(PATIENCE)
    entry, _ = ledger.record("sizes", promotion(version, previous="1"), seen)
    (folder / f"{version}.told").write_text(f"{entry.counts} {entry.decision.reason}")
    os._exit(0)


def test_of_several_promotions_over_rest_one_wins_and_the_others_name_it(versions, tmp_path):
    del versions
    promote(1)
    barrier = FORK.Barrier(4)
    processes = [FORK.Process(target=record_one, args=(barrier, number, tmp_path)) for number in range(2, 6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    told = {number: (tmp_path / f"{number}.told").read_text() for number in range(2, 6)}
    (winner,) = [number for number, words in told.items() if words.startswith("True")]
    assert all(f"promotion of version {winner} " in words for number, words in told.items() if number != winner)
    assert decisions.holder(consistent(), "production") == str(winner)


def promote_while_it_goes_away(server, step, folder):
    """The server is killed right before that step; what the command then says is written down."""
    from mlflow import MlflowClient

    plain = getattr(MlflowClient, step)

    def gone(*arguments, **named):
        os.killpg(server.process.pid, signal.SIGKILL)
        return plain(*arguments, **named)

    setattr(MlflowClient, step, gone)
    try:
        promote(2)
    except StoreError as error:
        (folder / "said").write_text(str(error))
    os._exit(0)


@pytest.mark.parametrize(("step", "first"), [("log_dict", "Undone"), ("set_registered_model_alias", "Finished")])
def test_a_server_that_goes_away_in_the_middle_is_a_sentence_and_what_was_begun_is_settled_later(
    versions, tmp_path, step, first
):
    promote(1)
    process = FORK.Process(target=promote_while_it_goes_away, args=(versions, step, tmp_path))
    process.start()
    process.join(PATIENCE)
    versions.process.wait(PATIENCE)
    versions.start(workers=1)
    assert "cannot be reached" in (tmp_path / "said").read_text()
    said = ledger.repair("sizes")
    assert said[0].startswith(first)
    assert decisions.holder(consistent(), "production") == ("1" if first == "Undone" else "2")


@pytest.mark.usefixtures("over_rest")
def test_train_promote_and_history_over_rest(tmp_path, write_use_case, command_line):
    file = write_use_case(tmp_path, "stones")
    assert command_line("train", config=file)[0] == 0
    code, out, err = command_line("promote", config=file)
    assert code == 0, out + err
    code, out, _ = command_line("history", config=file)
    assert code == 0
    assert "Now production: version 1." in out


def test_a_source_on_postgresql_only_reads_whatever_its_words_are(database, tmp_path, monkeypatch):
    from afterfit.data import databases
    from afterfit.data.loading import read
    from afterfit.errors import SourceError
    from afterfit.settings import Source

    assert read(Source(sql=database, query="select 1 as one"), tmp_path)["one"].tolist() == [1]
    monkeypatch.setattr(databases, "require_query", lambda query: query)
    changes = ["create table made (a int)", "with x as (select 1 as a) select a into made from x"]
    changes += ["select set_config('transaction_read_only', 'off', false), set_config('x.y', 'z', false)"]
    for text in changes:
        with pytest.raises(SourceError):
            read(Source(sql=database, query=text), tmp_path)
    count = "select count(*) as n from information_schema.tables where table_name = 'made'"
    assert read(Source(sql=database, query=count), tmp_path)["n"].tolist() == [0]
