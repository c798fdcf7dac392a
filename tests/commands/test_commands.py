"""The whole way by the commands themselves: init, tune, train, promote, score, on small tables and a real store."""

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient

from afterfit.commands import console
from afterfit.lifecycle import result
from afterfit.mlflow_store import registry
from afterfit.performance.evaluation import metric
from afterfit.use_case import load_use_case
from made_sizes import made_table
from waiting import PATIENCE

CASES = [("binary", True), ("binary", False), ("multiclass", False), ("regression", True)]


@pytest.mark.parametrize(("task", "time"), CASES)
def test_a_table_goes_from_training_to_production_and_is_scored(store, write_use_case, command_line, task, time):
    file = write_use_case(store, task=task, time=time)
    code, out, err = command_line("train", config=file, json="train.json")
    assert code == 0, err
    trained = json.loads(Path("train.json").read_text())
    assert trained["version"] == "1"
    assert "Registered as version 1 of sizes." in out
    assert ("ordered in time" in out) is time
    for target in ("staging", "production"):
        code, out, err = command_line("promote", config=file, to=target)
        assert code == 0, out + err
        assert registry.holder("sizes", target).number == "1"
    code, out, err = command_line("score", config=file, out="scores/all.parquet", json="score.json")
    assert code == 0, out + err
    scored = json.loads(Path("score.json").read_text())
    assert (scored["rows"], scored["refused"]) == (400, 0)
    table = pq.read_table("scores/all.parquet").to_pandas()
    assert list(table["row"]) == list(range(400))
    assert table["model_version"].unique().tolist() == ["1"]
    truth = made_table(task=task)["outcome"]
    if task == "regression":
        assert np.corrcoef(table["prediction"], truth)[0, 1] > 0.8
        assert ((table["lower"] <= truth) & (truth <= table["upper"])).mean() > 0.7
    else:
        assert (table["prediction"] == truth).mean() > 0.7
    assert (scored["trained_on"] == 280) is time


@pytest.fixture(scope="module")
def sizes(shared_store, write_use_case_in):
    """A booster in staging and production, and its settings file."""
    from afterfit.commands import promote, train

    file = str(write_use_case_in(shared_store))
    train.command(file)
    for target in ("staging", "production"):
        assert promote.command(file, "1", target).exit_code == 0
    return file


def test_metrics_pictures_and_dataset_of_a_training_run_are_linked_to_the_model(sizes):
    del sizes
    version = registry.version("sizes", "1")
    run = MlflowClient().get_run(version.run_id)
    assert run.info.status == "FINISHED"
    [model] = mlflow.search_logged_models([run.info.experiment_id], output_format="list")[-1:]
    linked = {metric.key: metric for metric in model.metrics}
    assert linked["log_loss"].value == run.data.metrics["log_loss"]
    assert linked["log_loss"].dataset_name == "sizes"
    assert run.data.params["training.sha256"].startswith(run.inputs.dataset_inputs[0].dataset.digest)
    pictures = {file.path for file in MlflowClient().list_artifacts(version.run_id, "pictures")}
    wanted = {"roc", "precision_recall", "calibration", "confusion", "importance"}
    assert {f"pictures/{name}.png" for name in wanted} <= pictures
    assert MlflowClient().get_metric_history(version.run_id, "fold_log_loss")[-1].step == 3


def test_the_version_in_production_is_not_promoted_again(sizes, command_line):
    code, out, _ = command_line("promote", config=sizes, version="production")
    assert code == result.REJECT
    assert "Version 1 is in production already." in out
    assert "The alias 'production' stays where it is (version 1)." in out


def test_a_version_with_the_champions_answers_is_rejected(sizes, command_line):
    assert command_line("train", config=sizes)[0] == 0
    code, out, _ = command_line("promote", config=sizes, json="again.json")
    assert code == result.REJECT
    assert "just as version 1 does" in out
    told = json.loads(Path("again.json").read_text())
    assert (told["decision"], told["previous"], told["to"]) == ("REJECT", "1", "production")
    assert registry.holder("sizes", "production").number == "1"


