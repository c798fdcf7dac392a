import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import afterfit
from afterfit.errors import DataError, SettingsError
from afterfit.performance.bootstrap import interval_of, jackknife, label_blocks, time_blocks
from afterfit.performance.evaluation import Predictions, cost_metric, evaluate, metrics_for
from afterfit.performance.paired_comparison import compare_performance, compare_slices


def models(n=2_000, noise=(1.0, 1.0), seed=0, bias=0.0):
    """Outcomes, and two models that see the same signal through noise of their own."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=n)
    y = (random.random(n) < 1 / (1 + np.exp(-(signal - 1)))).astype(int)
    scores = [signal + bias * y + size * random.normal(size=n) for size in noise]
    return y, *(1 / (1 + np.exp(-score)) for score in scores)


def test_the_public_name_is_the_function():
    assert afterfit.compare_performance is compare_performance


def test_a_much_better_candidate_is_better_and_the_other_way_round_worse():
    y, poor, good = models(noise=(2.0, 0.2))
    assert compare_performance(y, poor, good).outcome == "better"
    assert compare_performance(y, good, poor).outcome == "worse"


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1"])
def test_a_positive_difference_is_a_better_candidate_whatever_the_direction(metric):
    y, poor, good = models(noise=(2.0, 0.2))
    found = compare_performance(y, poor, good, metric)
    assert found.difference > 0
    values = [evaluate([metric], y, Predictions.of_probabilities(side))[metric] for side in (poor, good)]
    assert [found.champion, found.candidate] == pytest.approx(values)
    assert abs(found.difference) == pytest.approx(abs(values[1] - values[0]))


def test_swapping_the_sides_turns_the_result_round():
    y, one, other = models()
    there, back = compare_performance(y, one, other), compare_performance(y, other, one)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))


def test_the_same_seed_gives_the_same_result():
    y, one, other = models()
    assert compare_performance(y, one, other, seed=5) == compare_performance(y, one, other, seed=5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["log_loss", "brier", "accuracy", "mae", "mse"]))
def test_the_interval_of_a_mean_over_rows_agrees_with_the_paired_t_interval(seed, metric):
    y, one, other = models(n=400, noise=(0.5, 1.5), seed=seed)
    found = compare_performance(y, one, other, metric, resamples=4_000)
    losses = {
        "log_loss": lambda p: -np.log(np.where(y == 1, p, 1 - p)),
        "accuracy": lambda p: -((p >= 0.5) == y).astype(float),
        "mae": lambda p: abs(p - y),
    }.get(metric, lambda p: (p - y) ** 2)
    paired = losses(one) - losses(other)
    reach = 1.966 * paired.std(ddof=1) / 20
    assert found.difference == pytest.approx(paired.mean())
    assert found.interval == pytest.approx((paired.mean() - reach, paired.mean() + reach), abs=0.2 * reach)


def test_margins_decide_between_better_equivalent_and_inconclusive():
    y, one, other = models(n=10_000, noise=(0.6, 0.4))
    settings = ((0.0, 0.0), (0.05, None), (0.0, 0.05), (0.02, 0.0))
    outcome = {
        (margin, tolerance): compare_performance(
            y, one, other, margin=margin, tolerance=tolerance, resamples=500
        ).outcome
        for margin, tolerance in settings
    }
    assert outcome == {
        (0.0, 0.0): "better",
        (0.05, None): "equivalent",
        (0.0, 0.05): "better",
        (0.02, 0.0): "inconclusive",
    }


def test_a_loss_inside_the_tolerance_is_not_worse():
    y, one, other = models(n=10_000, noise=(0.4, 0.6))
    assert compare_performance(y, one, other, tolerance=0.05, resamples=500).not_worse
    assert not compare_performance(y, one, other, resamples=500).not_worse


def test_identical_answers_are_equivalent_and_say_so():
    y, one, _ = models()
    found = compare_performance(y, one, one.copy())
    assert (found.outcome, found.difference, found.identical) == ("equivalent", 0.0, True)
    assert found.interval == (0.0, 0.0)


def test_other_probabilities_with_the_same_decisions_are_identical_to_accuracy_alone():
    y, one, _ = models()
    squeezed = 0.5 + (one - 0.5) / 2
    assert compare_performance(y, one, squeezed, "accuracy").identical
    assert not compare_performance(y, one, squeezed, "log_loss").identical


def test_one_class_only_is_inconclusive_with_its_reason():
    _, one, other = models()
    found = compare_performance(np.zeros(2_000), one, other)
    assert (found.outcome, found.labels_needed) == ("inconclusive", None)
    assert "undefined" in found.reason
    assert math.isnan(found.difference)


def test_four_positives_are_inconclusive_whatever_they_show():
    y = np.r_[np.ones(4), np.zeros(996)]
    found = compare_performance(y, np.linspace(0, 1, 1_000), np.linspace(1, 0, 1_000))
    assert found.outcome == "inconclusive"
    assert "4.0 effective blocks" in found.reason


def test_as_many_further_outcomes_as_it_asks_for_settle_it():
    y, one, other = models(n=1_000, noise=(0.8, 0.72), seed=4)
    found = compare_performance(y, one, other)
    assert found.outcome == "inconclusive"
    assert found.labels_needed > 0
    times = math.ceil(1.1 * (1 + found.labels_needed / 1_000))
    again = [np.tile(part, times) for part in (y, one, other)]  # the same rows again: the difference stays
    assert compare_performance(*again).outcome in {"better", "worse"}


def test_a_conclusion_needs_no_further_outcomes():
    y, poor, good = models(noise=(2.0, 0.2))
    assert compare_performance(y, poor, good).labels_needed == 0


def test_blocks_widen_the_interval_where_rows_share_their_luck():
    random = np.random.default_rng(1)
    block = np.repeat(np.arange(100), 20)
    y = random.normal(size=2_000)
    luck = random.normal(size=100)[block]
    answers = y + random.normal(size=2_000), y + luck
    alone = compare_performance(y, *answers, metric="mse")
    together = compare_performance(y, *answers, metric="mse", blocks=block)
    assert np.diff(together.interval) > 2 * np.diff(alone.interval)
    assert (together.blocks, alone.blocks) == (100, 2_000)


def test_labels_of_blocks_may_be_text_and_their_order_does_not_matter():
    y, one, other = models()
    numbers = np.arange(2_000) // 50
    text = np.array([f"day {number}" for number in numbers], dtype=object)
    assert compare_performance(y, one, other, blocks=text) == compare_performance(y, one, other, blocks=numbers)


def test_rows_without_a_block_are_counted_in_a_sentence():
    y, one, other = models()
    blocks = np.arange(2_000.0)
    blocks[:3] = np.nan
    with pytest.raises(DataError, match="3 of 2000 have none"):
        compare_performance(y, one, other, blocks=blocks)
    times = pd.Series(pd.date_range("2013-01-01", periods=2_000, freq="h"))
    times[7] = pd.NaT
    with pytest.raises(DataError, match="1 of 2000 have none"):
        compare_performance(y, one, other, blocks=times)


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_are_cut_into_blocks_with_or_without_a_zone(zone):
    y, one, other = models()
    times = pd.Series(pd.date_range("2013-01-01", periods=2_000, freq="5min", tz=zone))
    found = compare_performance(y, one, other, blocks=times)
    assert found.block_length == "10 minutes"
    assert found.blocks == 1_000


TIMES = np.datetime64("2013-01-01") + np.arange(60 * 24 * 4).astype("timedelta64[m]") * 15


def test_time_blocks_of_independent_rows_are_often_the_shortest_that_are_not_too_many():
    lengths = [time_blocks(TIMES, np.random.default_rng(seed).normal(size=len(TIMES))).length for seed in range(60)]
    assert lengths.count("3 hours") >= 18  # half are expected


def test_time_blocks_are_at_least_as_long_as_what_their_rows_share():
    hours = np.timedelta64(1, "h")
    for seed in range(20):
        random = np.random.default_rng(seed)
        values = random.normal(size=len(TIMES)) + 3 * np.repeat(random.normal(size=60), 96)
        blocks = time_blocks(TIMES, values)
        assert (TIMES[-1] - TIMES[0]) / hours / blocks.count > 11.9


def test_time_blocks_are_the_longest_where_everything_hangs_together_and_where_nothing_is_known():
    assert time_blocks(TIMES, np.linspace(0, 1, len(TIMES))).length == time_blocks(TIMES).length == "1 week"


def test_luck_that_outlasts_every_block_widens_the_interval_and_costs_blocks():
    luck = np.repeat(np.random.default_rng(0).normal(size=8), 250)  # as long as an eighth of the window
    y, signal = np.zeros(2_000), np.random.default_rng(1).normal(size=2_000)
    times = TIMES[:2_000]
    found = compare_performance(y, signal, signal + luck, "mae", times)
    blocks = time_blocks(times).take(np.arange(2_000))
    without = compare_performance(y, signal, signal + luck, "mae", blocks.ids)
    assert found.blocks == without.blocks
    assert found.effective_blocks < 0.8 * without.effective_blocks
    assert np.diff(found.interval) > 1.1 * np.diff(without.interval)


def test_time_blocks_keep_the_order_of_time_and_miss_no_row():
    times = np.datetime64("2013-01-01") + np.random.default_rng(0).permutation(5_000).astype("timedelta64[m]")
    blocks = time_blocks(times)
    assert blocks.count == len(np.unique(blocks.ids)) == blocks.ids.max() + 1
    assert np.all(np.diff(blocks.ids[np.argsort(times)]) >= 0)


def test_effective_blocks_are_fewer_where_sizes_differ_and_where_a_class_is_rare():
    blocks = label_blocks(np.r_[np.zeros(90), np.arange(1, 11)], 100)
    assert blocks.effective() == pytest.approx(100**2 / (90**2 + 10))
    assert label_blocks(None, 100).effective(np.r_[np.ones(7), np.zeros(93)]) == 7


def test_a_jackknife_of_a_mean_is_each_blocks_distance_from_it():
    values = np.arange(6.0)
    blocks = label_blocks([0, 0, 1, 1, 2, 2], 6)
    sums = np.bincount(blocks.ids, weights=values)
    influence = jackknife(lambda weights: weights @ sums / (weights.sum(axis=1) * 2), blocks)
    assert influence == pytest.approx([2.5 - 3.5, 0.0, 2.5 - 1.5])


def test_few_blocks_give_an_interval_as_wide_as_student_and_rough_ends_are_smoothed():
    draws = np.random.default_rng(0).normal(size=200_000) * np.sqrt(9 / 10)  # as a bootstrap of 10 blocks spreads
    low, high = interval_of(0.0, draws, 10.0, 0.95)
    assert (high - low) / 2 == pytest.approx(2.262, rel=0.02)
    low, high = interval_of(0.0, draws[:500], 10.0, 0.999)
    assert (high - low) / 2 == pytest.approx(4.781, rel=0.1)


@pytest.mark.parametrize("rows", [1, 3])
def test_answers_of_another_length_are_refused(rows):
    with pytest.raises(DataError, match="need the same rows"):
        compare_performance([0, 1], np.zeros(2), np.zeros(rows))


def test_nan_answers_are_refused_with_their_count():
    y, one, other = models()
    other[:4] = np.nan
    with pytest.raises(DataError, match="4 of 2000 of the candidate's answers are NaN"):
        compare_performance(y, one, other)


def test_nan_outcomes_are_refused_with_their_count():
    _, one, other = models()
    y = np.r_[np.nan, np.nan, np.ones(1_998)]
    with pytest.raises(DataError, match="2 of 2000 outcomes are NaN"):
        compare_performance(y, one, other)


def test_outcomes_may_be_a_column_of_a_table_and_a_missing_one_is_counted():
    y, one, other = models()
    column = pd.Series(y, dtype="Int64")
    assert compare_performance(column, one, other) == compare_performance(y, one, other)
    column[5] = pd.NA
    with pytest.raises(DataError, match="1 of 2000 outcomes are NaN"):
        compare_performance(column, one, other)


@pytest.mark.parametrize(
    ("y", "sentence"), [([], "at least one row"), (["late", "on time"], "class indices"), ([[0, 1]], "one a row")]
)
def test_no_rows_and_outcomes_as_text_are_refused(y, sentence):
    with pytest.raises(DataError, match=sentence):
        compare_performance(y, np.zeros(len(y)), np.zeros(len(y)))


@pytest.mark.parametrize(
    "options",
    [{"margin": -0.1}, {"tolerance": -1.0}, {"margin": np.nan}, {"resamples": 5}, {"confidence": 1.0}, {"metric": "x"}],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(SettingsError):
        compare_performance([0, 1], [0.1, 0.2], [0.2, 0.1], **options)


def test_class_indices_numbers_and_several_classes_may_be_compared_as_plain_arrays():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 900)
    good, poor = np.where(random.random((2, 900)) < [[0.9], [0.5]], y, (y + 1) % 3)
    assert compare_performance(y, poor, good, "accuracy").outcome == "better"
    assert compare_performance(y, poor, good, "macro_f1").outcome == "better"
    tables = [np.eye(3)[side] * 0.8 + 0.2 / 3 for side in (poor, good)]
    assert compare_performance(y, *tables, metric="log_loss").outcome == "better"
    assert compare_performance(y, *tables, metric="roc_auc").outcome == "better"
    assert (
        compare_performance(y, poor, good, "rmse").candidate
        == evaluate(["rmse"], y, Predictions.of_values(good))["rmse"]
    )


# The share of rows inside the interval is best near 90 %: neither more nor less of it is a gain.
@pytest.mark.parametrize("metric", sorted(set(metrics_for("regression", intervals=True)) - {"interval_coverage"}))
def test_regressions_are_compared_by_every_metric_of_theirs(metric):
    random = np.random.default_rng(0)
    y = random.normal(size=800)
    poor, good = (
        Predictions.of_values(centre, centre - 1.6 * size, centre + 1.6 * size)
        for size in (1.5, 0.5)
        for centre in [y + size * random.normal(size=800)]
    )
    assert compare_performance(y, poor, good, metric).outcome == "better"
    assert compare_performance(y, good, poor, metric).outcome == "worse"


def test_value_in_money_is_compared_like_any_metric():
    y, poor, good = models(noise=(2.0, 0.2), bias=2.0)
    found = compare_performance(y, poor, good, cost_metric({0: {1: 1.0}, 1: {0: 5.0}}, (0, 1)))
    assert (found.metric, found.outcome) == ("value", "better")


def test_a_result_is_json_even_where_nothing_could_be_told():
    _, one, other = models()
    found = json.loads(json.dumps(compare_performance(np.zeros(2_000), one, other).to_dict(), allow_nan=False))
    assert found["interval"] == [None, None]
    assert found["outcome"] == "inconclusive"


def test_a_candidate_better_overall_and_much_worse_for_one_carrier_shows_in_its_slice():
    y, poor, good = models(n=6_000, noise=(1.5, 0.3))
    carrier = np.where(np.arange(6_000) % 6 == 0, "AA", "B6")
    good[carrier == "AA"] = np.random.default_rng(0).random(1_000)
    assert compare_performance(y, poor, good).outcome == "better"
    found = {part.value: part.comparison for part in compare_slices(y, poor, good, {"carrier": carrier})}
    assert {value: one.outcome for value, one in found.items()} == {"AA": "worse", "B6": "better"}
    assert all(one.confidence == pytest.approx(0.975) for one in found.values())


def test_slices_of_equal_models_are_all_in_order_in_as_many_cases_as_promised():
    found = 0
    for seed in range(100):
        y, one, other = models(n=800, seed=seed)
        parts = compare_slices(
            y, one, other, {"part": np.arange(800) % 4}, metric="brier", smallest=50, resamples=200, seed=seed
        )
        found += any(part.comparison.outcome != "inconclusive" for part in parts)
    assert found <= 12  # 5 of 100 promised; 12 or fewer in 99.8 % of such trials


@pytest.mark.parametrize(("metric", "blocked"), [("roc_auc", False), ("roc_auc", True), ("brier", True)])
def test_intervals_of_equal_models_hold_nothing_in_95_percent(metric, blocked):
    held = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        block = np.repeat(np.arange(40), 10)
        luck = random.normal(size=(3, 40))[:, block] if blocked else np.zeros((3, 400))
        signal = random.normal(size=400) + 0.5 * luck[0]
        y = (random.random(400) < 1 / (1 + np.exp(-signal))).astype(int)
        sides = [1 / (1 + np.exp(-(signal + random.normal(size=400) + 0.7 * own))) for own in luck[1:]]
        low, high = compare_performance(
            y, *sides, metric, block if blocked else None, resamples=400, seed=seed
        ).interval
        held += low <= 0 <= high
    assert 0.91 <= held / 300 <= 0.98  # 0.95 give or take three standard errors
