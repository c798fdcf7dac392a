"""Sealing: entries leave the spools for Parquet parts by day, each exactly once however often a process is killed.

The rows of a spool are sealed in ranges. A range is planned in the spool first, then its parts are written, then the
spool notes that it is done. Killed in between, the same range is written again under the same names, whole. A spool
of another process is taken over once the kernel has freed that process's hold on it.

Small parts of past days are joined. A joined part lists the names that it stands for, so that a reader who finds both
takes one; the small ones go an hour later, when nobody reads them any more.
"""

import hashlib
import io
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from afterfit.errors import AfterfitError, LogError
from afterfit.prediction_log import disk, salvage, spool_file
from afterfit.prediction_log.arrow import LOG_TYPES, TIME, bounded, cast, common, readable_tables
from afterfit.prediction_log.damage import check_schema, guarded, leave_out, may_skip, said
from afterfit.prediction_log.id_index import index_of
from afterfit.prediction_log.spool import Spool
from afterfit.prediction_log.spool_file import FileLock, RowRange, translate_errors
from afterfit.prediction_log.store import Part, Store

PART_ROWS = 50_000
"""Most rows of a part, which sealing has in memory as a table."""
PIECE_ROWS = 1_000
"""Most rows that it has in memory as objects, which take twenty times as much."""
GROUP_ROWS = 50_000
JOINED = "joined"
STANDS_FOR = b"afterfit.stands_for"
MARK_LENGTH = 16
FEWEST, JOINED_ROWS = 4, 500_000
"""A day's parts are joined from so many on, up to so many rows."""
GRACE = 3600.0
"""Seconds that a part stays after a joined one took its place: no reader takes longer over one day."""
ORPHAN = 3600.0
"""Seconds after which a lock without a spool is what a killed process left."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a sealing did: rows moved, parts written, spools of dead processes taken over."""

    answers: int = 0
    outcomes: int = 0
    parts: int = 0
    spools: int = 0

    def __add__(self, other: "Sealed") -> "Sealed":
        return Sealed(
            self.answers + other.answers,
            self.outcomes + other.outcomes,
            self.parts + other.parts,
            self.spools + other.spools,
        )


def seal(folder: Path, store: Store, use_case: str, own: Sequence[Spool] = ()) -> Sealed:
    """Seal this process's own spools and those of processes that are gone.

    Raises:
        LogError: a spool or the store failed; what is not sealed stays where it is, and the others are sealed all
            the same.
    """
    faults: list[str] = []
    done = Sealed()
    for spool in own:
        with _collect_fault(spool.path, faults), spool.sealing:
            spool.restore()
            done += _drain(spool.path, store)
    ours = {spool.path for spool in own}
    for path in spool_file.spools(folder, use_case):
        if path not in ours:
            with _collect_fault(path, faults):
                done += _take_over(path, store)
    _clear_orphans(folder, use_case)
    if faults:
        raise LogError("\n".join(faults))
    return done


