"""The MLflow store goes away in the middle of each command; `monitor` is killed; two steps are taken at once.

Away: from a random statement on, whatever a command asks its store fails as it does when a database is gone. The
command must end with a sentence and a code of its own, never with a stack trace. Then the store is back, and the same
command must do its work. Killed and doubled commands are followed by one that is left alone. Afterwards the alias must
be where the ledger says, decisions numbered without a gap, no window monitored twice, and no step done twice.

    PYTHONPATH=src:scripts python -m bench.robustness.crashes_commands --times 100
"""

import argparse
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

from bench.robustness import crashes_step
from bench.robustness.crashes import FORK, apart

KINDS = ("train", "promote", "rollback", "step", "monitor", "seal", "outcomes", "kill monitor", "two steps")
CODES = {0, 1, 2, 3, 4}
STATEMENTS = {"train": 150, "promote": 90, "rollback": 60, "step": 200, "monitor": 80, "seal": 1, "outcomes": 20}
"""About how many statements of SQL each command takes: the store goes away before one of them, or not at all."""


def arguments(kind, config, folder):
    """A command's options."""
    common = ["--config", config]
    return {
        "train": common,
        "promote": [*common, "--version", "latest", "--force", "true", "--reason", "a test"],
        "rollback": [*common, "--reason", "a test"],
        "step": [*common, "--now", crashes_step.FAR, "--folder", str(folder / "steps")],
        "monitor": [*common, "--data", "source", "--start", "2024-01-04", "--end", "2024-01-05"],
        "seal": [*common, "--folder", str(folder / "log")],
        "outcomes": [*common, "--folder", str(folder / "log")],
    }[kind]


def away_from(statement):
    """Let the store be away from a statement on."""
    import sqlalchemy as sa

    left = [statement]

    @sa.event.listens_for(sa.engine.Engine, "before_cursor_execute")
    def _(_connection, _cursor, words, parameters, _context, _many):
        left[0] -= 1
        if left[0] < 0:
            raise sa.exc.OperationalError(words, parameters, sqlite3.OperationalError("unable to open database file"))


def command(kind, config, folder, statement=None, ready=None):
    """Run a command as its script does, and end the process with its exit code."""
    from afterfit.commands import console

    said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 2)
    os.dup2(said, 1)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    if statement is not None:
        away_from(statement)
    if ready is not None:
        ready.set()
    code = 99
    try:
        code = console.run(import_module(kind).options(), kind, arguments(kind, config, folder))
    except BaseException:  # noqa: BLE001 - it is what is looked for
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ended(process, folder, what, codes=CODES):
    """What is wrong with how a process ended."""
    process.join(300)
    said = (folder / "said.txt").read_text("utf-8", "replace")
    found = [f"{what}: a stack trace: {said[:700]} … {said[-500:]}"] if "Traceback" in said else []
    return found + ([] if process.exitcode in codes else [f"{what}: ended with {process.exitcode}: {said[-300:]}"])


def faults():
    """What is wrong afterwards; nothing, where all is well."""
    from mlflow import MlflowClient

    from afterfit.mlflow_store import decisions, ledger, monitor_runs, registry, step_journal

    name = crashes_step.NAME
    pages, book = step_journal.pages(name), ledger.entries(name)
    found = [f"decision {one.number} is {one.state}" for one in book if one.state in {"writing", "intended"}]
    if [one.number for one in book] != list(range(1, len(book) + 1)):
        found.append(f"numbers {[one.number for one in book]}")
    if registry.aliases(name).get("production") != decisions.holder(book, "production"):
        found.append("production is not where the ledger says")
    windows = Counter(old.name for old in monitor_runs.windows(name))
    found += [f"window {window} is there {n} times" for window, n in windows.items() if n > 1]
    done = Counter(page.window for page in pages)
    found += [f"step {window} was taken {n} times" for window, n in done.items() if n > 1]
    versions = MlflowClient().search_model_versions(f"name = '{name}'")
    steps = Counter(registry.unfold_tags(one.tags).get(registry.STEP) for one in versions)
    return found + [f"{n} versions of step {run}" for run, n in steps.items() if run and n > 1]


def tried(kind, config, folder, chance):
    """One trial of a kind; gives what was wrong."""
    if kind == "two steps":
        both = [apart(command, "step", config, folder) for _ in range(2)]
        found = [fault for process in both for fault in ended(process, folder, kind)]
        return found + ended(apart(command, "step", config, folder), folder, kind)
    if kind == "kill monitor":
        ready = FORK.Event()
        process = apart(command, "monitor", config, folder, None, ready)
        ready.wait(120)
        time.sleep(chance.uniform(0.0, 3.0))
        process.kill()
        process.join()
        return ended(apart(command, "monitor", config, folder), folder, kind, {0, 3})
    found = ended(apart(command, kind, config, folder, chance.randrange(STATEMENTS[kind])), folder, f"{kind}, away")
    return found + ended(apart(command, kind, config, folder), folder, f"{kind}, back", {0, 3, 4})


def measure(folder, times, kinds=KINDS, seed=0):
    """What was wrong, by kind; the trials are made in turn."""
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from mlflow import MlflowClient
    from mlflow.utils import requirements_utils

    from afterfit.commands import monitor, outcomes, promote, rollback, seal, step, train  # noqa: F401 - loaded once

    requirements_utils._init_modules_to_packages_map()  # noqa: SLF001 - MLflow asks every installed package
    MlflowClient().search_registered_models()
    config = crashes_step.made(folder, 8 * times + 8)
    for _ in range(2):
        first = apart(crashes_step.begin, config) if _ == 0 else apart(command, "train", config, folder)
        first.join()
        assert first.exitcode == 0
    chance, wrong = random.Random(seed), {kind: list[str]() for kind in kinds}
    for number in range(times):
        for kind in kinds:
            wrong[kind] += [f"{number}: {fault}" for fault in tried(kind, config, folder, chance) + faults()]
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from afterfit.commands.console import settle

    settle()
    with tempfile.TemporaryDirectory() as scratch:
        wrong = measure(Path(scratch), options.times, options.kinds.split(","), options.seed)
    for kind, found in wrong.items():
        print(f"{kind:<13} {options.times} times: {len(found)} wrong")
        print("".join(f"  {fault}\n" for fault in found), end="")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
