"""SIGKILL under load: is every acknowledged answer in the prediction log exactly once, after sealing?

A process writes answers in batches as fast as it can, tells each batch when it is acknowledged, and seals its own
spool all the while. It is killed after a random time. Meanwhile, and after each kill, another process seals what is
left, and is killed too every other time. At the end everything is sealed and read back: an acknowledged answer that is
absent or there twice is wrong, and so is any other answer that is there twice.

    PYTHONPATH=src:scripts python -m bench.robustness.crashes_log --kills 100
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

USE_CASE = "crashes"
WRITE = """
import itertools, sys, threading, time
from pathlib import Path
from afterfit import prediction_log
from afterfit.prediction_log.entries import LogEntry

log = prediction_log.log_at(sys.argv[1], "crashes")
spool = log.spool()
name, told = sys.argv[2], sys.stdout


def sealing():
    while True:
        prediction_log.seal(log, [spool])
        time.sleep(0.01)


threading.Thread(target=sealing, daemon=True).start()
now = time.time_ns() // 1000
for batch in itertools.count():
    ids = [f"{name}-{batch}-{i}" for i in range(1 + batch % 40)]
    times = now + (batch % 3) * 86_400_000_000
    columns = {"time": times, "version": "1", "shadow": False, "features": b'{"x": 1.5}', "prediction": b"true"}
    entry = LogEntry(**{**dict.fromkeys(LogEntry._fields), **columns, "probability": 0.5})
    spool.write([entry._replace(prediction_id=identity) for identity in ids])
    told.write(f"{name} {batch} {len(ids)}\\n")
    told.flush()
"""
SEAL = """
import sys, time
from afterfit import prediction_log

log = prediction_log.log_at(sys.argv[1], "crashes")
print("ready", flush=True)
while True:
    prediction_log.seal(log)
    time.sleep(0.005)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def killed(process: subprocess.Popen[str], after: float) -> list[str]:
    """Kill a process so long after its first line; gives the whole lines that it wrote."""
    first = process.stdout.readline()
    time.sleep(after)
    process.kill()
    rest = process.stdout.read()
    process.wait()
    process.stdout.close()
    return [line for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]


def acknowledged(lines: list[str]) -> set[str]:
    told = (line.split() for line in lines)
    return {f"{name}-{batch}-{i}" for name, batch, count in told for i in range(int(count))}


def measure(kills: int, seed: int = 0, longest: float = 0.6) -> dict[str, int]:
    """How many answers were acknowledged, are in the log, are absent from it, and are there more than once."""
    from afterfit import prediction_log

    chance, wanted = random.Random(seed), set[str]()
    with tempfile.TemporaryDirectory() as folder:
        log = prediction_log.log_at(folder, USE_CASE)
        assert log is not None
        for number in range(kills):
            sealer = start(SEAL, folder)
            wanted |= acknowledged(killed(start(WRITE, folder, f"p{number}"), chance.uniform(0.0, longest)))
            if number % 2:
                killed(sealer, chance.uniform(0.0, 0.1))
            else:
                prediction_log.seal(log)
                killed(sealer, 0.0)
        prediction_log.seal(log)
        left = list((Path(folder) / "spool").glob("*.sqlite"))
        counts = Counter(one for table in prediction_log.read(log) for one in table["prediction_id"].to_pylist())
    absent = sum(one not in counts for one in wanted)
    doubled = sum(count > 1 for count in counts.values())
    return {
        "kills": kills,
        "acknowledged": len(wanted),
        "logged": len(counts),
        "absent": absent,
        "doubled": doubled,
        "spools left": len(left),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    found = measure(options.kills, options.seed)
    for name, value in found.items():
        print(f"{name:<14} {value:>10,}")
    return 1 if found["absent"] or found["doubled"] or found["spools left"] else 0


if __name__ == "__main__":
    sys.exit(main())
