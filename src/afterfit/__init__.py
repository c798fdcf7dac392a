"""What comes after fit: contract, drift, comparison, promotion and monitoring of tabular models on plain MLflow.

Importing this package is cheap: the names below are loaded when they are first used, and MLflow never is.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "compare_drift": "afterfit.drift",
    "compare_performance": "afterfit.compare",
    "load_use_case": "afterfit.usecase",
    "profile": "afterfit.profiles",
}

__all__ = ["__version__", "compare_drift", "compare_performance", "load_use_case", "profile"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'afterfit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
