import json

import numpy as np
import pytest

from afterfit.errors import SettingsError
from afterfit.model.builders import BUILDERS, MatrixInfo, build
from afterfit.model.scorer import raw_probabilities
from afterfit.model.training import fit, train
from made import bundled, made_table, posed, use_case

TASKS = ("classification", "regression")
OWN = [(name, task, {}) for name in BUILDERS for task in TASKS]
CLASSIFIERS = [
    ("sklearn.ensemble.ExtraTreesClassifier", {"n_estimators": 5}),
    ("sklearn.ensemble.BaggingClassifier", {"n_estimators": 3}),
    ("sklearn.ensemble.AdaBoostClassifier", {"n_estimators": 5}),
    ("sklearn.ensemble.GradientBoostingClassifier", {"n_estimators": 5}),
    ("sklearn.neighbors.KNeighborsClassifier", {}),
    ("sklearn.neighbors.KNeighborsClassifier", {"algorithm": "ball_tree", "metric": "manhattan"}),
    ("sklearn.svm.LinearSVC", {}),
    ("sklearn.svm.SVC", {}),
    ("sklearn.linear_model.SGDClassifier", {"loss": "modified_huber"}),
    ("sklearn.linear_model.RidgeClassifier", {}),
    ("sklearn.neural_network.MLPClassifier", {"hidden_layer_sizes": [4], "solver": "lbfgs", "max_iter": 2000}),
    ("sklearn.naive_bayes.GaussianNB", {}),
    ("sklearn.calibration.CalibratedClassifierCV", {"cv": 2}),
    ("sklearn.gaussian_process.GaussianProcessClassifier", {}),
]
REGRESSORS = [
    ("sklearn.linear_model.HuberRegressor", {"max_iter": 1000}),
    ("sklearn.linear_model.TweedieRegressor", {}),
    ("sklearn.neighbors.KNeighborsRegressor", {"p": 3}),
    ("sklearn.svm.SVR", {}),
    ("sklearn.tree.DecisionTreeRegressor", {}),
    ("hist_gradient_boosting", {"loss": "quantile", "quantile": 0.5, "max_iter": 5}),
    ("hist_gradient_boosting", {"loss": "absolute_error", "max_iter": 5}),
    ("sklearn.ensemble.GradientBoostingRegressor", {"loss": "huber", "n_estimators": 5}),
]
DOTTED = [(name, TASKS[0], params) for name, params in CLASSIFIERS] + [(n, TASKS[1], p) for n, p in REGRESSORS]


