"""MLproject, scripts, README, lock and conda.yaml name the same things."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import conda_pins
from afterfit.performance.evaluation import metrics_for
from afterfit.settings import Metrics
from made import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = yaml.safe_load((ROOT / "MLproject").read_text("utf-8"))["entry_points"]
README = (ROOT / "README.md").read_text("utf-8")
OF_THE_DEVELOPER = {"conda_pins"}


def options(entry):
    """Name, default (None where required) and type of each option of a script."""
    parser = import_module(entry).options()
    found = {a.dest: (None if a.required else a.default, a.type) for a in parser._actions if a.dest != "help"}
    return {**found, "json": ("", None)}  # console.run adds it to every command


def rows_of_readme():
    """Entry point to {parameter: default as text}, from the table of entry points."""
    table = README[README.index("| entry point |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    return {row[0].strip("`"): dict(re.findall(r"(\w+)(?: \(([^)]*)\))?", row[1])) for row in cells}


def test_every_script_is_an_entry_point_and_every_entry_point_a_script():
    assert set(PROJECT) == {path.stem for path in (ROOT / "scripts").glob("*.py")} - OF_THE_DEVELOPER
    assert set(PROJECT) >= {"main", "init", "train", "tune", "score", "promote"}


@pytest.mark.parametrize("entry", PROJECT)
def test_mlproject_and_script_have_the_same_parameters_and_defaults(entry):
    declared = PROJECT[entry]["parameters"]
    of_script = options(entry)
    assert list(declared) == list(of_script)
    for name, parameter in declared.items():
        default, kind = of_script[name]
        assert parameter.get("default") == default, name
        assert (parameter["type"] == "float") == (kind is not None), name


@pytest.mark.parametrize("entry", PROJECT)
def test_an_entry_points_command_runs_its_script_with_every_parameter(entry):
    words = "".join(f" --{name} {{{name}}}" for name in PROJECT[entry]["parameters"])
    assert PROJECT[entry]["command"] == f"PYTHONPATH=src python scripts/{entry}.py{words}"


def test_the_readme_lists_the_same_entry_points_parameters_and_defaults():
    found = rows_of_readme()
    assert list(found) == list(PROJECT)
    for entry, parameters in found.items():
        expected = {name: str(parameter.get("default", "")) for name, parameter in PROJECT[entry]["parameters"].items()}
        assert parameters == expected, entry


def test_the_readmes_examples_use_entry_points_and_parameters_that_exist():
    commands = [line for line in README.splitlines() if line.lstrip().startswith("mlflow run")]
    assert commands
    for command in commands:
        entry = (re.findall(r" -e (\w+)", command) or ["main"])[0]
        if entry.isupper():
            continue  # a place-holder
        assert set(re.findall(r" -P (\w+)=", command)) <= set(PROJECT[entry]["parameters"]), command


def test_readme_and_settings_name_every_metric_under_the_tasks_that_it_measures():
    row = README[README.index("| `metrics` |") :].split("by name:")[1].split("Then")[0]
    for text in (row, Metrics.__doc__.split("Attributes:")[0]):
        parts = [re.findall(r"`([a-z]\w*)`", part) for part in re.split(r"for two classes also|for\s+numbers", text)]
        classes, two_classes, numbers = map(set, parts)
        named = {"multiclass": classes, "binary": classes | two_classes, "regression": numbers}
        assert named == {task: set(metrics_for(task, intervals=True)) for task in named}


def test_every_benchmark_is_listed_and_those_that_the_readme_names_are_there():
    folder = ROOT / "scripts" / "bench"
    there = {
        f"{path.parent.name}.{path.stem}"
        for kind in ("quality", "speed", "robustness")
        for path in folder.glob(f"{kind}/[a-z]*.py")
    }
    listed = re.findall(r"^\| `bench\.(\w+\.\w+)", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(there)
    assert set(re.findall(r"-m bench\.(\w+\.\w+)", README)) <= there


def test_contributing_names_every_wing_and_no_module_that_is_not_there():
    text, package = (ROOT / "CONTRIBUTING.md").read_text("utf-8"), ROOT / "src" / "afterfit"
    wings = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == wings
    named = [found for found in re.findall(r"`(\w+)\.(\w+)", text) if found[0] in wings]
    assert named
    assert not [found for found in named if not (package / found[0] / f"{found[1]}.py").exists()]


def test_conda_pins_what_the_lock_pins():
    assert (ROOT / "conda.yaml").read_text("utf-8") == conda_pins.render(
        (ROOT / "requirements.lock").read_text("utf-8")
    )


def test_a_pin_that_cannot_hold_for_condas_python_is_left_out():
    lock = "a==1 ; python_full_version < '3.11' \\\n    --hash=sha256:0\nb==2\n# via a\nc==3; sys_platform == 'win32'\n"
    assert [pin.name for pin in conda_pins.pins(lock)] == ["b", "c"]


def test_every_dependency_is_locked_to_a_version_that_it_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extra = {"test": project["optional-dependencies"]["test"], "": project["dependencies"]}
    for lock, group in (("requirements.lock", ""), ("requirements-test.lock", "test")):
        locked: dict[str, list[Requirement]] = {}
        for line in (ROOT / lock).read_text("utf-8").splitlines():
            if line and line[0] not in " #-":
                pin = Requirement(line.rstrip("\\ "))
                locked.setdefault(pin.name, []).append(pin)
        for wanted in map(Requirement, extra[group]):
            pins = locked[wanted.name]
            assert all(wanted.specifier.contains(next(iter(pin.specifier)).version) for pin in pins), wanted


def test_no_tracked_file_names_the_host_of_a_package_registry():
    hosts = re.compile(
        r"https?://[\w.-]*(?:" + "|".join(["py" + "pi", "pythonhost" + "ed", "ana" + "conda"]) + ")|--index-url"
    )
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = [
        name
        for name in listed.split("\0")
        if name
        and (ROOT / name).is_file()
        and name != Path(__file__).relative_to(ROOT).as_posix()
        and hosts.search((ROOT / name).read_text("utf-8", errors="ignore"))
    ]
    assert not found
