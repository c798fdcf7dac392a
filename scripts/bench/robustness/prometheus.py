"""A real Prometheus scrapes a real server with two workers under load: do its figures agree with the clients' count?

Single rows, twenty rows at once and bodies that are no JSON are sent over several connections. Prometheus scrapes each
second, with the alert rules of scripts/prometheus loaded; then it is asked for the sums, and how often a sum fell.

    PYTHONPATH=src:scripts python -m bench.robustness.prometheus --seconds 15
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from bench.robustness.crashes_serving import ROOT, Clients, Server, bodies_of, trained

PATIENCE = 60
QUERIES = {
    "requests with 200": 'sum(afterfit_requests_total{door="/predict",status="200"})',
    "requests with 400": 'sum(afterfit_requests_total{door="/predict",status="400"})',
    "request errors": 'sum(afterfit_request_errors_total{door="/predict"})',
    "rows": "sum(afterfit_rows_total)",
    "latency histogram": 'sum(afterfit_request_seconds_count{door="/predict"})',
    "latency bucket +Inf": 'sum(afterfit_request_seconds_bucket{door="/predict",le="+Inf"})',
    "workers": "sum(afterfit_workers)",
}
FALLS = " + ".join(
    f"sum(resets(afterfit_{name}[10m]))" for name in ("requests_total", "rows_total", "request_seconds_bucket")
)


def asked(address, door, **query):
    """Prometheus' answer to a question of its HTTP API."""
    with urllib.request.urlopen(f"{address}{door}?{urllib.parse.urlencode(query)}", timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read())["data"]


def value(address, query):
    """One number; None where there is none yet."""
    found = asked(address, "/api/v1/query", query=query)["result"]
    return float(found[0]["value"][1]) if found else None


@contextlib.contextmanager
def prometheus(folder, port):
    """Prometheus in a folder, scraping that port; gives its address."""
    from bench.shared.servers import free_port

    shutil.copy(ROOT / "scripts" / "prometheus" / "alerts.yaml", folder)
    targets = {"job_name": "afterfit", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [targets],
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings), "utf-8")  # JSON is YAML
    own = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address, until = f"http://127.0.0.1:{own}", time.monotonic() + PATIENCE
        while not _up(address):
            assert process.poll() is None, "Prometheus ended"
            assert time.monotonic() < until, "Prometheus scrapes nothing"
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def _up(address):
    with contextlib.suppress(OSError):
        return value(address, "up") == 1.0
    return False


def measure(config, model, example, *, seconds=15.0, connections=6, pause=0.0):
    """What the clients counted and what Prometheus says, by name; how often a sum fell; whether the rules are well."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        server = Server(config, model, folder)
        try:
            with prometheus(folder, server.port) as address:
                bodies = [*bodies_of(example)[:-4], *["{no JSON"] * 4]
                clients = Clients(server.port, bodies, connections, pause)
                time.sleep(seconds)
                clients.end()
                assert not clients.broken, clients.broken[0]
                expected, found = counted(clients), {}
                until = time.monotonic() + PATIENCE
                while found != expected and time.monotonic() < until:
                    time.sleep(0.5)
                    found = {name: value(address, query) for name, query in QUERIES.items()}
                groups = asked(address, "/api/v1/rules")["groups"]
                healthy = {rule["health"] for group in groups for rule in group["rules"]}
                return expected, found, value(address, FALLS), healthy
        finally:
            server.end(signal.SIGTERM)


def counted(clients):
    """The clients' own count, by the names of QUERIES."""
    good, bad = clients.statuses.count(200), clients.statuses.count(400)
    every = len(clients.statuses)
    told = (good, bad, every - good, len(clients.acknowledged), every, every, 2)
    return dict(zip(QUERIES, map(float, told), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        expected, found, falls, healthy = measure(*trained(Path(scratch)), seconds=options.seconds)
    print(f"{'':<20} {'clients':>12} {'Prometheus':>12}")
    for name, count in expected.items():
        print(f"{name:<20} {count:>12,.0f} {found[name] or 0:>12,.0f}")
    print(f"sums that fell: {falls:.0f}; health of the alert rules: {', '.join(sorted(healthy))}")
    return 0 if found == expected and falls == 0 and healthy == {"ok"} else 1


if __name__ == "__main__":
    from afterfit.commands import console

    console.settle()
    sys.exit(main())
