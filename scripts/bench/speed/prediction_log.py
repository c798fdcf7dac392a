"""What the prediction log costs: microseconds an answer to write, rows a second to seal and to read, memory to read.

Write: batches of 1, 8, 32 and 128 answers, acknowledged (fsync) and buffered (what the caller waits for, and what the
writer's thread takes of the processor in all); beside it what an fsync of 4 KB costs on the same disk. Seal and read:
rows as the flights have them, 15 features, an outcome for each by prediction id. Memory: a process of its own reads
the whole log; its peak beside the peak of one that reads a tenth of it. Look-up: 1 and 1,000 unknown ids in a log of so
many days with a part each, beside what it takes to list and read the bare index files.

    PYTHONPATH=src:scripts python -m bench.speed.prediction_log --rows 5000000 --folder /var/tmp
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from afterfit import prediction_log
from afterfit.prediction_log.arrow import FEATURE
from afterfit.prediction_log.entries import LogEntry
from afterfit.prediction_log.spool import Spool

DAY = 86_400_000_000
START = 1_795_392_000_000_000  # 2026-11-23 00:00 UTC
BATCHES = (1, 8, 32, 128)
FLIGHT = {
    "carrier": "UA", "origin": "EWR", "dest": "IAH", "scheduled_departure": "2013-01-01T05:15:00",
    "scheduled_arrival": "2013-01-01T08:19:00", "distance": 1400, "temp": 39.02, "dewp": 28.04, "humid": 64.43,
    "wind_dir": 260, "wind_speed": 12.65858, "wind_gust": None, "precip": 0.0, "pressure": 1011.9, "visib": 10.0,
}  # fmt: skip
READ = r"""
import re, sys, time
from pathlib import Path
from afterfit import prediction_log
start, rows, known = time.perf_counter(), 0, 0
for table in prediction_log.read(prediction_log.log_at(sys.argv[1], "bench")):
    rows += table.num_rows
    known += table.num_rows - table["outcome"].null_count
