"""The benchmarks of time and memory, small."""

import argparse
import os
import shutil
import subprocess
import sys

import pytest

from made import ROOT, bench_module
from made_loop import settings

WEEKLY = {"preset": "calendar", "minimum_outcomes": 100, "every": "1w"}


@pytest.mark.slow
@pytest.mark.usefixtures("empty_store")
def test_monitor_is_timed_as_a_process(tmp_path):
    with bench_module("shared.sample").store(tmp_path, every=20) as config:
        seconds, peak = bench_module("speed.monitor").timed(2_000, tmp_path, str(config))
    assert seconds > 0
    assert peak > 50


def test_the_speed_benchmark_runs_without_peers(capsys):
    seconds = bench_module("speed.drift").compared(3_000, 0, None)
    assert seconds["Evidently"] is None
    assert "SciPy: not installed" in capsys.readouterr().out


def test_the_stream_benchmark_reads_every_row_it_wrote(tmp_path):
    import afterfit

    drift = bench_module("speed.drift")
    drift.write_parquet(tmp_path, 260_000, 0)
    assert afterfit.profile(drift.row_groups(tmp_path)).rows == 260_000


@pytest.mark.slow
def test_a_backtest_over_two_processes_is_measured_and_leaves_no_rows_behind(tmp_path, empty_store):
    bench = bench_module("speed.backtest")
    shutil.copy(empty_store, tmp_path)
    options = argparse.Namespace(
        config=settings(tmp_path, policy=WEEKLY),
        policies="never,own",
        end="2024-02-19",
        delay="24",
        processes=2,
        page=None,
    )
    answer = bench.measure(options, tmp_path, "")
    lines = bench.told(answer)
    assert "times the" in lines[0]
    assert answer["memory"] > 1e8
    own = next(one for one in answer["policies"] if one["policy"] == "own")
    assert own["retrainings"] >= 1
    assert not list(tmp_path.rglob("*.history"))


def answer(metric, values, trained=(0, 8, 2)):
    """What the command answers of never, calendar and cautious, as far as lines are made of it."""
    names = ("never", "calendar", "cautious")
    policies = [
        {"policy": name, f"mean_{metric}": value, "retrainings": count}
        for name, value, count in zip(names, values, trained, strict=True)
    ]
    return {"metric": metric, "policies": policies, "recommended": "cautious"}


def test_several_starts_give_a_line_each(monkeypatch, capsys):
    bench = bench_module("speed.backtest")
    found = {"2024-01-29": answer("roc_auc", (0.6, 0.7, 0.68)), "2024-02-05": answer("roc_auc", (0.6, 0.65, 0.65))}
    monkeypatch.setattr(bench, "measure", lambda _options, _folder, start: found[start])
    assert bench.main(["--start", "2024-01-29,2024-02-05", "--policies", "never,calendar,cautious"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [(line.split()[0], line.split("keeps ")[1][:4]) for line in lines] == [
        ("2024-01-29", "80% "),
        ("2024-02-05", "100%"),
    ]


@pytest.mark.parametrize(
    ("metric", "values", "said"),
    [
        (
            "roc_auc",
            (0.6, 0.7, 0.68),
            "cautious keeps 80% of what calendar gains (+0.1000), with 2 of its 8 retrainings",
        ),
        (
            "mae",
            (30.0, 20.0, 25.0),
            "cautious keeps 50% of what calendar gains (+10.0000), with 2 of its 8 retrainings",
        ),
        ("rmse", (26.0, 27.0, 26.5), "calendar gains nothing (-1.0000), cautious -0.5000"),
    ],
)
def test_what_is_kept_of_a_gain_does_not_depend_on_the_metrics_direction(metric, values, said):
    bench = bench_module("speed.backtest")
    assert bench.kept(answer(metric, values)) == said


def test_the_speed_bench_measures_both_ways():
    seconds = bench_module("speed.gate").speed(rows=300, resamples=100)
    assert len(seconds) == 3
    assert min(seconds.values()) > 0


@pytest.mark.slow
def test_scoring_is_measured_against_the_booster_alone():
    scoring = bench_module("speed.scoring")
    found = scoring.measure(rows=3000, repeats=1)
    assert found["rows"] == 3000
    assert found["ratio"] == pytest.approx(found["score"] / found["floor"])
    assert found["peak_mb"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("empty_store")
@pytest.mark.filterwarnings("ignore::UserWarning")  # MLflow's advice on the plain pipeline's signature and example
def test_both_models_are_served_and_asked(tmp_path, monkeypatch):
    served, config = bench_module("speed.served"), bench_module("shared.sample").use_case(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/unused.db")
    monkeypatch.chdir(tmp_path)
    found = served.measure(seconds=0.5, rounds=1, params={"max_iter": 5}, config=str(config))
    assert set(found) == {1, 8}
    for sides in found.values():
        assert all(requests > 0 and latency > 0 for requests, latency in sides.values())


@pytest.mark.parametrize("tool", ["threads", "wrk"])
def test_a_server_is_asked_and_every_answer_counted(tool):
    load = bench_module("shared.load")
    servers = bench_module("shared.servers")
    if tool == "wrk" and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    port, starting = servers.empty()
    with starting as (process, seconds):
        found = load.ask(port, "/predict", ["{}", '{"a": 1}'], 2, 1, tool=tool)
        assert servers.memory(process, "python") > 5
    assert seconds > 0
    assert found.failed == 0
    assert found.requests > 0
    assert found.rate > 0
    assert found.p99 >= found.median > 0


def test_ratios_stand_beside_their_targets():
    load = bench_module("shared.load")
    serving = bench_module("speed.serving")

    def one(rate):
        return load.Load(rate, 1.0, 100 / rate, 0, 10)

    sides = {"acknowledged": one(40), "buffered": one(50), "empty route": one(100), "mlflow models serve": one(1)}
    found = {
        "one row, 8 connections": {**sides, "BentoML": one(2)},
        "linear, one row, 32 connections": {"linear": one(30), "mlflow models serve": one(1)},
        "1,000 rows, 2 connections": {"thousand": one(12), "mlflow models serve": one(2)},
        "megabytes": {"acknowledged": 200.0, "buffered": 210.0},
        "seconds until ready": {"acknowledged": 3.0, "buffered": 3.5, "BentoML": 9.0},
    }
    ratios = {what: value for what, value, _ in serving.compared(found)}
    assert ratios["one row: ours / mlflow models serve"] == 40
    assert ratios["one row: ours / BentoML"] == 20
    assert ratios["one row, buffered: ours / empty route"] == 0.5
    assert ratios["1,000 rows: ours / mlflow models serve"] == 6
    assert ratios["slowest start of ours, s"] == 3.5


def test_the_encoder_bench_measures_both_sides_and_prints_a_table(capsys):
    assert bench_module("speed.encoder").main(["--rows", "500", "--repeats", "1", "--singles", "20"]) == 0
    printed = capsys.readouterr().out
    assert "500 flights, 16 columns" in printed
    assert "ColumnTransformer" in printed


def test_the_log_is_measured(tmp_path):
    command = [sys.executable, "-m", "bench.speed.prediction_log", "--rows", "2000", "--answers", "64"]
    command += ["--days", "20"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'scripts'}"}
    command += ["--folder", tmp_path]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    assert told.count("µs an answer") == 8
    assert told.count("peak") == 2
    assert told.count("times bare reads") == 2
