"""Batch scoring against the booster alone, and what it costs in memory: the flights of 2013, reading not counted.

    PYTHONPATH=src:scripts python -m bench.speed.scoring [--rows N] [--repeats N]

`score` here is all of it but reading: contract, encoding, prediction, calibration, confidence, warnings, and writing
Parquet. The floor is `predict_proba` of the same booster on the matrix that is ready.
"""

import argparse
import os
import resource
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from afterfit.lifecycle import scoring

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pandas as pd

from afterfit import data
from afterfit.lifecycle.training_run import load_table
from afterfit.model.bundle import load, save
from afterfit.model.packaging import example_of, manifest_of
from afterfit.model.training import train
from afterfit.use_case import load_use_case


def best(function, repeats):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def trained_bundle(folder, rows):
    use_case = load_use_case("flights-late")
    table = load_table(use_case)
    candidate = use_case.candidates[0]
    params = candidate.params if rows > 10_000 else {"max_iter": 10}
    trained = train(table.problem, candidate.builder, params)
    manifest = manifest_of(table, candidate.builder, params, trained, datetime.now(timezone.utc))
    save(trained.scorer, manifest, example_of(table), folder)
    return use_case, load(folder)


def measure(rows, repeats):
    with tempfile.TemporaryDirectory() as scratch:
        use_case, bundle = trained_bundle(Path(scratch) / "bundle", rows)
        frames = _first(data.stream(use_case.source, use_case.root), rows)
        whole = pd.concat(frames, ignore_index=True)
        matrix = bundle.scorer.encoder.encode_frame(bundle.scorer.contract.check_frame(whole))
        floor = best(lambda: bundle.scorer.estimator.predict_proba(matrix), repeats)

        def scored():
            scoring.score(use_case, bundle, frames, Path(scratch) / "scores.parquet")

        ours = best(scored, repeats)
    return {"rows": len(whole), "floor": floor, "score": ours, "ratio": ours / floor, "peak_mb": peak_mb()}


def _first(frames, rows):
    kept, left = [], rows
    for frame in frames:
        if left > 0:
            kept.append(frame.head(left))
            left -= len(kept[-1])
    return kept


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=336_776)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.rows, options.repeats)
    assert np.isfinite(found["ratio"])
    print(f"rows                               {found['rows']:>12,}")
    print(f"booster's predict_proba            {found['floor']:>12.3f} s")
    print(f"score, without reading             {found['score']:>12.3f} s")
    print(f"ratio                              {found['ratio']:>12.2f}   (target: at most 2)")
    print(f"peak memory, training included     {found['peak_mb']:>12.0f} MB")


if __name__ == "__main__":
    main()
