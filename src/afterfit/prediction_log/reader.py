"""A window of the log as a stream of Arrow tables: sealed parts and what is not sealed yet, with outcomes.

Outcomes are sorted in runs on disk and looked up for each part of answers. Of several the one that arrived last counts.

Memory is bounded by one run and one part of answers: the runs are Arrow files in a temporary folder, mapped and
searched by the hash of an id or a key, and each hit is compared with the text itself.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from afterfit.contract.datetimes import parse_as
from afterfit.errors import LogError
from afterfit.prediction_log import spool_file
from afterfit.prediction_log.arrow import FEATURE, LOG_TYPES, REST, TIME, cast, common
from afterfit.prediction_log.damage import check_rows, check_schema, guarded, leave_out, said
from afterfit.prediction_log.id_index import Hashes, id_hashes
from afterfit.prediction_log.sealing import PART_ROWS, between, by_day, current, shaped
from afterfit.prediction_log.spool_file import TABLES, RowRange, translate_errors
from afterfit.prediction_log.store import Folder, Part, Store

RUN_ROWS = 250_000
"""Outcomes of one run: what is sorted in memory at once."""
BATCH_ROWS = 65_536
"""Most rows of a table that is given out."""
MOST_COLUMNS = 2_000
"""Features that are read where no columns are named: those that most parts have."""
LOG_COLUMNS = tuple(name for name in TABLES["answers"] if name != "features")
"""The log's own columns, in the order in which they are given out."""
OUTCOME_COLUMNS = ("outcome", "outcome_time")
"""What is joined to each answer."""
CLASH = "features."
"""What stands before the name of a feature that is called like one of these columns."""
SPOOLED = re.compile(r"(?P<spool>.+)-(?P<first>\d+)-(?P<last>\d+)\.parquet", re.DOTALL)
Rows = npt.NDArray[np.int64]
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class _Run:
    """Outcomes of one kind sorted by the hash of their text: hashes (n,), times (n,), and the table, all mapped."""

    hashes: Hashes
    times: npt.NDArray[np.int64]
    table: pa.Table

    def places(self, texts: pa.Array, wanted: Hashes) -> tuple[Rows, Rows]:
        """The rows (k,) of the texts that it has, and where (k,) they are; `wanted` are the texts' hashes in order.

        The text decides where hashes are equal by accident.
        """
        at = np.searchsorted(self.hashes, wanted)
        left = np.arange(len(wanted))
        matches: list[tuple[Rows, Rows]] = []
        while len(left):
            left = left[at[left] < len(self.hashes)]
            left = left[self.hashes[at[left]] == wanted[left]]
            same = pc.equal(self.table["text"].take(pa.array(at[left])), texts.take(pa.array(left)))
            equal = np.asarray(same.to_numpy(), dtype=bool)
            matches.append((left[equal], at[left[equal]]))
            left = left[~equal]
            at[left] += 1
        rows, places = (np.concatenate(some) for some in zip(*matches, strict=True)) if matches else (left, left)
        return rows, places


