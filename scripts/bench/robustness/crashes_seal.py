"""Sealing under kills, jumping clocks, midnight, a store that goes away, and a full disk: is each answer there once?

A process writes answers, seals its own spool, joins small parts, and tells each batch that was acknowledged. What
happens to it differs by kind:

- `seal`: another process seals, joins and removes all the while, and is killed too.
- `clock`: the clock jumps at random, by seconds up to years, forwards and backwards, in answers and in file ages.
- `midnight`: each batch lies around a midnight, so that each sealing writes parts of two days.
- `store`: the place of the parts is away again and again, and comes back.
- `full`: the log lies on a disk of 8 MB, which needs a mount (root), and is skipped without.

Each process is killed after a random time. Afterwards all is sealed and read back: an acknowledged answer that is
absent, an answer that is there twice, a stack trace, or a draft that no sealing clears is wrong.

    PYTHONPATH=src:scripts python -m bench.robustness.crashes_seal --kills 100
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

KINDS = ("seal", "clock", "midnight", "store", "full")
USE_CASE = "crashes"
PROGRAM = r"""
import itertools, os, random, sys, time
from datetime import datetime, timezone
from pathlib import Path
from afterfit import prediction_log
from afterfit.errors import AfterfitError
from afterfit.prediction_log import disk, sealing
from afterfit.prediction_log.entries import LogEntry

folder, name, kind, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
chance = random.Random(seed)
log = prediction_log.log_at(folder, "crashes")
real, jump = time.time, [0.0]
DAY = 86_400
sealing.GRACE = -1e12 if kind == "seal" else 3600.0  # joined, and removed, as if an hour had passed
sealing.FEWEST = 2
if kind == "clock":
    time.time = lambda: real() + jump[0]


def clock():
    if kind == "clock" and chance.random() < 0.3:
        jump[0] = chance.choice([-1, 1]) * chance.choice([1, 60, 3600, DAY, 40 * DAY, 900 * DAY]) * chance.random()
    now = real() + jump[0]
    return now if kind != "midnight" else now // DAY * DAY + chance.uniform(-2.0, 2.0)


def sealed(spools):
    try:
        prediction_log.seal(log, spools)
        if kind != "full":
            sealing.join(log.folder, log.store, log.use_case, "9999-01-01", time.time())
    except AfterfitError as error:
        return str(error)


print("ready", flush=True)
spool = log.spool() if name else None
for batch in itertools.count():
    if spool is not None:
        ids = [f"{name}-{batch}-{i}" for i in range(1 + batch % 40)]
        pad = b'{"x": "%s"}' % (b"x" * (2_000 if kind == "full" else 10))
        columns = {"version": "1", "shadow": False, "features": pad, "prediction": b"true", "probability": 0.5}
        entry = LogEntry(**{**dict.fromkeys(LogEntry._fields), **columns, "time": int(clock() * 1e6)})
        try:
            spool.write([entry._replace(prediction_id=one, time=int(clock() * 1e6)) for one in ids])
        except AfterfitError:
            time.sleep(0.005)
            continue
        print(f"{name} {batch} {len(ids)}", flush=True)
    if batch % 5 == 0 or spool is None:
        sealed([] if spool is None else [spool])
        time.sleep(0.002)
"""


def start(folder, name, kind, seed, errors):
    """A process that writes and seals, or only seals where it has no name; once it is ready."""
    words = [sys.executable, "-c", PROGRAM, str(folder), name, kind, str(seed)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def killed(process):
    """Kill a process; gives the ids of the batches that it told of."""
    process.kill()
    lines = process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    told = (line.split() for line in lines if line.endswith("\n"))
    return {f"{name}-{batch}-{i}" for name, batch, count in told for i in range(int(count))}


@contextmanager
def disk_of(kind):
    """A folder for the log: on a disk of 8 MB where a full one is wanted; None where that cannot be had."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "log"
        folder.mkdir()
        if kind != "full":
            yield folder
            return
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
        if (
            os.name != "posix"
            or os.geteuid() != 0
            or subprocess.run(mount, check=False, capture_output=True).returncode
        ):
            yield None
            return
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)


