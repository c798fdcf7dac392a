"""Rubbish at every door of a real server: whether it fails, dies or grows; then requests made from its description.

    PYTHONPATH=src:scripts python -m bench.robustness.fuzz [--bodies 100000] [--examples 300] [--seed 0]

Bodies are made from rows and then spoilt: broken JSON, deep nesting, wrong types, huge numbers, NaN, invalid UTF-8,
half surrogate pairs, wrong content types and encodings, spoilt Parquet and CSV, and over a raw socket wrong lengths,
broken chunks and headers. One in a hundred is made to hurt (`hostile`): it unfolds to gigabytes, lies about its pages,
or holds what a log could not keep. In the end more connections than the server takes are held open, slow or idle, while
its health is asked for; then the log is sealed and read by another process.

A 5xx counts as a failure unless it is one of the limits (503, 504), as does an answer that is neither JSON with `code`,
`message` and `detail` nor a prediction, or one that shows a trace or a path, a health endpoint that does not answer,
and a log that does not hold as many answers as were given. Memory is the resident memory of the worker at rest,
after 20,000 bodies and after the last, and its peak; descriptors are its open files before and after connections were
held.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

from bench.shared.hostile import Hostile, hold

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
KINDS = (JSON, JSON, JSON, CSV, PARQUET, "text/plain", "application/json; charset=latin-1", "a/b; c", "", "\xff\xfe")
FORMS = ("dataframe_records", "dataframe_split", "instances", "inputs")
DOORS = ("/predict", "/predict", "/invocations", "/invocations", "/outcomes", "/webhook")
OTHER = ("/", "/docs", "/model", "/ready", "/metrics", "/openapi.json", "/none", "/%00", "/predict/", "/../etc/passwd")
WARM, THREADS, LIMITS = 20_000, 4, (503, 504)
MOST_GROWTH, MOST_PEAK = 25, 3_000
"""Percent by which memory at rest may differ, and megabytes that one request and the sealing beside it may take."""
HOSTILE = 0.01
"""Share of requests that are made to hurt."""
HELD, HELD_SECONDS, MOST_HELD = 400, 20.0, 200
"""Connections that are held open, for how long, and how many of them the server takes at once."""
REST = 10.0
"""Seconds after which a worker has sealed what it answered and given back what it freed."""
READ = """
import json, resource, sys
from afterfit import prediction_log
log = prediction_log.log_at(sys.argv[1], sys.argv[2])
before = prediction_log.seal(log).answers
rows = sum(table.num_rows for table in prediction_log.read(log, shadow=None))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
left = len([*log.folder.glob("spool/*.sqlite")])
print(json.dumps({"rows": rows, "sealed": before, "megabytes": peak, "left": left}))
"""
IDLE = 2.0
"""Seconds after which a kept connection is not used again."""
BYTES = b'\x00\x01\x7f\x80\xc0\xed\xa0\x80\xf5\xff{}[]",:\\u0eE+-.'


class Maker:
    """Makes requests by chance, the same for one seed.

    Args:
        rows: good ones to begin with.
        seed: of the chance.
    """

    def __init__(self, rows, seed):
        self.rows, self.chance = rows, random.Random(seed)
        self.hostile = Hostile(rows, self.chance)
        self.parquet = _parquet(rows[:3])

    def request(self):
        """Method, path, headers and body."""
        chance = self.chance
        if chance.random() < 0.02:
            method = chance.choice(["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
            return method, chance.choice(OTHER + DOORS), {}, b""
        make = chance.choice([*[self.typed] * 5, self.spoilt, self.nested, self.bytes, self.tables, self.outcome])
        kind = JSON if chance.random() < 0.85 else chance.choice(KINDS)
        body, path = make(), chance.choice(DOORS)
        if make == self.tables:
            kind, path = chance.choice([CSV, PARQUET]), "/invocations"
        if make == self.outcome:
            path = "/outcomes"
        headers = {"Content-Type": kind} if kind else {}
        if chance.random() < 0.03:
            headers["Content-Encoding"] = chance.choice(["gzip", "br", "none"])
        if chance.random() < 0.03:
            headers["X-Request-Id"] = chance.choice(["a b", "x" * 500, "\xe9", "ok-1"])
        if chance.random() < 0.03:
            headers["Authorization"] = chance.choice(["Bearer", "Bearer \xff", "Basic %%%", "x" * 3000])
        return "POST", path, headers, body

    def value(self, depth=0):
        """A value of any kind; some are what no column takes."""
        chance = self.chance
        simple = [
            None, True, False, 0, -1, 1.5, 1e308, -1e-308, 10**30, -(10**400), float("nan"), float("inf"), 2**63, 2**64,
            "", " ", "12.5", "1e999", "nan", "true", "2013-13-45", "0001-01-01", "9999-12-31T23:59:59+14:00", "?",
            "\x00", "\ud800", "é" * 50, "٣", "🛫", "<script>", "'; DROP TABLE answers; --", "../../etc/passwd",
            "{{7*7}}",
        ]  # fmt: skip
        if depth < 3 and chance.random() < 0.1:
            return [self.value(depth + 1) for _ in range(chance.randrange(4))]
        if depth < 3 and chance.random() < 0.1:
            return {chance.choice(["a", "", "\ud800", "carrier"]): self.value(depth + 1) for _ in range(2)}
        if chance.random() < 0.02:
            return chance.choice("xé\ud800") * chance.choice([300, 5_000, 60_000])
        return chance.choice(simple)

    def row(self):
        """A row of which some columns are changed, lost or added."""
        chance, row = self.chance, dict(self.chance.choice(self.rows))
        for name in list(row):
            drawn = chance.random()
            if drawn < 0.15:
                row[name] = self.value()
            elif drawn < 0.2:
                del row[name]
        if chance.random() < 0.2:
            row[f"more {chance.randrange(10**6)}" * chance.choice([1, 1, 1, 50])] = self.value()
        return row

    def typed(self):
        """JSON that can be read, with rows of wrong types."""
        rows = [self.row() for _ in range(self.chance.choice([1, 1, 1, 2, 5, 70]))]
        form = self.chance.choice([*FORMS, "plain", "single", "columns", "two", "other"])
        split = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
        return _text(
            {
                "plain": rows,
                "single": rows[0],
                "columns": {"inputs": {name: [row.get(name) for row in rows] for name in rows[0]}},
                "two": {"instances": rows, "inputs": rows},
                "other": self.value(),
                "dataframe_split": {"dataframe_split": split},
            }.get(form, {form: rows if self.chance.random() < 0.9 else self.value()})
        )

    def spoilt(self):
        """Such a body with bytes changed, cut, doubled."""
        body = bytearray(self.typed())
        for _ in range(self.chance.choice([1, 1, 2, 10])):
            at = self.chance.randrange(len(body) + 1)
            cut = self.chance.choice([0, 1, 1, 5, 100])
            body[at : at + cut] = bytes(self.chance.choices(BYTES, k=self.chance.choice([0, 1, 1, 3])))
        return bytes(body)

    def nested(self):
        """Brackets within brackets."""
        deep = self.chance.choice([10, 500, 1_100, 20_000, 100_000] if self.chance.random() < 0.1 else [10, 200, 1_100])
        opened, closed = self.chance.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":[', b"]}]")])
        core = self.chance.choice([b"", b"1", b"NaN", b'"x"'])
        body = opened * deep + core + (closed * deep if self.chance.random() < 0.7 else b"")
        lead = self.chance.choice([b"", b'{"instances":', b'{"carrier":'])
        return lead + body + (b"}" if lead else b"")

    def bytes(self):
        """No text at all."""
        return self.chance.randbytes(self.chance.choice([0, 1, 7, 200, 3_000]))

    def tables(self):
        """CSV and Parquet, good or spoilt."""
        if self.chance.random() < 0.5:
            body = bytearray(self.parquet)
            for _ in range(self.chance.choice([0, 1, 3, 30])):
                body[self.chance.randrange(len(body))] = self.chance.randrange(256)
            return bytes(body[: self.chance.choice([len(body), len(body), self.chance.randrange(len(body))])])
        lines = [",".join(self.rows[0])] + [",".join(str(self.value(3)) for _ in self.rows[0]) for _ in range(3)]
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    def outcome(self):
        """True targets, of nobody."""
        one = {"prediction_id": self.value(), "value": self.chance.choice([True, False, self.value()])}
        if self.chance.random() < 0.3:
            one["key"] = {"flight_id": self.value()}
            del one["prediction_id"]
        return _text(one if self.chance.random() < 0.7 else [one] * self.chance.choice([0, 2, 50]))


def _text(value):
    return json.dumps(value).encode()


def _parquet(rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def spoilt(maker):
    """A request that no client library would send: its bytes, and whether to go away before the answer."""
    body, chance = maker.typed(), maker.chance
    length = chance.choice([0, 1, len(body) - 1, len(body) + 50, 10**12, -1, "x", "1, 2", "٣"])
    start = chance.choice(
        ["POST /predict HTTP/1.1", "POST /predict HTTP/9.9", "POST  HTTP/1.1", "BREW / HTTP/1.1", "\x00\x01"]
    )
    heads = chance.choice(
        [f"Content-Length: {length}", "Transfer-Encoding: chunked", "Content-Length: 5\r\nContent-Length: 6"]
    )
    if "chunked" in heads:
        body = chance.choice([b"zz\r\n", b"5\r\nabc", b"FFFFFFFFFFFFFFFFF\r\n", b"2\r\n{}\r\n0\r\n\r\n"])
    head = f"{start}\r\nHost: a\r\nContent-Type: {JSON}\r\n{heads}\r\n\r\n".encode()
    return head + body, chance.random() < 0.2


def raw(port, text, *, leave):
    """The first bytes of the answer to these; nothing where the server closed the connection, as it may."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        contextlib.suppress(ConnectionError, TimeoutError),
    ):
        if leave:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(text)
        if not leave:
            with contextlib.suppress(OSError):  # it may be closed already, and the answer there
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(65_536)
    return b""


