import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from afterfit.errors import DataError, SettingsError
from afterfit.performance.evaluation import (
    METRICS,
    Metric,
    Predictions,
    by_slice,
    cost_metric,
    evaluate,
    interval,
    metric,
    metrics_for,
    outcome_metric,
    value,
)
from afterfit.performance.metrics import of_function


def binary(n=500, seed=0, decimals=2):
    random = np.random.default_rng(seed)
    y = (random.random(n) < 0.3).astype(int)
    score = np.round(1 / (1 + np.exp(-(y + random.normal(size=n) - 0.7))), decimals)
    return y, Predictions.of_probabilities(np.clip(score, 0.01, 0.99))


def several(n=600, k=4, seed=0):
    random = np.random.default_rng(seed)
    y = random.integers(0, k, n)
    table = np.exp(random.normal(size=(n, k)) + 1.5 * np.eye(k)[y])
    return y, Predictions.of_probabilities(table / table.sum(axis=1, keepdims=True))


def numbers(n=401, seed=0):
    random = np.random.default_rng(seed)
    y = 1e4 + random.normal(size=n)
    centre = y + random.normal(size=n)
    return y, Predictions.of_values(centre, centre - 1.6, centre + 1.6)


def pinball(y, p, w):
    return (
        sk.mean_pinball_loss(y, p.lower, sample_weight=w, alpha=0.05)
        + sk.mean_pinball_loss(y, p.upper, sample_weight=w, alpha=0.95)
    ) / 2


def macro_auc(y, p, w):
    return np.mean([sk.roc_auc_score(y == k, p.probabilities[:, k], sample_weight=w) for k in range(4)])


BINARY = {
    "roc_auc": lambda y, p, w: sk.roc_auc_score(y, p.probability, sample_weight=w),
    "average_precision": lambda y, p, w: sk.average_precision_score(y, p.probability, sample_weight=w),
    "log_loss": lambda y, p, w: sk.log_loss(y, p.probability, sample_weight=w),
    "brier": lambda y, p, w: sk.brier_score_loss(y, p.probability, sample_weight=w),
    "accuracy": lambda y, p, w: sk.accuracy_score(y, p.prediction, sample_weight=w),
    "balanced_accuracy": lambda y, p, w: sk.balanced_accuracy_score(y, p.prediction, sample_weight=w),
    "f1": lambda y, p, w: sk.f1_score(y, p.prediction, sample_weight=w),
    "macro_f1": lambda y, p, w: sk.f1_score(y, p.prediction, sample_weight=w, average="macro"),
    "precision": lambda y, p, w: sk.precision_score(y, p.prediction, sample_weight=w),
    "recall": lambda y, p, w: sk.recall_score(y, p.prediction, sample_weight=w),
}
MULTICLASS = {
    "roc_auc": macro_auc,
    "log_loss": lambda y, p, w: sk.log_loss(y, p.probabilities, sample_weight=w),
    "accuracy": BINARY["accuracy"],
    "balanced_accuracy": BINARY["balanced_accuracy"],
    "macro_f1": BINARY["macro_f1"],
}
REGRESSION = {
    "mae": lambda y, p, w: sk.mean_absolute_error(y, p.prediction, sample_weight=w),
    "mse": lambda y, p, w: sk.mean_squared_error(y, p.prediction, sample_weight=w),
    "rmse": lambda y, p, w: sk.root_mean_squared_error(y, p.prediction, sample_weight=w),
    "r2": lambda y, p, w: sk.r2_score(y, p.prediction, sample_weight=w),
    "median_absolute_error": lambda y, p, w: np.median(np.repeat(np.abs(y - p.prediction), w.astype(int))),
    "pinball": pinball,
    "interval_coverage": lambda y, p, w: np.average((p.lower <= y) & (y <= p.upper), weights=w),
}
CASES = [
    (name, make, oracle)
    for make, oracles in ((binary, BINARY), (several, MULTICLASS), (numbers, REGRESSION))
    for name, oracle in oracles.items()
]


