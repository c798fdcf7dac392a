"""False alarms and hits by simulation: windows without drift, and windows with one known change each.

    export PYTHONPATH=src:scripts
    python -m bench.quality.false_alarms flights              # 2,000-row windows cut from the flights of 2013
    python -m bench.quality.false_alarms credit               # the same on a made table with other shapes
    python -m bench.quality.false_alarms quiet                # no drift at 100 to 1,000,000 rows
    python -m bench.quality.false_alarms dependent            # no drift, rows that depend on each other in time
    python -m bench.quality.false_alarms flights --peers DIR  # with Evidently, NannyML and plain SciPy

A change is a hit where its own column raises an alarm. `--peers DIR` makes one environment a peer in DIR, or uses it.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import afterfit
from bench.shared.tables import credit, flights, numeric_columns, related

MEAN, SPREAD, MOVED = (0.1, 0.2, 0.4), (1.2, 1.5), (0.05, 0.1, 0.2)
NEW, MISSING = (0.005, 0.02, 0.05), (0.02, 0.05, 0.1)


ANY = "*"
"""A detector that tells no column is given the benefit of the doubt."""


@dataclass(frozen=True, slots=True)
class Change:
    """One known change: its kind and size, the column, and the function that makes it."""

    kind: str
    size: float
    column: str
    make: Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def _with(frame: pd.DataFrame, column: str, values) -> pd.DataFrame:
    return frame.assign(**{column: values})


def shifted(column: str, size: float, deviation: float) -> Change:
    return Change("mean", size, column, lambda f, _: _with(f, column, f[column] + size * deviation))


def spread(column: str, size: float, mean: float) -> Change:
    return Change("spread", size, column, lambda f, _: _with(f, column, mean + (f[column] - mean) * size))


def relabelled(kind: str, column: str, size: float, name: str) -> Change:
    def make(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        values = frame[column].astype(object).copy()
        values[rng.random(len(frame)) < size] = name
        return _with(frame, column, values.astype(frame[column].dtype if kind == "moved" else object))

    return Change(kind, size, column, make)


def missing(column: str, size: float) -> Change:
    return Change("missing", size, column, lambda f, r: _with(f, column, f[column].mask(r.random(len(f)) < size)))


def shuffled(column: str) -> Change:
    return Change(
        "shuffled", 1.0, column, lambda f, r: _with(f, column, r.permutation(f[column].to_numpy(dtype=object)))
    )


def changes(frame: pd.DataFrame, count: int, rng: np.random.Generator) -> Iterator[Change]:
    """Changes of all kinds and sizes in turn, each in a column drawn at random."""
    numbers = numeric_columns(frame)
    names = [column for column in frame if column not in numbers]
    plan = [
        *(("mean", size) for size in MEAN),
        *(("spread", size) for size in SPREAD),
        *(("moved", size) for size in MOVED),
        *(("new", size) for size in NEW),
        *(("missing", size) for size in MISSING),
        ("shuffled", 1.0),
        ("shuffled", 1.0),
    ]
    for i in range(count):
        kind, size = plan[i % len(plan)]
        column = str(
            rng.choice(numbers if kind in {"mean", "spread"} else names if kind in {"moved", "new"} else list(frame))
        )
        if kind == "mean":
            yield shifted(column, size * rng.choice([-1, 1]), float(frame[column].std()))
        elif kind == "spread":
            yield spread(column, size, float(frame[column].mean()))
        elif kind in {"moved", "new"}:
            name = "brand new" if kind == "new" else str(rng.choice(frame[column].dropna().unique()))
            yield relabelled(kind, column, size, name)
        else:
            yield missing(column, size) if kind == "missing" else shuffled(str(rng.choice(related(frame))))


Detector = Callable[[list[pd.DataFrame]], list[set[str]]]
"""Windows to the columns that raise an alarm in each."""


def afterfit_detector(reference: pd.DataFrame, time: str | None = None) -> Detector:
    learnt = afterfit.profile(reference, time=time)

    def detect(windows: list[pd.DataFrame]) -> list[set[str]]:
        reports = [afterfit.compare_drift(learnt, window) for window in windows]
        return [{name for name, column in report.columns.items() if column.alarm} for report in reports]

    return detect


def detectors(reference: pd.DataFrame, peers: Path | None) -> dict[str, Detector]:
    found: dict[str, Detector] = {"Afterfit": afterfit_detector(reference)}
    if peers is None:
        return found
    from bench.shared.peers import peer_detectors

    return {**found, **peer_detectors(reference, peers)}


def one_table(table: pd.DataFrame, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """False alarms and hits on one table, printed; returned by detector."""
    rng = np.random.default_rng(options.seed)
    reference = table.sample(options.reference, random_state=options.seed)
    rest = table.drop(reference.index)
    cut = lambda: rest.sample(options.rows, random_state=int(rng.integers(2**31)))  # noqa: E731 - one short draw
    quiet = [cut() for _ in range(options.windows)]
    made = list(changes(reference, options.changes, rng))
    changed = [change.make(cut(), rng) for change in made]
    results = {}
    for name, detect in detectors(reference, options.peers).items():
        false, found = detect(quiet), detect(changed)
        results[name] = score(name, false, made, found, show=options.show)
    return results


def score(
    name: str, false: list[set[str]], made: list[Change], found: list[set[str]], *, show: bool
) -> dict[str, float]:
    hits: dict[tuple[str, float], list[bool]] = defaultdict(list)
    for change, columns in zip(made, found, strict=True):
        hits[change.kind, abs(change.size)].append(bool({change.column, ANY} & columns))
        if show and not {change.column, ANY} & columns:
            print(f"  missed: {change.kind} {change.size:g} in {change.column}; alarms in {sorted(columns) or 'none'}")
    alarms = float(np.mean([bool(columns) for columns in false])) if false else float("nan")
    every = [hit for group in hits.values() for hit in group]
    print(f"{name:>12}: false alarms {alarms:6.1%} of {len(false)}; found {np.mean(every):6.1%} of {len(every)}")
    for (kind, size), group in hits.items():
        print(f"{'':>14}{kind:>9} {size:<6g} {np.mean(group):6.1%} of {len(group)}")
    return {"false_alarms": alarms, "found": float(np.mean(every))}


def quiet(options: argparse.Namespace) -> dict[int, float]:
    """No drift at all, at several sizes of window."""
    reference = credit(options.reference, options.seed)
    detect = afterfit_detector(reference)
    results = {}
    for rows, windows in ((50, 400), (100, 400), (1_000, 400), (10_000, 200), (100_000, 40), (1_000_000, 10)):
        count = max(int(windows * options.scale), 1)
        false = [bool(detect([credit(rows, options.seed + 1 + i)])[0]) for i in range(count)]
        results[rows] = float(np.mean(false))
        print(f"{rows:>9,} rows: {sum(false)} false alarms in {count} windows ({np.mean(false):.1%})", flush=True)
    return results


def series(rng: np.random.Generator, rows: int, memory: float, columns: int) -> np.ndarray:
    """AR(1) of unit variance: (rows, columns)."""
    from scipy.signal import lfilter

    noise = rng.normal(size=(rows, columns)) * np.sqrt(1 - memory**2)
    noise[0] = rng.normal(size=columns)
    return lfilter([1.0], [1.0, -memory], noise, axis=0)


def dependent_tables(rng: np.random.Generator, rows: int) -> dict[str, pd.DataFrame]:
    """Rows that depend on each other, without any drift."""
    minutes = pd.date_range("2024-01-01", periods=rows, freq="min")
    ar = {f"memory {m}": series(rng, rows, m, 8) for m in (0.5, 0.9, 0.99)}
    tables = {
        name: pd.DataFrame(values, columns=[f"x{i}" for i in range(8)]).assign(time=minutes)
        for name, values in ar.items()
    }
    hours = np.arange(rows) // 60
    shared = rng.normal(size=(hours[-1] + 1, 6))[hours] + 0.3 * rng.normal(size=(rows, 6))
    hourly = pd.DataFrame(shared, columns=[f"x{i}" for i in range(6)]).assign(time=minutes)
    hourly["name"] = np.array(list("abcd"))[rng.integers(0, 4, size=hours[-1] + 1)[hours]]
    hourly["x0"] = hourly["x0"].mask((rng.random(hours[-1] + 1) < 0.05)[hours])
    return {**tables, "shared hours": hourly}


def dependent(options: argparse.Namespace) -> dict[str, float]:
    """No drift, rows that follow each other in time: the reference first, then windows in order."""
    results = {}
    rounds = max(int(6 * options.scale), 1)
    false: dict[str, list[bool]] = defaultdict(list)
    naive: dict[str, list[bool]] = defaultdict(list)
    for turn in range(rounds):
        rng = np.random.default_rng(options.seed + turn)
        for name, table in dependent_tables(rng, options.reference + 50 * options.rows).items():
            learnt = afterfit.profile(table.iloc[: options.reference], time="time")
            blind = afterfit.profile(table.iloc[: options.reference].drop(columns="time"))
            for start in range(options.reference, len(table), options.rows):
                window = table.iloc[start : start + options.rows]
                false[name].append(afterfit.compare_drift(learnt, window).alarm)
                naive[name].append(afterfit.compare_drift(blind, window.drop(columns="time")).alarm)
    for name, alarms in false.items():
        results[name] = float(np.mean(alarms))
        blind_rate = np.mean(naive[name])
        print(f"{name:>13}: {results[name]:6.1%} of {len(alarms)} windows; rows taken as independent: {blind_rate:.1%}")
    return results


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["flights", "credit", "quiet", "dependent"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", type=int, default=50_000, help="rows of the reference")
    parser.add_argument("--rows", type=int, default=2_000, help="rows of a window")
    parser.add_argument("--windows", type=int, default=60, help="windows without drift")
    parser.add_argument("--changes", type=int, default=64, help="windows with one change each")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer windows for quiet and dependent")
    parser.add_argument("--peers", type=Path, help="folder for the environments of the peers")
    parser.add_argument("--show", action="store_true", help="print each change that was missed")
    options = parser.parse_args(arguments)
    if options.what in {"quiet", "dependent"}:
        (quiet if options.what == "quiet" else dependent)(options)
    else:
        one_table(flights() if options.what == "flights" else credit(200_000, options.seed), options)


if __name__ == "__main__":
    main(sys.argv[1:])
