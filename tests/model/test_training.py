from itertools import islice

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.metrics import roc_auc_score

from afterfit.errors import DataError, SchemaError, SettingsError, TrainingError
from afterfit.model.training import CVScore, encode, feature_columns, folds, prepare, train
from afterfit.performance.evaluation import evaluate
from afterfit.use_case import UseCase
from made import BOOSTER, made_table, posed, use_case


def settings(target, task="classification", **changes):
    given = {"name": "t", "task": task, "target": target, "source": {"path": "t.csv"}, "split": {"folds": 3}}
    return UseCase.model_validate({**given, **changes})


def same(one, other):
    np.testing.assert_array_equal(one.out_of_fold.prediction, other.out_of_fold.prediction)
    np.testing.assert_array_equal(one.out_of_fold.probabilities, other.out_of_fold.probabilities)
    _, first = one.scorer.score(made_table(90, seed=8))
    _, second = other.scorer.score(made_table(90, seed=8))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


@pytest.mark.parametrize("name", ["hist_gradient_boosting", "random_forest", "linear"])
@pytest.mark.parametrize("time", ["when", None])
def test_the_same_data_settings_and_seed_give_the_same_answers_to_the_bit(name, time):
    case = use_case(time=time)
    params = {"max_features": 0.5} if name == "hist_gradient_boosting" else {}
    same(*(train(posed(case, made_table()), name, params) for _ in range(2)))


def test_another_seed_gives_another_model(trained):
    other = train(posed(use_case(seed=1), made_table()), "hist_gradient_boosting", BOOSTER)
    with pytest.raises(AssertionError):
        same(trained, other)


def test_folds_in_time_learn_nothing_from_what_comes_later():
    frame = made_table()
    changed = frame.copy()
    parts = folds(posed(use_case(), frame), 3)
    border = len(parts[0].y_train) + len(parts[0].y_valid)
    changed.loc[border:, "carrier"] = ["CC", "DD"] * ((len(frame) - border) // 2) + ["CC"] * ((len(frame) - border) % 2)
    changed.loc[border:, ["distance", "seats"]] = [1e6, 9999]
    again = folds(posed(use_case(), changed), 3)[0]
    np.testing.assert_array_equal(again.train, parts[0].train)
    np.testing.assert_array_equal(again.valid, parts[0].valid)
    for fold in parts:
        assert len(fold.y_train) == fold.rows.min()  # all rows before, and none after


def test_the_promise_of_the_first_folds_does_not_depend_on_later_outcomes():
    frame = made_table()
    changed = frame.copy()
    last = folds(posed(use_case(), frame), 3)[-1].rows.min()
    changed.loc[last:, "late"] = ~frame.loc[last:, "late"]
    before, after = (train(posed(use_case(), one), "hist_gradient_boosting", BOOSTER) for one in (frame, changed))
    early = before.rows < last
    np.testing.assert_array_equal(before.out_of_fold.probabilities[early], after.out_of_fold.probabilities[early])
    assert before.metrics["log_loss"].folds[:2] == after.metrics["log_loss"].folds[:2]
    assert before.metrics["log_loss"].folds[2] != after.metrics["log_loss"].folds[2]


def test_out_of_fold_predictions_stand_beside_their_rows(trained):
    frame = made_table()
    y = frame["late"].to_numpy()[trained.rows]
    assert len(trained.out_of_fold) == len(trained.rows) == len(set(trained.rows.tolist()))
    auc = roc_auc_score(y, trained.out_of_fold.probability)
    assert 0.7 < auc < 0.95  # half of them where rows are mixed up
    shuffled = train(posed(use_case(time=None), frame), "linear", {})
    assert sorted(shuffled.rows.tolist()) == list(range(len(frame)))


def test_a_candidate_is_measured_beside_the_dummy_on_the_same_folds(trained):
    assert set(trained.dummy) == set(trained.metrics) == {"log_loss"}
    assert trained.metrics["log_loss"].mean < trained.dummy["log_loss"].mean - 0.03
    y = made_table()["late"].to_numpy()
    np.testing.assert_allclose(trained.scorer.constant(3).probability, y.mean())
    alone = train(posed(use_case(), made_table()), "dummy", {})
    assert alone.dummy["log_loss"].folds[0] == alone.metrics["log_loss"].folds[0]


def test_other_and_missing_mean_something_although_training_had_none():
    frame = made_table(400).assign(distance=lambda table: table["distance"].fillna(900.0))
    problem = posed(use_case(), frame)
    encoder, matrix = encode(problem, np.arange(400), 0)
    carrier = encoder.features.index("carrier")
    assert (matrix[:, carrier] == encoder.sizes[carrier] - 1).sum() == 4
    assert np.isnan(matrix).any(axis=0).all()
    np.testing.assert_array_equal(matrix, encode(problem, np.arange(400), 0)[1])
    clean = encoder.encode_frame(problem.contract.check_frame(problem.frame))
    assert not np.isnan(clean).any()


def test_a_rare_category_is_answered_as_a_new_one_is():
    frame = made_table(400)
    frame.loc[[5, 6, 7], "carrier"] = "rare"
    found = train(posed(use_case(), frame), "hist_gradient_boosting", BOOSTER)
    asked = frame.head(20)
    answers = [found.scorer.score(asked.assign(carrier=name))[1].probabilities for name in ("rare", "new", "BB")]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - answers[2]).max() > 0.01