def matrix(rows=120, seed=0):
    """Two numbers and, between them, four codes; gaps in all three."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=rows), rng.integers(0, 4, rows).astype(float), rng.normal(size=rows)])
    X[::17] = np.nan
    return X


@pytest.mark.parametrize(("name", "task", "params"), OWN + DOTTED)
def test_every_builder_takes_gaps_and_codes_and_is_the_same_twice(name, task, params):
    X, form = matrix(), MatrixInfo((0, 4, 0))
    truth = np.nan_to_num(X[:, 0] + (X[:, 1] == 2))
    y = (truth > 0.2).astype(int) if task == "classification" else truth
    case = use_case(task=task, seed=7)
    answered = [fit(name, params, X, y, form=form, use_case=case).predict(matrix(seed=1)) for _ in range(2)]
    assert np.isfinite(answered[0]).all()
    np.testing.assert_array_equal(*answered)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("codes", [(0, 0), (3, 3)])
@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_takes_numbers_alone_and_codes_alone(name, codes, task):
    X = matrix()[:, [1, 1]] % 3
    y = np.arange(len(X)) % 2
    assert len(build(name, MatrixInfo(codes), task, {}, 0).fit(X, y).predict(X)) == len(X)


def test_codes_are_categories_to_the_models_that_know_them():
    X = np.tile(np.arange(4.0), 50)[:, None]
    y = np.isin(X[:, 0], [0, 2]).astype(int)  # no single cut between codes tells them apart
    stump = {"max_leaf_nodes": 2, "max_iter": 1, "min_samples_leaf": 1}
    assert build("hist_gradient_boosting", MatrixInfo((4,)), "classification", stump, 0).fit(X, y).score(X, y) == 1
    assert build("linear", MatrixInfo((4,)), "classification", {}, 0).fit(X, y).score(X, y) == 1


def test_parameters_reach_the_estimator_and_the_seed_is_taken_where_there_is_one():
    made = build("sklearn.ensemble.ExtraTreesClassifier", MatrixInfo((0,)), "classification", {"n_estimators": 3}, 5)
    assert (made.n_estimators, made.random_state) == (3, 5)
    assert build("random_forest", MatrixInfo((0,)), "regression", {"min_samples_leaf": 9}, 5).min_samples_leaf == 9


@pytest.mark.parametrize(
    ("name", "task", "params", "said"),
    [
        ("random_forrest", "classification", {}, "did you mean 'random_forest'"),
        ("sklearn.ensemble.ExtraTreeClassifier", "classification", {}, "did you mean 'ExtraTreesClassifier'"),
        ("sklearn.ensembel.ExtraTreesClassifier", "classification", {}, "cannot be imported"),
        ("lightgbm.LGBMClassifier", "classification", {}, "set AFTERFIT_TRUSTED_PACKAGES=lightgbm"),
        ("os.path.join", "classification", {}, "must be of scikit-learn"),
        ("..ensemble.X", "classification", {}, "must be of scikit-learn"),
        ("sklearn.metrics.roc_auc_score", "classification", {}, "must be the class of a model"),
        ("sklearn.preprocessing.StandardScaler", "classification", {}, "must be the class of a model"),
        ("sklearn.linear_model.HuberRegressor", "classification", {}, "gives HuberRegressor, which is no model for"),
        ("sklearn.svm.LinearSVC", "regression", {}, "gives LinearSVC, which is no model for regression"),
        ("sklearn.ensemble.VotingClassifier", "classification", {}, "to be made without parameters"),
        ("hist_gradient_boosting", "classification", {"trees": 3}, "does not take these parameters.*trees"),
        ("hist_gradient_boosting", "classification", {"random_state": 3}, "does not take these parameters"),
        ("sklearn.svm.LinearSVC", "classification", {"trees": 3}, "does not take these parameters.*trees"),
    ],
)
def test_a_wrong_name_parameter_or_task_is_a_sentence(name, task, params, said):
    with pytest.raises(SettingsError, match=said):
        build(name, MatrixInfo((0,)), task, params, 0)


@pytest.mark.parametrize(("name", "task", "params"), OWN + DOTTED)
def test_what_a_builder_makes_is_saved_without_pickle_and_answers_the_same_again(name, task, params, tmp_path):
    case = use_case(task=task, time=None)
    case = case.model_copy(update={"split": case.split.model_copy(update={"folds": 2})})
    frame = made_table(120)
    found = train(posed(case, frame), name, params)
    bundle = bundled(found, tmp_path, case)
    _, before = found.scorer.score(frame)
    _, after = bundle.scorer.score(frame)
    np.testing.assert_array_equal(before.prediction, after.prediction)
    if task == "classification":
        np.testing.assert_array_equal(before.probabilities, after.probabilities)
        assert ((after.probabilities >= 0) & (after.probabilities <= 1)).all()
    json.dumps(bundle.answers(frame), allow_nan=False)


@pytest.mark.parametrize("k", [2, 3])
def test_a_model_without_probabilities_still_ranks_by_its_decision(k):
    X = matrix()
    y = np.arange(len(X)) % k
    fitted = build("sklearn.svm.LinearSVC", MatrixInfo((0, 4, 0)), "classification", {}, 0).fit(X, y)
    table = raw_probabilities(fitted, X, k)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    np.testing.assert_array_equal(table.argmax(axis=1), fitted.predict(X))


def test_a_class_that_a_fit_never_saw_has_probability_zero():
    X = matrix()
    fitted = build("linear", MatrixInfo((0, 4, 0)), "classification", {}, 0).fit(X, np.arange(len(X)) % 2 * 2)
    table = raw_probabilities(fitted, X, 3)
    assert table.shape == (len(X), 3)
    assert not table[:, 1].any()
    assert raw_probabilities(fitted, X[:0], 3).shape == (0, 3)
