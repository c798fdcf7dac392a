"""A made table whose world changes, a use case over it, and policies that live through it."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from afterfit.commands import loop as looping
from afterfit.commands import step
from afterfit.data.fingerprints import fingerprint
from afterfit.data.loading import Window
from afterfit.data.windows import WindowLength
from afterfit.loop import backtest, history
from afterfit.loop.backtest import BacktestPlan
from afterfit.loop.history import History
from afterfit.loop.stepping import Recipe
from afterfit.loop.task_runner import TaskRunner
from afterfit.mlflow_store import ledger
from afterfit.mlflow_store.decisions import Decision
from afterfit.settings import Policy, TrainOn
from afterfit.use_case import UseCase

BEGIN, FIRST = datetime.fromisoformat("2024-01-01"), datetime.fromisoformat("2024-01-29")
NOW = "2024-03-04"
"""When all windows are over."""
WEEKS, PER_DAY = 9, 40
PARAMS = {"max_iter": 12, "min_samples_leaf": 20}


def settings_of(**changes):
    """The use case's settings, with some changed, as they stand in its file; it gives no source."""
    given = {
        "name": "changing",
        "task": "classification",
        "target": "late",
        "time": "when",
        "key": ["id"],
        "columns": {"features": ["size", "other"]},
        "split": {"folds": 3},
        "metrics": {"primary": "roc_auc"},
        "candidates": [{"builder": "hist_gradient_boosting", "params": PARAMS}],
        "gate": {"smallest_holdout": 50, "tolerance": 0.02},
    }
    return {**given, **changes}


def use_case(**changes):
    """The use case without a file, whose rows a test gives itself."""
    return UseCase.model_validate({"source": {"path": "none.csv"}, **settings_of(**changes)})


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
    """The runs of some policies over the made table, weekly, and the runner that trained and looked for them."""
    frame = table() if frame is None else frame
    case = use_case() if case is None else case
    case = case.model_copy(update={"gate": case.gate.model_copy(update={"label_delay_hours": delay})})
    known = History.of(case, Window(frame, fingerprint(case, frame), {}, "made"), Path(folder))
    spans = history.spans(known, WindowLength(1, "w"), FIRST, BEGIN + timedelta(weeks=WEEKS))
    recipe = Recipe("hist_gradient_boosting", PARAMS, 0, TrainOn(), 100, FIRST)
    work = TaskRunner(known, processes)
    return backtest.run(BacktestPlan(tuple(spans), recipe, policies), work), work


def policy(preset, **changes):
    """A policy of that name, with some of it changed, for so few rows."""
    return Policy.model_validate({"preset": preset, "minimum_outcomes": 100, **changes})


def decisions(story):
    """What a policy came to: of each window its name, the outcome of its step, and the reason."""
    return [(entry.turn.span.name, entry.done.outcome, entry.turn.action.reason) for entry in story.entries]


def settings(folder, **changes):
    """The made table as a file, and a use case over it whose first training ends where the backtest's does."""
    table().to_csv(folder / "changing.csv", index=False)
    live = {
        "source": {"path": "changing.csv"},
        "split": {"folds": 3, "train": {"end": FIRST.date().isoformat()}},
        "policy": {"preset": "calendar", "minimum_outcomes": 100, "every": "1w"},
    }
    file = folder / "changing.yaml"
    file.write_text(yaml.safe_dump(settings_of(**{**live, **changes})))
    return str(file)


def in_production(config):
    """Train the first version and put it into production."""
    from afterfit.commands import train

    train.command(config)
    decision = Decision("promotion", "PROMOTE", "1", "production", moves=True, page="The first.")
    ledger.record("changing", decision, 0)


def run_all(config):
    """Steps until none is due; gives of each its window, its outcome and the reason, as `decisions` does."""
    told = []
    while True:
        answer = step.command(config, now=NOW)
        if answer.data["outcome"] in looping.IDLE:
            return told
        told.append((answer.data["window"], answer.data["outcome"], answer.data["action"]["reason"]))
