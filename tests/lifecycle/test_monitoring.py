"""The command monitor on a real store: windows of a table and of the prediction log, again, late, without time."""

import json
from itertools import pairwise
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from afterfit import prediction_log
from afterfit.commands import monitor, outcomes, score, train
from afterfit.loop import recorded_windows
from afterfit.mlflow_store import monitor_runs, registry
from afterfit.model.answer_batch import with_ids
from afterfit.performance.metrics import metric
from afterfit.prediction_log.privacy import LogRedaction
from afterfit.serving.engine import Engine
from afterfit.use_case import load_use_case
from made_sizes import made_table


@pytest.fixture(scope="module")
def sizes(shared_store, write_use_case_in):
    """A version in production that was trained on the first 1,400 of 3,000 hours, and its settings file."""
    metrics = {"primary": "roc_auc", "also": ["accuracy"], "slices": ["colour"], "smallest_slice": 50}
    split = {"train": {"start": "2024-01-01", "end": "2024-02-28 08:00"}, "folds": 3}
    file = str(write_use_case_in(shared_store, table=made_table(3_000), metrics=metrics, split=split))
    train.command(file)
    registry.set_alias(registry.version("sizes", "1"), registry.PRODUCTION)
    return file


@pytest.fixture(autouse=True)
def no_windows_yet(sizes):
    """Windows that other tests recorded are gone."""
    assert sizes
    yield
    for run in [*runs(), *runs(kind="series")]:
        MlflowClient().delete_run(run.info.run_id)


def runs(name="sizes", kind="window"):
    experiment = MlflowClient().get_experiment_by_name(f"{name}.monitor")
    found = MlflowClient().search_runs([experiment.experiment_id]) if experiment else []
    return [run for run in found if run.data.tags["afterfit.kind"] == kind]


def test_windows_of_a_month_are_a_line_and_a_run_each_and_the_series_has_them_in_order(sizes, command_line):
    code, out, err = command_line("monitor", config=sizes, every="2w", json="seen.json")
    assert code == 0, out + err
    lines = out.splitlines()
    assert lines[0].startswith("2024-02-19: 112 rows")
    assert "roc_auc estimated 0." in lines[0]
    told = json.loads(Path("seen.json").read_text())
    assert len(told["windows"]) == len(runs()) >= 4
    [series] = runs(kind="series")
    history = MlflowClient().get_metric_history(series.info.run_id, "realised_roc_auc")
    assert len(history) == len(told["windows"])
    assert [point.step for point in history] == sorted(point.step for point in history)
    assert [point.timestamp for point in history] == sorted(point.timestamp for point in history)


def test_windows_of_so_many_rows_follow_each_other_and_each_learns_from_those_before(sizes):
    told = monitor.command(sizes, every="400rows").data["windows"]
    assert [one["name"] for one in told] == [f"rows {1 + 400 * i:,} to {400 + 400 * i:,}" for i in range(4)]
    assert [one["quality"]["rows"] for one in told] == [400, 400, 400, 400]
    assert all(one["end"] <= other["start"] for one, other in pairwise(told))
    assert len(runs()) == 4


def test_it_ends_with_an_action_by_the_policy_and_its_reason(sizes, command_line):
    frame = pd.read_csv("sizes.csv").query("hour >= '2024-04-01'")
    frame.assign(size=frame["size"] + 3).to_csv("moved.csv", index=False)
    code, out, err = command_line("monitor", config=sizes, data="moved.csv", json="moved.json")
    assert code == 0, out + err
    assert out.splitlines()[-1].startswith("Policy cautious: ")
    told = json.loads(Path("moved.json").read_text())["windows"][0]
    assert told["action"]["kind"] in {"alarm", "retrain"}
    assert told["action"]["reason"]
    run = MlflowClient().get_run(told["run_id"])
    assert run.data.tags["afterfit.action"] == told["action"]["kind"]
    assert "drift" in json.loads(run.data.tags["afterfit.causes"])


def test_looking_again_replaces_a_window_and_never_doubles_it(sizes):
    first = monitor.command(sizes, every="2w")
    count, told = len(runs()), first.data["windows"]
    second = monitor.command(sizes, every="2w")
    assert len(runs()) == count
    assert len(runs(kind="series")) == 1
    assert {one["run_id"] for one in told}.isdisjoint(one["run_id"] for one in second.data["windows"])
    bare = [
        [{k: v for k, v in one.items() if k != "run_id"} for one in some.data["windows"]] for some in (first, second)
    ]
    assert bare[0] == bare[1], "the same rows show the same"


