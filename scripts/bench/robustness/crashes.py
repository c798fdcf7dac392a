"""Promotions that are killed, and promotions at once: what the ledger and the aliases are afterwards, counted.

Kills: a process promotes and is sent SIGKILL after a random time between nothing and a little more than a promotion
takes; then another command runs. Afterwards the alias must be where the ledger says, every decision done or abandoned,
and the numbers without a gap. Races: eight processes that have judged against the same champion record at once; one
may win, and the others must name it. Versions are empty: judging is not what is tested here.

    PYTHONPATH=src:scripts python -m bench.robustness.crashes --kills 200 --races 50
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

FORK = multiprocessing.get_context("fork")
NAME, VERSIONS = "sizes", 9


def store(folder: Path) -> None:
    """A fresh SQLite store in that folder with versions that nothing could load."""
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model(NAME)
    for _ in range(VERSIONS):
        client.create_model_version(NAME, folder.as_uri())


def disconnect() -> None:
    """Forget this process's connections, which a fork must not share."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Models
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs
    from mlflow.tracking._model_registry import utils as models
    from mlflow.tracking._tracking_service import utils as runs

    for stores in (runs._tracking_store_registry, models._model_registry_store_registry):  # noqa: SLF001 - no public name
        stores._get_store_with_resolved_uri.cache_clear()  # noqa: SLF001 - as above
    for kind in (Models, Runs):
        kind._engine_map.clear()  # noqa: SLF001 - as above


def promote(version: int, seen: int | None = None):
    from afterfit.mlflow_store import decisions, ledger

    book = ledger.entries(NAME)
    held = decisions.holder(book, "production")
    decision = decisions.Decision(
        "promotion", "PROMOTE", str(version), "production", moves=True, previous=held, page="A page."
    )
    return ledger.record(NAME, decision, len(book) if seen is None else seen)[0]


def faults() -> list[str]:
    """What is wrong with ledger and alias; nothing, where all is well."""
    from afterfit.mlflow_store import decisions, ledger, registry

    book = ledger.entries(NAME)
    actual, recorded = registry.aliases(NAME).get("production", ""), decisions.holder(book, "production")
    found = [] if actual == recorded else [f"alias at {actual}, ledger says {recorded}"]
    found += [f"decision {entry.number} is {entry.state}" for entry in book if entry.state in {"writing", "intended"}]
    if [entry.number for entry in book] != list(range(1, len(book) + 1)):
        found.append(f"numbers {[entry.number for entry in book]}")
    return found


def apart(work, *arguments):
    """A forked process that does the work over connections of its own."""

    def run() -> None:
        disconnect()
        work(*arguments)
        os._exit(0)

    process = FORK.Process(target=run)
    process.start()
    return process


def promote_when_ready(version: int, ready) -> None:
    """Connect first, so that the kill falls into the promotion and not into what comes before it."""
    faults()
    ready.set()
    promote(version)


def timed_promotion() -> float:
    ready = FORK.Event()
    process = apart(promote_when_ready, 2, ready)
    ready.wait(60)
    started = time.perf_counter()
    process.join()
    return time.perf_counter() - started


def kills(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """What the next command found after each kill, and what was wrong after it."""
    from afterfit.mlflow_store import ledger

    chance, seen, wrong = random.Random(seed), Counter[str](), list[str]()
    promote(1)
    longest = 1.1 * min(timed_promotion() for _ in range(3))
    for number in range(count):
        before = len(ledger.entries(NAME))
        ready = FORK.Event()
        process = apart(promote_when_ready, 1 + number % VERSIONS, ready)
        ready.wait(60)
        time.sleep(chance.uniform(0.0, longest))
        process.kill()
        process.join()
        said = [sentence.split(":")[0].lower() for sentence in ledger.repair(NAME)]
        whole = "whole" if len(ledger.entries(NAME)) > before else "not begun"
        seen[said[0] if said else whole] += 1
        wrong += [f"after kill {number}: {fault}" for fault in faults()]
    promote(1)  # no lock is left that keeps the next command out
    return seen, wrong + faults()


def contend(barrier, version: int, folder: Path) -> None:
    from afterfit.mlflow_store import ledger

    seen = len(ledger.entries(NAME))
    barrier.wait(120)
    entry = promote(version, seen)
    (folder / f"{version}.told").write_text(f"{entry.counts} {entry.decision.reason}", "utf-8")


def race(at_once: int) -> list[str]:
    """What was wrong with one race."""
    folder = Path(tempfile.mkdtemp())
    barrier = FORK.Barrier(at_once)
    processes = [apart(contend, barrier, version, folder) for version in range(1, at_once + 1)]
    for process in processes:
        process.join(180)
    told = {path.stem: path.read_text("utf-8") for path in folder.glob("*.told")}
    winners = [version for version, words in told.items() if words.startswith("True")]
    if len(told) != at_once or len(winners) != 1:
        return [f"{len(told)} of {at_once} ended, {len(winners)} won", *faults()]
    unnamed = [v for v, words in told.items() if v != winners[0] and f"version {winners[0]} " not in words]
    return [*(f"{version} does not name the winner" for version in unnamed), *faults()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--races", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from afterfit.commands.console import settle

    settle()
    store(Path(tempfile.mkdtemp()))
    seen, wrong = kills(options.kills, options.seed)
    print(
        f"{options.kills} kills; the next command found: "
        + ", ".join(f"{n} {what}" for what, n in sorted(seen.items()))
    )
    raced = [race(options.at_once) for _ in range(options.races)]
    good = sum(not found for found in raced)
    print(f"{options.races} races of {options.at_once}: {good} with exactly one winner, whom all others name")
    lost = [f"race {number}: {fault}" for number, found in enumerate(raced) for fault in found]
    print("\n".join(["wrong:", *wrong, *lost]) if wrong or lost else "Nothing was wrong after any of them.")
    return 1 if wrong or lost else 0


if __name__ == "__main__":
    sys.exit(main())
