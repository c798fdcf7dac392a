"""What the paired comparison costs, beside a loop over scikit-learn in the same run; and its peak memory.

Speed: the difference in AUC of two models on the same rows with a block bootstrap, against as many pairs of
scikit-learn's roc_auc_score on rows drawn with replacement. Memory: the same comparison on many rows, in a process of
its own (interpreter, libraries and the arrays counted). A whole promotion: the flights of April and some of May judge
a second version against the one in production, as `promote` does it, in a process of its own with a store of its own.

    PYTHONPATH=src:scripts python -m bench.speed.gate
    PYTHONPATH=src:scripts python -m bench.speed.gate --promote
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from afterfit.performance.paired_comparison import compare_performance

TARGET_SPEED = 10.0
TARGET_MEMORY = 500.0
TARGET_PROMOTE = 15.0
SCRIPTS = Path(__file__).parents[2]


def models(rows: int, seed: int = 0):
    """Outcomes and the probabilities of two similar models; rows of one hour (50) are a block."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=rows)
    y = (random.random(rows) < 1.0 / (1.0 + np.exp(1.45 - signal))).astype(np.int8)
    scores = [1.0 / (1.0 + np.exp(-signal - size * random.normal(size=rows))) for size in (1.0, 0.9)]
    return y, *scores, np.arange(rows) // 50


def speed(rows: int, resamples: int) -> dict[str, float]:
    """Seconds for each way, one after the other."""
    from sklearn.metrics import roc_auc_score

    y, champion, candidate, blocks = models(rows)
    compare_performance(y, champion, candidate, resamples=100)  # what is loaded at first use
    seconds = {}
    for name, given in (("rows are independent", None), ("blocks of 50 rows", blocks)):
        started = time.perf_counter()
        compare_performance(y, champion, candidate, "roc_auc", given, resamples=resamples)
        seconds[name] = time.perf_counter() - started
    random = np.random.default_rng(0)
    started = time.perf_counter()
    for _ in range(resamples):
        drawn = random.integers(0, rows, rows)
        roc_auc_score(y[drawn], candidate[drawn]) - roc_auc_score(y[drawn], champion[drawn])
    seconds["scikit-learn in a loop"] = time.perf_counter() - started
    return seconds


def _peak() -> float:
    """Megabytes that this process has held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _measure(rows: int, resamples: int, answer) -> None:
    y, champion, candidate, blocks = models(rows)
    before, started = _peak(), time.perf_counter()
    compare_performance(y, champion, candidate, "roc_auc", blocks, resamples=resamples)
    answer.put((before, _peak(), time.perf_counter() - started))


def memory(rows: int, resamples: int) -> tuple[float, float, float]:
    """Megabytes before and at most, and seconds, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_measure, args=(rows, resamples, answer))
    process.start()
    measured = answer.get(timeout=3_600)
    process.join()
    return measured


def _script(folder, name: str, *options: str) -> tuple[float, str]:
    """Seconds and output of a command in a process of its own; it may say HOLD or REJECT."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent / "src")}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *options]
    started = time.perf_counter()
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode not in {0, 3, 4}:
        raise SystemExit(ran.stderr)
    return time.perf_counter() - started, ran.stdout


def promotion(end: str) -> None:
    """Print what a promotion costs as a whole process."""
    with tempfile.TemporaryDirectory() as folder:
        _script(folder, "train", "--config", "flights-late", "--builder", "linear")
        _script(folder, "promote", "--config", "flights-late")
        _script(folder, "train", "--config", "flights-late", "--builder", "hist_gradient_boosting")
        seconds, said = _script(folder, "promote", "--config", "flights-late", "--start", "2013-04-01", "--end", end)
    rows = next(line for line in said.splitlines() if "rows are used" in line)
    print(said)
    print(f"The promotion took {seconds:.1f} s as a process; {rows.strip()}")
    print(f"  target: {TARGET_PROMOTE:.0f} s: {'met' if seconds < TARGET_PROMOTE else 'MISSED'}")


def main() -> None:
    """Print both tables, or what a promotion costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--resamples", type=int, default=2_000)
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    parser.add_argument("--promote", action="store_true", help="time a whole promotion instead")
    parser.add_argument("--end", default="2013-05-04", help="flights from April to here judge: 30,000 by default")
    options = parser.parse_args()
    if options.promote:
        promotion(options.end)
        return
    seconds = speed(options.rows, options.resamples)
    loop = seconds["scikit-learn in a loop"]
    print(f"Difference in AUC, {options.rows:,} rows, {options.resamples:,} resamples")
    for name, took in seconds.items():
        print(f"  {name:24} {took:7.2f} s   {loop / took:6.1f} times as fast as the loop")
    slowest = loop / max(took for name, took in seconds.items() if took != loop)
    print(f"  target: {TARGET_SPEED:.0f} times as fast: {'met' if slowest >= TARGET_SPEED else 'MISSED'}")
    before, peak, took = memory(options.memory_rows, options.resamples)
    print(f"The same on {options.memory_rows:,} rows: {took:.0f} s; {before:.0f} MB before, {peak:.0f} MB at most")
    print(f"  target: the whole process under {TARGET_MEMORY:.0f} MB: {'met' if peak < TARGET_MEMORY else 'MISSED'}")


if __name__ == "__main__":
    main()
