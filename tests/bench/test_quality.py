"""The benchmarks of what is decided, small."""

import argparse

import numpy as np
import pytest

from made import bench_module
from made_loop import settings, table


@pytest.fixture(scope="module")
def comparison():
    return bench_module("quality.comparison")


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


def test_flights_windows_of_another_seed_hold_the_two_figures(capsys):
    false_alarms = bench_module("quality.false_alarms")
    options = ["flights", "--seed", "424242", "--windows", "40", "--changes", "48"]
    false_alarms.main(options)
    said = capsys.readouterr().out.splitlines()[0]
    alarms, found = (float(part.split("%")[0]) for part in (said.split("false alarms")[1], said.split("found")[1]))
    assert alarms <= 2.5, "at most 1 of 40"
    assert found >= 95.0, "at most 2 of 48"


def test_a_made_table_without_drift_is_quiet_at_each_size():
    false_alarms = bench_module("quality.false_alarms")
    detect = false_alarms.afterfit_detector(false_alarms.credit(20_000, 0))
    assert not any(detect([false_alarms.credit(rows, 1 + rows) for rows in (50, 200, 1_000, 5_000)]))


def test_a_change_is_made_in_its_column_only():
    false_alarms = bench_module("quality.false_alarms")
    table = false_alarms.credit(2_000, 0)
    rng = np.random.default_rng(0)
    for change in false_alarms.changes(table, 16, rng):
        made = change.make(table, rng)
        assert [c for c in table if not made[c].astype(object).equals(table[c].astype(object))] == [change.column]


def test_made_data_with_each_kind_of_shift_are_estimated_and_counted(monkeypatch, capsys):
    estimate = bench_module("quality.estimate")
    monkeypatch.setattr(estimate, "STRETCH", 200)
    monkeypatch.setattr(estimate, "WINDOWS", 3)
    found = estimate.made(1, 1_000)
    assert set(found) == {"none", "covariate", "label", "concept"}
    for shares in found.values():
        assert all(0.0 <= held <= 1.0 for held in shares.values())
    assert "held" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("empty_store")
@pytest.mark.parametrize(("policy", "delay"), [("calendar", 24.0), ("cautious", 240.0)])
def test_the_live_loop_through_the_log_does_what_the_backtest_said(tmp_path, policy, delay):
    """Some outcomes never come, and those of a window come after its end."""
    bench = bench_module("quality.agreement")
    frame = table()
    frame["late"] = frame["late"].astype("boolean").mask(np.random.default_rng(0).random(len(frame)) < 0.1)
    options = argparse.Namespace(
        config=settings(tmp_path), policy=policy, start="2024-01-29", end="2024-02-19", every="1w", delay=delay
    )
    frame.to_csv(tmp_path / "changing.csv", index=False)
    (tmp_path / "lived").mkdir()
    lines, apart = bench.compared(options, tmp_path / "lived")
    assert apart == 0, "\n".join(lines)
    assert lines[-1].startswith("3 of 3 windows are the same")


def test_what_is_not_the_same_is_told_with_its_place():
    bench = bench_module("quality.agreement")
    one = bench.Seen("w", "nothing", "", [], {"drift": {"alarm": False}}, "nothing", None, "", "1")
    other = bench.replace(one, observed={"drift": {"alarm": True}}, production="2")
    assert bench.differences(one, other, last=True) == ["observed.drift.alarm: False and True"]
    assert "production: 1 and 2" in bench.differences(one, other, last=False)
