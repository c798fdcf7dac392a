import shutil

import pytest

from made import bench_module


@pytest.mark.slow
def test_scoring_is_measured_against_the_booster_alone():
    scoring = bench_module("speed.scoring")

    found = scoring.measure(rows=3000, repeats=1)
    assert found["rows"] == 3000
    assert found["ratio"] == pytest.approx(found["score"] / found["floor"])
    assert found["peak_mb"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # MLflow's advice on the plain pipeline's signature and example
def test_both_models_are_served_and_asked(tmp_path, monkeypatch):
    served = bench_module("speed.served")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/unused.db")
    monkeypatch.chdir(tmp_path)
    found = served.measure(seconds=0.5, rounds=1, params={"max_iter": 5})
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
    assert found.rate > 50
    assert found.requests == pytest.approx(found.rate, rel=0.5)
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
