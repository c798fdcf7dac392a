"""Asks a server without a pause over kept connections: with wrk where it is installed, else with threads of its own."""

import http.client
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local bodies, at = {}, 0
for line in io.lines("%s") do bodies[#bodies + 1] = line end
request = function()
  at = at %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("FOUND %%d %%d %%d %%f %%f\\n", summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What was answered: requests a second, milliseconds (median, 99th percentile), failed requests, all requests."""

    rate: float
    median: float
    p99: float
    failed: int
    requests: int


def ask(port, path, bodies, connections, seconds, *, tool=None):
    """Ask for some seconds; `tool` is "wrk", "threads", or None for whichever is there."""
    if (tool or ("wrk" if shutil.which("wrk") else "threads")) == "wrk":
        return _wrk(port, path, bodies, connections, seconds)
    return _threads(port, path, bodies, connections, seconds)


def _wrk(port, path, bodies, connections, seconds):
    with tempfile.TemporaryDirectory() as folder:
        texts, script = Path(folder) / "bodies", Path(folder) / "ask.lua"
        texts.write_text("\n".join(bodies) + "\n", "utf-8")
        script.write_text(SCRIPT % texts, "utf-8")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script)]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True)
    numbers = re.search(r"^FOUND (\d+) (\d+) (\d+) (\S+) (\S+)$", done.stdout, re.MULTILINE)
    assert numbers, done.stdout
    requests, micro, failed = (int(numbers[k]) for k in (1, 2, 3))
    return Load(requests / micro * 1e6, float(numbers[4]) / 1000, float(numbers[5]) / 1000, failed, requests)


def _threads(port, path, bodies, connections, seconds):
    latencies, failed = [], []
    stop = time.perf_counter() + seconds

    def go(offset):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for body in itertools.islice(itertools.cycle(bodies), offset, None):
            if time.perf_counter() > stop:
                connection.close()
                return
            started = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            (latencies if answer.status == 200 else failed).append(time.perf_counter() - started)

    threads = [threading.Thread(target=go, args=(number * 7,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ranked = sorted(latencies) or [0.0]
    median, p99 = (1000 * ranked[int(share * (len(ranked) - 1))] for share in (0.5, 0.99))
    return Load(len(latencies) / seconds, median, p99, len(failed), len(latencies) + len(failed))


def records(rows):
    """Bodies of one row each, as `mlflow models serve` takes them."""
    return [json.dumps({"dataframe_records": [row]}) for row in rows]
