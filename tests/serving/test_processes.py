"""A real server: two workers, MLflow's registry, an alias that moves under load, a stop that loses nothing."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from afterfit.mlflow_store import ledger, registry
from afterfit.mlflow_store.registry import load_bundle, version
from made import ROOT

JSON = {"Content-Type": "application/json"}
ROW = {"size": 1.5, "count": 3, "colour": "red"}
PATIENCE = 60


@pytest.fixture(scope="module")
def production(shared_store, write_use_case_in):
    """Three versions of which the first is in production; the third is not what was registered under its digest."""
    from afterfit.commands import train

    file = str(write_use_case_in(shared_store, serving={"reload_seconds": 0.3}))
    for builder in ("", "linear"):
        train.command(file, builder)
    registry.register(version("sizes", "2").source, "sizes", "0" * 64, {}, "Another digest.")
    registry.set_alias(version("sizes", "1"), "production")
    return file


class Server:
    """A started server, and the requests that it was sent."""

    def __init__(self, config, folder, workers=2):
        self.log, self.access, self.sent = folder / "log", folder / "access.log", 0
        self.errors = (folder / "server.txt").open("w+")
        command = [sys.executable, str(ROOT / "scripts" / "serve.py"), "--config", config, "--port", "0"]
        command += ["--workers", str(workers), "--log", str(self.log), "--access", str(self.access)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(command, stderr=self.errors, stdout=subprocess.DEVNULL, env=environment)
        self.port = self._port()

    def said(self):
        self.errors.flush()
        return Path(self.errors.name).read_text()

    def _port(self):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            if found := re.search(r"Serving .* at http://127\.0\.0\.1:(\d+)", self.said()):
                return int(found.group(1))
            time.sleep(0.05)
        raise AssertionError(self.said())

    def ask(self, path="/predict", body=None, method="POST"):
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), JSON)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def server(production, tmp_path_factory):
    found = Server(production, tmp_path_factory.mktemp("server"))
    yield found
    found.process.kill()
    found.process.wait()
    found.errors.close()


def load(server, seconds, connections=4):
    """Ask without a pause; gives (time sent, time answered, status, answer) of every request."""
    found, until = [], time.monotonic() + seconds

    def ask_on():
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            while time.monotonic() < until:
                sent = time.monotonic()
                connection.request("POST", "/predict", json.dumps(ROW), JSON)
                answer = connection.getresponse()
                found.append((sent, time.monotonic(), answer.status, json.loads(answer.read())))

    threads = [threading.Thread(target=ask_on) for _ in range(connections)]
    for thread in threads:
        thread.start()
    return found, threads


def counted(server, line):
    _, text = server.ask("/metrics", method="GET")
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def eventually(condition):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_the_alias_moves_under_load_and_no_request_fails(server):
    expected = {number: load_bundle(version("sizes", number)).answer(ROW) for number in ("1", "2")}
    found, threads = load(server, 3.2)
    moves = []
    for number in ("2", "1", "2"):
        time.sleep(0.8)
        registry.set_alias(version("sizes", number), "production")
        moves.append((time.monotonic(), number))
    for thread in threads:
        thread.join()
    server.sent += len(found)
    assert len(found) > 50
    assert {status for _, _, status, _ in found} == {200}
    assert {answer["model_version"] for *_, answer in found} == {"1", "2"}
    for sent, answered, _, answer in found:
        number = answer["model_version"]
        assert answer["probability"] == pytest.approx(expected[number]["probability"], abs=1e-9)
        held = [(0.0, "1"), *moves]
        spans = zip(held, [*(moment for moment, _ in moves), answered + 1], strict=True)
        # in production at some time from a second before it was asked (the time a change takes) to its answer
        assert any(one == number and since <= answered and until >= sent - 1.0 for (since, one), until in spans)


@pytest.mark.slow
def test_the_metrics_of_two_workers_agree_with_what_was_asked(server):
    found, threads = load(server, 1.0)
    for thread in threads:
        thread.join()
    server.sent += len(found)
    assert eventually(lambda: counted(server, "afterfit_workers") == 2)
    line = 'afterfit_requests_total{door="/predict",status="200"}'
    assert eventually(lambda: counted(server, line) == server.sent), (counted(server, line), server.sent)
    line = 'afterfit_request_seconds_count{door="/predict"}'  # either worker knows the other's counts of a moment ago
    assert eventually(lambda: counted(server, line) == server.sent)


@pytest.mark.slow
def test_a_version_with_another_digest_is_refused_noted_in_the_ledger_and_the_old_one_goes_on(server):
    assert eventually(lambda: json.loads(server.ask(body=ROW)[1])["model_version"] == "2")
    registry.set_alias(version("sizes", "3"), "production")
    assert eventually(lambda: any(one.decision.verdict == "REFUSED" for one in ledger.entries("sizes")))
    [entry] = [one for one in ledger.entries("sizes") if one.decision.verdict == "REFUSED"]
    assert (entry.decision.version, entry.decision.moves) == ("3", False)
    assert "version 2 goes on" in entry.decision.reason
    status, text = server.ask(body=ROW)
    assert (status, json.loads(text)["model_version"]) == (200, "2")
    assert eventually(lambda: "REFUSED" in server.ask("/", method="GET")[1])


@pytest.mark.slow
def test_a_stopped_server_finishes_and_seals_its_log(server):
    from afterfit import prediction_log

    found, threads = load(server, 0.5)
    for thread in threads:
        thread.join()
    assert {status for _, _, status, _ in found} == {200}
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=PATIENCE) == 0, server.said()
    log = prediction_log.log_at(str(server.log), "sizes")
    ids = [one for table in prediction_log.read(log) for one in table.column("prediction_id").to_pylist()]
    assert len(ids) == len(set(ids))
    assert {answer["prediction_id"] for *_, answer in found} <= set(ids)
    lines = [json.loads(line) for line in server.access.read_text().splitlines()]
    predicted = [line for line in lines if line["path"] == "/predict" and line["status"] == 200]
    assert len(predicted) == len(ids)


@pytest.mark.slow
def test_a_worker_whose_server_was_killed_stops_and_leaves_its_log_to_be_sealed(production, tmp_path):
    from afterfit import prediction_log

    registry.set_alias(version("sizes", "1"), "production")
    found = Server(production, tmp_path, workers=1)
    try:
        assert found.ask(body=ROW)[0] == 200
        found.process.kill()
        found.process.wait()

        def answers():
            try:
                return found.ask("/ping", method="GET")
            except OSError:
                return None

        assert eventually(lambda: answers() is None)
        assert "first process is gone" in found.said()
        log = prediction_log.log_at(str(found.log), "sizes")
        assert eventually(lambda: prediction_log.seal(log).spools == 1)
        assert sum(table.num_rows for table in prediction_log.read(log)) == 1
    finally:
        found.errors.close()
