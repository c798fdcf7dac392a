"""Steps of the loop that are killed: what the next one finds, and whether anything was done twice.

A process steps and is sent SIGKILL after a random time between nothing and a little more than a step takes; then
another one steps to its end. The policy retrains at each window, and alarms go to a command that writes them down.
Afterwards every window must be done once and in order, every window must have at most one version and every version at
most one decision for each alias, no alarm may have gone out twice, and the alias must be where the ledger says.

    PYTHONPATH=src:scripts python -m bench.robustness.crashes_step --kills 100
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from bench.robustness.crashes import FORK, apart

NAME, FAR = "killed", "2030-01-01"
HOURS, ROWS = 6, 40
"""Length of a window, and rows in it."""


def made(folder: Path, windows: int) -> str:
    """A table with so many windows behind the training, and the use case over it; gives the settings file."""
    rng = np.random.default_rng(0)
    rows = (windows + 12) * ROWS
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows) * HOURS * 60 / ROWS, unit="min")
    size = rng.normal(size=rows)
    late = size + rng.normal(size=rows) > 0
    pd.DataFrame({"when": when, "id": np.arange(rows), "size": size, "late": late}).to_csv(
        folder / "t.csv", index=False
    )
    note = folder / "alarms.jsonl"
    policy = {"preset": "calendar", "every": f"{HOURS}h", "minimum_outcomes": 20, "alarm": ["realised"]}
    settings = {
        "name": NAME,
        "task": "classification",
        "target": "late",
        "time": "when",
        "key": ["id"],
        "source": {"path": "t.csv"},
        "columns": {"features": ["size"]},
        "split": {"folds": 2, "train": {"end": "2024-01-04"}},
        "metrics": {"primary": "roc_auc"},
        "candidates": [{"builder": "hist_gradient_boosting", "params": {"max_iter": 5, "min_samples_leaf": 10}}],
        "gate": {"smallest_holdout": 20, "tolerance": 0.3},
        "policy": {**policy, "fall": 0.0, "sure": False, "roll_back": False},
        "alarms": {"command": ["sh", "-c", f"cat >> {note}; echo >> {note}"]},
    }
    file = folder / "killed.yaml"
    file.write_text(yaml.safe_dump(settings), "utf-8")
    return str(file)


def begin(config: str) -> None:
    """Put a first version into production."""
    from afterfit.commands import train
    from afterfit.mlflow_store import decisions, ledger

    train.command(config)
    decision = decisions.Decision("promotion", "PROMOTE", "1", "production", moves=True, page="The first.")
    ledger.record(NAME, decision, 0)


def step(config: str, ready=None) -> None:
    """One step; `ready` is set when all is imported and connected, so that the kill falls into the step."""
    from afterfit.commands import step as command
    from afterfit.mlflow_store import ledger

    ledger.entries(NAME)
    if ready is not None:
        ready.set()
    command.command(config, now=FAR)


def stages() -> str:
    """How far the last window's step came."""
    from afterfit.mlflow_store import step_journal

    pages = step_journal.pages(NAME)
    if not pages or pages[-1].done:
        return "between windows"
    marks = pages[-1].marks
    return next((word for word in ("judged", "alarm", "decided", "champion") if marks.get(word)), "begun")


def faults(folder: Path) -> list[str]:
    """What is wrong; nothing, where all is well."""
    from mlflow import MlflowClient

    from afterfit.mlflow_store import decisions, ledger, registry, step_journal

    pages, book = step_journal.pages(NAME), ledger.entries(NAME)
    found = [f"window {page.window} is not done" for page in pages if not page.done]
    ends = [page.end for page in pages]
    starts = [page.marks["start"] for page in pages]
    if ends[:-1] != starts[1:]:
        found.append("windows do not follow each other")
    versions = MlflowClient().search_model_versions(f"name = '{NAME}'")
    steps = Counter(registry.unfold_tags(one.tags).get(registry.STEP) for one in versions)
    found += [f"{count} versions of step {run}" for run, count in steps.items() if run and count > 1]
    decided = Counter((one.decision.version, one.decision.alias) for one in book if one.state == "done")
    found += [f"{count} decisions on version {v} for {alias}" for (v, alias), count in decided.items() if count > 1]
    if registry.aliases(NAME).get("production") != decisions.holder(book, "production"):
        found.append("production is not where the ledger says")
    note = folder / "alarms.jsonl"
    sent = [json.loads(line)["id"] for line in note.read_text("utf-8").splitlines() if line] if note.exists() else []
    return [*found, *(f"alarm {one} went out {n} times" for one, n in Counter(sent).items() if n > 1)]


def done(config: str) -> float:
    """Step to the end in a process of its own; gives the seconds, from when it was ready."""
    ready = FORK.Event()
    process = apart(step, config, ready)
    ready.wait(120)
    started = time.perf_counter()
    process.join(300)
    if process.exitcode:
        raise SystemExit(f"a step ended with {process.exitcode}")
    return time.perf_counter() - started


def kills(config: str, count: int, seed: int) -> Counter[str]:
    """How far the steps had come that were killed."""
    chance, seen = random.Random(seed), Counter[str]()
    longest = 1.1 * max(done(config) for _ in range(min(count, 2)))
    for _ in range(count):
        ready = FORK.Event()
        process = apart(step, config, ready)
        ready.wait(120)
        time.sleep(chance.uniform(0.0, longest))
        process.kill()
        process.join()
        seen[stages()] += 1
        done(config)
    return seen


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    from afterfit.commands.console import settle

    settle()
    gc.disable()  # what is loaded here stays, and the processes that are forked share it
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    from mlflow import MlflowClient
    from mlflow.utils import requirements_utils

    from afterfit.commands import step, train  # noqa: F401 - loaded once here, and not again in each process

    requirements_utils._init_modules_to_packages_map()  # noqa: SLF001 - as above: MLflow asks every installed package
    MlflowClient().search_experiments()
    MlflowClient().search_registered_models()
    gc.freeze()
    gc.enable()
    config = made(folder, 2 * options.kills + 8)
    first = apart(begin, config)
    first.join()
    if first.exitcode:
        raise SystemExit(f"the first version was not made: {first.exitcode}")
    seen = kills(config, options.kills, options.seed)
    print(f"{options.kills} kills: " + ", ".join(f"{n} {stage}" for stage, n in seen.most_common()))
    wrong = faults(folder)
    print("\n".join(["wrong:", *wrong]) if wrong else "Nothing was done twice, and nothing was left undone.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
