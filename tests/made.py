"""A small made table, and a bundle trained on it: two classes, numbers, categories, a date, gaps; and benchmarks."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterfit.model.bundle import Manifest, save
from afterfit.model.training import prepare, train
from afterfit.use_case import UseCase

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
BOOSTER = {"max_iter": 20, "min_samples_leaf": 5}


def bench_module(name):
    """A benchmark by its folder and name, such as `speed.drift`."""
    return importlib.import_module(f"bench.{name}")


def made_table(rows=300, seed=0):
    """Rows an hour apart; `late` and `delay` depend on distance and carrier."""
    rng = np.random.default_rng(seed)
    distance = rng.uniform(100, 2000, rows)
    carrier = rng.choice(["AA", "BB", "CC"], rows, p=[0.5, 0.4, 0.1])
    delay = distance / 100 + 8 * (carrier == "BB") + rng.normal(0, 6, rows)
    return pd.DataFrame(
        {
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows), unit="h"),
            "distance": np.where(rng.random(rows) < 0.05, np.nan, distance),
            "seats": rng.integers(50, 300, rows),
            "carrier": carrier,
            "secret": rng.choice(["x7", "y8"], rows),
            "delay": delay,
            "late": delay > 14,
        }
    )


def use_case(**changes):
    """Settings for the made table, with some changed."""
    target = "delay" if changes.get("task") == "regression" else "late"
    features = ["when", "distance", "seats", "carrier", "secret"]
    given = {"name": "made", "task": "classification", "target": target, "time": "when", "source": {"path": "made.csv"}}
    columns = {"features": features, "private": ["secret"], **changes.pop("columns", {})}
    return UseCase.model_validate({**given, "columns": columns, "split": {"folds": 3}, **changes})


def posed(case, frame, classes=None):
    """The training problem of a table whose target is numbers, or a truth."""
    y = frame[case.target].to_numpy()
    if case.task == "regression":
        return prepare(case, frame, y.astype(float), None)
    return prepare(case, frame, y.astype(np.int64), classes or (False, True))


def manifest(case):
    """What a bundle says of itself."""
    window = {"name": "made", "sha256": "0" * 64, "rows": 300, "start": None, "end": None}
    told = {"settings": "0", "window": window, "expected": {}, "created": "2024-02-01", "packages": {}, "code": "0"}
    return Manifest(case.name, case.task, case.target, "made", {}, time=case.time, key=case.key, **told)


def bundled(trained, folder, case, example=({"distance": 500.0, "carrier": "AA"},)):
    """A trained model written as a bundle and read back."""
    return save(trained.scorer, manifest(case), example, folder)


@pytest.fixture(scope="session")
def trained():
    case = use_case()
    return train(posed(case, made_table()), "hist_gradient_boosting", BOOSTER)


@pytest.fixture(scope="session")
def bundle(trained, tmp_path_factory):
    return bundled(trained, tmp_path_factory.mktemp("bundle"), use_case())


@pytest.fixture(scope="session")
def regression_bundle(tmp_path_factory):
    case = use_case(task="regression")
    found = train(posed(case, made_table()), "hist_gradient_boosting", BOOSTER)
    return bundled(found, tmp_path_factory.mktemp("regression"), case)


@pytest.fixture(scope="session")
def multiclass_bundle(tmp_path_factory):
    case = use_case(time=None)
    frame = made_table().assign(late=lambda table: np.digitize(table["delay"], [8.0, 16.0]))
    found = train(posed(case, frame, ("early", "fair", "late")), "hist_gradient_boosting", BOOSTER)
    return bundled(found, tmp_path_factory.mktemp("multiclass"), case)


def late_money(prediction, outcome):
    """A use case's value by a function of its own: money by row."""
    return np.where(prediction == "late", -1.0, 0.0) - 3.0 * ((prediction == "on time") & (outcome == "late"))
