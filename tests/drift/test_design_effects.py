from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import afterfit
from afterfit.drift import design_effects

MINUTE = 60


def test_units_go_from_the_finest_that_is_not_too_fine_to_the_coarsest_that_is_repeated():
    minutes = np.arange(50_000) * MINUTE
    assert design_effects.choose_units(minutes) == ("10 minutes", "hour", "6 hours", "day")


def test_units_that_hold_the_same_rows_as_the_next_are_left_out():
    hours = np.repeat(np.arange(2_000), 5) * 3_600
    assert design_effects.choose_units(hours)[0] == "hour"


def test_too_little_time_has_no_units():
    assert design_effects.choose_units(np.zeros(100, dtype=np.int64)) == ()
    assert design_effects.choose_units(np.full(100, design_effects.MISSING_TIME)) == ()


def test_each_unit_is_cut_by_the_next():
    lengths = [length for _, length in design_effects.UNITS]
    assert all(coarse % fine == 0 for fine, coarse in pairwise(lengths))


@given(rows=st.lists(st.integers(1, 5), min_size=60, max_size=100), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_values_shared_by_an_hour_and_nothing_else_correlate_in_the_hour_only(rows, seed):
    seconds = np.repeat(np.arange(len(rows)) * 3_600, np.array(rows) + 1)
    values = np.random.default_rng(seed).normal(size=len(rows))[seconds // 3_600]
    sample = design_effects.cut_into_blocks(seconds, ("hour",))
    sums = np.add.reduceat(values - values.mean(), sample.starts)[:, None]
    (lag,) = design_effects.lag_correlations(sums, np.array([values.var()]), sample)
    assert lag[0] == pytest.approx(1.0, abs=0.6)


def test_the_variance_of_a_difference_is_the_one_that_simulation_gives():
    rng = np.random.default_rng(0)
    hours = np.repeat(np.arange(30 * 24), 6)
    units, sizes = ("hour", "day"), (30 * 24, 30)
    window, reference = hours < 60, hours >= 10 * 24

    def draw():
        return (rng.normal(size=30)[hours // 24] + rng.normal(size=720)[hours] + rng.normal(size=len(hours))) / np.sqrt(
            3
        )

    draws = [draw() for _ in range(3_000)]
    simulated = np.var([values[window].mean() - values[reference].mean() for values in draws])
    counts = [dict(zip(*np.unique(hours[rows], return_counts=True), strict=True)) for rows in (window, reference)]
    spread = design_effects.time_dependence(*counts, (int(window.sum()), int(reference.sum())), units, sizes)
    design = spread.design_effect(np.array([[2 / 3], [1 / 3]]))
    assert design[0] * spread.rows == pytest.approx(simulated, rel=0.12)


def test_a_window_drawn_from_the_same_hours_as_the_reference_has_no_design_effect():
    reference = dict.fromkeys(range(500), 100)
    window = dict.fromkeys(range(500), 4)
    drawn = design_effects.time_dependence(window, reference, (2_000, 50_000), ("hour",), (500,))
    following = design_effects.time_dependence({1_000: 2_000}, reference, (2_000, 50_000), ("hour",), (500,))
    assert drawn.design_effect(np.array([[0.9]]))[0] == 1.0
    assert following.design_effect(np.array([[0.9]]))[0] > 1_000


def test_a_window_without_times_is_taken_to_follow_the_reference():
    reference = dict.fromkeys(range(500), 100)
    units = ("hour",), (500,)
    untold = design_effects.time_dependence({}, reference, (2_000, 50_000), *units)
    following = design_effects.time_dependence({500 + i: 100 for i in range(20)}, reference, (2_000, 50_000), *units)
    assert untold.design_effect(np.array([[0.5]])) == pytest.approx(following.design_effect(np.array([[0.5]])))


def test_without_units_each_row_counts_for_one():
    spread = design_effects.time_dependence({}, {}, (100, 100), (), ())
    assert spread.design_effect(np.zeros((0, 3))).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", None])
def test_times_in_any_zone_or_as_text_give_the_same_blocks(zone):
    times = pd.date_range("2024-01-01", periods=3_000, freq="min", tz="UTC")
    shown = times.astype(str) if zone is None else times.tz_convert(zone)
    frame = pd.DataFrame({"when": shown, "x": np.arange(3_000.0)})
    plain = pd.DataFrame({"when": times.tz_localize(None), "x": np.arange(3_000.0)})
    assert afterfit.profile(frame, time="when").blocks == afterfit.profile(plain, time="when").blocks


def dependent(rng, rows, memory):
    from scipy.signal import lfilter

    noise = rng.normal(size=(rows, 5)) * np.sqrt(1 - memory**2)
    frame = pd.DataFrame(lfilter([1.0], [1.0, -memory], noise, axis=0), columns=list("abcde"))
    return frame.assign(time=pd.date_range("2024-01-01", periods=rows, freq="min"))


@pytest.mark.parametrize("memory", [0.9, 0.99])
def test_the_false_alarm_rate_holds_on_autocorrelated_rows_where_independent_tests_alarm_nearly_always(memory):
    frame = dependent(np.random.default_rng(1), 80_000, memory)
    reference, rest = frame.iloc[:30_000], frame.iloc[30_000:]
    learnt, blind = afterfit.profile(reference, time="time"), afterfit.profile(reference.drop(columns="time"))
    windows = [rest.iloc[start : start + 1_000] for start in range(0, len(rest), 1_000)]
    false = [afterfit.compare_drift(learnt, window).alarm for window in windows]
    naive = [afterfit.compare_drift(blind, window.drop(columns="time")).alarm for window in windows]
    assert sum(false) <= 3, "binomial(50, 1 %) is above 3 once in 600 runs"
    assert np.mean(naive) > 0.7


def test_a_large_change_is_found_on_autocorrelated_rows_too():
    frame = dependent(np.random.default_rng(2), 40_000, 0.9)
    learnt = afterfit.profile(frame.iloc[:30_000], time="time")
    report = afterfit.compare_drift(learnt, frame.iloc[30_000:].assign(b=lambda window: window["b"] + 0.8))
    assert [name for name, column in report.columns.items() if column.alarm] == ["b"]
    assert "time" not in report.columns
    assert report.columns["b"].findings[0].effective_rows < 3_000


def test_rows_without_a_time_are_counted_and_belong_to_no_block():
    times = pd.date_range("2024-01-01", periods=3_000, freq="min").to_series().mask(np.arange(3_000) % 3 == 0)
    learnt = afterfit.profile(pd.DataFrame({"when": times.to_numpy(), "x": np.arange(3_000.0)}), time="when")
    assert learnt.rows == 3_000
    assert sum(learnt.blocks.values()) == 2_000
