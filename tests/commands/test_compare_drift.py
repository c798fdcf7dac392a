"""The command compare_drift on a real store: versions, tables and saved profiles, whole and by windows."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from afterfit.commands import compare_drift
from afterfit.errors import BundleError
from afterfit.mlflow_store import registry
from afterfit.model.bundle import load
from afterfit.model.version_files import FILES, PROFILE
from afterfit.use_case import load_use_case
from made_sizes import made_table


@pytest.fixture(scope="module")
def sizes(shared_store, write_use_case_in):
    """A version in production that was trained on the first 1,400 of 2,000 hours, and its settings file."""
    from afterfit.commands import train

    file = str(write_use_case_in(shared_store, table=made_table(2_000)))
    train.command(file)
    registry.set_alias(registry.version("sizes", "1"), registry.PRODUCTION)
    made_table(800, seed=9).to_csv("same.csv", index=False)
    made_table(800, seed=9).assign(size=lambda frame: frame["size"] + 2).to_csv("larger.csv", index=False)
    return file


def run(file, **options):
    """The answer of the command, and its first line."""
    answer = compare_drift.command(file, **options)
    return answer, answer.lines[0]


def test_the_rows_after_training_are_no_drift_and_the_command_ends_with_0(sizes, command_line):
    code, out, err = command_line("compare_drift", config=sizes)
    assert code == 0, out + err
    first, *others = out.splitlines()
    assert first.startswith("No alarm: nothing changed that matters in 600 rows of sizes.csv, 2024-02-28 08:00 to ")
    assert first.endswith("against version 1 of sizes.")
    assert "where the training of version 1 of sizes ended; --start says otherwise." in others[-1]


def test_a_change_is_said_in_words_first_and_the_command_ends_with_3(sizes, command_line):
    code, out, err = command_line("compare_drift", config=sizes, data="larger.csv", json="larger.json")
    assert code == 3, out + err
    lines = out.splitlines()
    assert lines[0].startswith("ALARM: ")
    assert "size: mean up by 2" in out
    assert lines[1].startswith("  ")
    told = json.loads(Path("larger.json").read_text())
    assert told["alarm"] is True
    assert "size" in told["changed"]
    assert told["windows"][0]["columns"]["size"]["alarm"] is True
    assert told["windows"][0]["rows"] == 800


def test_predictions_and_outcomes_are_compared_beside_the_features(sizes):
    answer, _ = run(sizes, data="larger.csv")
    [window] = answer.data["windows"]
    assert {"prediction", "probability", "outcome"} <= set(window["columns"])
    assert window["columns"]["probability"]["alarm"], "larger sizes make another outcome more probable"
    assert not window["columns"]["outcome"]["alarm"], "the outcomes in the table are those that they were"


def test_findings_metrics_table_and_page_are_logged_to_the_run(sizes):
    answer, first = run(sizes, data="larger.csv")
    run_id = answer.data["run_id"]
    logged = MlflowClient().get_run(run_id)
    assert logged.data.metrics["alarm"] == 1.0
    assert logged.data.metrics["rows"] == 800.0
    assert logged.data.metrics["effect_size"] > 20
    assert logged.data.metrics["changed_columns"] >= 1
    assert logged.data.tags["afterfit.alarm"] == "true"
    assert first in logged.data.tags["mlflow.note.content"]
    assert json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/drift.json"))["changed"] == answer.data["changed"]
    page = mlflow.artifacts.load_text(f"runs:/{run_id}/drift.html")
    assert page.startswith("<!DOCTYPE html>")
    assert "mean up by 2" in page
    table = mlflow.artifacts.load_dict(f"runs:/{run_id}/drift_table.json")
    assert "size" in {row[table["columns"].index("column")] for row in table["data"]}


def test_a_column_that_vanished_is_an_alarm_and_not_an_error(sizes):
    pd.read_csv("same.csv").drop(columns="count").to_csv("narrow.csv", index=False)
    answer, _ = run(sizes, data="narrow.csv")
    assert answer.exit_code == 3
    assert any("count: the column is not in the window" in line for line in answer.lines)


def test_a_table_without_any_of_the_columns_is_refused_with_the_difference(sizes, command_line):
    pd.DataFrame({"hour": ["2024-05-01"], "weight": [1.0]}).to_csv("other.csv", index=False)
    code, _, err = command_line("compare_drift", config=sizes, data="other.csv")
    assert code == 2
    for name in ("size", "count", "colour"):
        assert f"{name}: in the reference, not in the window" in err
    assert "weight: in the window, not in the reference" in err


def test_every_gives_a_line_a_window_and_metrics_by_step(sizes):
    table = made_table(2_000)
    late = np.arange(2_000) >= 1_700
    table.loc[late, "size"] += 3
    table.to_csv("turning.csv", index=False)
    answer, first = run(sizes, data="turning.csv", start="2024-02-29", every="1w", page="weeks/page.html")
    assert answer.exit_code == 3
    names = [window["window"] for window in answer.data["windows"]]
    assert names == ["2024-02-29", "2024-03-07", "2024-03-14", "2024-03-21"]
    alarms = {w["window"]: w["columns"]["size"]["alarm"] for w in answer.data["windows"]}
    assert alarms == {"2024-02-29": False, "2024-03-07": True, "2024-03-14": True, "2024-03-21": True}
    assert first == "ALARM in 3 of 4 windows of turning.csv against version 1 of sizes."
    assert [line.split()[0] for line in answer.lines[1:5]] == names
    history = MlflowClient().get_metric_history(answer.data["run_id"], "alarm")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [(0, 0), (1, 1), (2, 1), (3, 1)]
    page = Path("weeks/page.html").read_text("utf-8")
    assert "3 of 4 windows alarm" in page
    assert page.count("(could be chance)") == 4, "how often each outcome came stands there although it is no alarm"


def test_windows_of_rows_need_no_time_column(sizes):
    answer, _ = run(sizes, data="same.csv", every="300rows")
    assert [w["rows"] for w in answer.data["windows"]] == [300, 300, 200]
    assert [w["window"] for w in answer.data["windows"]][-1] == "rows 601 to 900"


def test_a_folder_streamed_in_parts_gives_what_the_table_gives_whole(sizes, monkeypatch):
    shutil.rmtree("parts", ignore_errors=True)
    Path("parts").mkdir()
    table = pd.read_csv("larger.csv")
    for i in range(4):
        table.iloc[i * 200 : (i + 1) * 200].to_parquet(f"parts/{i}.parquet")
    monkeypatch.setattr("afterfit.data.files.ROWS", 70)
    parts, _ = run(sizes, data="parts")
    whole, _ = run(sizes, data="larger.csv")
    assert parts.data["windows"][0]["columns"] == whole.data["windows"][0]["columns"]


def test_a_saved_window_compares_as_its_table_did_with_predictions_and_all(sizes):
    whole, _ = run(sizes, data="larger.csv", save="larger-profile.json")
    saved, first = run(sizes, data="larger-profile.json")
    assert saved.data["windows"][0]["columns"] == whole.data["windows"][0]["columns"]
    assert "of the profile larger-profile.json against version 1 of sizes" in first


def test_a_saved_profile_cannot_be_cut(sizes, command_line):
    run(sizes, data="same.csv", save="same-profile.json")
    code, _, err = command_line("compare_drift", config=sizes, data="same-profile.json", every="1d")
    assert code == 2
    assert "A saved profile has no rows any more" in err


def test_two_tables_are_compared_by_the_use_cases_features_only(sizes):
    answer, first = run(sizes, data="larger.csv", reference="./same.csv")
    assert answer.exit_code == 3
    assert answer.data["changed"] == ["size"]
    assert set(answer.data["windows"][0]["columns"]) == {"size", "count", "colour"}
    assert first.endswith("against ./same.csv.")


def test_two_tables_are_compared_without_a_use_case_by_all_columns(sizes):
    del sizes
    answer, _ = run("", data="larger.csv", reference="./same.csv", time="hour")
    assert answer.exit_code == 3
    assert set(answer.data["windows"][0]["columns"]) == {"size", "count", "colour", "outcome"}
    assert "rows that share time in 'hour'" in answer.data["windows"][0]["design"]
    same, _ = run("", data="same.csv", reference="./same.csv", time="hour")
    assert same.exit_code == 0
    assert MlflowClient().get_experiment_by_name("drift") is not None


def test_a_profile_saved_by_the_library_is_a_reference(sizes):
    import afterfit

    table = pd.read_csv("same.csv")[["size", "count", "colour"]]
    Path("reference.json").write_text(afterfit.profile(table).to_json())
    assert run(sizes, data="same.csv", reference="reference.json")[0].exit_code == 0
    assert run(sizes, data="larger.csv", reference="reference.json")[0].data["changed"] == ["size"]


def test_an_empty_window_is_no_alarm_and_says_so(sizes):
    answer, _ = run(sizes, data="same.csv", start="2030-01-01")
    assert answer.exit_code == 0
    assert "No row of the 800 is in the window asked for." in answer.lines


def test_rows_that_the_contract_refuses_have_no_prediction_and_are_counted(sizes):
    table = pd.read_csv("same.csv").astype({"size": object})
    table.loc[:4, "size"] = "wide"
    table.to_csv("odd.csv", index=False)
    answer, _ = run(sizes, data="odd.csv")
    assert "5 rows were refused by the version's contract and have no prediction." in answer.lines
    assert answer.data["windows"][0]["columns"]["size"]["alarm"]
    assert answer.data["windows"][0]["columns"]["probability"]["rows"] in {795, 800}


def test_hostile_names_in_a_table_reach_neither_the_page_nor_the_terminal_unescaped(sizes):
    table = pd.read_csv("same.csv")
    table.loc[:199, "colour"] = "<script>alert(1)</script>\x1b[31m"
    table["\x1b]0;title\x07<img src=x>"] = 1
    table.to_csv("hostile.csv", index=False)
    answer, _ = run(sizes, data="hostile.csv")
    page = mlflow.artifacts.load_text(f"runs:/{answer.data['run_id']}/drift.html")
    assert answer.exit_code == 3
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert not any("\x1b" in line for line in answer.lines)


WRONG = [
    ({"reference": "9"}, "has no version '9'"),
    ({"reference": "nobody"}, "Versions: 1; aliases: production"),
    ({"reference": "gone.json"}, "The saved profile 'gone.json' cannot be read"),
    ({"reference": "./gone.csv"}, "There is no file or folder"),
    ({"data": "gone.csv"}, "There is no file or folder"),
    ({"every": "often"}, "--every 'often' must be a number and a unit"),
    ({"start": "soon"}, "--start 'soon' must be a date or time"),
    ({"start": "2024-02-01", "end": "2024-01-01"}, "must be before --end"),
    ({"rate": "2"}, "--rate must lie between 0 and 1"),
    ({"time": "moment"}, "The time column 'moment' is not in the table"),
    ({"config": ""}, "name the table with --data"),
    ({"config": "", "data": "same.csv"}, "no use case says of which one"),
    ({"page": "."}, "is a folder: a file's name is needed"),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_options_end_with_2_and_a_sentence(sizes, command_line, options, said):
    code, _, err = command_line("compare_drift", **{"config": sizes, **options})
    assert code == 2, err
    assert said in err


def test_more_windows_than_can_be_read_are_refused(sizes, monkeypatch, command_line):
    monkeypatch.setattr("afterfit.data.windows.MOST", 10)
    code, _, err = command_line("compare_drift", config=sizes, every="1d")
    assert code == 2
    assert "gives more than 10 windows: choose longer ones" in err


def test_a_folder_that_is_named_like_a_version_is_asked_for_with_a_dot(sizes, command_line):
    Path("yesterday").mkdir(exist_ok=True)
    code, _, err = command_line("compare_drift", config=sizes, reference="yesterday")
    assert code == 2
    assert "write './yesterday'" in err


@pytest.mark.parametrize(("task", "time"), [("multiclass", False), ("regression", True)])
def test_other_tasks_and_tables_without_a_time_compare_their_predictions_too(
    sizes, write_use_case_in, command_line, task, time
):
    file = write_use_case_in(Path(sizes).parent, name=task, task=task, time=time, table=made_table(1_500, task=task))
    assert command_line("train", config=file)[0] == 0
    now = made_table(800, seed=9, task=task)
    now.to_csv(f"{task}-now.csv", index=False)
    now.assign(size=now["size"] + 2).to_csv(f"{task}-larger.csv", index=False)
    asked = {"config": file, "reference": "1", "json": "same.json"}
    code, out, err = command_line("compare_drift", data=f"{task}-now.csv", **asked)
    assert code == 0, out + err
    columns = json.loads(Path("same.json").read_text())["windows"][0]["columns"]
    assert columns["prediction"]["kind"] == ("number" if task == "regression" else "category")
    assert ("probability of low" in columns) is (task == "multiclass")
    code, out, err = command_line("compare_drift", data=f"{task}-larger.csv", **asked)
    assert code == 3, out + err
    assert "prediction: " in out


# The profile inside the bundle.


def bundle_folder():
    return registry.model_folder(registry.version("sizes", "1")) / "artifacts" / "bundle"


def test_a_versions_bundle_holds_the_profile_of_its_training_rows(sizes):
    bundle = registry.load_bundle(registry.version("sizes", "1"))
    assert bundle.profile.rows == bundle.manifest.window["rows"] == 1_400
    assert [c.name for c in bundle.profile.layout.columns] == list(load_use_case(sizes).columns.features)
    assert bundle.profile.layout.time == "hour"
    assert bundle.reference.predictions.rows < 1_400
    assert bundle.reference.outcomes.rows == 1_400
    assert (bundle_folder() / PROFILE).stat().st_size < 100_000


@pytest.mark.parametrize("change", [lambda file: file.write_text(file.read_text() + " "), Path.unlink])
def test_a_profile_that_was_altered_or_taken_away_is_refused(sizes, tmp_path, change):
    del sizes
    known = load(bundle_folder()).digest
    shutil.copytree(bundle_folder(), tmp_path / "bundle")
    change(tmp_path / "bundle" / PROFILE)
    with pytest.raises(BundleError, match="is not the one that was registered"):
        load(tmp_path / "bundle", known)


def test_a_profile_that_is_none_is_a_sentence(sizes, tmp_path):
    del sizes
    shutil.copytree(bundle_folder(), tmp_path / "bundle")
    (tmp_path / "bundle" / PROFILE).write_text('{"format": 1, "parts": {"features": {}}}')
    with pytest.raises(BundleError, match="does not hold what it should"):
        load(tmp_path / "bundle")


def test_a_bundle_of_an_older_release_loads_and_has_no_profile(sizes, tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in FILES:
        shutil.copy(bundle_folder() / name, folder)
    old = load(folder)
    assert old.profile is None
    monkeypatch.setattr(registry, "load_bundle", lambda _: old)
    with pytest.raises(BundleError, match=r"carries no profile of its training window.*Train a new version, or give"):
        compare_drift.command(sizes)


def test_a_window_of_the_prediction_log_is_compared(sizes, command_line, monkeypatch, tmp_path):
    monkeypatch.setenv("AFTERFIT_LOG", str(tmp_path / "log"))
    code, out, err = command_line("score", config=sizes, data="larger.csv", out=str(tmp_path / "scores.parquet"))
    assert code == 0, out + err
    answer, first = run(sizes, data="log", start="2024-01-03", end="2024-01-23")
    assert first.startswith("ALARM: ")
    assert "480 rows of the prediction log of sizes, 2024-01-03 00:00 to 2024-01-22 23:00" in first
    assert "size" in answer.data["changed"]
    whole, _ = run(sizes, data="log")
    assert whole.data["windows"][0]["rows"] == 800, "the log holds no training rows to be left out"


def test_the_log_of_nobody_is_an_error(sizes, command_line):
    assert "name it with --config" in command_line("compare_drift", config="", data="log", reference="same.csv")[2]
    code, _, err = command_line("compare_drift", config=sizes, data="log")
    assert code == 2
    assert "keeps no prediction log" in err
