"""What the paired comparison costs, beside a loop over scikit-learn in the same run; and its peak memory.

Speed: the difference in AUC of two models on the same rows with a block bootstrap, against as many pairs of
scikit-learn's roc_auc_score on rows drawn with replacement. Memory: the same comparison on many rows, in a process of
its own (interpreter, libraries and the arrays counted).

    PYTHONPATH=src python scripts/bench/gate.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time

import numpy as np

from afterfit.compare import compare_performance

TARGET_SPEED = 10.0
TARGET_MEMORY = 500.0


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


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--resamples", type=int, default=2_000)
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    options = parser.parse_args()
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
