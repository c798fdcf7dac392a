"""The examples for schedulers: cron's line run as cron runs it, and a DAG that names what is there."""

import ast
import os
import re
import shlex
import subprocess
import sys

import pytest

from made import ROOT

SCHEDULE = ROOT / "scripts" / "schedule"
STEP = pytest.mark.skipif(not (ROOT / "scripts" / "step.py").exists(), reason="the entry point step is not there")


def crontab():
    """The variables and the one line: five fields, and a command."""
    lines = [line for line in (SCHEDULE / "crontab").read_text("utf-8").splitlines() if line and line[0] != "#"]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    return variables, lines[-1].split(maxsplit=5)


def environment(variables):
    """What cron gives a command: its own few variables, and those of the file."""
    return {"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/bin:/bin", **variables}


def test_the_crontab_has_five_fields_and_a_command_without_percent_signs():
    variables, (*fields, command) = crontab()
    assert len(fields) == 5
    assert all(re.fullmatch(r"\*|\d+", field) for field in fields)
    assert "%" not in command  # cron reads them as line ends
    assert set(re.findall(r"\$(\w+)", command)) <= set(variables)


def test_crons_command_stops_where_the_checkout_is_not_there(tmp_path):
    variables, (*_, command) = crontab()
    given = environment({**variables, "AFTERFIT": str(tmp_path / "nowhere")})
    ran = subprocess.run(["/bin/sh", "-c", command], env=given, cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode != 0
    assert not list(tmp_path.iterdir())


@STEP
@pytest.mark.slow
def test_what_a_step_says_under_cron_goes_to_its_log(tmp_path, store):
    variables, (*_, command) = crontab()
    home = tmp_path / "checkout"
    home.mkdir()
    for name in ("src", "scripts"):
        (home / name).symlink_to(ROOT / name)
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    given = {**variables, "AFTERFIT": str(home), "PYTHON": sys.executable, "MLFLOW_TRACKING_URI": tracking}
    given["CONFIG"] = "nobody.yaml"
    ran = subprocess.run(["/bin/sh", "-c", command], env=environment(given), cwd=store, check=False)
    assert ran.returncode == 2
    assert "There is no settings file 'nobody.yaml'" in (home / "step.log").read_text("utf-8")


def test_the_dag_calls_a_script_by_the_options_that_it_has():
    tree = ast.parse((SCHEDULE / "airflow_dag.py").read_text("utf-8"))
    [call] = [
        one for one in ast.walk(tree) if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "BashOperator"
    ]
    given = {one.arg: one.value for one in call.keywords}
    command = shlex.split(ast.literal_eval(given["bash_command"]))
    assert command[command.index("--config") - 1] == "scripts/step.py"
    assert ast.literal_eval(given["skip_on_exit_code"]) == [3, 4]
    assert set(re.findall(r"\$\{?(\w+)", " ".join(command))) <= {key.value for key in given["env"].keys}