taken = time.perf_counter() - start
print(rows, known, taken, int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def entries(count: int, first: int = 0) -> list[LogEntry]:
    columns: dict[str, Any] = dict.fromkeys(LogEntry._fields)
    columns |= {"version": "7", "shadow": False, "key": '["UA-1545-2013-01-01"]', "features": orjson.dumps(FLIGHT)}
    columns |= {"prediction": b"true", "probability": 0.31, "confidence": 0.69, "seconds": 0.002}
    entry = LogEntry(**columns)
    return [entry._replace(prediction_id=f"{i:032x}", time=START + i) for i in range(first, first + count)]


def fsync(folder: Path, times: int = 50) -> float:
    """Microseconds of an fsync of 4 KB."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(times):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - start) / times * 1e6


def writing(folder: Path, durability: str, batch: int, answers: int) -> tuple[float, float]:
    """Microseconds an answer that the caller waits, and that the process computes until all is written."""
    some = entries(batch)
    spool = Spool(folder, durability=durability, use_case="bench")
    busy, start = time.process_time(), time.perf_counter()
    rounds = max(1, answers // batch)
    for _ in range(rounds):
        spool.write(some)
    waited = time.perf_counter() - start
    spool.close()
    return waited / rounds / batch * 1e6, (time.process_time() - busy) / rounds / batch * 1e6


def sealing(folder: Path, rows: int) -> float:
    """Rows a second from a spool into parts."""
    log = prediction_log.log_at(str(folder), "sealed")
    assert log is not None
    spool = Spool(folder, use_case="sealed")
    for first in range(0, rows, 10_000):
        spool.write(entries(min(10_000, rows - first), first))
    start = time.perf_counter()
    prediction_log.seal(log, [spool])
    taken = time.perf_counter() - start
    spool.close()
    return rows / taken


def filled(folder: Path, rows: int, part: int = 100_000) -> None:
    """A log of so many rows, a million a day, each with an outcome, written as parts straight away."""
    from afterfit.prediction_log.arrow import answers_table

    log = prediction_log.log_at(str(folder), "bench")
    assert log is not None
    like = answers_table([tuple(one) for one in entries(1)])
    rng = np.random.default_rng(0)
    for first in range(0, rows, part):
        n = min(part, rows - first)
        ids = pa.array([f"{i:032x}" for i in range(first, first + n)])
        times = pa.array(START + (np.arange(first, first + n) * DAY) // 1_000_000).cast(pa.timestamp("us"))
        table = like.take(pa.array(np.zeros(n, dtype=np.int64)))
        for name, column in (("prediction_id", ids), ("time", times), (f"{FEATURE}temp", pa.array(rng.normal(size=n)))):
            table = table.set_column(table.column_names.index(name), name, column)
        prediction_log.write_table(log, f"bench-{first}", "answers", table)
        values = pa.array(rng.random(n) < 0.3)
        order = rng.permutation(n)
        told = {"prediction_id": ids, "key": pa.nulls(n, pa.string()), "value": values, "time": times}
        prediction_log.write_table(log, f"bench-{first}", "outcomes", pa.table(told).take(pa.array(order)))


def reading(folder: Path) -> tuple[int, float, float]:
    """Rows with an outcome, rows a second, and the peak memory in MB of a process that reads a whole log."""
    answer = subprocess.run([sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, check=True)
    rows, known, seconds, peak = answer.stdout.split()
    assert rows == known
    return int(known), int(rows) / float(seconds), float(peak)


def looking_up(folder: Path, days: int) -> dict[str, float]:
    """Milliseconds to find that 1 and 1,000 ids are unknown, the best of three, and of the bare reads."""
    from afterfit.prediction_log.arrow import answers_table

    log = prediction_log.log_at(str(folder), "days")
    assert log is not None
    like = answers_table([tuple(one) for one in entries(20)])
    for day in range(days):
        ids = pa.array([f"{day * 20 + i:032x}" for i in range(20)])
        times = pa.array(np.full(20, START - day * DAY)).cast(pa.timestamp("us"))
        prediction_log.write_table(
            log, "x", "answers", like.set_column(0, "prediction_id", ids).set_column(1, "time", times)
        )

    def bare() -> None:
        for day in os.scandir(folder / "days" / "ids"):
            for file in os.scandir(day.path):
                with open(file.path, "rb", buffering=0) as opened:  # noqa: PTH123 - as bare as it gets
                    opened.read(1_000)

    def best(work: Any) -> float:
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        return min(taken) * 1e3

    found = {"bare reads ms": best(bare)}
    for count in (1, 1_000):
        names = [f"nobody-{i}" for i in range(count)]
        assert len(prediction_log.unknown_ids(log, names)) == count
        found[f"look-up of {count:,} ms"] = best(lambda names=names: prediction_log.unknown_ids(log, names))
    return found


def measure(folder: Path, rows: int, answers: int = 4_000, days: int = 3_000) -> dict[str, float]:
    found = {"fsync µs": fsync(folder)}
    for durability in ("acknowledged", "buffered"):
        for batch in BATCHES:
            count = answers if durability == "acknowledged" else answers * 10
            count = min(count, batch * 200) if durability == "acknowledged" else count
            waited, busy = writing(folder, durability, batch, count)
            found[f"{durability} {batch} µs"] = waited
            found[f"{durability} {batch} cpu µs"] = busy
    found["sealed rows/s"] = sealing(folder, max(1_000, min(rows, 200_000)))
    for name, size in (("tenth", rows // 10), ("whole", rows)):
        filled(folder / name, size)
        _, found[f"{name} rows/s"], found[f"{name} MB"] = reading(folder / name)
    return found | looking_up(folder / "lookup", days)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--answers", type=int, default=4_000, help="answers written one way; ten times that buffered")
    parser.add_argument("--days", type=int, default=3_000, help="days of the log in which ids are looked up")
    parser.add_argument("--folder", default=None, help="a folder on the disk to measure")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.rows, options.answers, options.days)
    print(f"fsync of 4 KB {found['fsync µs']:>30,.0f} µs")
    for durability in ("acknowledged", "buffered"):
        for batch in BATCHES:
            waited, busy = found[f"{durability} {batch} µs"], found[f"{durability} {batch} cpu µs"]
            print(f"{durability:<13} batches of {batch:<4} {waited:>14,.2f} µs an answer ({busy:,.2f} µs of processor)")
    print(f"sealing {found['sealed rows/s']:>36,.0f} rows/s")
    for name, size in (("tenth", options.rows // 10), ("whole", options.rows)):
        speed, peak = found[f"{name} rows/s"], found[f"{name} MB"]
        print(f"reading {size:>12,} rows {speed:>18,.0f} rows/s, peak {peak:,.0f} MB")
    bare = found["bare reads ms"]
    for count in ("1", "1,000"):
        taken = found[f"look-up of {count} ms"]
        words = f"{taken:>10,.0f} ms, {taken / bare:.1f} times bare reads"
        print(f"look-up of {count:>5} ids in {options.days:,} days {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
