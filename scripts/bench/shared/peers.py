"""The peers, each in an environment of its own: Evidently, NannyML, and the tests of SciPy one column at a time.

This file is also the script that runs inside those environments: `python peers.py evidently REFERENCE WINDOW…` reads
Parquet files, and prints the seconds and the columns that raised an alarm in each window as one JSON line.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

PACKAGES = {
    "Evidently": ["evidently==0.7.23", "pandas<3", "pyarrow"],
    "NannyML": ["nannyml==0.13.1", "statsmodels", "pyarrow"],
    "SciPy": ["scipy", "pandas", "pyarrow"],
}


def environment(folder: Path, peer: str) -> Path | None:
    """The Python of a peer's environment, made where it is not there yet; None where it cannot be installed."""
    python = folder / peer.lower() / "bin" / "python"
    if python.exists():
        return python
    made = subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=False, capture_output=True)
    done = (
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES[peer]], check=False)
        if made.returncode == 0
        else made
    )
    return python if done.returncode == 0 else None


def run(python: Path, peer: str, reference, windows, *, what: str = "alarms"):
    """Run a peer on frames; its answer, or None where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i:05d}.parquet" for i in range(len(windows) + 1)]
        for path, frame in zip(paths, [reference, *windows], strict=True):
            _plain(frame).to_parquet(path)
        quiet = {**os.environ, "DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "PYTHONPATH": ""}
        done = subprocess.run(
            [str(python), __file__, peer, what, *map(str, paths)],
            check=False,
            capture_output=True,
            text=True,
            env=quiet,
        )
    if done.returncode:
        print(f"{peer} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def _plain(frame):
    """Types that every peer reads: floats, truth values and text."""
    import pandas as pd

    result = frame.copy()
    for column in result:
        if result[column].dtype == object:
            numbers = pd.to_numeric(result[column], errors="coerce")
            result[column] = (
                numbers if numbers.notna().sum() == result[column].notna().sum() else result[column].astype("str")
            )
        if pd.api.types.is_bool_dtype(result[column]):
            result[column] = result[column].astype("str")
    return result.reset_index(drop=True)


def peer_detectors(reference, folder: Path):
    """A detector a peer: windows to the columns that raise an alarm in each."""
    found = {}
    for peer in PACKAGES:
        python = environment(folder, peer)
        if python is None:
            print(f"{peer:>12}: not installed")
            continue
        found[peer] = _detector(python, peer, reference)
    return found


def _detector(python: Path, peer: str, reference):
    def detect(windows):
        answer = run(python, peer, reference, windows)
        return [set(columns) for columns in answer["alarms"]] if answer else [set() for _ in windows]

    return detect


# What runs inside a peer's environment.


def evidently(reference, windows):
    from evidently import Dataset, Report
    from evidently.presets import DataDriftPreset

    seconds, alarms = [], []
    for window in windows:
        start = time.perf_counter()
        result = Report([DataDriftPreset()]).run(Dataset.from_pandas(window), Dataset.from_pandas(reference)).dict()
        seconds.append(time.perf_counter() - start)
        alarms.append(_evidently_columns(result["metrics"]))
    return seconds, alarms


def _evidently_columns(metrics):
    found = []
    for metric in metrics:
        config = metric.get("config", {})
        if "column" not in config:
            continue
        value, limit = float(metric["value"]), float(config["threshold"])
        if (value < limit) if "p_value" in config["method"] else (value >= limit):
            found.append(config["column"])
    return found


def nannyml(reference, windows):
    import nannyml as nml
    import pandas as pd

    columns = list(reference)
    start = time.perf_counter()
    univariate = nml.UnivariateDriftCalculator(
        column_names=columns,
        continuous_methods=["jensen_shannon"],
        categorical_methods=["jensen_shannon"],
        chunk_size=len(windows[0]),
    ).fit(reference)
    fitted = time.perf_counter() - start
    start = time.perf_counter()
    results = univariate.calculate(pd.concat(windows, ignore_index=True)).filter(period="analysis").to_df()
    seconds = [time.perf_counter() - start]
    alarms = [{c for c in columns if results[c, "jensen_shannon", "alert"].iloc[i]} for i in range(len(windows))]
    return seconds, alarms, fitted


def nannyml_with_pca(reference, windows):
    import nannyml as nml
    import pandas as pd

    seconds, alarms, fitted = nannyml(reference, windows)
    pca = nml.DataReconstructionDriftCalculator(column_names=list(reference), chunk_size=len(windows[0])).fit(reference)
    results = pca.calculate(pd.concat(windows, ignore_index=True)).filter(period="analysis").to_df()
    alerts = results["reconstruction_error", "alert"]
    return seconds, [found | ({"*"} if alerts.iloc[i] else set()) for i, found in enumerate(alarms)], fitted


def scipy_tests(reference, windows):
    import numpy as np
    import pandas as pd
    from scipy import stats

    seconds, alarms = [], []
    for window in windows:
        start, found = time.perf_counter(), set()
        for column in reference:
            before, now = reference[column].dropna(), window[column].dropna()
            if pd.api.types.is_numeric_dtype(before):
                pvalue = stats.ks_2samp(before, now, method="asymp").pvalue
                stats.wasserstein_distance(before, now)
            else:
                counts = pd.concat([before.value_counts(), now.value_counts()], axis=1).fillna(0.0)
                pvalue = stats.chi2_contingency(counts.to_numpy().T + 0.0).pvalue if len(counts) > 1 else np.nan
            if pvalue < 0.05:
                found.add(column)
        seconds.append(time.perf_counter() - start)
        alarms.append(found)
    return seconds, alarms


def main(peer: str, what: str, *paths: str) -> None:
    import pandas as pd

    warnings.filterwarnings("ignore")
    reference, *windows = [pd.read_parquet(path) for path in paths]
    run_nannyml = nannyml if what == "speed" else nannyml_with_pca
    measured = {"Evidently": evidently, "NannyML": run_nannyml, "SciPy": scipy_tests}[peer](reference, windows)
    seconds, alarms, *fitted = measured
    print(json.dumps({"seconds": seconds, "alarms": [sorted(columns) for columns in alarms], "fitted": fitted}))


if __name__ == "__main__":
    main(*sys.argv[1:])
