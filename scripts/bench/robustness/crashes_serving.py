"""SIGKILL of serving processes under load: is every acknowledged prediction in the log exactly once, after sealing?

A server with two workers answers rows over several connections, each of which notes the ids that came with status 200,
and seals its log all the while. Every other time one worker is killed, which the server starts again; else the whole
server is, with no time to seal. The next one goes on in the same folder. At the end all is sealed and read back.

    PYTHONPATH=src:scripts python -m bench.robustness.crashes_serving --kills 100
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATIENCE = 120
JSON = {"Content-Type": "application/json"}


class Server:
    """`serve` of a folder's version as a process group of its own, once it is ready."""

    def __init__(self, config, model, folder, workers=2):
        self.said = (folder / "said.txt").open("a+")
        begun = self.said.seek(0, os.SEEK_END)
        command = [sys.executable, str(ROOT / "scripts" / "serve.py"), "--config", str(config), "--model", str(model)]
        command += ["--port", "0", "--workers", str(workers), "--log", str(folder / "log"), "--access", "none"]
        self.process = subprocess.Popen(
            command,
            stderr=self.said,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        )
        until, found = time.monotonic() + PATIENCE, None
        while found is None:
            self.said.seek(begun)
            text = self.said.read()
            found = re.search(r"Serving .* at http://127\.0\.0\.1:(\d+)", text)
            assert self.process.poll() is None, text
            assert time.monotonic() < until, text
            time.sleep(0.02)
        self.port = int(found.group(1))

    def workers(self):
        """The processes that answer now."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if "afterfit.server.start\0worker" in _command_of(one)]

    def end(self, number):
        """Send all its processes a signal, and wait until they are gone."""
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE)
        self.said.close()


def _command_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


class Clients:
    """Threads that ask on kept connections, come back after a broken one, and note the ids that were acknowledged.

    `pause` is what each waits after an answer, in seconds.
    """

    def __init__(self, port, bodies, connections, pause=0.0):
        self.acknowledged, self.statuses, self.broken = [], [], []
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port, bodies[k:])) for k in range(connections)]
        for thread in self._threads:
            thread.start()

    def _ask(self, port, bodies):
        at = 0
        while not self._stop.is_set():
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                try:
                    while not self._stop.is_set():
                        at += 1
                        connection.request("POST", "/predict", bodies[at % len(bodies)], JSON)
                        answer = connection.getresponse()
                        self._note(answer.status, json.loads(answer.read()))
                        time.sleep(self._pause)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    self.broken.append(error)
                    time.sleep(0.01)

    def _note(self, status, answers):
        self.statuses.append(status)
        if status == 200:
            found = answers if isinstance(answers, list) else [answers]
            self.acknowledged.extend([answer["prediction_id"] for answer in found])

    def end(self):
        """Stop asking."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def bodies_of(example):
    """Single rows, and every eighth time twenty or a hundred: what the log has as rows of its own, and as one."""
    return [json.dumps(example if k % 8 else [example] * (100 if k % 16 else 20)) for k in range(64)]


def quick_settings(config, folder):
    """The use case's settings with a log that is sealed every half second, so that kills meet sealing too."""
    import yaml

    from afterfit.use_case import settings_file

    content = yaml.safe_load(settings_file(str(config)).read_text("utf-8"))
    content["serving"] = {**(content.get("serving") or {}), "seal_seconds": 0.5}
    file = folder / "usecase.yaml"
    file.write_text(yaml.safe_dump(content), "utf-8")
    return file


def measure(config, model, example, kills, *, seed=0, longest=1.0, connections=8):
    """Kill so many serving processes; gives what was acknowledged, logged, absent, and there more than once."""
    from afterfit import prediction_log
    from afterfit.use_case import load_use_case

    chance, acknowledged, lost, done = random.Random(seed), [], 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = quick_settings(config, folder)
        log = prediction_log.log_at(str(folder / "log"), load_use_case(settings).name)
        bodies = bodies_of(example)
        while done < kills:
            server = Server(settings, model, folder)
            clients = Clients(server.port, bodies, connections)
            done += _killed(server, chance, longest, one=done % 3 != 2 and done + 1 < kills)
            clients.end()
            acknowledged += clients.acknowledged
            lost += len(clients.broken) + sum(status != 200 for status in clients.statuses)
        prediction_log.seal(log)
        left = list((folder / "log" / "spool").glob("*.sqlite"))
        counts = Counter(one for table in prediction_log.read(log) for one in table["prediction_id"].to_pylist())
    return {
        "kills": done,
        "acknowledged": len(acknowledged),
        "logged": len(counts),
        "failed requests": lost,
        "absent": sum(one not in counts for one in acknowledged),
        "doubled": sum(count > 1 for count in counts.values()),
        "spools left": len(left),
    }


def _killed(server, chance, longest, *, one):
    """Kill one worker if so told, then the whole server; gives how many kills there were."""
    if one:
        time.sleep(chance.uniform(0.05, longest))
        os.kill(chance.choice(server.workers()), signal.SIGKILL)
    time.sleep(chance.uniform(0.05, longest))
    server.end(signal.SIGKILL)
    return 2 if one else 1


def trained(folder):
    """A flights version of few trees, kept in a folder; gives its settings file, that folder and an example row."""
    import yaml

    from afterfit.commands import train
    from afterfit.mlflow_store import registry
    from afterfit.use_case import settings_file

    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    content = yaml.safe_load(settings_file("flights-late").read_text("utf-8"))
    candidate = {"builder": "hist_gradient_boosting", "params": {"max_iter": 30}}
    (folder / "late.yaml").write_text(yaml.safe_dump({**content, "candidates": [candidate]}), "utf-8")
    train.command(str(folder / "late.yaml"), "")
    target = registry.version("flights-late", "1")
    example = dict(registry.load_bundle(target).example[0])
    return folder / "late.yaml", registry.keep(target, folder / "model"), example


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        config, model, example = trained(Path(scratch))
        found = measure(config, model, example, options.kills, seed=options.seed)
    for name, value in found.items():
        print(f"{name:<16} {value:>10,}")
    return 1 if found["absent"] or found["doubled"] or found["spools left"] else 0


if __name__ == "__main__":
    from afterfit.commands import console

    console.settle()
    sys.exit(main())
