"""Promotions under load: whether any request fails, which version answers when, and whether it answers rightly.

    PYTHONPATH=src:scripts python -m bench.robustness.reload [--seconds 60] [--every 5] [--workers 2] [--connections 8]

Three versions of a small use case (boosted trees, linear, forest) are served while `promote --force true` moves the
alias in turn. Each promotion is the whole command: it judges, writes the ledger, then moves the alias. Another process
asks without a pause over kept connections and writes down every answer. Afterwards

- every request must have been answered with 200;
- the version of each answer must have been in production, by the ledger, at some time between the request (less what a
  change may take: the poll interval and `--grace` for fetching, loading and trying) and the answer;
- each answer must be what that version's bundle answers to the row: prediction, probability to 1e-9, warnings.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

BUILDERS = ("", "linear", "random_forest")
HEAD = {"Content-Type": "application/json"}
SECONDS = 0.5
"""Between looks at the alias (`serving.reload_seconds`)."""


@dataclass(frozen=True, slots=True)
class Held:
    """A version that held the alias: from the ledger's entry until the command that moved it on had returned."""

    version: str
    start: float
    end: float


def ask_on(port, connections, rows, file, pause):
    """The load's process, until it is sent SIGTERM: one line an answer with row, time sent and answered, status, body.

    That it has begun to ask is told by its first file, `asking`.
    """
    bodies = [json.dumps(row) for row in json.loads(Path(rows).read_text("utf-8"))]
    found, over = [], threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())

    def go(offset):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in itertools.islice(itertools.cycle(range(len(bodies))), offset, None):
            sent = time.time()
            if over.is_set():
                return connection.close()
            try:
                connection.request("POST", "/predict", bodies[number], HEAD)
                answer = connection.getresponse()
                status, text = answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, text = 0, repr(error)
            found.append((number, sent, time.time(), status, text))
            if pause:
                time.sleep(pause)
        return None

    threads = [threading.Thread(target=go, args=(7 * number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    Path(file).with_name("asking").touch()
    for thread in threads:
        thread.join()
    with Path(file).open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(one) + "\n" for one in found)


def promote_on(config, versions, promotions, every):
    """Promote so often, in turn; gives when each command returned."""
    from afterfit.commands import promote

    returned, begun = [], time.time()
    for number in range(1, promotions + 1):
        time.sleep(max(begun + number * every - time.time(), 0.0))
        version = versions[number % len(versions)]
        answer = promote.command(config, version, force="true", reason="The alias must move.")
        assert answer.exit_code == 0, answer.lines
        returned.append((version, time.time()))
    return returned


def spans(name, first, begun, returned):
    """Who held production when, by the ledger's own times."""
    from afterfit.mlflow_store import ledger

    book = [entry for entry in ledger.entries(name) if entry.counts and entry.decision.action == "promotion"]
    moved = [(entry.decision.version, entry.time.timestamp()) for entry in book if entry.time.timestamp() > begun]
    assert [version for version, _ in moved] == [version for version, _ in returned]
    starts = [(first, 0.0), *moved]
    ends = [*(moment for _, moment in returned), float("inf")]
    return [Held(version, start, end) for (version, start), end in zip(starts, ends, strict=True)]


def out_of_time(answers, held, allowed):
    """Answers of a version that was not in production at their time."""

    def fits(version, sent, answered):
        return any(one.version == version and one.start <= answered and one.end + allowed >= sent for one in held)

    return [one for one in answers if not fits(one["version"], one["sent"], one["answered"])]


def lags(answers, held):
    """Seconds, for each promotion, from its return to the last request that the version before still answered."""
    found = []
    for before, after, then in zip(held[:-1], held[1:], [*held[2:], Held("", float("inf"), 0.0)], strict=True):
        late = [
            one["sent"] - before.end
            for one in answers
            if one["version"] == before.version and after.start < one["sent"] < then.start
        ]
        found.append(max([0.0, *late]))
    return found


def wrong(answers, rows, name, versions):
    """Answers that differ from what their version's bundle says of the row."""
    from afterfit.mlflow_store import registry

    bundles = {number: registry.load_bundle(registry.version(name, number)) for number in versions}
    expected = {(number, k): bundle.answer(row) for number, bundle in bundles.items() for k, row in enumerate(rows)}

    def right(one):
        answer, known = one["answer"], expected[one["version"], one["row"]]
        equal = all(answer[key] == known[key] for key in ("prediction", "warnings", "error", "model_version"))
        return equal and abs(answer["probability"] - known["probability"]) <= 1e-9

    return [one for one in answers if not right(one)]


def measure(promotions=11, every=5.0, *, workers=2, connections=8, grace=1.5, builders=BUILDERS, pause=0.0):
    """Serve, ask and promote at once; gives the counts."""
    from bench.shared import sample, servers

    versions = [str(number + 1) for number in range(len(builders))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with sample.store(folder, builders, every=20, serving={"reload_seconds": SECONDS}) as config:
            rows = [{k: v for k, v in row.items() if k != "flight_id"} for row in sample.rows(folder, 200)]
            (folder / "rows.json").write_text(json.dumps(rows), "utf-8")
            port, starting = servers.ours(scratch, "acknowledged", workers=workers, config=str(config))
            with starting:
                command = [sys.executable, __file__, "--ask", str(port)]
                command += ["--connections", str(connections), "--folder", scratch, "--pause", str(pause)]
                load = subprocess.Popen(command)
                while not (folder / "asking").exists():
                    assert load.poll() is None
                    time.sleep(0.05)
                begun = time.time()
                returned = promote_on(str(config), versions, promotions, every)
                time.sleep(every)
                load.terminate()
                assert load.wait(120) == 0
                seconds = time.time() - begun
            held = spans(sample.NAME, "1", begun, returned)
            found = judged(answers_of(folder), rows, held, (sample.NAME, versions), SECONDS + grace)
            return {**found, "seconds": seconds}


def answers_of(folder):
    """What the load wrote."""
    with (folder / "answers.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row, sent, answered, status, text = json.loads(line)
            answer = json.loads(text) if status == 200 else {}
            version = answer.get("model_version", "")
            yield {
                "row": row,
                "sent": sent,
                "answered": answered,
                "status": status,
                "answer": answer,
                "version": version,
                "text": text,
            }


def judged(answers, rows, held, versions, allowed):
    """The counts."""
    answers = list(answers)
    failed = [one for one in answers if one["status"] != 200]
    good = [one for one in answers if one["status"] == 200]
    late = lags(good, held)
    return {
        "requests": len(answers),
        "failed": len(failed),
        "first failure": failed[0]["text"] if failed else "",
        "promotions": len(held) - 1,
        "answers by version": {
            number: sum(one["version"] == number for one in good) for number in sorted({one["version"] for one in good})
        },
        "not in production at their time": len(out_of_time(good, held, allowed)),
        "allowed": allowed,
        "median lag": sorted(late)[len(late) // 2] if late else 0.0,
        "longest lag": max(late, default=0.0),
        "wrong": len(wrong(good, rows, *versions)),
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--grace", type=float, default=1.5)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between a connection's requests")
    parser.add_argument("--ask", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        folder = Path(given.folder)
        ask_on(given.ask, given.connections, folder / "rows.json", folder / "answers.jsonl", given.pause)
        return 0
    load = {"workers": given.workers, "pause": given.pause, "connections": given.connections, "grace": given.grace}
    found = measure(max(int(given.seconds / given.every) - 1, 1), given.every, **load)
    for what, value in found.items():
        print(f"{what:32} {value:.2f}" if isinstance(value, float) else f"{what:32} {value}")
    return 1 if found["failed"] or found["wrong"] or found["not in production at their time"] else 0


if __name__ == "__main__":
    sys.exit(main())