def trouble(kind, folder, chance, longest):
    """What happens while the processes run."""
    if kind != "store":
        time.sleep(chance.uniform(0.0, longest))
        return
    place, away = folder / USE_CASE, folder / "away"
    for _ in range(2):
        time.sleep(chance.uniform(0.0, longest / 4))
        if place.is_dir():
            place.rename(away)
            place.write_text("in the way")
            time.sleep(chance.uniform(0.0, longest / 4))
            place.unlink()
            away.rename(place)


def room(kind, folder, found):
    """Read and clear what is sealed on a small disk, or it would stay full."""
    from afterfit import prediction_log
    from afterfit.errors import AfterfitError

    log = prediction_log.log_at(str(folder), USE_CASE)
    if kind != "full":
        return
    with suppress(AfterfitError):  # no room for the parts: they are taken elsewhere
        prediction_log.seal(log)
    if not list((folder / "spool").glob("*.sqlite")):
        found.update(one for table in prediction_log.read(log) for one in table["prediction_id"].to_pylist())
        for part in log.store.parts("answers"):
            log.store.remove(part)
            log.store.remove(part.index())
        return
    _make_room(log, found)


def _make_room(log, found):
    """The parts go elsewhere, as a person would do it, and sealing goes on."""
    import shutil

    from afterfit import prediction_log

    with tempfile.TemporaryDirectory() as elsewhere:
        shutil.copytree(log.folder / USE_CASE, Path(elsewhere) / USE_CASE, dirs_exist_ok=True)
        shutil.rmtree(log.folder / USE_CASE)
        other = prediction_log.PredictionLog(USE_CASE, log.folder, elsewhere)
        prediction_log.seal(other)
        found.update(one for table in prediction_log.read(other) for one in table["prediction_id"].to_pylist())


def measure(kind, kills, seed=0, longest=0.5):
    """How many answers were acknowledged, are in the log, are absent, and are there twice; None where it cannot be."""
    from afterfit import prediction_log

    chance, wanted, found = random.Random(seed), set(), Counter()
    with disk_of(kind) as folder, tempfile.TemporaryFile("w+") as errors:
        if folder is None:
            return None
        log = prediction_log.log_at(str(folder), USE_CASE)
        for number in range(kills):
            other = start(folder, "", kind, chance.randrange(2**31), errors) if kind in {"seal", "store"} else None
            writer = start(folder, f"p{number}", kind, chance.randrange(2**31), errors)
            trouble(kind, folder, chance, longest)
            if other is not None and number % 2:
                killed(other)
            wanted |= killed(writer)
            if other is not None and not number % 2:
                killed(other)
            room(kind, folder, found)
        prediction_log.seal(log)
        found.update(one for table in prediction_log.read(log) for one in table["prediction_id"].to_pylist())
        errors.seek(0)
        said = errors.read()
        left = [path.name for path in (folder / "spool").glob("*.sqlite*")]
        log.store.clear_drafts()
    return {
        "kills": kills,
        "acknowledged": len(wanted),
        "logged": len(found),
        "absent": sum(one not in found for one in wanted),
        "doubled": sum(count > 1 for count in found.values()),
        "spools left": len(left),
        "stack traces": said.count("Traceback"),
        "said": said[-500:],
    }


def wrong(found):
    return any(found[name] for name in ("absent", "doubled", "spools left", "stack traces"))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args(arguments)
    bad = False
    for kind in options.kinds.split(","):
        found = measure(kind, options.kills, options.seed)
        if found is None:
            print(f"{kind:<9} skipped: a small disk cannot be mounted here")
            continue
        bad |= wrong(found)
        words = ", ".join(f"{name} {value:,}" for name, value in found.items() if name != "said")
        print(f"{kind:<9} {words}{' ' + found['said'] if wrong(found) else ''}", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