def test_every_metric_is_held_against_an_oracle_for_every_kind_of_model_that_it_measures():
    checked = {(name, make.__name__) for name, make, _ in CASES}
    kinds = {"binary": "binary", "multiclass": "several", "regression": "numbers"}
    assert checked == {(name, kinds[task]) for name, one in METRICS.items() for task in one.tasks}


@pytest.mark.parametrize(("name", "make", "oracle"), CASES, ids=lambda part: getattr(part, "__name__", str(part)))
@pytest.mark.parametrize("seed", range(3))
def test_a_metric_equals_its_oracle_with_and_without_weights(name, make, oracle, seed):
    y, predictions = make(seed=seed)
    weight = np.random.default_rng(seed + 100).integers(0, 4, len(y)).astype(float)
    assert evaluate([name], y, predictions)[name] == pytest.approx(oracle(y, predictions, np.ones(len(y))), rel=1e-9)
    weighted = evaluate([name], y, predictions, weight=weight)[name]
    assert weighted == pytest.approx(oracle(y, predictions, weight), rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=30))
def test_auc_and_average_precision_are_exact_under_any_ties_and_whole_weights(rows):
    y, score, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    repeated = np.repeat(y, weight.astype(int)), np.repeat(score, weight.astype(int))
    found = evaluate(["roc_auc", "average_precision"], y, Predictions.of_probabilities(score / 4), weight=weight)
    if 0 < repeated[0].sum() < len(repeated[0]):
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(*repeated))
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(*repeated))
    else:
        assert np.isnan(found["roc_auc"])


@pytest.mark.parametrize("name", METRICS)
def test_groups_of_rows_under_weights_give_the_same_as_rows_taken_that_often(name):
    y, predictions = binary() if "binary" in METRICS[name].tasks else numbers()
    groups = np.arange(len(y)) % 7
    times = np.array([2, 0, 1, 3, 1, 0, 1])
    rows = np.repeat(np.arange(len(y)), times[groups])
    weighted = METRICS[name].formula(y, predictions, groups, 7)(times[None, :].astype(float))[0]
    assert weighted == pytest.approx(METRICS[name](y[rows], predictions.take(rows)), rel=1e-9)


@pytest.mark.parametrize("name", sorted(set(metrics_for("binary")) - {"log_loss", "brier", "accuracy", "recall"}))
def test_what_one_class_leaves_undefined_is_nan_and_never_zero(name):
    nobody = Predictions.of_probabilities(np.full(10, 0.2))
    found = evaluate([name], np.zeros(10), nobody)[name]
    assert np.isnan(found) or (name == "macro_f1" and found == 1.0)


def test_recall_without_positives_and_r2_of_a_constant_target_are_nan():
    assert np.isnan(evaluate(["recall"], np.zeros(4), Predictions.of_probabilities([0.1, 0.9, 0.9, 0.1]))["recall"])
    assert np.isnan(evaluate(["r2"], np.full(6, 0.1), Predictions.of_values(np.arange(6.0)))["r2"])


def test_no_rows_at_all_are_nan():
    empty = Predictions.of_probabilities(np.empty(0))
    assert all(np.isnan(found) for found in evaluate(metrics_for("binary"), np.empty(0), empty).values())


def test_an_unknown_metric_names_the_nearest_one():
    with pytest.raises(SettingsError, match=r"no metric 'roc_acu'\. Did you mean roc_auc\?"):
        metric("roc_acu")


def test_a_metric_for_another_kind_of_model_is_refused():
    with pytest.raises(SettingsError, match="rmse measures regression; the predictions are of a binary"):
        evaluate(["rmse"], *binary())
    with pytest.raises(DataError, match="lower and upper ends"):
        evaluate(["pinball"], np.arange(3.0), Predictions.of_values(np.arange(3.0)))


def test_nan_answers_are_counted_in_a_sentence():
    y, predictions = binary()
    predictions.probabilities[[3, 5]] = np.nan
    with pytest.raises(DataError, match="2 of 500 predictions are NaN or infinite"):
        evaluate(["roc_auc"], y, predictions)


@pytest.mark.parametrize("y", [[0, 1, 2], [0.0, 0.5, 1.0], [-1, 0, 1]])
def test_outcomes_that_are_no_class_index_are_refused(y):
    with pytest.raises(DataError, match="class indices 0 to 1"):
        evaluate(["accuracy"], y, Predictions.of_probabilities([0.1, 0.2, 0.3]))