def fault(status, body, path):
    """What is wrong with an answer, or nothing."""
    if status >= 500 and status not in LIMITS:
        return f"{status} at {path}: {body[:200]!r}"
    if b"Traceback" in body or b"site-packages" in body or b"/tmp/" in body:
        return f"{status} at {path} shows what it must not: {body[:200]!r}"
    if status >= 400 and body:
        told = json.loads(body)
        if set(told) != {"code", "message", "detail"}:
            return f"{status} at {path} has another form: {body[:200]!r}"
    return ""


class Sender:
    """Sends by several threads and counts.

    Args:
        port: of the server.
        maker: of the requests.
    """

    def __init__(self, port, maker):
        self.port, self.maker = port, maker
        self.statuses, self.faults = Counter(), []
        self.left, self._lock = 0, threading.Lock()

    def send(self, count):
        """Send so many."""
        self.left = count
        threads = [threading.Thread(target=self._go) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _next(self):
        with self._lock:
            self.left -= 1
            if self.left < 0:
                return None
            if self.maker.chance.random() < 0.02:
                return spoilt(self.maker)
            if self.maker.chance.random() < HOSTILE:
                return self.maker.hostile.request()
            return self.maker.request()

    def _go(self):
        connection, last = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), time.monotonic()
        while (request := self._next()) is not None:
            if time.monotonic() - last > IDLE:
                connection.close()  # as clients do, before the server ends it
            try:
                status = self._raw(*request) if len(request) == 2 else self._one(connection, *request)
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                status = "lost"
                self.faults.append(f"{error!r} for {str(request)[:300]}")
            self.statuses[status] += 1
            last = time.monotonic()
        connection.close()

    def _raw(self, text, leave):
        status = raw(self.port, text, leave=leave).split(b" ", 2)[1:2]
        return f"raw {status[0].decode() if status else 'closed'}"

    def _one(self, connection, method, path, headers, body):
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        connection.request(method, path, body, encoded)
        answer = connection.getresponse()
        text = answer.read()
        if problem := fault(answer.status, text if method != "HEAD" else b"", path):
            self.faults.append(f"{problem} for {body[:300]!r} {headers}")
        return answer.status


