"""A version that the loop trained is logged as one that the `train` entry point made, whatever happened on the way."""

import json
import re

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from afterfit.commands import step, train
from afterfit.lifecycle.live_world import STEP
from afterfit.mlflow_store import registry
from made_loop import PARAMS, in_production, settings, table

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

NOW, WINDOW = "2024-02-05", "2024-01-29"


def lived(folder, **changes):
    """A use case whose first version is in production; some rows have no target or no time."""
    config = settings(folder, **changes)
    frame = table().astype({"late": object, "when": object})
    if changes.get("task") == "regression":
        frame["late"] = frame["size"] + np.random.default_rng(0).normal(size=len(frame))
    frame.loc[range(0, 70, 7), "late"] = None
    frame.loc[range(1, 43, 7), "when"] = None
    frame.to_csv(folder / "changing.csv", index=False)
    in_production(config)
    return config


def trained_by_the_loop(config):
    assert step.command(config, now=NOW).data["candidate"] == "2"
    return registry.version("changing", "2")


def trained_by_train(config, folder):
    """The same rows, by the entry point."""
    given = yaml.safe_load((folder / "changing.yaml").read_text())
    given["split"]["train"]["end"] = NOW
    (folder / "changing.yaml").write_text(yaml.safe_dump(given))
    return registry.version("changing", train.command(config).data["version"])


def files_of(run_id, folder=""):
    found = MlflowClient().list_artifacts(run_id, folder)
    return {path for one in found for path in (files_of(run_id, one.path) if one.is_dir else {one.path})}


def logged(version):
    """All that is on a version's run, its model and itself, but for what tells the two ways apart."""
    client = MlflowClient()
    run, made = client.get_run(version.run_id), client.get_model_version(version.name, version.number)
    model = client.get_logged_model(version.source.rpartition("/")[2])
    points = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    inputs = [
        (one.dataset.name, one.dataset.digest, one.dataset.schema, {tag.key: tag.value for tag in one.tags})
        for one in run.inputs.dataset_inputs
    ]
    headline, card = made.description.split("\n\n", 1)
    return {
        "files": files_of(run.info.run_id),
        "params": {key: value for key, value in run.data.params.items() if key != "use_case.settings"},
        "metrics": {name: [(one.step, one.value) for one in found] for name, found in points.items()},
        "model's metrics": {one.key: (one.value, one.dataset_name) for one in model.metrics},
        "model's parameters": model.params,
        "inputs": inputs,
        "run's tags": {key for key in run.data.tags if key.startswith("afterfit.")} - {STEP},
        "note": undated(run.data.tags["mlflow.note.content"].removeprefix(f"Retrained for {WINDOW}.\n")),
        "tags": {key: version.tags[key] for key in ("afterfit.builder", "afterfit.rows", "afterfit.trained_until")},
        "headline": headline.removesuffix(f", retrained for {WINDOW}"),
        "card": undated(card),
        "promise": registry.load_bundle(version).manifest.expected,
    }


def undated(text):
    """A card up to the bundle's digest, without the time of making, which is the window's end in the loop."""
    return re.sub(r"Trained \d{4}\S+ on", "Trained on", text.partition("Bundle digest")[0])


def test_a_version_trained_by_the_loop_is_logged_as_one_that_train_made(store):
    config = lived(store)
    version = trained_by_the_loop(config)
    by_loop, by_train = logged(version), logged(trained_by_train(config, store))
    for what, expected in by_train.items():
        assert by_loop[what] == expected, what
    assert {"model_card.md", "pictures/roc.png", "pictures/importance.png"} <= by_loop["files"]
    assert {"roc_auc_low", "roc_auc_high", "dummy_roc_auc"} <= set(by_loop["metrics"])
    assert [step for step, _ in by_loop["metrics"]["fold_roc_auc"]] == [1, 2, 3]
    assert by_loop["metrics"]["left_out_target_is_missing"][0][1] == 10.0
    assert by_loop["metrics"]["left_out_time_is_missing"][0][1] == 6.0
    client = MlflowClient()
    assert version.tags[STEP] == client.get_run(version.run_id).data.tags[STEP]
    headline = client.get_model_version("changing", "2").description.splitlines()[0]
    assert headline.endswith(f"over folds, {int(version.tags['afterfit.rows']):,} rows, retrained for {WINDOW}")


def test_a_step_that_died_before_it_registered_logs_the_same_of_the_model_it_finds(store, monkeypatch):
    class DiedError(Exception):
        """Stands for a process that dies."""

    def dies(*_, **__):
        raise DiedError

    config = lived(store, task="regression", metrics={"primary": "mae", "also": ["interval_coverage"]})
    with monkeypatch.context() as patch:
        patch.setattr("afterfit.mlflow_store.registry.register", dies)
        with pytest.raises(DiedError):
            step.command(config, now=NOW)
    with monkeypatch.context() as patch:
        patch.setattr("afterfit.loop.stepping.train", dies)  # it is not trained again
        by_loop = logged(trained_by_the_loop(config))
    assert by_loop == logged(trained_by_train(config, store))
    assert {"mae_low", "mae_high", "fold_mae", "fold_interval_coverage"} <= set(by_loop["metrics"])
    assert {"pictures/predicted_against_true.png", "pictures/residuals.png"} <= by_loop["files"]


def test_a_search_of_the_loop_is_logged_with_all_its_trials(store):
    space = {"learning_rate": {"low": 0.05, "high": 0.3}}
    candidate = {"builder": "hist_gradient_boosting", "params": PARAMS, "space": space}
    policy = {"preset": "calendar", "minimum_outcomes": 100, "every": "1w", "tune": 3}
    config = lived(store, candidates=[candidate], policy=policy, tuning={"folds": 2})
    version = trained_by_the_loop(config)
    params = mlflow.get_run(version.run_id).data.params
    assert params["search.trials"] == "3"
    search = mlflow.get_run(params["search.run_id"])
    assert search.data.tags["mlflow.parentRunId"] == version.run_id
    best = json.loads(search.data.tags["afterfit.best"])
    assert best["params"] == registry.load_bundle(version).manifest.params
    assert params["model.learning_rate"] == str(best["params"]["learning_rate"])
    trials = MlflowClient().search_runs(
        [search.info.experiment_id], f"tags.`mlflow.parentRunId` = '{search.info.run_id}'"
    )
    assert len(trials) == 3
    assert {"roc_auc", "seconds"} <= set(trials[0].data.metrics)
    assert "pictures/history.png" in files_of(search.info.run_id)
