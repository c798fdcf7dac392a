"""Compiled trees answer as the estimator does, or are not used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor

from afterfit.calibration import Calibration, Curve
from afterfit.compiled import FEW, calibrated_row, compile_scorer, random_rows
from afterfit.training import train
from made import BOOSTER, made_table, posed, use_case

TREES = {
    "hist_gradient_boosting": BOOSTER,
    "random_forest": {"n_estimators": 10, "n_jobs": 1},
    "sklearn.ensemble.ExtraTreesClassifier": {"n_estimators": 10},
    "sklearn.ensemble.GradientBoostingClassifier": {"n_estimators": 10},
}


def scorer(task, builder):
    """A scorer of two classes, three classes or numbers."""
    if task == "regression":
        case = use_case(task="regression")
        return train(posed(case, made_table()), builder.replace("Classifier", "Regressor"), TREES[builder]).scorer
    if task == "binary":
        return train(posed(use_case(), made_table()), builder, TREES[builder]).scorer
    frame = made_table().assign(late=lambda table: np.digitize(table["delay"], [8.0, 16.0]))
    problem = posed(use_case(time=None), frame, ("early", "fair", "late"))
    return train(problem, builder, TREES[builder]).scorer


def both(one, other):
    return (one.prediction, other.prediction) if one.probabilities is None else (one.probabilities, other.probabilities)


NAN_FREE = {"sklearn.ensemble.GradientBoostingClassifier"}  # it stands behind columns that are prepared for it


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("builder", [name for name in TREES if name not in NAN_FREE])
def test_trees_answer_rows_alone_and_together_as_the_estimator_does(task, builder):
    found = scorer(task, builder)
    compiled = compile_scorer(found, random_rows(found.encoder, 3))
    assert compiled is not None
    rows = random_rows(found.encoder, 300, seed=7)
    own, theirs = both(found.predict(rows), compiled.predict_compiled(rows))
    assert np.allclose(own, theirs, rtol=1e-9, atol=1e-9)
    alone = np.array([compiled.row(row) for row in rows.tolist()])
    assert np.allclose(own, alone[:, 0] if alone.shape[1] == 1 else alone, rtol=1e-9, atol=1e-9)
    if own.ndim == 1:
        assert np.allclose(found.predict(rows).lower, compiled.predict_compiled(rows).lower)


def test_many_rows_go_to_the_estimator_itself(trained):
    compiled = compile_scorer(trained.scorer, random_rows(trained.scorer.encoder, 3))
    rows = random_rows(trained.scorer.encoder, FEW + 1)
    assert (compiled.predict(rows).probabilities == trained.scorer.predict(rows).probabilities).all()


def test_a_model_that_is_no_ensemble_of_trees_is_not_compiled():
    linear = train(posed(use_case(), made_table()), "linear", {}).scorer
    assert compile_scorer(linear, random_rows(linear.encoder, 3)) is None


def test_trees_whose_answers_differ_are_not_used(trained, monkeypatch):
    examples = random_rows(trained.scorer.encoder, 3)
    assert compile_scorer(trained.scorer, examples) is not None
    monkeypatch.setattr("afterfit.compiled._logistic", lambda value: 0.5 + value / 1e4)
    assert compile_scorer(trained.scorer, examples) is None


def test_without_treelite_the_estimator_serves(trained, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "treelite", None)
    assert compile_scorer(trained.scorer, random_rows(trained.scorer.encoder, 3)) is None


def test_a_regression_with_a_link_of_its_own_is_compiled_with_it():
    case = use_case(task="regression")
    frame = made_table()
    frame["delay"] = np.exp(frame["delay"] / 20)
    found = train(posed(case, frame), "hist_gradient_boosting", {**BOOSTER, "loss": "poisson"}).scorer
    assert isinstance(found.estimator, HistGradientBoostingRegressor)
    compiled = compile_scorer(found, random_rows(found.encoder, 3))
    rows = random_rows(found.encoder, 100, seed=3)
    assert np.allclose(found.predict(rows).prediction, compiled.predict_compiled(rows).prediction, rtol=1e-9)


shares = st.floats(0, 1)
sorted_points = st.lists(shares, min_size=2, max_size=6).map(sorted)


@settings(deadline=None)
@given(sorted_points, sorted_points, shares, st.floats(0, 5), st.floats(-3, 3))
def test_one_rows_calibration_is_that_of_many(x, y, raw, slope, intercept):
    size = min(len(x), len(y))
    curves = [Curve("isotonic", tuple(x[:size]), tuple(y[:size])), Curve("sigmoid", (slope,), (intercept,))]
    for curve in curves:
        binary = Calibration((curve,))
        assert calibrated_row(binary, [1 - raw, raw])[1] == pytest.approx(
            binary(np.array([[1 - raw, raw]]))[0, 1], abs=1e-12
        )
    several = Calibration((curves[0], curves[1], curves[1]))
    row = [raw, (1 - raw) / 2, (1 - raw) / 2]
    assert calibrated_row(several, row) == pytest.approx(several(np.array([row]))[0].tolist(), abs=1e-12)
