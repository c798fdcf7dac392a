import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.model.calibration import SMALLEST_ISOTONIC, Calibration, conformal_offsets, fit_calibration


def two_columns(positive):
    return np.column_stack([1 - positive, positive])


def scored(rows, seed=0, *, sharpness=1.0):
    """Probabilities that are too sure by `sharpness`, and outcomes that follow the true ones."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.2, rows)
    hit = rng.random(rows) < 1 / (1 + np.exp(-odds))
    return two_columns(1 / (1 + np.exp(-sharpness * odds))), hit.astype(np.int64)


@pytest.mark.parametrize(("rarer", "method"), [(SMALLEST_ISOTONIC - 1, "sigmoid"), (SMALLEST_ISOTONIC, "isotonic")])
def test_the_rarer_class_decides_between_sigmoid_and_isotonic(rarer, method):
    y = np.repeat([0, 1], [4000, rarer])
    raw = two_columns(np.clip(np.random.default_rng(0).normal(0.4 + 0.2 * y, 0.15), 0, 1))
    assert fit_calibration(raw, y).curves[0].method == method


@pytest.mark.parametrize("rows", [600, 12_000])
def test_probabilities_that_are_too_sure_come_back_to_what_happens(rows):
    raw, y = scored(rows, sharpness=3.0)
    fitted = fit_calibration(raw, y)
    raw, y = scored(40_000, seed=1, sharpness=3.0)

    def furthest(answered):
        tenths = np.array_split(np.argsort(answered), 10)
        return max(abs(answered[part].mean() - y[part].mean()) for part in tenths)

    assert furthest(raw[:, 1]) > 0.15
    assert furthest(fitted(raw)[:, 1]) < 0.05


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([30, 300, 4000]), st.sampled_from([2, 3, 5]), st.floats(-2, 3))
def test_answers_are_probabilities_of_which_each_row_sums_to_one(seed, rows, k, skill):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, rows)
    odds = rng.normal(0, 3, (rows, k)) + skill * np.eye(k)[y]
    raw = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    fitted = fit_calibration(raw, y)
    if fitted is not None:
        answered = fitted(raw)
        assert answered.min() >= 0
        np.testing.assert_allclose(answered.sum(axis=1), 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([40, 400, 6000]), st.lists(st.floats(0, 1), min_size=2), st.booleans())
def test_a_higher_score_never_gets_a_lower_probability(seed, rows, scores, coarse):
    raw, y = scored(rows, seed, sharpness=2.0)
    fitted = fit_calibration(np.round(raw, 1) if coarse else raw, y)
    answered = fitted(two_columns(np.sort(scores)))[:, 1]
    assert np.all(np.diff(answered) >= 0)


@pytest.mark.parametrize("rows", [500, 12_000])
def test_rows_keep_their_order_and_no_two_scores_become_one(rows):
    raw, y = scored(rows)
    ordered = np.unique(np.concatenate([raw[:, 1], [0.0, 1e-6, 1 - 1e-6, 1.0]]))
    answered = fit_calibration(raw, y)(two_columns(ordered))[:, 1]
    assert np.all(np.diff(answered) > 0)


def test_scores_at_the_very_ends_are_answered_by_what_happened_there():
    y = np.repeat([1, 0, 1, 0], [1800, 200, 200, 1800])
    raw = two_columns(np.repeat([1.0, 1.0, 0.0, 0.0], [1800, 200, 200, 1800]))
    np.testing.assert_allclose(fit_calibration(raw, y)(two_columns(np.array([0.0, 1.0])))[:, 1], [0.1, 0.9], atol=0.001)


@pytest.mark.parametrize("rows", [20, 300, 6000])
def test_no_row_gets_certainty_from_outcomes_that_all_agree(rows):
    y = np.arange(rows) % 2
    answered = fit_calibration(two_columns(y.astype(float)), y)(two_columns(np.array([0.0, 0.3, 0.7, 1.0])))
    assert answered.min() > 0
    assert answered.max() < 1


@pytest.mark.parametrize("y", [[0, 0, 0, 0], [0, 0, 0, 1]])
def test_a_class_without_rows_to_learn_from_gives_no_calibration(y):
    assert fit_calibration(two_columns(np.array([0.1, 0.2, 0.3, 0.9])), np.array(y)) is None


def test_scores_that_mean_the_opposite_become_the_share_of_the_class():
    raw, y = scored(400)
    answered = fit_calibration(1 - raw, y)(raw)[:, 1]
    np.testing.assert_allclose(answered, y.mean())


@pytest.mark.parametrize("rows", [300, 9000])
@pytest.mark.parametrize("k", [2, 3])
def test_calibration_survives_json_to_the_bit(rows, k):
    rng = np.random.default_rng(k)
    raw = rng.dirichlet(np.ones(k), rows)
    fitted = fit_calibration(raw, rng.integers(0, k, rows))
    again = Calibration.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert again == fitted
    np.testing.assert_array_equal(again(raw), fitted(raw))


def test_no_rows_give_no_answers():
    raw, y = scored(300)
    assert fit_calibration(raw, y)(np.empty((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("rows", [39, 200, 1000])
def test_the_interval_covers_nine_of_ten_new_outcomes(rows):
    rng = np.random.default_rng(rows)
    covered = []
    for _ in range(600):
        residuals = rng.gamma(2.0, 5.0, rows + 200) - 8.0  # skewed: each tail has its own length
        low, high = conformal_offsets(residuals[:rows], np.zeros(rows))
        covered.append(np.mean((residuals[rows:] >= low) & (residuals[rows:] <= high)))
    assert 0.895 <= np.mean(covered) <= 0.915  # it covers 0.9 to 0.9 + 2 / (n + 1)


def test_the_interval_takes_the_exact_ranks_of_the_residuals():
    assert conformal_offsets(np.arange(-19.0, 20.0), np.zeros(39)) == (-18.0, 18.0)


def test_few_rows_give_the_widest_residuals():
    assert conformal_offsets(np.array([1.0, 5.0, 3.0]), np.array([3.0, 3.0, 3.0])) == (-2.0, 2.0)


def test_the_prediction_always_lies_in_its_own_interval():
    assert conformal_offsets(np.linspace(2.0, 3.0, 100), np.zeros(100))[0] == 0.0
    assert conformal_offsets(np.linspace(-3.0, -2.0, 100), np.zeros(100))[1] == 0.0