def described(port, examples, seed):
    """Requests made from the description by schemathesis; gives how many, and what was wrong."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [not_a_server_error, status_code_conformance, response_schema_conformance, content_type_conformance]
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    asked, faults = 0, []
    quick = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.explicit, Phase.generate],
    )
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

            def ask(case):
                nonlocal asked
                asked += 1
                case.call_and_validate(checks=checks)

            try:
                strategy = operation.as_strategy(generation_mode=mode)
                seeded(seed)(quick(given(case=strategy)(ask)))()
            except Exception as error:  # noqa: BLE001 - whatever a check raises is a finding
                if (
                    "Unsatisfiable" not in type(error).__name__
                ):  # an operation that takes nothing cannot be asked wrongly
                    faults.append(f"{operation.label}: {error}")
    return asked, faults


def measure(bodies=100_000, examples=300, seed=0, *, held=HELD, held_seconds=HELD_SECONDS, rest=REST):
    """Send all; gives the counts."""
    from bench.shared import sample, servers

    limits = {"seal_seconds": 5.0, "connections": MOST_HELD, "head_seconds": 3.0}
    with tempfile.TemporaryDirectory() as scratch, sample.store(scratch, serving=limits) as config:
        maker = Maker(sample.rows(Path(scratch), 50), seed)
        environment = {"AFTERFIT_WEBHOOK_SECRET": "s"}
        os.environ.update(environment)
        port, starting = servers.ours(scratch, "acknowledged", config=str(config))
        with starting as (process, _):
            sender, begun = Sender(port, maker), time.monotonic()
            sender.send(min(WARM, bodies // 2))
            warm, born = _at_rest(process, rest), _worker(process)
            sender.send(bodies - min(WARM, bodies // 2))
            seconds, end = time.monotonic() - begun, _at_rest(process, rest)
            asked, wrong = described(port, examples, seed)
            files = _files(born)
            wrong += _held(port, maker, held, held_seconds)
            answered, open_files, peak = _answered(port), _files(born), _peak(born)
            alive = born == _worker(process) and born
        log = _read_log(f"{scratch}/log-acknowledged-production", sample.NAME)
    if log.get("rows") != answered or log.get("left"):
        wrong.append(f"{answered} rows were answered, and the log tells of {log}")
    return {
        "bodies": sum(sender.statuses.values()),
        "statuses": {str(key): count for key, count in sorted(sender.statuses.items(), key=str)},
        "the worker lived": bool(alive),
        "megabytes after warm-up": warm,
        "megabytes at the end": end,
        "megabytes at the peak": peak,
        "growth, %": 100 * (end / warm - 1),
        "open files before and after": (files, open_files),
        "rows answered": answered,
        "rows read from the log": log.get("rows"),
        "megabytes to seal and read": log.get("megabytes"),
        "seconds": seconds,
        "made from the description": asked,
        "faults": [*sender.faults, *wrong],
    }


def _at_rest(process, seconds):
    """Resident megabytes of the worker when it had time to give back what it freed."""
    from bench.shared import servers

    time.sleep(seconds)
    return servers.memory(process)


def _ask(port, path):
    """The status and body of a health endpoint, or what went wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return repr(error), b""
    finally:
        connection.close()


