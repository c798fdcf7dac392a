"""The benchmarks of the loop run, small: a backtest over two processes, and steps that are killed."""

import argparse
import os
import subprocess
import sys

import numpy as np
import pytest

from made import ROOT, bench_module
from made_loop import settings, table

WEEKLY = {"preset": "calendar", "minimum_outcomes": 100, "every": "1w"}


@pytest.mark.slow
def test_a_backtest_over_two_processes_is_measured_and_leaves_no_rows_behind(tmp_path):
    bench = bench_module("speed.backtest")
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_killed_step_is_finished_by_the_next(tmp_path):
    words = [sys.executable, "-m", "bench.robustness.crashes_step", "--kills", "1"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'scripts'}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was done twice" in done.stdout
