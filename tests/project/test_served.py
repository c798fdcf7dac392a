"""A version outside this process: loaded without the project's source, served by MLflow, run by `mlflow run`."""

import ast
import http.client
import importlib.util
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from afterfit.errors import StoreError
from afterfit.lifecycle import smoke_test
from afterfit.mlflow_store.registry import load_bundle, version
from made import ROOT
from waiting import PATIENCE, eventually

ROW = {"size": 1.5, "count": 3, "colour": "red"}


@pytest.fixture(scope="module")
def production(shared_store, write_use_case_in):
    """Two versions: the second, a linear model, is in production."""
    from afterfit.commands import train
    from afterfit.mlflow_store import registry

    file = str(write_use_case_in(shared_store))
    for builder in ("", "linear"):
        train.command(file, builder)
    registry.set_alias(version("sizes", "2"), "production")
    return file


@pytest.fixture(scope="module")
def port(production):
    assert Path(production).is_file()
    with smoke_test.serving("models:/sizes@production") as port:
        yield port


def answers(port, body):
    status, text = smoke_test.post(port, body)
    assert status == 200, text
    return json.loads(text, parse_constant=pytest.fail)["predictions"]


@pytest.mark.slow
def test_a_server_answers_records_split_and_instances_alike(port):
    split = {"columns": list(ROW), "data": [list(ROW.values())]}
    bodies = [{"dataframe_records": [ROW]}, {"dataframe_split": split}, {"instances": [ROW]}]
    found = [answers(port, body)[0] for body in bodies]
    assert {answer["prediction"] for answer in found} == {"yes"}
    assert len({answer["probability"] for answer in found}) == 1
    assert [answer["model_version"] for answer in found] == ["2", "2", "2"]
    assert len({answer["prediction_id"] for answer in found}) == 3


@pytest.mark.slow
def test_a_served_answer_is_the_bundles_own(port):
    bundle = load_bundle(version("sizes", "2"))
    rows = [dict(row) for row in bundle.example]
    served = answers(port, {"dataframe_records": rows})
    for row, answer in zip(rows, served, strict=True):
        assert answer["probability"] == pytest.approx(bundle.answer(row)["probability"], abs=1e-12)


@pytest.mark.slow
def test_odd_rows_are_answered_and_a_bad_one_costs_the_others_nothing(port):
    absent = {"size": 1.5, "colour": "red"}
    rows = [
        ROW,
        {**ROW, "colour": "ultraviolet"},
        absent,
        {**ROW, "size": "many"},
        {**ROW, "size": None},
        {**ROW, "x": 1},
    ]
    found = answers(port, {"dataframe_records": rows})
    noted = [[(note["column"], note["code"]) for note in answer["warnings"]] for answer in found]
    assert ("colour", "unseen_category") in noted[1]
    assert [note["value"] for note in found[1]["warnings"] if note["column"] == "colour"] == ["ultraviolet"]
    assert any(column == "count" for column, _ in noted[2])
    assert [answer["prediction"] is None for answer in found] == [False, False, False, True, False, False]
    assert found[3]["error"]["column"] == "size"
    assert "'many'" in found[3]["error"]["message"]
    assert found[0]["error"] is None
    [alone] = answers(port, {"dataframe_records": [{"size": "many"}]})
    assert alone["prediction"] is None


def posted(port, body, kind):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.slow
def test_csv_and_ragged_instances_get_mlflows_own_refusal(port):
    assert posted(port, "size,count,colour\n1.5,3,red\n", "text/csv")[0] == 400
    ragged = json.dumps({"instances": [ROW, {"size": 1.5}]})
    assert posted(port, ragged, "application/json")[0] == 400


