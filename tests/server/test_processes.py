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
from contextlib import closing, contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest

from afterfit.mlflow_store import ledger, registry
from afterfit.mlflow_store.registry import load_bundle, version
from made import ROOT
from waiting import PATIENCE, eventually

JSON = {"Content-Type": "application/json"}
ROW = {"size": 1.5, "count": 3, "colour": "red"}


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
        serving = re.compile(r"Serving .* at http://127\.0\.0\.1:(\d+)")
        assert eventually(lambda: serving.search(self.said()), self.process), self.said()
        return int(serving.search(self.said()).group(1))

    def ask(self, path="/predict", body=None, method="POST"):
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
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


@contextmanager
def load(server, connections=4):
    """Clients that ask again at once, or nearly, while the block runs; gives each one's answers (status, body)."""
    found, over = [[] for _ in range(connections)], threading.Event()

    def ask_on(answers):
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
            while not over.is_set():
                connection.request("POST", "/predict", json.dumps(ROW), JSON)
                answer = connection.getresponse()
                answers.append((answer.status, json.loads(answer.read())))
                time.sleep(0.003)  # or four clients and two workers would take all that there is of two cores

    threads = [threading.Thread(target=ask_on, args=(answers,)) for answers in found]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()
        server.sent += sum(map(len, found))


def several(server, requests=100):
    """So many answers, and a few more, of clients that ask at once."""
    with load(server) as found:
        assert eventually(lambda: sum(map(len, found)) >= requests)
    return [answer for answers in found for answer in answers]


def counted(server, line):
    _, text = server.ask("/metrics", method="GET")
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def all_answer(found, number):
    """Whether each client's latest answer is that version's."""
    return all(answers and answers[-1][1]["model_version"] == number for answers in found)


@pytest.mark.slow
def test_the_alias_moves_under_load_and_no_request_fails(server):
    expected = {number: load_bundle(version("sizes", number)).answer(ROW) for number in ("1", "2")}
    moves = ["1", "2", "1", "2"]
    with load(server) as found:
        for number in moves:
            registry.set_alias(version("sizes", number), "production")
            assert eventually(partial(all_answer, found, number))
    for answers in found:
        assert {status for status, _ in answers} == {200}
        assert [number for number, _ in groupby(answer["model_version"] for _, answer in answers)] == moves
        for _, answer in answers:
            known = expected[answer["model_version"]]["probability"]
            assert answer["probability"] == pytest.approx(known, abs=1e-9)


@pytest.mark.slow
def test_the_metrics_of_two_workers_agree_with_what_was_asked(server):
    several(server)
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

    found = several(server)
    assert {status for status, _ in found} == {200}
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=PATIENCE) == 0, server.said()
    log = prediction_log.log_at(str(server.log), "sizes")
    ids = [one for table in prediction_log.read(log) for one in table.column("prediction_id").to_pylist()]
    assert len(ids) == len(set(ids))
    assert {answer["prediction_id"] for _, answer in found} <= set(ids)
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
