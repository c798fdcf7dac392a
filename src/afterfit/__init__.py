"""What comes after fit: contract, drift, comparison, promotion and monitoring of tabular models on plain MLflow.

Importing this package is cheap: the names below are loaded when they are first used, and MLflow never is.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.drift import compare_drift, profile
    from afterfit.performance import compare_performance
    from afterfit.use_case import load_use_case

__version__ = "0.1.0"

__all__ = ["__version__", "compare_drift", "compare_performance", "load_use_case", "profile"]

if not TYPE_CHECKING:
    __getattr__, _ = lazy(
        __name__,
        {
            "drift": ("compare_drift", "profile"),
            "performance": ("compare_performance",),
            "use_case": ("load_use_case",),
        },
    )


def __dir__() -> list[str]:
    return __all__
