"""The benchmarks of the loop run, small: a backtest over two processes, and steps that are killed."""

import argparse
import os
import subprocess
import sys

import pytest

from made import BENCH, bench_module
from test_step import settings


@pytest.mark.slow
def test_a_backtest_over_two_processes_is_measured_and_leaves_no_rows_behind(tmp_path):
    bench = bench_module("backtest")
    options = argparse.Namespace(
        config=settings(tmp_path, policy={"preset": "calendar", "minimum_outcomes": 100, "every": "1w"}),
        policies="never,own",
        start="",
        end="2024-02-19",
        delay="24",
        processes=2,
        page=None,
    )
    answer = bench.measure(options, tmp_path)
    lines = bench.told(answer)
    assert "times the" in lines[0]
    assert answer["memory"] > 1e8
    own = next(one for one in answer["policies"] if one["policy"] == "own")
    assert own["retrainings"] >= 1
    assert not list(tmp_path.rglob("*.history"))


@pytest.mark.slow
def test_a_killed_step_is_finished_by_the_next(tmp_path):
    words = [sys.executable, str(BENCH / "crashes_step.py"), "--kills", "1"]
    env = {**os.environ, "PYTHONPATH": str(BENCH.parents[1] / "src"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was done twice" in done.stdout