class Outcomes:
    """All outcomes that a window's answers may have.

    Args:
        tables: tables with prediction_id, key, value and time, in any order and number.
        folder: an empty folder for the runs.
    """

    def __init__(self, tables: Iterable[pa.Table], folder: Path) -> None:
        self._folder = folder
        self._runs: dict[str, list[_Run]] = {"prediction_id": [], "key": []}
        self.type: pa.DataType = pa.null()
        waiting: list[pa.Table] = []
        types: set[pa.DataType] = set()
        for table in tables:
            types.add(table.schema.field("value").type)
            waiting.append(table)
            if sum(table.num_rows for table in waiting) >= RUN_ROWS:
                self._add(waiting)
                waiting = []
        self._add(waiting)
        self.type = common(types)

    def __enter__(self) -> "Outcomes":  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.clear()  # lets go of the files, so that their folder can be removed everywhere

    def _add(self, tables: Sequence[pa.Table]) -> None:
        if not sum(table.num_rows for table in tables):
            return
        type_ = common(table.schema.field("value").type for table in tables)
        columns = ["prediction_id", "key", "value", "time"]
        whole = pa.concat_tables(
            [
                t.set_column(t.column_names.index("value"), "value", cast(t["value"], type_)).select(columns)
                for t in tables
            ]
        )
        by_id = pc.is_valid(whole["prediction_id"])
        for name, kept in (("prediction_id", whole.filter(by_id)), ("key", whole.filter(pc.invert(by_id)))):
            some = kept.select([name, "value", "time"]).rename_columns(["text", "value", "time"])
            some = some.filter(pc.is_valid(some["text"]))
            if some.num_rows:
                self._runs[name].append(self._sorted(some, f"{name}-{len(self._runs[name])}.arrow"))

    def _sorted(self, table: pa.Table, file: str) -> _Run:
        """The last outcome of each text, sorted by hash, written and mapped."""
        marks = id_hashes(table["text"])
        times = table["time"].to_numpy().astype(np.int64)
        texts = table["text"].combine_chunks().dictionary_encode().indices.to_numpy()
        order = np.lexsort((np.arange(len(times)), times, texts, marks))  # by text where hashes are equal by accident
        ordered = table.take(pa.array(order)).combine_chunks()
        marks = marks[order]
        texts = texts[order]
        last = np.append((marks[1:] != marks[:-1]) | (texts[1:] != texts[:-1]), True)
        place = self._folder / file
        with pa.OSFile(str(place), "wb") as sink, pa.ipc.new_file(sink, ordered.schema) as writer:
            writer.write_table(ordered.filter(pa.array(last)))
        del ordered
        mapped = pa.ipc.open_file(pa.memory_map(str(place))).read_all()
        return _Run(
            self._mapped(f"{file}.hashes", marks[last]), self._mapped(f"{file}.times", times[order][last]), mapped
        )

    def _mapped(self, file: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        place = self._folder / f"{file}.npy"
        np.save(place, values, allow_pickle=False)
        return np.asarray(np.load(place, mmap_mode="r", allow_pickle=False))

    def of(self, answers: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """The (outcomes, times of arrival) of n answers with prediction_id and key; missing where unknown."""
        n = answers.num_rows
        times = np.full(n, NEVER, dtype=np.int64)
        source, place = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64)
        every = [(name, run) for name, runs in self._runs.items() for run in runs]
        sought = {name: _sought(answers[name]) for name, runs in self._runs.items() if runs}
        for number, (name, run) in enumerate(every):
            order, texts, wanted = sought[name]
            rows, at = run.places(texts, wanted)
            rows, came = order[rows], run.times[at]
            later = came > times[rows] if name == "key" else came >= times[rows]
            rows = rows[later]
            times[rows], source[rows], place[rows] = came[later], number, at[later]
        values = self._gathered([run for _, run in every], source, place)
        return pa.chunked_array([values]), pa.chunked_array([pa.array(times, mask=source < 0).cast(TIME)])

    def _gathered(self, runs: Sequence[_Run], source: Rows, place: Rows) -> pa.Array:
        """The values (n,) at a place of a run each; missing where the source is -1."""
        positions = np.full(len(source), -1, dtype=np.int64)
        pieces, size = [], 0
        for number in np.unique(source[source >= 0]).tolist():
            rows = np.flatnonzero(source == number)
            column = runs[number].table["value"].take(pa.array(place[rows]))
            pieces.extend(cast(column, self.type).chunks)
            positions[rows] = np.arange(size, size + len(rows))
            size += len(rows)
        whole = pa.concat_arrays(pieces) if pieces else pa.array([], self.type)
        return whole.take(pa.array(positions, mask=positions < 0))


def _sought(column: pa.ChunkedArray) -> tuple[Rows, pa.Array, Hashes]:
    """Texts (n,) in the order of their hashes: that order, the texts and the hashes."""
    marks = id_hashes(column)
    order = np.argsort(marks, kind="stable")
    return order, column.combine_chunks().take(pa.array(order)), marks[order]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What is read: a window of times, from `start` (included) to `end` (excluded), and which rows and columns."""

    start: datetime | None
    end: datetime | None
    time: str
    version: str | None
    shadow: bool | None
    columns: tuple[str, ...] | None
    written: str | None = None

    @property
    def served(self) -> bool:
        """Whether the window is one of times of serving."""
        return self.time == "served"


def feature_column(name: str) -> str:
    """What a feature's column is called in what is read."""
    plain = re.sub(r"^(features\.)+", "", name)
    return f"{CLASH}{name}" if plain in {*LOG_COLUMNS, *OUTCOME_COLUMNS} else name


def features_of(table: pa.Table) -> pa.Table:
    """The features alone, named as they were received, whatever their names."""
    fields = [field for field in table.schema if (field.metadata or {}).get(b"afterfit") == b"feature"]
    chosen = table.select([field.name for field in fields])
    return chosen.rename_columns([field.metadata[b"name"].decode() for field in fields])


def read(folder: Path, store: Store, use_case: str, query: LogQuery) -> Iterator[pa.Table]:
    """Stream a window. What is not sealed is copied at the start, so that no spool is kept from moving on.

    Each answer comes once, though sealing goes on meanwhile: spools are looked at first, and parts of a spool that
    were written after that are left out, as the copy has their rows.
    """
    with TemporaryDirectory(prefix="afterfit-log-") as temporary:
        copy = Folder(Path(temporary) / "copy")
        last_sealed = _copied(folder, use_case, copy)
        places = {kind: _parts(store, copy, kind, last_sealed) for kind in ("answers", "outcomes")}
        wanted, types = _types([place for place in places["answers"] if _of_window(place[1], query)], query)
        runs = Path(temporary) / "runs"
        runs.mkdir()
        with Outcomes(_outcome_tables(places["outcomes"]), runs) as outcomes:
            for place, part in wanted:
                for table in _tables(place, part, types, query):
                    yield _shaped(table, outcomes, query)


def outcomes_of(folder: Path, store: Store, use_case: str, answers: pa.Table) -> pa.ChunkedArray:
    """The last known outcome of each of n answers (prediction_id, key), sealed or not."""
    with TemporaryDirectory(prefix="afterfit-log-") as temporary:
        copy = Folder(Path(temporary) / "copy")
        last_sealed = _copied(folder, use_case, copy, ("outcomes",))
        runs = Path(temporary) / "runs"
        runs.mkdir()
        with Outcomes(_outcome_tables(_parts(store, copy, "outcomes", last_sealed)), runs) as outcomes:
            return outcomes.of(answers)[0]


def _copied(
    folder: Path, use_case: str, copy: Folder, kinds: Sequence[str] = tuple(TABLES)
) -> dict[tuple[str, str], int]:
    """Copy what no spool has sealed; gives for (spool, kind) the last row that was sealed then."""
    last_sealed: dict[tuple[str, str], int] = {}
    for path in spool_file.spools(folder, use_case):
        with _damage_of(path), translate_errors(path, "read"), spool_file.snapshot(path) as connection:
            if connection is not None:
                for kind in kinds:
                    left = spool_file.unsealed(connection, kind)
                    last_sealed[path.stem, kind] = left.first - 1
                    _copy(connection, path, kind, left, copy)
    return last_sealed


@contextmanager
def _damage_of(spool: Path) -> Iterator[None]:
    """A spool whose file is damaged is an error, or what is not read of it is left out."""
    try:
        yield
    except LogError as error:
        if not spool_file.is_damage(spool, error.__cause__):
            raise
        leave_out(f"{spool}: damaged. It cannot be read: {said(error.__cause__ or error)}.", error)


def _copy(connection: sqlite3.Connection, path: Path, kind: str, left: RowRange, copy: Folder) -> None:
    """Copy rows that a spool has not sealed."""
    while left.first <= left.last:
        try:
            some = spool_file.next_range(connection, kind, left, PART_ROWS)
        except sqlite3.DatabaseError:  # a damaged page, whose size is unknown
            some = RowRange(left.first, min(left.first + PART_ROWS - 1, left.last))
        left = RowRange(some.last + 1, left.last)
        for day, table in by_day(connection, kind, some, around_pages=True):
            place = copy.path / Part(kind, day, f"{path.stem}-{some.first}-{some.last}.parquet").name
            place.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, place)