@pytest.mark.slow
def test_a_version_loads_and_answers_without_the_projects_source_on_the_path(production, tmp_path):
    del production
    code = (
        "import json, sys, mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/sizes@production')\n"
        f"answers = model.predict(pd.DataFrame([{ROW!r}]))\n"
        "import afterfit\n"
        "print(json.dumps([afterfit.__file__, answers, sorted({m.split('.')[0] for m in sys.modules})]))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    place, [answer], modules = json.loads(ran.stdout.splitlines()[-1])
    assert not Path(place).is_relative_to(ROOT)
    assert "artifacts" in place
    assert (answer["prediction"], answer["model_version"]) == ("yes", "2")
    assert not {"optuna", "matplotlib", "boto3"} & set(modules)


def imported_by(module):
    """Modules that one of the package's imports; of a wing that it uses by name, those that its names lie in."""
    path = ROOT / "src" / Path(*module.split("."))
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))
    for_the_checker = {id(part) for node in tree.body if isinstance(node, ast.If) for part in ast.walk(node)}
    used = {
        (n.value.id, n.attr) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in for_the_checker:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and id(node) not in for_the_checker:
            names.add(node.module)
            for alias in node.names if node.module.startswith("afterfit") else ():
                inner = f"{node.module}.{alias.name}"
                if importlib.util.find_spec(node.module).submodule_search_locations and importlib.util.find_spec(inner):
                    names.add(inner)
                    wing = importlib.import_module(inner)
                    homes = [getattr(wing, attribute, None) for name, attribute in used if name == alias.name]
                    names |= {home.__module__ for home in homes if getattr(home, "__module__", None)}
    return names


def test_a_version_requires_every_package_that_its_code_imports():
    from afterfit.model.packaging import PACKAGES

    waiting, seen, foreign = {"afterfit.served"}, set(), set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        names = imported_by(module)
        foreign |= {name.split(".")[0] for name in names if not name.startswith("afterfit")}
        waiting |= {name for name in names if name.startswith("afterfit")} - seen
    distributions = {"yaml": "pyyaml", "sklearn": "scikit-learn", "botocore": "boto3"}
    needed = {distributions.get(name, name) for name in foreign - set(sys.stdlib_module_names)}
    assert needed <= set(PACKAGES)


@pytest.mark.usefixtures("store")
def test_a_model_that_cannot_be_served_says_what_the_server_said():
    with pytest.raises(StoreError, match=r"ended with code .* before it was ready: .*nothing"):
        smoke_test.try_server("models:/nothing@production", [ROW])


def test_a_server_that_has_gone_away_is_a_sentence():
    with pytest.raises(StoreError, match="The model server at port 9 does not answer"):
        smoke_test.post(9, {})


def script(name, *options, cwd, **environment):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *options],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def trials_in(store):
    query = "select count(*) from runs r join tags t on t.run_uuid = r.run_uuid where t.key = 'mlflow.parentRunId'"
    with sqlite3.connect(store / "mlflow.db", timeout=PATIENCE) as database:
        found = database.execute(f"{query} and r.status = 'FINISHED'").fetchone()[0]
    database.close()
    return found


@pytest.mark.slow
def test_an_interrupted_search_keeps_its_trials_ends_killed_and_goes_on_where_it_stopped(
    store, write_use_case, command_line
):
    tuning = {"trials": 500, "seconds": 600, "folds": 2}
    file = write_use_case(store, tuning=tuning)
    process = script("tune", "--config", str(file), "--json", "never.json", cwd=store)
    assert eventually(lambda: trials_in(store) >= 3, process)
    for number in (signal.SIGINT, signal.SIGTERM):  # as `mlflow run` does on Ctrl-C
        os.kill(process.pid, number)
        time.sleep(0.01)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "tune: interrupted; what was finished is kept."
    assert "Traceback" not in err
    assert not (store / "never.json").exists()
    runs = mlflow.search_runs(experiment_names=["sizes"], output_format="list")
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert parent.info.status == "KILLED"
    finished = sum(run.info.status == "FINISHED" for run in trials)
    assert finished >= 3
    assert {run.info.status for run in trials} <= {"FINISHED", "KILLED"}

    code, out, err = command_line("tune", config=file, trials=finished + 3)
    assert code == 0, err
    resumed = int(re.search(r"(\d+) of them from an earlier sitting", out).group(1))
    assert finished <= resumed <= finished + 1


@pytest.mark.slow
def test_mlflow_run_runs_an_entry_point_in_the_run_that_it_made(store, write_use_case):
    file = write_use_case(store, candidates=[{"builder": "linear"}])
    bin_folder = str(Path(sys.executable).parent)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([bin_folder, environment["PATH"]])
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", "train", "--env-manager", "local"]
    command += ["--experiment-name", "sizes", "-P", f"config={file}", "-P", "builder=linear"]
    command += ["-P", f"json={store}/out.json"]
    ran = subprocess.run(command, cwd=store, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads((store / "out.json").read_text())
    [run] = MlflowClient().search_runs([MlflowClient().get_experiment_by_name("sizes").experiment_id])
    assert run.info.run_id == told["run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.params["builder"] == run.data.params["model.builder"] == "linear"
    assert run.data.metrics["log_loss"] == told["metrics"]["log_loss"]["mean"]
    assert "Registered as version 1 of sizes." in ran.stdout
    assert MlflowClient().get_model_version("sizes", "1").run_id == told["run_id"]


@pytest.mark.slow
def test_the_main_job_searches_trains_promotes_serves_and_says_so(store, write_use_case, command_line):
    code, out, err = command_line("main", config=write_use_case(store), trials=2, json="main.json")
    assert code == 0, out + err
    said = out.splitlines()
    assert said[0].startswith("Searched 2 trials")
    assert re.fullmatch(r"In production: version 1 of sizes, log_loss 0\.\d+ ± 0\.\d+ over folds\.", said[-1])
    ready = next(i for i, line in enumerate(said) if line.startswith("mlflow models serve was ready after"))
    example, unseen, absent, text = said[ready + 1 : ready + 5]
    assert "an example row: prediction" in example
    assert "colour never seen: prediction" in unseen
    assert "(colour unseen_category)" in unseen
    assert "without size: prediction" in absent
    assert "text in size: error: size must be a number" in text
    told = json.loads((store / "main.json").read_text())
    assert told["production"] == "1"
    runs = mlflow.search_runs(experiment_names=["sizes"], output_format="list")
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.run_id == told["run_id"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "In production: version 1" in parent.data.tags["mlflow.note.content"]