def test_a_worse_candidate_is_rejected_and_its_findings_stand_in_the_run(sizes, command_line):
    assert command_line("train", config=sizes, builder="dummy")[0] == 0
    code, out, _ = command_line("promote", config=sizes, to="staging")
    assert code in {result.REJECT, result.HOLD}, out  # calibrated, it is the dummy give or take some noise
    assert registry.holder("sizes", "staging").number == "1"
    code, out, _ = command_line("promote", config=sizes, json="worse.json")
    assert code == result.REJECT
    assert re.search("Version 1 has .* log_loss, it has .*: worse, by", out)
    run = MlflowClient().get_run(json.loads(Path("worse.json").read_text())["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["afterfit.decision"] == "REJECT"
    assert ": worse, by" in run.data.tags["mlflow.note.content"]
    assert registry.holder("sizes", "production").number == "1"


def test_a_few_held_out_rows_hold_the_candidate(sizes, command_line):
    settings = yaml.safe_load(Path(sizes).read_text())
    settings["gate"]["smallest_holdout"] = 1000
    Path("strict.yaml").write_text(yaml.safe_dump(settings))
    assert command_line("train", config="strict.yaml", builder="linear")[0] == 0
    code, out, _ = command_line("promote", config="strict.yaml")
    assert code == result.HOLD, out
    assert "1,000 are needed" in out
    assert registry.holder("sizes", "production").number == "1"


@pytest.mark.usefixtures("sizes")
def test_a_better_candidate_takes_production(command_line, write_use_case):
    file = write_use_case(
        Path(), "shapes", candidates=[{"builder": "hist_gradient_boosting", "params": {"max_iter": 1}}]
    )
    assert command_line("train", config=file)[0] == 0
    code, out, err = command_line("promote", config=file)
    assert code == 0, out + err
    assert command_line("train", config=file, builder="linear")[0] == 0
    code, out, err = command_line("promote", config=file)
    assert code == 0, out + err
    assert "Version 2 holds the alias 'production' now (before: version 1)." in out


def test_a_version_that_is_not_ours_is_rejected_with_a_sentence(sizes, command_line):
    from sklearn.dummy import DummyClassifier

    with mlflow.start_run(experiment_id="0"):
        logged = mlflow.sklearn.log_model(DummyClassifier().fit([[0], [1]], [0, 1]), name="m", pip_requirements=[])
    number = mlflow.register_model(logged.model_uri, "sizes").version
    try:
        code, out, _ = command_line("promote", config=sizes, to="staging")
        assert code == result.REJECT
        assert "it was not registered by Afterfit" in out
        code, out, err = command_line("score", config=sizes, version=number, out="foreign.parquet")
        assert code == 1
        assert "it was not registered by Afterfit" in err
        assert not Path("foreign.parquet").exists()
    finally:
        MlflowClient().delete_model_version("sizes", str(number))


def test_scoring_counts_warnings_refuses_bad_rows_and_needs_no_target(sizes, command_line):
    rows = made_table(rows=6, seed=5).drop(columns="outcome").astype({"size": object})
    rows.loc[0, "colour"] = "ultraviolet"
    rows.loc[1, "size"] = "many"
    rows.drop(columns="count").assign(extra=1).to_csv("odd.csv", index=False)
    code, out, err = command_line("score", config=sizes, data="odd.csv", out="odd.parquet", json="odd.json")
    assert code == 0, err
    assert "Scored 6 rows with version 1 to odd.parquet (1 refused)." in out
    told = json.loads(Path("odd.json").read_text())
    notes = {(note["column"], note["code"]): note["rows"] for note in told["warnings"]}
    assert notes["colour", "unseen_category"] == 1
    assert notes["count", "absent_column"] == 6
    assert "metrics" not in told
    table = pq.read_table("odd.parquet").to_pylist()
    assert [row["prediction"] is None for row in table] == [False, True, False, False, False, False]
    assert table[1]["error"][0]["column"] == "size"


def test_a_score_is_the_answer_that_the_served_model_gives(sizes, command_line):
    assert command_line("score", config=sizes, out="same.parquet")[0] == 0
    scored = pq.read_table("same.parquet").to_pylist()[:20]
    answers = mlflow.pyfunc.load_model("models:/sizes@production").predict(made_table().head(20))
    for batch, answer in zip(scored, answers, strict=True):
        assert batch["prediction"] == answer["prediction"]
        assert batch["probability"] == pytest.approx(answer["probability"], abs=1e-12)


def test_a_search_logs_nested_runs_and_its_best_parameters_train(sizes, command_line):
    code, out, err = command_line("tune", config=sizes, studies="s", json="tune.json")
    assert code == 0, err
    found = json.loads(Path("tune.json").read_text())
    assert found["trials"] == 3
    client = MlflowClient()
    parent = client.get_run(found["run_id"])
    nested = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{found['run_id']}'", max_results=50
    )
    assert sorted(run.info.run_name[:26] for run in nested) == [f"00{i} hist_gradient_boosting" for i in range(3)]
    assert {run.info.status for run in (parent, *nested)} == {"FINISHED"}
    assert max(run.data.metrics["log_loss"] for run in nested) >= parent.data.metrics["log_loss"]
    code, out, err = command_line("train", config=sizes, params_from=found["run_id"], json="from.json")
    assert code == 0, err
    assert json.loads(Path("from.json").read_text())["params"] == found["best"]["params"]
    code, out, err = command_line("train", config=sizes, params_from=found["run_id"], builder="linear")
    assert code == 2
    assert "found parameters of 'hist_gradient_boosting', not of 'linear'" in err
    code, out, err = command_line("tune", config=sizes, studies="s", trials=4)
    assert code == 0, err
    assert re.search(r"Searched 4 trials \(\d stopped early, 3 of them from an earlier sitting\)\.", out)


def test_a_failed_training_leaves_a_failed_run_and_no_version(sizes, command_line):
    before = registry.version("sizes", "latest").number
    code, _, err = command_line("train", config=sizes, builder="sklearn.svm.LinearSVR")
    assert code == 2
    assert "is no model for classification" in err
    [run] = mlflow.search_runs(experiment_names=["sizes"], max_results=1, output_format="list")
    assert run.info.status == "FAILED"
    assert registry.version("sizes", "latest").number == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")
def test_the_answer_as_json_goes_into_a_pipe_and_through_a_link_and_replaces_neither(tmp_path):
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(file)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for place in (pipe, link):
            console._write_json(console._json_place(str(place)), {"a": 1})
        assert json.loads(os.read(reader, 100)) == json.loads(file.read_text()) == {"a": 1}
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [file, link, pipe]


def test_the_answer_as_json_has_null_where_a_number_is_not_defined(tmp_path):
    console._write_json(tmp_path / "a.json", {"a": float("nan"), "b": [np.float64("inf"), 1.5], "c": {"d": (1, None)}})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": {"d": [1, None]}}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def scikit_learns(name):
    from sklearn import datasets

    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    return frame.assign(target=frame["target"].map(str)) if name == "wine" else frame


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize(
    ("name", "task"), [("breast_cancer", "classification"), ("wine", "classification"), ("diabetes", "regression")]
)
def test_a_table_that_nobody_prepared_trains_from_its_drafted_settings_unchanged(store, command_line, name, task):
    scikit_learns(name).to_csv(store / f"{name}.csv", index=False)
    code, out, err = command_line("init", data=f"{name}.csv", target="target", out="mine.yaml", json="init.json")
    assert code == 0, err
    assert f"Wrote mine.yaml for {len(scikit_learns(name))} rows" in out
    assert yaml.safe_load(Path("mine.yaml").read_text())["task"] == task
    code, out, err = command_line("train", config="mine.yaml", json="train.json")
    assert code == 0, err
    told = json.loads(Path("train.json").read_text())
    primary = load_use_case("mine.yaml").primary_metric
    gain = told["metrics"][primary]["mean"] - told["dummy"][primary]
    assert gain > 0 if metric(primary).greater_is_better else gain < 0
    pictures = list(Path("mlruns").rglob("pictures/*.png"))
    assert len(pictures) >= 3
    assert min(picture.stat().st_size for picture in pictures) > 1_000
    code, out, err = command_line("promote", config="mine.yaml", to="staging")
    assert code in {0, result.HOLD}, out + err  # a small table may hold out too few rows


def test_an_interrupt_where_python_cannot_raise_still_ends_the_command_without_a_trace():
    program = """
import argparse, os, signal, sys, time, types, weakref
from afterfit.commands import console

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background

class Thing: pass

def command():
    thing = Thing()
    kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del thing
    time.sleep(600)

sys.modules["afterfit.commands.sleepy"] = types.SimpleNamespace(command=command)
sys.exit(console.run(argparse.ArgumentParser("sleepy"), "sleepy", []))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ran.returncode, ran.stderr) == (130, "sleepy: interrupted; what was finished is kept.\n")


@pytest.mark.parametrize("name", ["written", "nowhere"])
def test_garbage_is_looked_for_again_when_a_command_is_imported_or_cannot_be(tmp_path, monkeypatch, name):
    import afterfit.commands

    (tmp_path / "written.py").write_text("import gc\nlooked_for = gc.isenabled()\n")
    monkeypatch.setattr(afterfit.commands, "__path__", [str(tmp_path)])
    if name == "written":
        assert not console.imported(name).looked_for
        del sys.modules["afterfit.commands.written"]
    else:
        with pytest.raises(ModuleNotFoundError):
            console.imported(name)
    assert gc.isenabled()


def test_an_example_row_holds_a_made_value_only_where_a_private_one_is_required():
    from afterfit.model.packaging import Table, example_of
    from made import made_table as made_rows
    from made import posed, use_case

    case = use_case(columns={"private": ["secret", "seats"], "required": ["seats"]})
    rows = example_of(Table(posed(case, made_rows()), "made", None, {}, None))
    assert [(row["secret"], row["seats"]) for row in rows] == [(None, 0)] * 3
    assert {row["carrier"] for row in rows} <= {"AA", "BB", "CC"}