@contextmanager
def _collect_fault(path: Path, faults: list[str]) -> Iterator[None]:
    """Go on where one spool fails, and raise what went wrong at the end."""
    try:
        with translate_errors(path, "sealed"):
            yield
    except AfterfitError as error:
        faults.append(str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the others from being sealed
        faults.append(f"{path}: the prediction log cannot be sealed: {type(error).__name__}: {error}")


def _take_over(path: Path, store: Store) -> Sealed:
    hold = FileLock(path)
    if not hold.take():
        return Sealed()
    gone = not path.exists()
    try:
        if gone:
            return Sealed()
        done = _drained(path, store)
        gone = True
        return done + Sealed(spools=1)
    finally:
        hold.free(remove=gone)


def _drained(path: Path, store: Store) -> Sealed:
    """Seal all of a spool that nobody writes any more, and remove it; put it aside where its file is damaged."""
    try:
        done = _drain(path, store)
    except (sqlite3.Error, OSError) as error:
        if not may_skip() or not spool_file.is_damage(path, error):
            raise
        done = _salvaged(path, store)
        kept = salvage.put_aside(path)
        leave_out(f"{path}: damaged. It is kept as {kept}: {said(error)}.")
        return done
    spool_file.remove(path)
    return done


def _salvaged(path: Path, store: Store) -> Sealed:
    """Seal what can be read of a damaged spool, without a word to the spool; nothing where its state is unknown."""
    done = Sealed()
    try:
        with spool_file.snapshot(path) as connection:
            if connection is None:
                return done
            for table in spool_file.TABLES:
                for row_range in salvage.ranges(connection, table, PART_ROWS):
                    done += _seal_range(connection, path, table, row_range, store, around_pages=True)
    except sqlite3.Error:  # not even what was sealed is known
        return done
    return done


def _drain(path: Path, store: Store) -> Sealed:
    """Seal all that a spool has now; what is written meanwhile is for the next time."""
    done = Sealed()
    with closing(spool_file.connect(path)) as connection:
        spool_file.prepare(connection)
        for table in spool_file.TABLES:
            goal = spool_file.unsealed(connection, table).last
            while (row_range := spool_file.plan(connection, table, PART_ROWS, goal)) is not None:
                done += _seal_range(connection, path, table, row_range, store)
                spool_file.mark_sealed(connection, table, row_range.last)
            spool_file.sweep(connection, table)  # what a killed process passed and did not remove
    return done


def _seal_range(
    connection: sqlite3.Connection,
    spool: Path,
    table: str,
    row_range: RowRange,
    store: Store,
    *,
    around_pages: bool = False,
) -> Sealed:
    parts = by_day(connection, table, row_range, around_pages=around_pages)
    for day, whole in parts:
        part = Part(table, day, f"{spool.stem}-{row_range.first}-{row_range.last}.parquet")
        put(store, part, whole)
    counted = {table: sum(whole.num_rows for _, whole in parts)}
    return Sealed(parts=len(parts), **counted)


def by_day(
    connection: sqlite3.Connection, kind: str, row_range: RowRange, *, around_pages: bool = False
) -> list[tuple[str, pa.Table]]:
    """A range of a spool's rows as one table for each UTC day of their time.

    Args:
        connection: to the spool.
        kind: answers or outcomes.
        row_range: which rows.
        around_pages: leave out the rows of damaged pages, if damage is to be left out; only where the spool is kept.
    """
    read = salvage.around if around_pages else spool_file.numbered
    chunks = spool_file.read_in_chunks(connection, kind, row_range, PIECE_ROWS, read)
    tables = [table for rows in chunks for table in readable_tables(kind, rows)]
    return split(_chosen_by(unified(tables))) if tables else []


def _chosen_by(table: pa.Table) -> pa.Table:
    """The table with a time and a version in each row, such as 1970 where a damaged spool has none."""
    for name, value in (("time", pa.scalar(0, TIME)), ("version", pa.scalar(""))):
        if name in table.column_names and table[name].null_count:
            whole = pc.fill_null(table[name].cast(LOG_TYPES[name]), value)
            table = table.set_column(table.column_names.index(name), name, whole)
    return table


def split(table: pa.Table) -> list[tuple[str, pa.Table]]:
    """A table as one for each UTC day of its time."""
    days = table["time"].to_numpy().astype("datetime64[D]")
    return [(str(day), table.filter(pa.array(days == day))) for day in np.unique(days)]


def put(store: Store, part: Part, table: pa.Table, stands_for: Sequence[str] = ()) -> None:
    """Write a part, and before it, for answers, the index of its ids.

    Raises:
        LogError: it cannot be written, or the table has columns that a part must not have.
    """
    try:
        check_schema(part.kind, table.schema)
    except ValueError as error:
        raise LogError(f"{store.place(part)}: not written: {error}.") from error
    if stands_for:
        table = table.replace_schema_metadata({STANDS_FOR: orjson.dumps(list(stands_for))})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", row_group_size=GROUP_ROWS, write_page_checksum=True)
    if part.kind == "answers":
        store.put(part.index(), index_of(table["prediction_id"], file.tell()))
    store.put(part, file.getvalue())


def _clear_orphans(folder: Path, use_case: str) -> None:
    """Remove locks whose spool never was, or is gone; young ones may be a spool in the making."""
    for lock in (folder / "spool").glob("*.lock"):
        spool = lock.with_suffix(spool_file.ENDING)
        if spool_file.use_case_of(lock.stem) != use_case or spool.exists() or disk.age(lock) < ORPHAN:
            continue
        hold = FileLock(spool)
        if hold.take():
            hold.free(remove=not spool.exists())


def retain(store: Store, keep_days: int, today: str) -> int:
    """Remove the parts of days that are more than `keep_days` before today (`2026-11-23`); gives their number."""
    first = str(np.datetime64(today) - np.timedelta64(keep_days, "D"))
    old = [part for kind in ("answers", "outcomes", "ids") for part in store.parts(kind) if part.day < first]
    for part in old:
        store.remove(part)
    return len(old)


def current(store: Store, kind: str) -> list[Part]:
    """The parts that make up the log: without those that a joined one stands for."""
    parts = store.parts(kind)
    joined = _joined(store, parts)
    covered = {(part.day, name) for part, names in joined.accepted.items() for name in names}
    return [
        part for part in parts if part not in joined.second | joined.damaged and (part.day, part.file) not in covered
    ]


@dataclass(frozen=True, slots=True)
class _Joined:
    """Joined parts: those that count with what they stand for, those that came second, and damaged ones.

    Two processes that joined at once may have taken the same parts: the first by name counts, the other is ignored.
    """

    accepted: dict[Part, list[str]]
    second: set[Part]
    damaged: set[Part]


def _joined(store: Store, parts: Sequence[Part]) -> _Joined:
    found = _Joined({}, set(), set())
    covered: set[tuple[str, str]] = set()
    for part in parts:
        if part.file.startswith(JOINED):
            names = _stands_for(store, part)
            if names is None:
                found.damaged.add(part)
            elif covered.isdisjoint((part.day, name) for name in names):
                covered.update((part.day, name) for name in names)
                found.accepted[part] = names
            else:
                found.second.add(part)
    return found


def _stands_for(store: Store, part: Part) -> list[str] | None:
    """The names of the parts that a joined one stands for; None where it is damaged, or gone."""
    try:
        with guarded(store.place(part)), store.open(part) as file:
            names = orjson.loads((pq.read_schema(file).metadata or {})[STANDS_FOR])
            mark = Path(part.file).stem.removeprefix(f"{JOINED}-")
            if len(mark) == MARK_LENGTH and mark != _mark(names):
                raise ValueError("its list of parts is not the one that it is named by")
            return list(names)
    except FileNotFoundError:
        pass
    return None


def _mark(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:MARK_LENGTH]


def join(folder: Path, store: Store, use_case: str, today: str, now: float) -> int:
    """Join the small parts of days before today, and remove what was joined long enough ago; gives the parts joined.

    Parts younger than an hour, and those that a spool of this folder has not passed yet, are left for a later time.

    It may be killed anywhere and be done again: a joined part is named by what it stands for.
    """
    count = 0
    for kind in spool_file.TABLES:
        _clear_joined(store, kind, now)
        open_ = _pending(folder, use_case, kind)
        days: dict[str, list[Part]] = {}
        for part in current(store, kind):
            small = part.day < today and not part.file.startswith(JOINED) and store.age(part, now) > GRACE
            if small and not any(part.file.startswith(f"{name}-") and last_row(part) > upto for name, upto in open_):
                days.setdefault(part.day, []).append(part)
        for day, parts in days.items():
            for some in _batches(store, parts):
                names = sorted(part.file for part in some)
                whole = _whole(store, some)
                if whole is not None:
                    put(store, Part(kind, day, f"{JOINED}-{_mark(names)}.parquet"), whole, names)
                    count += len(some)
    store.clear_drafts()
    return count


def _pending(folder: Path, use_case: str, kind: str) -> list[tuple[str, int]]:
    """The spools of this folder, each with the last row that it has passed."""
    pending = []
    for path in spool_file.spools(folder, use_case):
        with translate_errors(path, "read"), spool_file.snapshot(path) as connection:
            if connection is not None:
                pending.append((path.stem, spool_file.unsealed(connection, kind).first - 1))
    return pending


def last_row(part: Part) -> int:
    """The last row of its spool that a part may hold; 0 where it is no part of a spool."""
    last = Path(part.file).stem.rpartition("-")[2]
    return int(last) if last.isdigit() else 0


def _clear_joined(store: Store, kind: str, now: float) -> None:
    """Remove what accepted joined parts stand for, and joined parts that came second, when both are old enough.

    Nothing is removed that a damaged part stands for.
    """
    parts = store.parts(kind)
    joined = _joined(store, parts)
    old = {part for part in parts if part.file.startswith(JOINED) and store.age(part, now) > GRACE}
    there = {(part.day, part.file) for part in parts}
    covered: set[tuple[str, str]] = set()
    for part in old & set(joined.accepted):
        stood_for = {(part.day, name) for name in joined.accepted[part]} & there
        if stood_for and _whole(store, [part]) is not None:
            covered |= stood_for
    for part in parts:
        if (part.day, part.file) in covered or part in old & joined.second:
            store.remove(part)
            if kind == "answers":
                store.remove(part.index())


def _batches(store: Store, parts: Sequence[Part]) -> Iterable[list[Part]]:
    """Parts to join, together at most `JOINED_ROWS` rows and at least `FEWEST` parts; damaged or gone ones stay out."""
    some: list[Part] = []
    rows = 0
    for part in parts:
        size = 0
        with suppress(FileNotFoundError), guarded(store.place(part)), store.open(part) as file:
            metadata = pq.read_metadata(file)
            check_schema(part.kind, metadata.schema.to_arrow_schema())
            size = metadata.num_rows
        if not size:
            continue
        if some and rows + size > JOINED_ROWS:
            if len(some) >= FEWEST:
                yield some
            some, rows = [], 0
        some.append(part)
        rows += size
    if len(some) >= FEWEST:
        yield some


def _whole(store: Store, parts: Sequence[Part]) -> pa.Table | None:
    """The rows of several parts in one table, ordered by time; a column has the type that all of them have together.

    None where one is damaged, or was joined by another process meanwhile.
    """
    tables = []
    for part in parts:
        with suppress(FileNotFoundError), guarded(store.place(part)), store.open(part) as file:
            tables.append(pq.read_table(file, page_checksum_verification=True))
    return unified(tables).sort_by("time") if len(tables) == len(parts) else None


def unified(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables on top of each other, each column in one type; a column that one lacks is missing there."""
    types: dict[str, list[pa.DataType]] = {}
    tables = bounded(tables)
    for table in tables:
        for field in table.schema:
            types.setdefault(field.name, []).append(field.type)
    chosen = {name: common(kinds) for name, kinds in types.items()}
    return pa.concat_tables([shaped(table, chosen) for table in tables])


def shaped(table: pa.Table, types: dict[str, pa.DataType]) -> pa.Table:
    """A table with exactly these columns in these types; those that it lacks are missing."""
    have = set(table.column_names)
    columns = {
        name: cast(table[name], type_) if name in have else pa.chunked_array([pa.nulls(table.num_rows, type_)])
        for name, type_ in types.items()
    }
    return pa.table(columns) if columns else table


def between(table: pa.Table, start: pa.Scalar | None, end: pa.Scalar | None) -> pa.Table:
    """The rows of a table from `start` (included) to `end` (excluded)."""
    if start is not None:
        table = table.filter(pc.greater_equal(table["time"], start))
    if end is not None:
        table = table.filter(pc.less(table["time"], end))
    return table