def test_a_probability_beyond_one_is_refused_by_losses_and_taken_as_a_score_by_ranks():
    y, scores = np.array([0, 1, 1]), Predictions.of_probabilities([-2.0, 3.0, 1.0])
    assert evaluate(["roc_auc"], y, scores) == {"roc_auc": 1.0}
    with pytest.raises(DataError, match="probabilities from 0 to 1"):
        evaluate(["log_loss"], y, scores)


@pytest.mark.parametrize("weight", [[1.0], [-1.0, 1.0, 1.0], [np.nan, 1.0, 1.0]])
def test_weights_must_be_one_number_a_row_and_not_negative(weight):
    with pytest.raises(DataError, match="Weights must be 3 numbers"):
        evaluate(["accuracy"], [0, 1, 1], Predictions.of_probabilities([0.1, 0.2, 0.3]), weight=weight)


def test_a_metric_of_ones_own_is_a_function_and_a_direction():
    def miss(y, predictions, weight):
        return np.average(predictions.prediction != y, weights=weight)

    own = Metric("miss", frozenset({"binary"}), "prediction", of_function(miss), greater_is_better=False)
    y, predictions = binary()
    assert evaluate([own], y, predictions)["miss"] == pytest.approx(
        1 - evaluate(["accuracy"], y, predictions)["accuracy"]
    )
    accuracy, missed = (interval(one, y, predictions, resamples=200) for one in ("accuracy", own))
    assert missed == pytest.approx((1 - accuracy[0], 1 - accuracy[2], 1 - accuracy[1]), abs=0.002)


def test_an_interval_is_the_same_for_the_same_seed_and_holds_its_value():
    y, predictions = binary()
    point, low, high = interval("roc_auc", y, predictions, seed=3)
    assert (point, low, high) == interval("roc_auc", y, predictions, seed=3)
    assert low < point < high
    assert (low, high) != interval("roc_auc", y, predictions, seed=4)[1:]


def test_an_interval_of_a_mean_is_as_wide_as_student_says():
    y, predictions = numbers(n=40)
    _, low, high = interval("mae", y, predictions, resamples=20_000)
    errors = np.abs(y - predictions.prediction)
    assert (high - low) / 2 == pytest.approx(2.0227 * errors.std(ddof=1) / np.sqrt(40), rel=0.05)


def test_rows_that_come_ten_times_over_are_known_for_it_by_their_blocks():
    y, predictions = binary(n=300)
    rows = np.repeat(np.arange(300), 10)
    alone = interval("log_loss", y, predictions)
    naive = interval("log_loss", y[rows], predictions.take(rows))
    blocked = interval("log_loss", y[rows], predictions.take(rows), blocks=rows)
    width = [high - low for _, low, high in (alone, naive, blocked)]
    assert width[1] < 0.4 * width[0]
    assert width[2] == pytest.approx(width[0], rel=0.02)


def test_three_positives_give_no_interval():
    y = np.r_[np.ones(3), np.zeros(500)]
    _, low, high = interval("roc_auc", y, Predictions.of_probabilities(np.linspace(1, 0, 503)))
    assert (low, high) == (-np.inf, np.inf)


def test_slices_are_the_values_of_a_category_with_small_ones_together():
    y, predictions = binary()
    carrier = np.array(["AA"] * 300 + ["B6"] * 100 + ["OO"] * 40 + ["HA"] * 60, dtype=object)
    carrier[-1] = None
    found = by_slice(["roc_auc", "accuracy"], y, predictions, {"carrier": carrier}, smallest=70)
    assert [(part.value, part.n) for part in found] == [("AA", 300), ("B6", 100), ("(rest)", 100)]
    rows = np.flatnonzero(carrier == "B6")
    assert found[1].metrics == evaluate(["roc_auc", "accuracy"], y[rows], predictions.take(rows))