def test_rows_that_the_contract_refuses_are_left_out_and_counted():
    frame = made_table().astype({"seats": object})
    frame.loc[[4, 9], "seats"] = "many"
    frame.loc[20, "carrier"] = None
    case = use_case(columns={"kinds": {"seats": "integer"}, "required": ["carrier"]})
    problem = posed(case, frame)
    assert problem.refused == 3
    assert len(problem.frame) == len(problem.y) == len(problem.times) == 297
    kept = frame.drop(index=[4, 9, 20])
    np.testing.assert_array_equal(problem.y, kept["late"])
    np.testing.assert_array_equal(problem.times, kept["when"].to_numpy())


def test_a_table_of_which_all_rows_are_refused_says_for_what():
    frame = made_table(60).assign(seats="many")
    with pytest.raises(TrainingError, match=r"of 60 rows 0 are usable.*seats: invalid_number"):
        posed(use_case(columns={"kinds": {"seats": "number"}}), frame)
    with pytest.raises(TrainingError, match="at least 20 usable rows; of 19 rows 19 are usable"):
        posed(use_case(), made_table(19))


def test_several_classes_are_learnt():
    wine = load_wine(as_frame=True)
    case = settings("kind", metrics={"primary": "log_loss", "also": ["accuracy"]})
    found = train(prepare(case, wine.data, wine.target.to_numpy(), ("a", "b", "c")), "hist_gradient_boosting", BOOSTER)
    assert found.metrics["accuracy"].mean > 0.9
    assert found.metrics["log_loss"].mean < found.dummy["log_loss"].mean / 2
    np.testing.assert_allclose(found.out_of_fold.probabilities.sum(axis=1), 1)


def test_a_regression_is_learnt_with_intervals_that_hold():
    diabetes = load_diabetes(as_frame=True)
    metrics = {"also": ["r2", "interval_coverage", "pinball"]}
    case = settings("target", "regression", metrics=metrics)
    found = train(prepare(case, diabetes.data, diabetes.target.to_numpy(), None), "linear", {})
    assert found.metrics["mae"].mean < found.dummy["mae"].mean - 10
    assert found.metrics["r2"].mean > 0.4
    assert 0.85 < found.metrics["interval_coverage"].mean < 0.95
    assert found.metrics["pinball"].mean < found.dummy["pinball"].mean - 0.5
    assert 0.85 < found.dummy["interval_coverage"].mean < 0.95


def test_in_time_the_first_fold_has_no_interval_and_the_later_ones_have():
    case = use_case(task="regression", metrics={"also": ["interval_coverage"]})
    coverage = train(posed(case, made_table()), "linear", {}).metrics["interval_coverage"]
    assert np.isnan(coverage.folds[0])
    assert np.isfinite(coverage.folds[1:]).all()