def test_outcomes_of_a_window_change_nothing_in_its_estimate_but_in_those_after_it(sizes):
    table = pd.read_csv("sizes.csv")
    last = table["hour"] >= "2024-04-22"
    table.assign(outcome=table["outcome"].mask(last)).to_csv("late.csv", index=False)
    flipped = table["outcome"].map({"yes": "no", "no": "yes"})
    table.assign(outcome=table["outcome"].mask(last, flipped)).to_csv("poisoned.csv", index=False)
    options = {"start": "2024-03-04", "every": "1w"}
    one, other = (monitor.command(sizes, data=name, **options).data["windows"] for name in ("late.csv", "poisoned.csv"))
    touched = [w["name"] for w in one].index("2024-04-22")
    for a, b in zip(one[: touched + 1], other[: touched + 1], strict=True):
        assert a["estimated"] == b["estimated"]
    assert one[touched]["realised"] != other[touched]["realised"]


def test_late_outcomes_are_brought_in_by_refresh(sizes):
    table = pd.read_csv("sizes.csv")
    table.assign(outcome=table["outcome"].mask(table["hour"] >= "2024-04-01")).to_csv("half.csv", index=False)
    before = monitor.command(sizes, data="half.csv", start="2024-03-18", end="2024-05-01", every="1w").data["windows"]
    assert before[-1]["outcomes"] == 0
    assert before[-1]["realised"]["roc_auc"]["reason"] == "No outcome is known yet."
    count = len(runs())
    after = monitor.command(sizes, data="source", refresh=2).data["windows"]
    assert [one["name"] for one in after] == [one["name"] for one in before[-2:]]
    assert after[-1]["outcomes"] == after[-1]["quality"]["rows"]
    assert len(runs()) == count


def test_a_windows_run_holds_findings_page_and_what_it_showed(sizes):
    answer = monitor.command(sizes, start="2024-03-01", end="2024-03-20", page="one.html")
    [window] = answer.data["windows"]
    run = MlflowClient().get_run(window["run_id"])
    assert run.data.tags["afterfit.window"] == "2024-03-01 to 2024-03-20"
    assert run.data.tags["afterfit.version"] == "1"
    files = {file.path for file in MlflowClient().list_artifacts(window["run_id"])}
    assert files == {"observation.json", "monitor.html"}
    found = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/observation.json"))
    assert found["realised"]["roc_auc"]["value"] == pytest.approx(run.data.metrics["realised_roc_auc"])
    page = Path("one.html").read_text()
    assert "<script" not in page
    assert "colour" in page
    assert next(one for one in monitor_runs.windows("sizes") if one.run_id == window["run_id"]).past.rows == 456


def test_the_prediction_log_is_read_where_the_use_case_keeps_one(sizes, shared_store, monkeypatch):
    monkeypatch.setenv("AFTERFIT_LOG", str(shared_store / "log"))
    served = pd.read_csv("sizes.csv").query("'2024-05-01' <= hour < '2024-05-04'").drop(columns="outcome")
    served.to_csv("served.csv", index=False)
    score.command(sizes, data="served.csv", out="answers.parquet")
    answer = monitor.command(sizes, start="2024-05-01", end="2024-05-04")
    [window] = answer.data["windows"]
    assert window["quality"]["rows"] == len(served) == 72
    assert window["outcomes"] == 0
    assert window["service"]["answers"] == 72
    assert 0.5 < window["estimated"]["roc_auc"]["value"] < 1.0
    rows = pd.read_csv("sizes.csv").query("'2024-05-01' <= hour < '2024-05-04'").reset_index(drop=True)
    ids = pd.read_parquet("answers.parquet")["prediction_id"]
    pd.DataFrame({"prediction_id": ids, "outcome": rows["outcome"]}).to_csv("came.csv", index=False)
    outcomes.command(sizes, data="came.csv", by="prediction_id")
    [late] = monitor.command(sizes, refresh=1).data["windows"]
    assert late["outcomes"] == 72
    assert late["estimated"] == window["estimated"]
    [same] = monitor.command(sizes, data="source", start="2024-05-01", end="2024-05-04").data["windows"]
    assert late["realised"] == same["realised"]


def test_without_a_time_column_a_sentence_says_what_is_not_possible_and_the_rest_works(
    shared_store, write_use_case_in, command_line
):
    table = made_table(900, seed=4).drop(columns="hour")
    file = str(write_use_case_in(shared_store, "plain", table=table, time=False, metrics={"also": ["roc_auc"]}))
    train.command(file)
    for _ in range(2):
        code, out, err = command_line("monitor", config=file, version="1")
        assert code == 0, out + err
        assert "plain names no time column, so that there are no windows of time" in out
        assert "log_loss estimated 0." in out
    assert len(runs("plain")) == 1
    code, out, err = command_line("monitor", config=file, version="1", every="1d")
    assert code == 2
    assert "need a time column" in err


def test_the_log_of_a_use_case_without_a_time_column_is_one_window(shared_store, write_use_case_in, monkeypatch):
    monkeypatch.setenv("AFTERFIT_LOG", str(shared_store / "untimed"))
    table = made_table(900, seed=5).drop(columns="hour")
    file = str(write_use_case_in(shared_store, "untimed", table=table, time=False))
    train.command(file)
    table[:200].to_csv("untimed-served.csv", index=False)
    score.command(file, version="1", data="untimed-served.csv", out="untimed-answers.parquet")
    [window] = monitor.command(file, version="1").data["windows"]
    assert window["quality"]["rows"] == window["service"]["answers"] == 200


