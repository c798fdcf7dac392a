import numpy as np
import pytest

from made import bench_module


@pytest.fixture
def bench():
    """Load a benchmark."""
    return bench_module


def test_flights_windows_of_another_seed_hold_the_two_figures(bench, capsys):
    false_alarms = bench("quality.false_alarms")
    options = ["flights", "--seed", "424242", "--windows", "40", "--changes", "48"]
    false_alarms.main(options)
    said = capsys.readouterr().out.splitlines()[0]
    alarms, found = (float(part.split("%")[0]) for part in (said.split("false alarms")[1], said.split("found")[1]))
    assert alarms <= 2.5, "at most 1 of 40"
    assert found >= 95.0, "at most 2 of 48"


def test_a_made_table_without_drift_is_quiet_at_each_size(bench):
    false_alarms = bench("quality.false_alarms")
    detect = false_alarms.afterfit_detector(false_alarms.credit(20_000, 0))
    assert not any(detect([false_alarms.credit(rows, 1 + rows) for rows in (50, 200, 1_000, 5_000)]))


def test_a_change_is_made_in_its_column_only(bench):
    false_alarms = bench("quality.false_alarms")
    table = false_alarms.credit(2_000, 0)
    rng = np.random.default_rng(0)
    for change in false_alarms.changes(table, 16, rng):
        made = change.make(table, rng)
        assert [c for c in table if not made[c].astype(object).equals(table[c].astype(object))] == [change.column]


def test_the_speed_benchmark_runs_without_peers(bench, capsys):
    seconds = bench("speed.drift").compared(3_000, 0, None)
    assert seconds["Evidently"] is None
    assert "SciPy: not installed" in capsys.readouterr().out


def test_the_stream_benchmark_reads_every_row_it_wrote(bench, tmp_path):
    import afterfit

    drift = bench("speed.drift")
    drift.write_parquet(tmp_path, 260_000, 0)
    assert afterfit.profile(drift.row_groups(tmp_path)).rows == 260_000
