"""Start a real `mlflow models serve`, ask it a few rows, and stop it: what production would answer."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from afterfit.errors import StoreError
from afterfit.model.bundle import Bundle
from afterfit.texts.redaction import redact

OK = 200
PATIENCE = 90.0
"""Seconds until a server must be ready; on a busy machine MLflow itself takes ten and more."""


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """What the server answered: seconds until it was ready, HTTP status, body."""

    seconds: float
    status: int
    body: str


def awkward_rows(bundle: Bundle) -> list[tuple[str, dict[str, Any]]]:
    """An example row, then the same with a category never seen, a column absent, and text where a number must be."""
    row = dict(bundle.example[0])
    rows = [("an example row", row)]
    columns = bundle.scorer.contract.columns
    category = next((column.name for column in columns if column.kind == "category"), None)
    number = next((column.name for column in columns if column.kind in {"number", "integer"}), None)
    absent = next((column.name for column in columns if not column.required), None)
    if category:
        rows.append((f"{category} never seen", {**row, category: "NEVER SEEN"}))
    if absent:
        rows.append((f"without {absent}", {key: value for key, value in row.items() if key != absent}))
    if number:
        rows.append((f"text in {number}", {**row, number: "not a number"}))
    return rows


def try_server(model: str, rows: Sequence[Mapping[str, Any]]) -> SmokeTest:
    """Serve a models:/ address on a free local port, post rows as `dataframe_records`, stop the server."""
    started = time.monotonic()
    with serving(model) as port:
        seconds = time.monotonic() - started
        status, body = post(port, {"dataframe_records": list(rows)})
    return SmokeTest(seconds, status, body)


@contextmanager
def serving(model: str) -> Iterator[int]:
    """A running `mlflow models serve`, ready; gives its port. The project's own source is kept off its path."""
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "MLFLOW_RUN_ID"}}
    # MLflow starts uvicorn by name, which lies beside this Python even where its environment is not activated
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # loading adds no files to a version that lies in a local store
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(server, port, log)
            yield port
        finally:
            _stop(server)


def post(port: int, body: Mapping[str, Any]) -> tuple[int, str]:
    """Post JSON to /invocations; gives status and body.

    Raises:
        StoreError: the server has gone away, or gives no answer within a minute.
    """
    try:
        with _connection(port, timeout=60) as connection:
            connection.request("POST", "/invocations", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise StoreError(f"The model server at port {port} does not answer: {error}") from error


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: "subprocess.Popen[bytes]", port: int, log: IO[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            log.seek(0)
            output = " ".join(redact(log.read())[-600:].split())
            raise StoreError(f"mlflow models serve ended with code {server.returncode} before it was ready: {output}")
        with suppress(OSError, http.client.HTTPException), _connection(port, timeout=2) as connection:
            connection.request("GET", "/ping")
            if connection.getresponse().status == OK:
                return
        time.sleep(0.2)
    raise StoreError(f"mlflow models serve was not ready within {PATIENCE:.0f} seconds.")


def _connection(port: int, timeout: float) -> "closing[http.client.HTTPConnection]":
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout))


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """Stop the server with its whole process group, since it starts workers of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=10)
            return
