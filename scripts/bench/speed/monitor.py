"""Seconds and memory of `monitor` as a process, on windows of the flights with outcomes.

    export PYTHONPATH=src:scripts
    python -m bench.speed.monitor               # 30,000 and 1,000,000 rows
    python -m bench.speed.monitor --rows 30000  # one size

A version is trained on January to March in a store of its own; the windows are rows of April to December, drawn with
replacement and spread evenly over April. Reading the Parquet file, drift, estimate, realised metrics with intervals,
slices, MLflow runs and page are all in it.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]


def script(name: str, folder: Path, **options: str) -> subprocess.CompletedProcess[str]:
    """A script of the project as a process in a folder, with a store there."""
    words = [text for key, value in options.items() for text in (f"--{key}", value)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *words]
    done = subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-2_000:]}")
    return done


def window(rows: int, path: Path) -> None:
    """So many flights as a Parquet file of one month."""
    import numpy as np
    import pandas as pd

    from afterfit.data.flights import flights

    whole = flights()
    later = whole[whole["scheduled_departure"] >= "2013-04-01"]
    chosen = later.iloc[np.sort(np.random.default_rng(0).integers(0, len(later), rows))].reset_index(drop=True)
    times = pd.Timestamp("2013-04-01") + pd.to_timedelta(np.linspace(0, 29 * 86_400, rows), unit="s")
    chosen.assign(scheduled_departure=times.astype("datetime64[us]"), flight_id=np.arange(rows).astype(str)).to_parquet(
        path
    )


def measured(sizes: list[int], config: str = "flights-late") -> dict[int, tuple[float, float]]:
    """Seconds of each size's process, and the most memory (MB) that any process had until then."""
    with tempfile.TemporaryDirectory() as place:
        script("train", Path(place), config=config)
        return {rows: timed(rows, Path(place), config) for rows in sizes}


def timed(rows: int, folder: Path, config: str) -> tuple[float, float]:
    """Seconds of a process that monitors a window of so many rows, and its most memory in MB.

    The folder holds a store with the version that monitors, number 1 of that use case.
    """
    window(rows, folder / "window.parquet")
    words = {"config": config, "version": "1", "data": "window.parquet", "start": "2013-04-01", "end": "2013-05-01"}
    start = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--one", *_words(words)], cwd=folder, check=True)
    seconds, peak = time.perf_counter() - start, float((folder / "peak.txt").read_text())
    print(f"{rows:>9,} rows with outcomes: {seconds:5.1f} s as a process, peak {peak:,.0f} MB", flush=True)
    return seconds, peak


def _words(options: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in options.items()]


def one(words: list[str]) -> None:
    """Run the command in a process and note its peak memory."""
    script("monitor", Path.cwd(), **dict(word.split("=", 1) for word in words))
    Path("peak.txt").write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[30_000, 1_000_000])
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        one(options.one)
    else:
        measured(options.rows)


if __name__ == "__main__":
    main(sys.argv[1:])
