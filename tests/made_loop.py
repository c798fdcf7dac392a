"""A made table whose world changes, a use case over it, and policies that live through it."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from afterfit.commands import loop as looping
from afterfit.commands import step
from afterfit.data.loading import Window, fingerprint
from afterfit.data.windows import WindowLength
from afterfit.loop import backtest, history
from afterfit.loop.backtest import BacktestPlan
from afterfit.loop.history import History
from afterfit.loop.stepping import Recipe
from afterfit.loop.task_runner import TaskRunner
from afterfit.mlflow_store import ledger, registry
from afterfit.settings import Policy, TrainOn
from afterfit.use_case import UseCase

BEGIN, FIRST = datetime.fromisoformat("2024-01-01"), datetime.fromisoformat("2024-01-29")
WEEKS, PER_DAY = 9, 40
PARAMS = {"max_iter": 12, "min_samples_leaf": 20}


def use_case(**changes):
    given = {
        "name": "changing",
        "task": "classification",
        "target": "late",
        "time": "when",
        "key": ["id"],
        "source": {"path": "none.csv"},
        "columns": {"features": ["size", "other"]},
        "split": {"folds": 3},
        "metrics": {"primary": "roc_auc"},
        "candidates": [{"builder": "hist_gradient_boosting", "params": PARAMS}],
        "gate": {"smallest_holdout": 50, "tolerance": 0.02},
    }
    return UseCase.model_validate({**given, **changes})


def table(seed=0, change="2024-02-12", weeks=WEEKS):
    """What decides is `size` before the change and `other` after it."""
    rng = np.random.default_rng(seed)
    rows = weeks * 7 * PER_DAY
    when = pd.Timestamp(BEGIN) + pd.to_timedelta(np.arange(rows) * 24 * 60 // PER_DAY, unit="min")
    size, other = rng.normal(size=rows), rng.normal(size=rows)
    decides = np.where(when < pd.Timestamp(change), size, other)
    late = decides + rng.normal(scale=0.7, size=rows) > 0
    return pd.DataFrame(
        {"when": when.astype("datetime64[us]"), "id": np.arange(rows), "size": size, "other": other, "late": late}
    )


def lived(folder, policies, frame=None, delay=0.0, case=None, processes=1):
    """The stories of some policies; each step's decision as (window, what came of it, the reason)."""
    frame = table() if frame is None else frame
    case = use_case() if case is None else case
    case = case.model_copy(update={"gate": case.gate.model_copy(update={"label_delay_hours": delay})})
    known = History.of(case, Window(frame, fingerprint(frame, "when"), {}, "made"), Path(folder))
    spans = history.spans(known, WindowLength(1, "w"), FIRST, BEGIN + timedelta(weeks=WEEKS))
    recipe = Recipe("hist_gradient_boosting", PARAMS, 0, TrainOn(), 100, FIRST)
    work = TaskRunner(known, processes)
    return backtest.run(BacktestPlan(tuple(spans), recipe, policies), work), work


def policy(preset, **changes):
    return Policy.model_validate({"preset": preset, "minimum_outcomes": 100, **changes})


def decisions(story):
    return [(entry.turn.span.name, entry.done.outcome, entry.turn.action.reason) for entry in story.entries]


NOW = "2024-03-04"


def settings(folder, **changes):
    """The made table as a file, and a use case over it whose first training ends where the backtest's does."""
    table().to_csv(folder / "changing.csv", index=False)
    given = {
        "name": "changing",
        "task": "classification",
        "target": "late",
        "time": "when",
        "key": ["id"],
        "source": {"path": "changing.csv"},
        "columns": {"features": ["size", "other"]},
        "split": {"folds": 3, "train": {"end": "2024-01-29"}},
        "metrics": {"primary": "roc_auc"},
        "candidates": [{"builder": "hist_gradient_boosting", "params": PARAMS}],
        "gate": {"smallest_holdout": 50, "tolerance": 0.02},
        "policy": {"preset": "calendar", "minimum_outcomes": 100, "every": "1w"},
    }
    file = folder / "changing.yaml"
    file.write_text(yaml.safe_dump({**given, **changes}))
    return str(file)


def in_production(config):
    """Train the first version and put it into production."""
    from afterfit.commands import train

    train.command(config)
    version = registry.version("changing", "1")
    decision = ledger.Decision("promotion", "PROMOTE", "1", "production", moves=True, page="The first.")
    return ledger.record("changing", decision, 0)[0].counts and version


def run_all(config):
    """Steps until none is due; what each came to."""
    told = []
    while True:
        answer = step.command(config, now=NOW)
        if answer.data["outcome"] in looping.IDLE:
            return told
        told.append((answer.data["window"], answer.data["outcome"], answer.data["action"]["reason"]))
