"""A fitted estimator on disk: written and read by skops, and only of types on a list that no file can add to.

The code that travels with a model: its digest, and whether it is still the code that was logged.
"""

import hashlib
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
"""Types beyond skops' own safe list that an estimator may hold. Fixed: a bundle cannot add to it.

These are what scikit-learn's own models hold after fit. Each is named in full, because a rule such as "all that
begins with sklearn." would also let in every function that scikit-learn's modules import.
"""
NO_MODELS = frozenset({"tests", "externals", "setup", "conftest", "experimental", "estimator_checks"})
"""Parts of scikit-learn that have no estimators for use, as its own `all_estimators` leaves them out."""


def dumped(estimator: Any) -> bytes:
    """A fitted estimator as bytes.

    Raises:
        BundleError: it holds a type outside the allow-list, or cannot be written by skops.
    """
    what = f"The estimator {type(estimator).__name__}"
    try:
        written: bytes = skops.io.dumps(estimator)
        unknown = _unknown(skops.io.get_untrusted_types(data=written))
    except Exception as error:
        raise BundleError(f"{what} cannot be written by skops: {error}") from error
    if unknown:
        raise BundleError(f"{what} {_not_allowed(unknown)}")
    return written


def read(path: Path) -> Any:
    """The estimator that a file holds; nothing of it is made before all its types are known to be allowed.

    Raises:
        BundleError: it cannot be read, or holds a type outside the allow-list.
    """
    try:
        written = path.read_bytes()
        types = skops.io.get_untrusted_types(data=written)
        unknown = _unknown(types)
        estimator = None if unknown else skops.io.loads(written, trusted=[*TRUSTED, *types])
    except Exception as error:
        raise BundleError(f"The estimator in '{path}' cannot be read: {error}") from error
    if unknown:
        raise BundleError(f"The estimator in '{path}' {_not_allowed(unknown)}")
    return estimator


def _unknown(types: Sequence[str]) -> list[str]:
    """Those of a file's types that nobody trusts."""
    packages, others = trusted_packages(), set(types) - TRUSTED
    return sorted(name for name in others if name.split(".")[0] not in packages and not is_estimator(name))


def is_estimator(name: str) -> bool:
    """Whether a type is one of scikit-learn's public estimators, which skops trusts too.

    skops holds them all against a list for which it imports all of scikit-learn; a process that starts quickly does
    without that list, and imports the one package that the estimator is in.
    """
    parts = name.split(".")
    public = list(takewhile(lambda part: not part.startswith("_"), parts[:-1]))
    if parts[0] != "sklearn" or not public or parts[-1].startswith("_") or not NO_MODELS.isdisjoint(parts):
        return False
    try:
        found = getattr(importlib.import_module(".".join(public)), parts[-1], None)
    except ImportError:
        return False
    if not isinstance(found, type) or f"{found.__module__}.{found.__qualname__}" != name:
        return False
    return issubclass(found, BaseEstimator) and not inspect.isabstract(found) and found is not BaseEstimator


def _not_allowed(unknown: Sequence[str]) -> str:
    trust = f"Set {TRUST} to the packages that you trust." if any(not n.startswith("sklearn.") for n in unknown) else ""
    return f"holds types that are not on the allow-list of bundles: {', '.join(unknown)}. {trust}".rstrip()


def code_digest(package: Path) -> str:
    """Sha256 over the names and contents of a package's files; caches left aside."""
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(package).as_posix()
            whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def check_code(home: Path, expected: str, loader: str) -> None:
    """Hold the code that travels with a model against what was logged.

    Args:
        home: the model's folder, with the package in `code/afterfit` and the file that MLflow runs beside MLmodel.
        expected: the package's digest, as the bundle's manifest has it.
        loader: the name of the file that MLflow runs, a copy of the one of that name in the package.

    Raises:
        BundleError: a file is missing, or another one than was logged.
    """
    package = home / "code" / "afterfit"
    try:
        same = code_digest(package) == expected and (home / loader).read_bytes() == (package / loader).read_bytes()
    except OSError as error:
        raise BundleError(f"The code that travels with the model in '{home}' is not whole: {error}") from error
    if not same:
        raise BundleError(
            f"The code that travels with the model in '{home}' is not the code that it was logged with. "
            "Train and register it again, or find out who changed it."
        )