@pytest.mark.parametrize("rows", [20, 35, 60])
@pytest.mark.parametrize("name", ["hist_gradient_boosting", "random_forest", "linear", "sklearn.svm.LinearSVC"])
def test_tiny_tables_train(rows, name):
    frame = pd.DataFrame(
        {"colour": ["red", "blue"] * (rows // 2) + ["red"] * (rows % 2), "size": np.arange(rows) % 7.0}
    )
    y = (frame["colour"] == "red").to_numpy().astype(int)
    found = train(prepare(settings("y"), frame, y, ("no", "yes")), name, {})
    _, answers = found.scorer.score(frame)
    assert np.isfinite(answers.probabilities).all()
    if name in {"linear", "sklearn.svm.LinearSVC"}:
        np.testing.assert_array_equal(answers.prediction, y)  # the categories of a small table have codes


def test_a_fold_with_one_class_says_what_to_do():
    frame = made_table().assign(late=lambda table: np.arange(len(table)) > 250)
    with pytest.raises(TrainingError, match=r"Fold 1 of 3.*class.*use fewer folds \(split.folds\) or more rows"):
        train(posed(use_case(), frame), "linear", {})


def test_features_that_tell_nothing_do_no_harm():
    frame = made_table().assign(constant=1.0, empty=np.nan, nothing=None)
    case = use_case(columns={"features": ["distance", "carrier", "constant", "empty", "nothing"], "private": []})
    for name in ("hist_gradient_boosting", "linear", "random_forest"):
        found = train(posed(case, frame), name, {})
        assert "empty" not in found.scorer.encoder.features
        assert found.metrics["log_loss"].mean < found.dummy["log_loss"].mean


def test_a_feature_that_begins_late_is_left_out_of_early_folds():
    frame = made_table()
    frame.loc[:200, "distance"] = np.nan
    early, _, late = folds(posed(use_case(), frame), 3)
    assert early.train.shape[1] == early.valid.shape[1] == late.train.shape[1] - 1
    assert np.isfinite(train(posed(use_case(), frame), "linear", {}).metrics["log_loss"].mean)


def test_a_table_without_anything_to_learn_from_is_a_sentence():
    frame = pd.DataFrame({"id": [f"n{k}" for k in range(50)]})
    with pytest.raises(DataError, match="No column can be used as a feature"):
        train(prepare(settings("y"), frame, np.arange(50) % 2, (0, 1)), "linear", {})


def test_an_absent_feature_is_named_with_the_nearest_one():
    case = use_case(columns={"features": ["distanse", "carrier", "altitude"]})
    said = r"'distanse' is absent \(is it 'distance'\?\); 'altitude' is absent\."
    with pytest.raises(SchemaError, match=said):
        posed(case, made_table())


def test_an_ignored_column_that_is_not_there_is_named_with_the_nearest_one():
    case = settings("y", columns={"ignore": ["flightid"]})
    with pytest.raises(SchemaError, match=r"columns.ignore names: 'flightid' is absent \(is it 'flight_id'\?\)"):
        feature_columns(case, ["flight_id", "distance", "y"])


def test_without_named_features_all_columns_but_those_set_aside_are_taken():
    case = settings("y", time="when", key=["id"], columns={"ignore": ["note"]})
    assert feature_columns(case, ["id", "b", "when", "a", "note", "y"]) == ("b", "a")
    with pytest.raises(SchemaError, match="No feature is left"):
        feature_columns(case, ["id", "when", "note", "y"])


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"primary": "roc_auk"}, "roc_auc"),
        ({"also": ["mae"]}, "The metric mae does not measure a binary model; these do: .*log_loss"),
    ],
)
def test_a_metric_that_cannot_measure_this_model_is_said_before_anything_is_fitted(metrics, said):
    with pytest.raises(SettingsError, match=said):
        posed(use_case(metrics=metrics), made_table())


def test_parameters_that_the_estimator_refuses_are_a_sentence_with_their_values():
    with pytest.raises(TrainingError, match=r"hist_gradient_boosting' could not be fitted with .*-1.*learning_rate"):
        train(posed(use_case(), made_table()), "hist_gradient_boosting", {"learning_rate": -1})


def test_progress_is_told_before_each_fit():
    told = []
    train(posed(use_case(), made_table(80)), "dummy", {}, told.append)
    assert told == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3", "all rows"]


def test_the_expected_value_of_the_next_window_lies_within_its_interval_nine_times_of_ten():
    rng = np.random.default_rng(0)
    held = []
    for values in rng.normal(0.7, 0.03, (4000, 6)):
        spread = CVScore.of(values[:5].tolist())
        held.append(spread.low <= values[5] <= spread.high)
    assert 0.885 < np.mean(held) < 0.915


def test_folds_where_a_metric_is_undefined_are_left_out_of_its_spread():
    spread = CVScore.of([0.5, float("nan"), 0.7])
    assert (spread.mean, spread.sd) == (pytest.approx(0.6), pytest.approx(np.std([0.5, 0.7], ddof=1)))
    assert np.isnan(CVScore.of([0.5, float("nan")]).low)
    assert np.isnan(CVScore.of([]).mean)


@pytest.mark.slow
def test_what_the_folds_promise_on_real_flights_is_what_april_keeps():
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    from afterfit import data
    from afterfit.model.builders import build
    from afterfit.model.training import layout
    from afterfit.use_case import load_use_case

    case = load_use_case("flights-late")
    window = data.load(case, start=case.split.train.start, end=case.split.holdout.end)
    learnt, held = data.split(case, window.frame)
    classes = data.classes(case, window.frame["late"])
    y = data.encode_target(case, window.frame["late"], classes)
    problem = prepare(case, window.frame.iloc[learnt].reset_index(drop=True), y[learnt], classes)
    params = case.candidates[0].params
    found = train(problem, "hist_gradient_boosting", params)
    promised = found.metrics["roc_auc"]

    # the usual way: all rows shuffled into five folds, which share their hours and so their weather; two tell enough
    encoder, matrix = encode(problem, np.arange(len(problem.frame)), 0)
    usual = {"max_iter": 150}  # scikit-learn's own settings otherwise
    booster = build("hist_gradient_boosting", layout(encoder), "classification", usual, 0)
    folds = islice(StratifiedKFold(5, shuffle=True, random_state=0).split(matrix, problem.y), 2)
    claimed = cross_val_score(booster, matrix, problem.y, cv=list(folds), scoring="roc_auc").mean()

    _, answers = found.scorer.score(window.frame.iloc[held])
    april = evaluate(["roc_auc"], y[held], answers)["roc_auc"]
    assert claimed > 0.74
    assert 0.665 <= promised.mean <= 0.685
    assert promised.low <= april <= promised.high
    assert abs(april - promised.mean) < abs(april - claimed) / 2