def test_a_number_is_cut_at_its_quartiles_and_missing_values_are_a_slice():
    y, predictions = binary()
    distance = np.arange(500.0)
    distance[:100] = np.nan
    found = by_slice(["accuracy"], y, predictions, pd.DataFrame({"distance": distance}))
    assert sorted(part.n for part in found) == [100] * 5
    assert "(missing)" in {part.value for part in found}


def test_infinite_numbers_have_their_range_and_small_whole_ones_their_own_slices():
    y, predictions = binary()
    columns = {"gust": np.r_[np.arange(300.0), np.full(200, np.inf)], "stops": np.arange(500) % 3 * 1.0}
    found = {(part.column, part.value): part.n for part in by_slice(["accuracy"], y, predictions, columns)}
    assert {value: n for (column, value), n in found.items() if column == "stops"} == {"0": 167, "1": 167, "2": 166}
    assert found["gust", "inf or more"] == 200
    assert found["gust", "below 125"] == 125


def test_slices_of_another_length_are_refused():
    with pytest.raises(DataError, match="carrier has 3 values for 500 rows"):
        by_slice(["accuracy"], *binary(), {"carrier": ["a", "b", "c"]})


def test_value_in_money_is_the_costs_of_the_errors_made():
    predictions = Predictions.of_probabilities([0.9, 0.9, 0.1, 0.1, 0.1], classes=("on time", "late"))
    costs = {"on time": {"late": 5}, "late": {"on time": 20.5, "late": -2}}
    money = value([1, 0, 0, 1, 1], predictions, costs)
    assert (money.total, money.per_row, money.n) == (2 - 5 - 20.5 - 20.5, -44 / 5, 5)
    own = cost_metric(costs, ("on time", "late"))
    assert evaluate([own], [1, 0, 0, 1, 1], predictions) == {"value": pytest.approx(-44 / 5)}


def test_value_may_be_a_function_of_prediction_and_outcome_by_its_dotted_name():
    predictions = Predictions.of_probabilities([0.9, 0.1, 0.1], classes=("on time", "late"))
    assert value([1, 1, 0], predictions, "made.late_money").total == -4.0
    assert value([1.0, 2.0], Predictions.of_values([1.0, 4.0]), lambda told, came: -abs(told - came)).total == -2.0


@pytest.mark.parametrize("name", ["nowhere.at_all", "numpy.no_such_thing", "plain", "numpy.pi"])
def test_a_value_function_that_is_not_there_is_a_settings_error(name):
    with pytest.raises(SettingsError, match=r"function"):
        outcome_metric(name)


def test_a_value_function_must_answer_every_row():
    with pytest.raises(DataError, match="one finite number a row, 2 in all"):
        value([1.0, 2.0], Predictions.of_values([1.0, 4.0]), lambda *_: 3.0)


@pytest.mark.parametrize(
    ("costs", "sentence"),
    [({"lat": {"late": 1}}, "Did you mean late"), ({"late": {"on time": "much"}}, "must be a number; it is 'much'")],
)
def test_a_table_of_costs_with_a_slip_is_a_settings_error(costs, sentence):
    with pytest.raises(SettingsError, match=sentence):
        cost_metric(costs, ("on time", "late"))


def test_predictions_know_their_confidence_labels_and_task():
    predictions = Predictions.of_probabilities([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]], classes=("a", "b", "c"))
    assert predictions.task == "multiclass"
    assert list(predictions.labels) == ["b", "a"]
    assert list(predictions.confidence) == [0.5, 0.7]
    assert Predictions.of_values([1.0]).confidence is None
    assert list(Predictions.of_probabilities([0.4, 0.6], threshold=0.3).prediction) == [1, 1]


def test_predictions_of_different_lengths_are_refused():
    with pytest.raises(DataError, match="prediction has 2 rows and lower has 1"):
        Predictions.of_values([1.0, 2.0], lower=[1.0])
    with pytest.raises(DataError, match="need the same rows; there are 3 and 2"):
        evaluate(["mae"], [1.0, 2.0, 3.0], Predictions.of_values([1.0, 2.0]))


def test_no_metric_warns_on_the_way():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(metrics_for("binary"), np.zeros(5), Predictions.of_probabilities(np.zeros(5)))
        evaluate(metrics_for("regression"), np.zeros(5), Predictions.of_values(np.zeros(5)))
