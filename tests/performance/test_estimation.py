"""Performance without outcomes: unbiased where probabilities are right, corrected where they are not."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.performance import error_map, estimation, forecast, recalibration
from afterfit.performance.error_map import ErrorMap, learn_errormap
from afterfit.performance.estimation import CalibrationEvidence, WindowAnswers
from afterfit.performance.evaluation import cost_metric
from afterfit.performance.forecast import LevelObservation
from afterfit.performance.metrics import METRICS, metric
from afterfit.performance.predictions import Predictions

BINARY = [one for one in METRICS.values() if "binary" in one.tasks]
NUMBERS = [one for one in METRICS.values() if "regression" in one.tasks]
CENTRE = recalibration.centre_of((0.7, 0.3), 2)
MINUTE = np.timedelta64(1, "m")


def probabilities(rows, seed=0):
    return np.random.default_rng(seed).beta(1.2, 2.8, rows)


def drawn(p, seed=0):
    return (np.random.default_rng(seed).random(len(p)) < p).astype(np.int64)


def answers(p, start="2024-01-01", **given):
    times = np.datetime64(start, "us") + np.arange(len(p)) * MINUTE
    return WindowAnswers(Predictions.of_probabilities(p), None, CENTRE, times, **given)


def shifted(p, by):
    return recalibration.shift_probabilities(np.column_stack([1 - p, p]), CENTRE, np.array([by, 0.0]))[:, 1]


# Expected values.


@pytest.mark.parametrize("one", BINARY, ids=lambda one: one.name)
def test_what_calibrated_probabilities_expect_is_what_is_realised_on_average(one):
    p = probabilities(1_500)
    predictions = Predictions.of_probabilities(p)
    expected = estimation.plug_in([one], answers(p))[one.name]
    real = np.array([one(drawn(p, seed), predictions) for seed in range(200)])
    assert expected == pytest.approx(real.mean(), abs=4 * real.std() / np.sqrt(200) + 0.002)


def test_the_value_in_money_and_several_classes_are_expected_too():
    table = np.random.default_rng(1).dirichlet([2, 1, 1], 2_000)
    predictions = Predictions.of_probabilities(table)
    money = cost_metric({1: {0: 5.0}, 2: {0: 9.0}, 0: {1: 1.0}}, (0, 1, 2))
    wanted = [money, metric("accuracy"), metric("log_loss"), metric("macro_f1"), metric("roc_auc")]
    found = estimation.estimate(wanted, WindowAnswers(predictions, None, recalibration.centre_of((0.5, 0.25, 0.25), 3)))
    y = (np.random.default_rng(2).random((2_000, 1)) > np.cumsum(table, axis=1)[:, :-1]).sum(axis=1)
    for one in wanted:
        assert found[one.name].low < one(y, predictions) < found[one.name].high
        assert found[one.name].value == pytest.approx(one(y, predictions), abs=0.25 if one is money else 0.04)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_rows_changes_nothing_but_rounding(seed):
    p = probabilities(400, seed)
    order = np.random.default_rng(seed).permutation(len(p))
    one, other = (estimation.plug_in(BINARY, answers(some)) for some in (p, p[order]))
    assert one == pytest.approx(other, rel=1e-9)


# Corrections.


def test_a_shift_that_outcomes_show_is_found_with_its_error():
    p = probabilities(20_000)
    past = estimation.learn(answers(p), drawn(shifted(p, 0.8)))
    assert past.off[0] == pytest.approx(0.8, abs=4 * past.variance[0] ** 0.5)
    assert past.off[1] == pytest.approx(0.0, abs=4 * past.variance[1] ** 0.5)
    assert CalibrationEvidence.from_dict(past.to_dict()) == past


def test_windows_that_were_all_off_alike_put_the_next_estimate_right():
    past = []
    for month in range(1, 7):
        p = probabilities(3_000, month)
        past.append(
            estimation.learn(answers(p, f"2024-0{month}-01"), drawn(shifted(p, -0.7)), pd.Timestamp(2024, month, 3))
        )
    p = probabilities(3_000, 99)
    y, predictions = drawn(shifted(p, -0.7), 99), Predictions.of_probabilities(p)
    wanted = [metric("log_loss"), metric("accuracy")]
    plain, found = (
        estimation.plug_in(wanted, answers(p)),
        estimation.estimate(wanted, answers(p, "2024-06-05"), (), past),
    )
    for one in wanted:
        real = one(y, predictions)
        assert abs(found[one.name].value - real) < abs(plain[one.name] - real) / 2


def test_the_later_outcomes_come_the_wider_is_the_interval():
    ends = [pd.Timestamp(2024, 1, 3) + pd.Timedelta(2 * i, "D") for i in range(5)]
    offs = (0.0, 0.4, 0.7, 1.0, 0.6)
    past = [
        CalibrationEvidence(end.isoformat(), 3_000, (off, 0.0), (0.01, 0.01), (1.0, 1.0))
        for end, off in zip(ends, offs, strict=True)
    ]
    p = probabilities(3_000)
    widths = []
    for start in ("2024-01-11", "2024-01-19", "2024-02-08"):
        one = estimation.estimate([metric("accuracy")], answers(p, start), (), past)["accuracy"]
        widths.append(one.high - one.low)
    assert widths[0] < widths[1] < widths[2]


def test_intervals_hold_nine_of_ten_windows_of_a_world_that_does_not_move():
    held = []
    for seed in range(25):
        p = probabilities(700, seed)
        one = estimation.estimate([metric("roc_auc")], answers(p))["roc_auc"]
        held.append(one.low <= metric("roc_auc")(drawn(p, 1_000 + seed), Predictions.of_probabilities(p)) <= one.high)
    assert sum(held) >= 20  # fewer than 20 of 25 at 90 % would come by chance 3 times in 100; the seeds are fixed


def test_the_forecast_follows_a_level_that_stays_and_doubts_one_that_jumps():
    steady = [LevelObservation(0.5, 0.001, 1.0)] * 8
    jumping = [LevelObservation((-1.0) ** i * 0.6, 0.001, 1.0) for i in range(8)]
    near, far = forecast.forecast(steady, 1.0), forecast.forecast(jumping, 1.0)
    assert near.centre == pytest.approx(0.5, abs=0.15)
    assert abs(far.centre) < 0.3
    assert near.draws(2_000, 0.0, 0).std() < far.draws(2_000, 0.0, 0).std() / 2
    assert forecast.forecast([], 1.0).centre == 0.0


# What cannot be estimated.


def test_ten_rows_no_probabilities_and_lost_support_are_sentences_not_numbers():
    wanted = [metric("accuracy")]
    few = estimation.estimate(wanted, answers(probabilities(10)))["accuracy"]
    assert few.value is None
    assert few.reason == "An estimate needs at least 50 rows with an answer; there are 10."
    bare = WindowAnswers(Predictions(np.zeros(80, dtype=int), classes=(0, 1)), None, CENTRE)
    assert "no probabilities" in estimation.estimate(wanted, bare)["accuracy"].reason
    lost = answers(probabilities(100), outside=0.9)
    assert "90% of the rows lie outside" in estimation.estimate(wanted, lost)["accuracy"].reason
    like = CalibrationEvidence(None, 100, (), (), (), outside=0.8)
    assert estimation.estimate(wanted, lost, (), [like])["accuracy"].value is not None


def test_one_class_alone_is_learnt_from_without_running_to_infinity():
    p = probabilities(500)
    past = estimation.learn(answers(p), np.zeros(500, dtype=int))
    assert -6 <= past.off[0] < -1
    assert np.isfinite(past.variance).all()
    found = estimation.estimate([metric("log_loss")], answers(p), (), [past] * 3)["log_loss"]
    assert found.low <= found.value <= found.high


# Regions and numbers.


def regression(rows, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2))
    return x, x[:, 0] + rng.normal(size=rows) * np.where(x[:, 1] > 0, 3.0, 0.5)


def test_expected_errors_follow_where_the_rows_lie():
    x, y = regression(6_000)
    known = learn_errormap(x, y, Predictions.of_values(x[:, 0]), None, (0.0,), 5)
    wanted = [metric("mae"), metric("rmse")]
    for side in (-1.0, 1.0):
        x, y = regression(4_000, 7)
        inside = x[:, 1] * side > 0.3
        x, y = x[inside], y[inside]
        predictions = Predictions.of_values(x[:, 0])
        rows = WindowAnswers(predictions, known.errors_at(x, predictions), np.empty(0))
        found = estimation.estimate(wanted, rows, known.folds)
        for one in wanted:
            assert found[one.name].value == pytest.approx(one(y, predictions), rel=0.12)
            assert found[one.name].low < one(y, predictions) < found[one.name].high


def test_larger_errors_in_past_windows_make_larger_ones_expected():
    x, y = regression(4_000)
    known = learn_errormap(x, y, Predictions.of_values(x[:, 0]), None, (0.0,), 5)
    predictions = Predictions.of_values(x[:, 0])
    rows = WindowAnswers(predictions, known.errors_at(x, predictions), np.empty(0))
    past = [estimation.learn(rows, x[:, 0] + 2 * (y - x[:, 0])) for _ in range(6)]
    before, after = (estimation.estimate([metric("mae")], rows, (), some)["mae"].value for some in ([], past))
    assert after == pytest.approx(2 * before, rel=0.15)


def test_errors_move_and_grow_as_told():
    points = np.array([[-1.0, 0.0, 1.0]] * 4)
    assert recalibration.shift_errors(points, np.array([0.0, np.log(2)])) == pytest.approx(2 * points)
    assert recalibration.shift_errors(points, np.array([1.5, 0.0])) == pytest.approx(points + 1.0)


def test_regions_where_probabilities_are_off_are_put_right_and_chance_is_not():
    rng = np.random.default_rng(0)
    x, p = rng.normal(size=(8_000, 2)), np.full(8_000, 0.3)
    truth = shifted(p, 0.0)
    truth = np.where(x[:, 0] > 0.5, 0.6, truth * 0.72)
    known = learn_errormap(x, drawn(truth), Predictions.of_probabilities(p), None, (0.7, 0.3), 5)
    at = known.errors_at(np.array([[1.0, 0.0], [0.0, 0.0]]), Predictions.of_probabilities(np.array([0.3, 0.3])))
    assert at[0, 0] > 0.5
    assert at[1, 0] < 0.0
    none = learn_errormap(x, drawn(p), Predictions.of_probabilities(p), None, (0.7, 0.3), 5)
    assert max(abs(value) for (value,) in none.points.values()) < 0.05


def test_the_tree_of_regions_survives_being_written_and_takes_missing_values():
    x, y = regression(1_000)
    x[::7, 1] = np.nan
    known = learn_errormap(
        x, y, Predictions.of_values(x[:, 0]), np.datetime64("2024-01-01") + np.arange(1_000) * MINUTE, (0.0,), 4
    )
    again = ErrorMap.from_dict(json.loads(known.to_json()))
    assert again == known
    assert len(known.folds) == 4
    leaves = known.regions(np.column_stack([x, x[:, 0]]))
    assert set(leaves.tolist()) == set(known.points)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=300))
@settings(max_examples=40, deadline=None)
def test_points_keep_the_mean_and_the_spread_of_errors(errors):
    points = np.array(error_map.points_of(np.array(errors)))
    assert points.mean() == pytest.approx(np.mean(errors), abs=1e-6)
    if np.ptp(errors) > 1e-3:
        assert points.std() == pytest.approx(np.std(errors), rel=1e-6)


def test_a_regression_without_known_errors_says_what_to_do():
    bare = WindowAnswers(Predictions.of_values(np.zeros(100)), None, np.empty(0))
    assert "train a new one" in estimation.estimate([metric("mae")], bare)["mae"].reason
    known = replace(bare, points=np.tile([-1.0, 1.0], (100, 1)))
    found = estimation.estimate(NUMBERS, known)
    assert found["mae"].value == pytest.approx(1.0)
    assert "ends of intervals" in found["pinball"].reason
