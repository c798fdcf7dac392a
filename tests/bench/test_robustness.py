"""The benchmarks of kills, rubbish and promotions under load, small."""

import os
import subprocess
import sys

import pytest

from made import ROOT, bench_module


@pytest.mark.slow
@pytest.mark.usefixtures("empty_store")
def test_promotions_under_load_lose_no_request_and_every_answer_is_its_versions_own():
    reload = bench_module("robustness.reload")
    few = {"workers": 1, "connections": 2, "pause": 0.02, "builders": ("", "linear")}
    found = reload.measure(promotions=2, every=0.5, grace=120.0, **few)
    assert found["promotions"] == 2
    assert found["requests"] > 0
    assert (found["failed"], found["wrong"], found["not in production at their time"]) == (0, 0, 0), found


def test_answers_of_the_wrong_version_time_or_number_are_counted():
    reload = bench_module("robustness.reload")
    held = [reload.Held("1", 0.0, 10.0), reload.Held("2", 9.0, float("inf"))]

    def answer(version, sent, answered):
        return {"version": version, "sent": sent, "answered": answered}

    early, late = answer("2", 8.0, 8.5), answer("1", 13.5, 13.6)
    good = [answer("1", 1, 1.1), answer("1", 12.5, 12.6), answer("2", 8.9, 9.1), answer("2", 20, 20.1)]
    assert reload.out_of_time([*good, early, late], held, 3.0) == [early, late]
    assert reload.lags([*good, late], held) == [3.5]


@pytest.mark.slow
@pytest.mark.usefixtures("empty_store")
def test_rubbish_and_requests_made_from_the_description_neither_fail_nor_end_a_real_server():
    fuzz = bench_module("robustness.fuzz")
    found = fuzz.measure(bodies=200, examples=3, seed=1, held=300, held_seconds=1.0, rest=0.1)
    assert found["bodies"] == 200
    assert found["made from the description"] > 20
    assert found["faults"] == []
    assert found["the worker lived"]
    assert found["megabytes at the peak"] > 50
    assert found["rows answered"] == found["rows read from the log"] > 0


def test_a_fault_is_seen_as_one():
    fuzz = bench_module("robustness.fuzz")
    assert fuzz.fault(500, b"{}", "/predict").startswith("500 at /predict")
    assert not fuzz.fault(503, b'{"code": "a", "message": "b", "detail": null}', "/predict")
    assert "another form" in fuzz.fault(400, b'{"error": 1}', "/predict")
    assert "must not" in fuzz.fault(422, b'{"code": "a", "message": "in /tmp/x", "detail": null}', "/predict")


@pytest.mark.slow
def test_a_killed_step_is_finished_by_the_next(tmp_path):
    words = [sys.executable, "-m", "bench.robustness.crashes_step", "--kills", "1"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'scripts'}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was done twice" in done.stdout


def test_killed_processes_leave_every_acknowledged_answer_exactly_once(monkeypatch):
    crashes_log = bench_module("robustness.crashes_log")

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    found = crashes_log.measure(kills=3, seed=1, longest=0.3)
    assert found["acknowledged"] > 100
    assert (found["absent"], found["doubled"], found["spools left"]) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["seal", "clock"])
def test_sealing_that_is_killed_leaves_every_acknowledged_answer_exactly_once(monkeypatch, kind):
    crashes_seal = bench_module("robustness.crashes_seal")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    found = crashes_seal.measure(kind, kills=1, seed=1, longest=0.3)
    assert found["logged"] >= found["acknowledged"]
    assert not crashes_seal.wrong(found), found


@pytest.mark.slow
def test_a_store_that_goes_away_in_the_middle_of_a_command_is_a_sentence(tmp_path):
    words = [sys.executable, "-m", "bench.robustness.crashes_commands", "--times", "1", "--kinds", "outcomes,monitor"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'scripts'}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
