"""Model builders: functions that return an unfitted scikit-learn estimator for an encoder's matrix."""

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

from afterfit.errors import SettingsError

Task = Literal["classification", "regression"]
Builder = Callable[["MatrixInfo", Task, Mapping[str, Any], int], BaseEstimator]
TRUST = "AFTERFIT_TRUSTED_PACKAGES"
"""The environment variable with the packages that the person who runs the process trusts."""


@dataclass(frozen=True, slots=True)
class MatrixInfo:
    """What a builder must know about the matrix: the number of category codes of each column, 0 for numbers."""

    codes: tuple[int, ...]

    @property
    def categorical(self) -> list[int]:
        """Positions of the columns that hold category codes."""
        return [position for position, size in enumerate(self.codes) if size]

    @property
    def numeric(self) -> list[int]:
        """Positions of the columns that hold numbers."""
        return [position for position, size in enumerate(self.codes) if not size]


def hist_gradient_boosting(layout: MatrixInfo, task: Task, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """Gradient-boosted trees over histograms; they take category codes and missing values as they are."""
    kind = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor
    settings = {"early_stopping": False, **params}
    return kind(categorical_features=layout.categorical or None, random_state=seed, **settings)


def random_forest(layout: MatrixInfo, task: Task, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """A random forest over category codes as numbers; it takes missing values as they are."""
    del layout
    kind = RandomForestClassifier if task == "classification" else RandomForestRegressor
    return kind(**{"n_estimators": 100, "min_samples_leaf": 5, "n_jobs": 2, **params}, random_state=seed)


def linear(layout: MatrixInfo, task: Task, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """Logistic regression or ridge on imputed, one-hot and scaled columns."""
    if task == "classification":
        model = LogisticRegression(**{"max_iter": 1000, **params}, random_state=seed)
    else:
        model = Ridge(**params, random_state=seed)
    return Pipeline([("prepare", dense_columns(layout)), ("model", model)])


def dummy(layout: MatrixInfo, task: Task, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """The same answer for every row: class shares, or the median. A candidate must be better."""
    del layout
    if task == "classification":
        return DummyClassifier(**{"strategy": "prior", **params}, random_state=seed)
    return DummyRegressor(**{"strategy": "median", **params})


BUILDERS: dict[str, Builder] = {
    "hist_gradient_boosting": hist_gradient_boosting,
    "random_forest": random_forest,
    "linear": linear,
    "dummy": dummy,
}


def trusted_packages() -> frozenset[str]:
    """Packages beyond scikit-learn whose types may be built and loaded; no bundle can add to them.

    Read from the environment variable `AFTERFIT_TRUSTED_PACKAGES`, names separated by commas.
    """
    return frozenset(name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip())


def build(name: str, layout: MatrixInfo, task: Task, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """An unfitted estimator by a builder's name, or by the dotted name of a scikit-learn-compatible class.

    A class that cannot take missing values gets the imputed, one-hot and scaled columns of `linear`. Classes of
    other packages than scikit-learn are refused here, before anything is fitted, unless the environment trusts them.

    Raises:
        SettingsError: no such builder, class or parameter, or a class for the other task.
    """
    try:
        estimator = (
            BUILDERS[name](layout, task, params, seed) if name in BUILDERS else _build_class(name, layout, params, seed)
        )
    except TypeError as error:
        arguments = f"these parameters ({dict(params)})" if params else "to be made without parameters"
        raise SettingsError(f"The builder '{name}' does not take {arguments}: {error}.") from error
    is_of_task = is_classifier(estimator) if task == "classification" else is_regressor(estimator)
    if not is_of_task:
        class_name = type(estimator[-1] if isinstance(estimator, Pipeline) else estimator).__name__
        raise SettingsError(f"The builder '{name}' gives {class_name}, which is no model for {task}.")
    return estimator


def dense_columns(layout: MatrixInfo) -> ColumnTransformer:
    """Numbers imputed by the median (with an indicator) and scaled; codes one-hot, missing as all zeros."""
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    codes = OneHotEncoder(
        categories=[np.arange(layout.codes[k], dtype=float) for k in layout.categorical],
        handle_unknown="ignore",
        sparse_output=False,
    )
    parts = [("numbers", numbers, layout.numeric), ("codes", codes, layout.categorical)]
    return ColumnTransformer([part for part in parts if part[2]])


def _build_class(name: str, layout: MatrixInfo, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    kind = _import_class(name)
    arguments = dict(params)
    if "random_state" in inspect.signature(kind).parameters:
        arguments.setdefault("random_state", seed)
    estimator: BaseEstimator = kind(**arguments)
    return estimator if _takes_missing(estimator) else make_pipeline(dense_columns(layout), estimator)


def _import_class(name: str) -> type[BaseEstimator]:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise SettingsError(
            f"There is no builder '{name}' ({', '.join(BUILDERS)}, or a class of scikit-learn by its dotted name)"
            f"{_nearest(name, BUILDERS)}"
        )
    package = module.split(".")[0]
    if package != "sklearn" and package not in trusted_packages():
        raise SettingsError(
            f"The builder '{name}' must be of scikit-learn, since loading a bundle never runs code of packages that "
            f"nobody trusted. Where you trust '{package}', set {TRUST}={package} here and wherever the model is "
            "loaded; or name a class of scikit-learn, or one of the builders " + ", ".join(BUILDERS) + "."
        )
    try:
        imported = import_module(module)
    except ImportError as error:
        raise SettingsError(f"The builder '{name}' cannot be imported: {error}.") from error
    kind = getattr(imported, attribute, None)
    if kind is None:
        raise SettingsError(f"There is no '{attribute}' in {module}{_nearest(attribute, dir(imported))}")
    if not (isinstance(kind, type) and issubclass(kind, BaseEstimator) and hasattr(kind, "predict")):
        raise SettingsError(f"The builder '{name}' must be the class of a model with fit and predict; it is not.")
    return kind


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else "."


def _takes_missing(estimator: BaseEstimator) -> bool:
    return bool(get_tags(estimator).input_tags.allow_nan)
