import numpy as np
import pytest

from made import bench_module


@pytest.fixture(scope="module")
def comparison():
    return bench_module("quality.comparison")


def test_the_speed_bench_measures_both_ways():
    seconds = bench_module("speed.gate").speed(rows=300, resamples=100)
    assert len(seconds) == 3
    assert min(seconds.values()) > 0


@pytest.mark.parametrize("kind", ["rows", "hours"])
def test_a_candidate_of_the_simulation_differs_in_its_population_by_what_was_asked_for(comparison, kind):
    population, draw = comparison.settings(kind, 20_000)
    for wanted in comparison.TRUTHS.values():
        share, truth = comparison.share_for(population, wanted)
        assert truth == pytest.approx(wanted, abs=1e-4)
        assert 0 < share < 1
    window = draw(np.random.default_rng(0), 500)
    assert len(window.y) == len(window.champion) == len(window.candidate(share)) == 500


def test_the_table_has_a_line_for_each_truth_and_size(comparison):
    lines = list(comparison.table(["hours"], [300, 600], [3, 2], resamples=100, population_rows=20_000))
    assert [(line["truth"], line["rows"]) for line in lines] == [
        (truth, rows) for truth in comparison.TRUTHS for rows in (300, 600)
    ]
    assert all(0 <= line["coverage"] <= 1 for line in lines)


def test_hours_are_drawn_whole(comparison):
    random = np.random.default_rng(0)
    blocks = np.repeat(np.arange(40), random.integers(1, 9, 40))
    number = np.arange(len(blocks))
    population = comparison.Window(number % 2, number * 1.0, (number, number), blocks)
    window = comparison.drawn_hours(population)(random, 60)
    for block in np.unique(window.blocks):
        rows = window.champion[window.blocks == block].astype(int)
        assert list(rows) == list(np.flatnonzero(blocks == blocks[rows[0]]))


def test_the_whole_gate_is_counted_by_verdict():
    rates = bench_module("quality.gate_rates")
    found = rates.line("rows", 0.0, rows=600, windows=2, seed=0, population_rows=20_000)
    assert found["PROMOTE"] + found["HOLD"] + found["REJECT"] == pytest.approx(1.0)
    assert 0 <= found["point"] <= 1
