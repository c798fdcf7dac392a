"""Each foreign library has its few places; the order of the wings is import-linter's contract in pyproject.toml."""

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from made import ROOT

PACKAGE = ROOT / "src" / "afterfit"
# Which wings, or modules, may import a library.
ONLY_IN = {
    "mlflow": {"mlflow_store", "served", "spark"},
    "cryptography": {"model.signing"},
    "optuna": {"model.tuning"},
    "boto3": {"data.s3"},
    "fastapi": {"serving"},
    "uvicorn": {"server"},
    "prometheus_client": {"serving"},
    "treelite": {"model.compiled"},
    "pyspark": {"spark"},
    "matplotlib": {"pages.figures"},
    "jinja2": {"pages"},
}
WINGS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


@cache
def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), path


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(getattr(value, "name", value)))
def test_a_module_says_what_it_is_for_and_foreign_libraries_stay_in_their_places(module, path):
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{module} does not say what it is for"
    for name in imported(tree):
        assert not name.startswith("."), f"{module}: relative import {name}"
        top = name.partition(".")[0]
        places = ONLY_IN.get(top, {module})
        assert {module, module.partition(".")[0]} & places, f"{module} imports {top}"


@pytest.mark.parametrize("wing", WINGS)
def test_what_a_wing_shows_the_type_checker_is_what_it_gives(wing):
    tree = parsed(PACKAGE / wing / "__init__.py")
    typed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    found = importlib.import_module(f"afterfit.{wing}")
    given = set(dir(found)) if "__getattr__" in vars(found) else set()
    assert typed - {"TYPE_CHECKING", "lazy"} == given
    for name in given:
        assert getattr(found, name) is not None


def places_of_wings(tree):
    """The names in a file that stand for a wing, and the wing: `data`, or `tables` where it was imported as that."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "afterfit":
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names if alias.name in WINGS)


def test_what_is_asked_of_a_wing_is_among_what_it_gives():
    """In scripts and tests, that is: the type checker says it of the package."""
    for path in [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        tree = parsed(path)
        wings = dict(places_of_wings(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in wings:
                wing = importlib.import_module(f"afterfit.{wings[node.value.id]}")
                assert hasattr(wing, node.attr), f"{path.name}, line {node.lineno}: {wing.__name__}.{node.attr}"


def test_importing_the_package_or_a_wing_imports_nothing_heavy():
    code = f"""import sys, afterfit
for wing in {WINGS!r}:
    __import__("afterfit." + wing)
loaded = {{name.partition(".")[0] for name in sys.modules}}
print(sorted(loaded & {{"numpy", "pandas", "mlflow", "sklearn", "fastapi"}}))
"""
    environment = {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_few_modules_lie_outside_the_wings():
    assert len([path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]) <= 6


def test_no_test_imports_another():
    for path in sorted(Path(ROOT, "tests").rglob("*.py")):
        names = imported(parsed(path))
        assert not [name for name in names if name.rpartition(".")[2].startswith("test_")], path.name