def _parts(store: Store, copy: Folder, kind: str, last_sealed: dict[tuple[str, str], int]) -> list[tuple[Store, Part]]:
    """All parts by day: the copied ones, and the sealed ones without those whose rows were copied."""
    parts: list[tuple[Store, Part]] = [(copy, part) for part in copy.parts(kind)]
    for part in current(store, kind):
        match = SPOOLED.fullmatch(part.file)
        known = None if match is None else last_sealed.get((match["spool"], kind))
        if match is None or known is None or int(match["last"]) <= known:
            parts.append((store, part))
    return sorted(parts, key=lambda place: (place[1].day, place[1].file))


def _of_window(part: Part, query: LogQuery) -> bool:
    if not query.served:
        return True
    day = np.datetime64(part.day, "D")
    after = query.end is not None and np.datetime64(query.end, "us") <= day.astype("datetime64[us]")
    return bool(not after and (query.start is None or day >= np.datetime64(query.start, "D")))


def _types(
    places: Sequence[tuple[Store, Part]], query: LogQuery
) -> tuple[list[tuple[Store, Part]], dict[str, pa.DataType]]:
    """The parts that can be read, and the columns to read of them, each with the type that all parts have together."""
    kinds: dict[str, list[pa.DataType]] = {}
    sound: list[tuple[Store, Part]] = []
    for place, part in places:
        with _guarded(place, part), place.open(part) as file:
            schema = pq.read_schema(file)
            check_schema(part.kind, schema)
            sound.append((place, part))
            for field in schema:
                kinds.setdefault(field.name, []).append(field.type)
    kept = {"prediction_id", "time", "version", "shadow", "key"}
    features = [name for name in kinds if name.startswith(FEATURE)]
    if query.columns is None and len(features) > MOST_COLUMNS:  # names that clients made up are without end
        rare = {*sorted(features, key=lambda name: len(kinds[name]))[: len(features) - MOST_COLUMNS]}
        kinds = {name: types for name, types in kinds.items() if name not in rare or name == FEATURE + query.time}
    return sound, {
        name: LOG_TYPES.get(name) or common(types)
        for name, types in kinds.items()
        if name in kept or name == FEATURE + query.time or _is_chosen(name, query)
    }


