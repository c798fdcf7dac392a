"""Rehearse production on the held-out window: serve, log, monitor, refuse a bad candidate, take a step, roll back."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from afterfit import data, prediction_log
from afterfit.errors import StoreError
from afterfit.lifecycle import live_loop, monitoring, promotion
from afterfit.lifecycle.outcomes import load
from afterfit.lifecycle.rollback import roll_back
from afterfit.lifecycle.smoke_test import free_port
from afterfit.lifecycle.training_run import train_and_register
from afterfit.mlflow_store import registry, tracking
from afterfit.model.bundle import Bundle
from afterfit.model.packaging import Table, json_value
from afterfit.package import ROOT
from afterfit.settings import Log
from afterfit.texts.redaction import redact
from afterfit.use_case import UseCase

ROWS = 1_000
"""Rows in one request."""
PATIENCE = 60.0
"""Seconds until the server must be ready."""
WRONG = "dummy"
"""The builder of the candidate that must be refused."""
SERVE = """import sys
from afterfit.commands import serve
serve.command(sys.argv[1], port=int(sys.argv[2]), log=sys.argv[3], access="none")
"""


def possible(use_case: UseCase) -> bool:
    """Whether there is a held-out window after training: it needs a time column, a start and an end."""
    holdout = use_case.split.holdout
    return use_case.time is not None and holdout is not None and holdout.start is not None and holdout.end is not None


def rehearse(config: str, use_case: UseCase, table: Table, place: Path) -> list[str]:
    """Rehearse production on the held-out window.

    Args:
        config: the use case's name or file, for the server.
        use_case: its settings.
        table: the training rows, for the candidate that is refused.
        place: the folder of the prediction log.

    Returns:
        Lines that say what happened.
    """
    use_case = use_case.model_copy(update={"log": Log(folder=str(place.resolve()), durability="acknowledged")})
    holdout = use_case.split.holdout
    assert holdout is not None  # noqa: S101 - for the reader; `possible` has looked
    assert holdout.end is not None  # noqa: S101 - as above
    lines = _serve_and_load_outcomes(
        config, use_case, data.load(use_case, start=holdout.start, end=holdout.end).frame, place
    )
    champion = registry.version(use_case.name, registry.PRODUCTION)
    bundle = registry.load_bundle(champion)
    now = holdout.end + timedelta(hours=use_case.gate.label_delay_hours)
    period = monitoring.period_of(use_case, "", holdout.start, holdout.end)
    windows = monitoring.look_at_windows(use_case, bundle, "", period, now).windows
    lines += ["", *(line for window in windows for line in monitoring.describe(use_case, window.seen))]
    lines += ["", *_refuse_dummy(use_case, table)]  # while there are rows that neither was trained on
    lines += ["", *_take_step(use_case, now)]
    return [*lines, "", *_roll_back(use_case, champion.number)]


def _serve_and_load_outcomes(config: str, use_case: UseCase, frame: pd.DataFrame, place: Path) -> list[str]:
    """Start a real server, post all rows to it, then load their outcomes into its log."""
    rows = _rows(use_case, registry.load_bundle(registry.version(use_case.name, registry.PRODUCTION)), frame)
    warned, began = 0, time.monotonic()
    with _server(config, place) as connection:
        ready, began = time.monotonic() - began, time.monotonic()
        for start in range(0, len(rows), ROWS):
            for answer in _post(connection, rows[start : start + ROWS]):
                warned += bool(answer["warnings"])
        took = time.monotonic() - began
    sentence = (
        f"The server was ready after {ready:.1f} s and answered {len(rows):,} rows of {_holdout_words(use_case)} in "
        f"{took:.1f} s, {warned:,} with a warning; all are in the prediction log in {place}."
    )
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "outcomes.parquet")
        frame[[*use_case.key, use_case.target]].to_parquet(path)
        loaded = load(use_case, path, "key", prediction_log.required(use_case))
    return [sentence, *loaded.lines]


def _holdout_words(use_case: UseCase) -> str:
    holdout = use_case.split.holdout
    return f"{holdout.start:%Y-%m-%d} to {holdout.end:%Y-%m-%d}" if holdout and holdout.start and holdout.end else ""


def _rows(use_case: UseCase, bundle: Bundle, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as a client would send them: features, time and key; None where a value is missing."""
    names = dict.fromkeys([*bundle.scorer.contract.names, *([use_case.time] if use_case.time else []), *use_case.key])
    table = frame[[name for name in names if name in frame.columns]]
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): json_value(value) for name, value in row.items()} for row in records]


@contextmanager
def _server(config: str, place: Path) -> Iterator[http.client.HTTPConnection]:
    """A ready server of the version in production; at the end it gets SIGTERM, as an operator would do, and seals."""
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
    source = str(ROOT.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", SERVE, config, str(port), str(place.resolve())]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            _wait(server, connection)
            yield connection
        except (OSError, http.client.HTTPException) as error:
            log.seek(0)
            raise StoreError(f"The server does not answer: {error}. It said: {redact(log.read())[-600:]}") from error
        finally:
            connection.close()
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait(server: "subprocess.Popen[bytes]", connection: http.client.HTTPConnection) -> None:
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if _ready(connection):
                return
        except OSError:
            connection.close()
        time.sleep(0.1)
    raise OSError("it was not ready in time" if server.poll() is None else f"it ended with code {server.returncode}")


def _ready(connection: http.client.HTTPConnection) -> bool:
    connection.request("GET", "/ready")
    response = connection.getresponse()
    response.read()
    return response.status == 200


def _post(connection: http.client.HTTPConnection, rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    connection.request("POST", "/predict", json.dumps(rows), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise StoreError(f"The server answered {response.status}: {redact(body.decode(errors='replace'))[:300]}")
    answers: list[Mapping[str, Any]] = json.loads(body)
    return answers


def _take_step(use_case: UseCase, now: Any) -> list[str]:
    answer = live_loop.run_step(use_case, "1mo", now, Path("steps") / use_case.name)
    return list(answer.lines[:-1])  # the last one is for schedulers


def _refuse_dummy(use_case: UseCase, table: Table) -> list[str]:
    """Train a dummy, which the gate must refuse; gives the lines that say why it is refused."""
    with tracking.run(use_case.name, f"train {WRONG}"):
        result = train_and_register(table, WRONG, {})
    number = result.version.number if result.version else registry.LATEST
    answer = promotion.promote_version(use_case, registry.version(use_case.name, number), registry.PRODUCTION)
    return [line for line in answer.lines if not line.startswith("  +")]


def _roll_back(use_case: UseCase, first: str) -> list[str]:
    """Roll production back to the first version, if another one is there now."""
    current = registry.version(use_case.name, registry.PRODUCTION).number
    if current == first:
        return [f"Version {current} is still in production: there is nothing to roll back."]
    return list(roll_back(use_case, "Rehearsal: the way back is known before it is needed.", first).lines)
