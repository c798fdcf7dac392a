"""The module graph is the architecture: imports point downwards, and each foreign library has its few places."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "afterfit"
# A module imports only from rows above its own.
ROWS = [
    {"errors"},
    {"values", "names", "bulk"},
    {"dates", "s3"},
    {"columns"},
    {"checks"},
    {"contract", "sections"},
    {"usecase", "settingstext"},
    {"parts", "blocks", "evidence", "findings"},
    {"bins"},
    {"relations", "combinations"},
    {"layouts"},
    {"saved"},
    {"profiles"},
    {"changes", "alone"},
    {"unfit"},
    {"comparison"},
    {"sources", "databases", "flights", "folds"},
    {"predictions"},
    {"measures"},
    {"resampling", "slices"},
    {"metrics", "calibration", "builders", "observation", "levels", "shifts", "residuals", "regions"},
    {"data", "encoder", "drift", "compare", "estimate", "giveaway"},
    {"reference", "windows", "errormap"},
    {"scorer", "draft"},
    {"training"},
    {"tuning", "trials"},
    {"gate", "policy", "estimatorfile", "codedigest"},
    {"soundness"},
    {"bundle", "spoolfile", "bitvectors"},
    {"logstore", "logparts"},
    {"spool", "logids"},
    {"sealing", "logoutcomes"},
    {"logreader"},
    {"compiled", "predlog", "making", "upkeep"},
    {"monitoring", "examination", "logrows"},
    {"servedlog", "gathered"},
    {"loop"},
    {"history"},
    {"backtest"},
    {"smallpictures"},
    {"tracking", "report", "driftpage", "backtestpage", "served", "alarms"},
    {"lock", "watched", "monitorpage"},
    {"registry", "server_trial", "batch", "journal"},
    {"ledger"},
    {"serving", "spark"},
    {"commands"},
]
LEVEL_OF = {module: level for level, modules in enumerate(ROWS) for module in modules}
ONLY_IN = {
    "mlflow": {"tracking", "lock", "registry", "ledger", "journal", "served", "serving", "spark"},
    "optuna": {"tuning"},
    "boto3": {"s3"},
    "fastapi": {"serving"},
    "uvicorn": {"serving"},
    "prometheus_client": {"serving"},
    "treelite": {"compiled"},
    "pyspark": {"spark"},
    "matplotlib": {"report"},
    "jinja2": {"report", "driftpage", "backtestpage", "monitorpage"},
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).with_suffix("").parts[0], path


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            if node.module in {"afterfit", None}:
                yield from (f"afterfit.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(getattr(value, "name", value)))
def test_a_module_imports_only_from_lower_levels_and_foreign_libraries_in_their_places(module, path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path.name} does not say what it is for"
    if module == "__init__":
        return
    assert module in LEVEL_OF, f"{module} has no level: give it one here and in the design"
    for name in imported(tree):
        assert not name.startswith("."), f"{path.name}: relative import {name}"
        top, _, rest = name.partition(".")
        if top == "afterfit" and rest:
            other = rest.split(".")[0]
            assert other == module or LEVEL_OF[other] < LEVEL_OF[module] or other == "errors", (
                f"{module} imports {other}"
            )
        if top in ONLY_IN:
            assert module in ONLY_IN[top], f"{module} imports {top}"
