"""A window of the log as a stream of Arrow tables: sealed parts and what is not sealed yet, with outcomes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from afterfit.contract.datetimes import parse_datetimes
from afterfit.prediction_log import spool_file
from afterfit.prediction_log.arrow import FEATURE, PLAIN, REST, common
from afterfit.prediction_log.logoutcomes import Outcomes
from afterfit.prediction_log.sealing import PART_ROWS, between, by_day, current, shaped
from afterfit.prediction_log.spool_file import Range, spoken
from afterfit.prediction_log.store import Folder, Part, Store

ROWS = 65_536
OWN = (
    "prediction_id", "time", "version", "shadow", "key", "prediction", "probability", "probabilities", "lower",
    "upper", "confidence", "warnings", "error", "seconds",
)  # fmt: skip
JOINED_ON = ("outcome", "outcome_time")
CLASH = "features."
"""What stands before the name of a feature that is called like one of the log's own columns."""
SPOOLED = re.compile(r"(?P<spool>.+)-(?P<first>\d+)-(?P<last>\d+)\.parquet", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is read: a window of times, from `start` (included) to `end` (excluded), and which rows and columns."""

    start: datetime | None
    end: datetime | None
    time: str
    version: str | None
    shadow: bool | None
    columns: tuple[str, ...] | None

    @property
    def served(self) -> bool:
        """Whether the window is one of times of serving."""
        return self.time == "served"


def feature_column(name: str) -> str:
    """What a feature's column is called in what is read."""
    return f"{CLASH}{name}" if name in {*OWN, *JOINED_ON} else name


def features_of(table: pa.Table) -> pa.Table:
    """The features alone, named as they were received, whatever their names."""
    fields = [field for field in table.schema if (field.metadata or {}).get(b"afterfit") == b"feature"]
    chosen = table.select([field.name for field in fields])
    return chosen.rename_columns([field.metadata[b"name"].decode() for field in fields])


def read(folder: Path, store: Store, use_case: str, asked: Asked) -> Iterator[pa.Table]:
    """Stream a window. What is not sealed is copied at the start, so that no spool is kept from moving on.

    Each answer comes once, though sealing goes on meanwhile: spools are looked at first, and parts of a spool that
    were written after that are left out, as the copy has their rows.
    """
    with TemporaryDirectory(prefix="afterfit-log-") as temporary:
        copy = Folder(Path(temporary) / "copy")
        seen = _copied(folder, use_case, copy)
        places = {kind: _parts(store, copy, kind, seen) for kind in ("answers", "outcomes")}
        wanted = [one for one in places["answers"] if _of_window(one[1], asked)]
        types = _types(wanted, asked)
        runs = Path(temporary) / "runs"
        runs.mkdir()
        with Outcomes(_outcome_tables(places["outcomes"]), runs) as outcomes:
            for place, part in wanted:
                for table in _tables(place, part, types, asked):
                    yield _shaped(table, outcomes, asked)


def outcomes_of(folder: Path, store: Store, use_case: str, answers: pa.Table) -> pa.ChunkedArray:
    """The last known outcome of each of n answers (prediction_id, key), sealed or not."""
    with TemporaryDirectory(prefix="afterfit-log-") as temporary:
        copy = Folder(Path(temporary) / "copy")
        seen = _copied(folder, use_case, copy, ("outcomes",))
        runs = Path(temporary) / "runs"
        runs.mkdir()
        with Outcomes(_outcome_tables(_parts(store, copy, "outcomes", seen)), runs) as outcomes:
            return outcomes.of(answers)[0]


def _copied(
    folder: Path, use_case: str, copy: Folder, kinds: Sequence[str] = tuple(spool_file.TABLES)
) -> dict[tuple[str, str], int]:
    """Copy what no spool has sealed; gives for (spool, kind) the last row that was sealed then."""
    seen: dict[tuple[str, str], int] = {}
    for path in spool_file.spools(folder, use_case):
        with spoken(path, "read"), spool_file.snapshot(path) as connection:
            if connection is None:
                continue
            for kind in kinds:
                left = spool_file.unsealed(connection, kind)
                seen[path.stem, kind] = left.first - 1
                for first in range(left.first, left.last + 1, PART_ROWS):
                    last = min(first + PART_ROWS - 1, left.last)
                    for day, table in by_day(connection, kind, Range(first, last)):
                        place = copy.path / Part(kind, day, f"{path.stem}-{first}-{last}.parquet").name
                        place.parent.mkdir(parents=True, exist_ok=True)
                        pq.write_table(table, place)
    return seen


def _parts(store: Store, copy: Folder, kind: str, seen: dict[tuple[str, str], int]) -> list[tuple[Store, Part]]:
    """All parts by day: the copied ones, and the sealed ones without those whose rows were copied."""
    found: list[tuple[Store, Part]] = [(copy, part) for part in copy.parts(kind)]
    for part in current(store, kind):
        match = SPOOLED.fullmatch(part.file)
        known = None if match is None else seen.get((match["spool"], kind))
        if match is None or known is None or int(match["last"]) <= known:
            found.append((store, part))
    return sorted(found, key=lambda one: (one[1].day, one[1].file))


def _of_window(part: Part, asked: Asked) -> bool:
    if not asked.served:
        return True
    day = np.datetime64(part.day, "D")
    after = asked.end is not None and np.datetime64(asked.end, "us") <= day.astype("datetime64[us]")
    return bool(not after and (asked.start is None or day >= np.datetime64(asked.start, "D")))


def _types(places: Sequence[tuple[Store, Part]], asked: Asked) -> dict[str, pa.DataType]:
    """The columns to read, as they stand in the parts, each with the type that all parts have together."""
    found: dict[str, list[pa.DataType]] = {}
    for place, part in places:
        with place.open(part) as file:
            for field in pq.read_schema(file):
                found.setdefault(field.name, []).append(field.type)
    kept = {"prediction_id", "time", "version", "shadow", "key"}
    return {
        name: PLAIN.get(name) or common(types)
        for name, types in found.items()
        if name in kept or name == FEATURE + asked.time or _is_chosen(name, asked)
    }


def _is_chosen(name: str, asked: Asked) -> bool:
    if name == REST:
        return False
    shown = feature_column(name.removeprefix(FEATURE)) if name.startswith(FEATURE) else name
    return asked.columns is None or shown in asked.columns or name.removeprefix(FEATURE) in asked.columns


def _outcome_tables(places: Sequence[tuple[Store, Part]]) -> Iterator[pa.Table]:
    for place, part in places:
        with place.open(part) as file:
            yield pq.read_table(file, columns=["prediction_id", "key", "value", "time"])


def _tables(place: Store, part: Part, types: dict[str, pa.DataType], asked: Asked) -> Iterator[pa.Table]:
    """The rows of a part that are in the window, group by group."""
    with place.open(part) as file:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        have = [name for name in types if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(batch_size=ROWS, columns=have, use_threads=False):
            table = _kept(shaped(pa.Table.from_batches([batch]).select(have), types), asked)
            if table.num_rows:
                yield table


def _kept(table: pa.Table, asked: Asked) -> pa.Table:
    if asked.shadow is not None:
        table = table.filter(table["shadow"] if asked.shadow else pc.invert(table["shadow"]))
    if asked.version is not None:
        table = table.filter(pc.equal(table["version"], asked.version))
    if asked.served:
        ends = [None if one is None else pa.scalar(one, pa.timestamp("us")) for one in (asked.start, asked.end)]
        return between(table, ends[0], ends[1])
    return _within(table, asked)


def _within(table: pa.Table, asked: Asked) -> pa.Table:
    """The rows whose own time column, among the features, is in the window; rows without a time are in none."""
    name = FEATURE + asked.time
    if asked.start is None and asked.end is None:
        return table
    if name not in table.column_names:
        return table.slice(0, 0)
    times = parse_datetimes(table[name].to_pandas()).values
    inside = ~np.isnat(times)
    if asked.start is not None:
        inside &= times >= np.datetime64(asked.start, "us")
    if asked.end is not None:
        inside &= times < np.datetime64(asked.end, "us")
    return table.filter(pa.array(inside))


def _shaped(table: pa.Table, outcomes: Outcomes, asked: Asked) -> pa.Table:
    """The table as it is given out: the log's own columns, the features, the outcome."""
    values, times = outcomes.of(table)
    fields: list[pa.Field] = []
    columns: list[Any] = []

    def add(name: str, column: Any, metadata: dict[str, str] | None = None) -> None:
        if asked.columns is None or name in asked.columns or (metadata and metadata["name"] in asked.columns):
            fields.append(pa.field(name, column.type, metadata=metadata))
            columns.append(column)

    for name in OWN:
        if name in table.column_names:
            add(name, table[name])
    for name in table.column_names:
        if name.startswith(FEATURE):
            plain = name.removeprefix(FEATURE)
            add(feature_column(plain), table[name], {"afterfit": "feature", "name": plain})
    add("outcome", values)
    add("outcome_time", times)
    return pa.table(columns, schema=pa.schema(fields))