def test_few_rows_one_class_and_nothing_at_all_are_sentences(sizes, command_line):
    table = pd.read_csv("sizes.csv").tail(200)
    table.head(10).to_csv("ten.csv", index=False)
    table.assign(outcome="no").to_csv("one.csv", index=False)
    table.assign(size=np.nan, count=np.nan, colour=None, outcome=None).to_csv("missing.csv", index=False)
    table.head(0).to_csv("none.csv", index=False)
    for name, sentence in {
        "ten.csv": "An estimate needs at least 50 rows with an answer; there are 10.",
        "one.csv": "roc_auc is not defined on the 200 outcomes.",
        "missing.csv": "No outcome is known yet.",
    }.items():
        code, out, err = command_line("monitor", config=sizes, data=name)
        assert code == 0, name + out + err
        assert sentence in out
    code, out, err = command_line("monitor", config=sizes, data="none.csv")
    assert code == 2, out
    code, out, err = command_line("monitor", config=sizes, refresh=2, every="1w")
    assert code == 2
    assert "--refresh is a number of windows" in err


def test_a_regression_is_watched_too(shared_store, write_use_case_in):
    metrics = {"primary": "mae", "also": ["interval_coverage", "rmse"]}
    file = str(
        write_use_case_in(
            shared_store, "numbers", task="regression", table=made_table(1_500, task="regression"), metrics=metrics
        )
    )
    train.command(file)
    [window] = monitor.command(file, version="1").data["windows"]
    for name in ("mae", "interval_coverage", "rmse"):
        one, real = window["estimated"][name], window["realised"][name]["value"]
        assert one["low"] <= real <= one["high"]


def test_what_a_shadow_answered_is_compared_with_what_was_answered(sizes, command_line, monkeypatch, tmp_path):
    monkeypatch.setenv("AFTERFIT_LOG", str(tmp_path / "log"))
    use_case = load_use_case(sizes)
    train.command(sizes, builder="linear")
    log = prediction_log.required(use_case)
    code, _, err = command_line("compare_performance", config=sizes, candidate=2, champion=1, data="shadow")
    assert code == 2
    assert "no request that version 1 answered with version 2 as its shadow" in err
    rows = made_table(300, seed=5)
    spool = log.spool()
    for number, shadow in (("1", False), ("2", True)):
        bundle = registry.load_bundle(registry.version("sizes", number))
        keep = LogRedaction(("hour",))
        answers = with_ids(
            bundle.answer_frame(rows[["size", "count", "colour"]]), [f"id-{i}" for i in range(len(rows))]
        )
        records = rows[["hour", "size", "count", "colour"]].to_dict("records")
        spool.write(Engine(bundle, None, keep).entries(records, answers, 1_700_000_000_000_000, None, shadow=shadow))
    late = tmp_path / "late.csv"
    pd.DataFrame({"prediction_id": [f"id-{i}" for i in range(250)], "outcome": rows["outcome"][:250]}).to_csv(late)
    assert command_line("outcomes", config=sizes, data=late)[0] == 0
    options = {"candidate": 2, "champion": 1, "data": "shadow", "json": str(tmp_path / "found.json")}
    code, out, err = command_line("compare_performance", config=sizes, **options)
    assert code == 0, out + err
    assert "Version 2 of sizes against version 1 on 250 rows (2024-01-01 00:00:00 to 2024-01-11 09:00:00):" in out
    told = json.loads((tmp_path / "found.json").read_text())
    y = (rows["outcome"][:250] == "yes").to_numpy().astype(int)
    scores = [registry.load_bundle(registry.version("sizes", n)).scorer.score(rows[:250])[1] for n in ("1", "2")]
    first = told["comparisons"][0]
    expected = [metric("roc_auc")(y, one) for one in scores]
    assert [first["champion"], first["candidate"]] == pytest.approx(expected)
    assert told["left_out"] == {"not answered by both, or without an outcome": 50}
    spool.close()


def test_outcomes_of_windows_that_overlap_count_once():
    from datetime import datetime

    def window(name, start, end):
        first, last = (datetime.fromisoformat(f"2024-{one}") for one in (start, end))
        return recorded_windows.RecordedWindow("", name, first, last, "1", 0, True, {"outcomes": 10.0}, None)

    some = [window("a", "01-01", "02-01"), window("b", "01-15", "02-15"), window("c", "02-15", "03-01")]
    kept = recorded_windows.apart(some, datetime.fromisoformat("2024-03-01"))
    assert [one.name for one in kept] == ["b", "c"]
    assert [one.name for one in recorded_windows.apart(some, datetime.fromisoformat("2024-02-01"))] == ["a"]
    untimed = recorded_windows.RecordedWindow("", "all rows", None, None, "1", 0, True, {}, None)
    assert recorded_windows.apart([untimed], None) == [untimed]