def _held(port, maker, count, seconds):
    """What was wrong while connections were held; afterwards a good row is answered and the log is sealed."""
    answers = hold(port, count, seconds, maker.chance, lambda path: _ask(port, path)[0])
    faults = [f"{path} with {count} connections held: {status}" for path, status in answers if status != 200]
    until = time.monotonic() + 60
    while b'"log_sealed":true' not in _ask(port, "/ready")[1]:
        if time.monotonic() > until:
            return [*faults, "The log is not sealed any more."]
        time.sleep(0.5)
    return faults


def _answered(port):
    """Rows that the server says it answered."""
    text = _ask(port, "/metrics")[1].decode()
    return sum(int(float(number)) for number in re.findall(r"^afterfit_rows_total\{.*\} (\S+)$", text, re.MULTILINE))


def _files(pids):
    """Open files of the processes."""
    return sum(len([*Path(f"/proc/{pid}/fd").iterdir()]) for pid in pids)


def _peak(pids):
    """The most resident megabytes that one of the processes had."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return max((int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024 for text in texts), default=0.0)


def _read_log(folder, name):
    """The log, sealed and read to its end by a process of its own."""
    done = subprocess.run([sys.executable, "-c", READ, folder, name], check=False, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-500:], "code": done.returncode}


def _worker(process):
    """The ids of the processes that answer."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if (
                b"afterfit.server.start\0worker" in command.read_bytes()
                and os.getpgid(int(command.parent.name)) == process.pid
            ):
                found.append(int(command.parent.name))
    return sorted(found)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = measure(given.bodies, given.examples, given.seed)
    faults = found.pop("faults")
    for what, value in found.items():
        print(f"{what:28} {value:.1f}" if isinstance(value, float) else f"{what:28} {value}")
    print(f"{'faults':28} {len(faults)}")
    for one in faults[:20]:
        print(f"  {one[:600]}")
    high = found["megabytes at the peak"] > MOST_PEAK
    return 1 if faults or not found["the worker lived"] or found["growth, %"] > MOST_GROWTH or high else 0


if __name__ == "__main__":
    sys.exit(main())
