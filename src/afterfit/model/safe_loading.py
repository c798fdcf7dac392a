"""Load an estimator safely: only of types on a fixed list, to which no file can add. skops writes and reads it."""

import importlib
import inspect
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import skops.io
from sklearn.base import BaseEstimator

from afterfit.errors import BundleError
from afterfit.model.builders import TRUST, trusted_packages

_DISTANCES = ("BrayCurtis", "Canberra", "Chebyshev", "Euclidean", "Hamming", "Manhattan", "Minkowski", "SEuclidean")
TRUSTED = frozenset(
    {
        "functools.partial",  # of functions that are themselves on a list, such as the next
        "numpy.dtype",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.LogLink",
        "sklearn._loss.loss.AbsoluteError",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.loss.HalfTweedieLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn._loss._loss.CyAbsoluteError",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss._loss.CyHalfMultinomialLoss",
        "sklearn._loss._loss.CyHalfSquaredError",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils.validation.check_array",
        *(f"sklearn.metrics._dist_metrics.{name}Distance64" for name in _DISTANCES),
    }
)
"""Types beyond skops' own safe list that an estimator may contain. Fixed: a bundle cannot add to it.

scikit-learn's own models contain these types after fit. Each is named in full, because a rule such as "all that begins
with sklearn." would also allow every function that scikit-learn's modules import.
"""
NO_MODELS = frozenset({"tests", "externals", "setup", "conftest", "experimental", "estimator_checks"})
"""Parts of scikit-learn without estimators for use; its own `all_estimators` leaves them out, too."""


def dump_estimator(estimator: Any) -> bytes:
    """Turn a fitted estimator into bytes.

    Raises:
        BundleError: it contains a type outside the allow-list, or cannot be written by skops.
    """
    description = f"The estimator {type(estimator).__name__}"
    try:
        content: bytes = skops.io.dumps(estimator)
        unknown = _unknown(skops.io.get_untrusted_types(data=content))
    except Exception as error:
        raise BundleError(f"{description} cannot be written by skops: {error}") from error
    if unknown:
        raise BundleError(f"{description} {_not_allowed(unknown)}")
    return content


def read_estimator(path: Path) -> Any:
    """Read the estimator in a file; no object is created before all its types are known to be allowed.

    Raises:
        BundleError: it cannot be read, or contains a type outside the allow-list.
    """
    try:
        content = path.read_bytes()
        types = skops.io.get_untrusted_types(data=content)
        unknown = _unknown(types)
        estimator = None if unknown else skops.io.loads(content, trusted=types)
    except Exception as error:
        raise BundleError(f"The estimator in '{path}' cannot be read: {error}") from error
    if unknown:
        raise BundleError(f"The estimator in '{path}' {_not_allowed(unknown)}")
    return estimator


def is_estimator(name: str) -> bool:
    """Whether a type is one of scikit-learn's public estimators, which skops trusts, too.

    skops compares types with a list for which it imports all of scikit-learn. A process that must start quickly does
    without that list: here only the one package of the estimator is imported.
    """
    parts = name.split(".")
    public = list(takewhile(lambda part: not part.startswith("_"), parts[:-1]))
    if parts[0] != "sklearn" or not public or parts[-1].startswith("_") or not NO_MODELS.isdisjoint(parts):
        return False
    try:
        candidate = getattr(importlib.import_module(".".join(public)), parts[-1], None)
    except ImportError:
        return False
    if not isinstance(candidate, type) or f"{candidate.__module__}.{candidate.__qualname__}" != name:
        return False
    return issubclass(candidate, BaseEstimator) and not inspect.isabstract(candidate) and candidate is not BaseEstimator


def _unknown(types: Sequence[str]) -> list[str]:
    """Those of a file's types that nobody trusts."""
    packages, others = trusted_packages(), set(types) - TRUSTED
    return sorted(name for name in others if name.split(".")[0] not in packages and not is_estimator(name))


def _not_allowed(unknown: Sequence[str]) -> str:
    hint = f"Set {TRUST} to the packages that you trust." if any(not n.startswith("sklearn.") for n in unknown) else ""
    return f"holds types that are not on the allow-list of bundles: {', '.join(unknown)}. {hint}".rstrip()