@contextmanager
def _guarded(place: Store, part: Part, what: str = "It") -> Iterator[None]:
    """A part that is damaged is an error, or is left out.

    Raises:
        LogError: it is damaged, or was removed meanwhile.
    """
    try:
        with guarded(place.place(part), what):
            yield
    except FileNotFoundError as error:
        raise LogError(f"{place.place(part)}: removed while the log was read: read it again.") from error


def _is_chosen(name: str, query: LogQuery) -> bool:
    if name == REST:
        return False
    shown = feature_column(name.removeprefix(FEATURE)) if name.startswith(FEATURE) else name
    return query.columns is None or shown in query.columns or name.removeprefix(FEATURE) in query.columns


def _outcome_tables(places: Sequence[tuple[Store, Part]]) -> Iterator[pa.Table]:
    for place, part in places:
        table = None
        with _guarded(place, part), place.open(part) as file:
            check_schema(part.kind, pq.read_schema(file))
            table = pq.read_table(
                file, columns=["prediction_id", "key", "value", "time"], page_checksum_verification=True
            )
        if table is not None:
            yield table


def _tables(place: Store, part: Part, types: dict[str, pa.DataType], query: LogQuery) -> Iterator[pa.Table]:
    """The rows of a part that are in the window, group by group; of a damaged one those before the damage."""
    tables = _batches(place, part, types)
    done = 0
    while True:
        table = None
        with _guarded(place, part, f"What follows its first {done:,} rows" if done else "It"):
            table = next(tables, None)
        if table is None:
            return
        with _guarded(place, part, "Some of its rows"):
            check_rows(table)
        done += table.num_rows
        table = _kept(table, query)
        if table.num_rows:
            yield table


def _batches(place: Store, part: Part, types: dict[str, pa.DataType]) -> Iterator[pa.Table]:
    with place.open(part) as file:
        parquet = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
        have = [name for name in types if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=have, use_threads=False):
            yield shaped(pa.Table.from_batches([batch]).select(have), types)


def _kept(table: pa.Table, query: LogQuery) -> pa.Table:
    if query.shadow is not None:
        table = table.filter(table["shadow"] if query.shadow else pc.invert(table["shadow"]))
    if query.version is not None:
        table = table.filter(pc.equal(table["version"], query.version))
    if query.served:
        ends = [None if end is None else pa.scalar(end, pa.timestamp("us")) for end in (query.start, query.end)]
        return between(table, ends[0], ends[1])
    return _within(table, query)


def _within(table: pa.Table, query: LogQuery) -> pa.Table:
    """The rows whose own time column, among the features, is in the window; rows without a time are in none."""
    name = FEATURE + query.time
    if query.start is None and query.end is None:
        return table
    if name not in table.column_names:
        return table.slice(0, 0)
    times = parse_as(table[name].to_pandas(), query.written).values
    inside = ~np.isnat(times)
    if query.start is not None:
        inside &= times >= np.datetime64(query.start, "us")
    if query.end is not None:
        inside &= times < np.datetime64(query.end, "us")
    return table.filter(pa.array(inside))


def _shaped(table: pa.Table, outcomes: Outcomes, query: LogQuery) -> pa.Table:
    """The table as it is given out: the log's own columns, the features, the outcome."""
    values, times = outcomes.of(table)
    fields: list[pa.Field] = []
    columns: list[Any] = []

    def add(name: str, column: Any, metadata: dict[str, str] | None = None) -> None:
        if query.columns is None or name in query.columns or (metadata and metadata["name"] in query.columns):
            fields.append(pa.field(name, column.type, metadata=metadata))
            columns.append(column)

    for name in LOG_COLUMNS:
        if name in table.column_names:
            add(name, table[name])
    for name in table.column_names:
        if name.startswith(FEATURE):
            plain = name.removeprefix(FEATURE)
            add(feature_column(plain), table[name], {"afterfit": "feature", "name": plain})
    add("outcome", values)
    add("outcome_time", times)
    return pa.table(columns, schema=pa.schema(fields))
