"""The tests' environment, MLflow stores made from one template, and small tables with the use cases over them."""

import os

# Before anything heavy is imported: quiet libraries, and threads that give way on a shared machine.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("AFTERFIT_LOG_SALT", "the tests' own secret, of many letters")

import base64
import gc
import shutil
import signal
import sys
from pathlib import Path

import pytest

import made_sizes
from kept_store import know_folder, made_once, working_in
from made import bundle, multiclass_bundle, regression_bundle, trained  # noqa: F401 - fixtures for every test

DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
"""A picture of one pixel."""


gc.set_threshold(100_000, 20, 100)
"""Objects that come before garbage is looked for: most of what is imported, compiled and mapped here stays."""


@pytest.fixture(autouse=True, scope="module")
def _settled_heap():
    """What earlier modules left is looked at once more by the garbage collector, and not at each of its rounds."""
    gc.collect()
    gc.freeze()


# --- MLflow stores -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A SQLite file with MLflow's tables in it: making one takes seconds, copying it none."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    made_once(file)
    return file


@pytest.fixture
def store(tmp_path, empty_store):
    """The test's folder, which is the working folder and holds an empty store."""
    with working_in(tmp_path, empty_store) as folder:
        yield folder


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory, empty_store):
    """The same for all tests of a module; they must use different use cases."""
    with working_in(tmp_path_factory.mktemp("shared"), empty_store) as folder:
        yield folder


@pytest.fixture(scope="session")
def first_version(tmp_path_factory, empty_store):
    """A folder with a store in which version 1 of the changing world is in production, trained once."""
    import made_loop

    with working_in(tmp_path_factory.mktemp("changing"), empty_store) as folder:
        made_loop.in_production(made_loop.settings(folder))
    return folder


@pytest.fixture
def begun(tmp_path, first_version):
    """The test's folder, which is the working folder, with that store in it; `made_loop.settings` come after it."""
    shutil.copytree(first_version, tmp_path, dirs_exist_ok=True)
    know_folder(tmp_path, first_version)
    with working_in(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="session", autouse=True)
def quick_pictures():
    """What a training draws is kept as one dot, where no test asks for `real_pictures`: drawing takes half its time."""
    from matplotlib.figure import Figure

    real = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda _, place, **__: Path(place).write_bytes(DOT))
        yield real


@pytest.fixture
def real_pictures(quick_pictures, monkeypatch):
    """Pictures are drawn."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", quick_pictures)


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Call a command as its script does, in this process; gives exit code, stdout and stderr."""
    from importlib import import_module

    from afterfit.commands import console

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(name, /, **options):
        arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        capsys.readouterr()
        code = console.run(import_module(name).options(), name, arguments)
        return code, *capsys.readouterr()

    monkeypatch.setattr(sys, "warnoptions", ["error"])  # or the command would silence what the tests must hear
    for key, value in console.ENVIRONMENT.items():
        monkeypatch.setenv(key, os.environ.get(key, value))
    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


# --- tables and use cases ------------------------------------------------------------------------------------------


@pytest.fixture
def write_use_case():
    return made_sizes.write_use_case


@pytest.fixture(scope="session")
def write_use_case_in():
    return made_sizes.write_use_case


# --- S3 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint():
    """The address of an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def account(endpoint, monkeypatch, tmp_path):
    """A client of it, with the credentials in the environment and nowhere else."""
    import boto3

    known = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**known, "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    return boto3.client("s3")
