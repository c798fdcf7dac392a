"""A spool on disk: one SQLite file with a lock beside it that the kernel frees when its process is gone.

Entries are written by one process and leave in ranges of row numbers. A range is planned in the file before its part
is written, and passed in the file after: whoever goes on after a kill writes the same range under the same name.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from afterfit.errors import LogError
from afterfit.prediction_log import disk
from afterfit.prediction_log.entries import (
    LogEntry,
    Outcome,
    Record,
    ids_in_batch_record,
    size_when_unpacked,
    unbatch,
)

ENDING = ".sqlite"
FEATURES = LogEntry._fields.index("features")
TABLES: dict[str, tuple[str, ...]] = {"answers": LogEntry._fields, "outcomes": Outcome._fields}
"""The columns of a new spool; one that an earlier release wrote may lack some, which are then read as NULL."""
CREATE = (
    *(
        f"CREATE TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY, {', '.join(cols)})"
        for name, cols in TABLES.items()
    ),
    "CREATE TABLE IF NOT EXISTS sealed (name TEXT PRIMARY KEY, upto INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS plans (name TEXT PRIMARY KEY, upto INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT OR IGNORE INTO sealed VALUES ('answers', 0), ('outcomes', 0)",
)
UNFIT = (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError, UnicodeError, OverflowError)
"""What SQLite says of a value that no column can hold: the row is at fault, and not the disk."""
BROKEN = ("malformed", "not a database", "no such", "file is encrypted")
MEND = "The file is damaged: bring it back from a copy, or leave out what is damaged with --skip_damaged."
MAKE_ROOM = "Free space on its disk, or give it another folder."
AT_ONCE = 5_000
"""Passed rows that are removed in one transaction: the writer never waits for more than these."""
CHUNK_BYTES = 2**25
"""Bytes of features that are read at once, about."""
RANGE_BYTES = 2**28
"""Bytes of features and predictions of a range, about: a range is sealed as one table."""
SIZES = "SELECT coalesce(sum(length(features) + coalesce(length(prediction), 0)), 0) FROM answers"
PAIRS = "SELECT id, prediction_id IS NULL, features, prediction FROM answers"
TRIES = 3
"""How often a hold is tried to be taken on a disk that seems to fail."""
WAIT = 30.0
"""Seconds for which one connection waits for another one's transaction."""


def connect(path: Path, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """A connection in autocommit mode to an existing or new spool, in WAL mode; its files are their owner's only."""
    disk.make_file(path)  # or SQLite would make it, and what lies beside it, by the process's mask
    connection = sqlite3.connect(
        path, timeout=WAIT, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint=4000")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables where they are not there, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in CREATE:
        connection.execute(statement)
    connection.execute("COMMIT")


@contextmanager
def translate_errors(path: Path, doing: str) -> Iterator[None]:
    """SQLite's and the system's errors as one sentence."""
    try:
        yield
    except (sqlite3.Error, OSError, *UNFIT) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, UNFIT):
            raise LogError(f"{path}: a row of the prediction log cannot be {doing}: {said}.") from error
        broken = any(words in said for words in BROKEN)
        raise LogError(
            f"{path}: the prediction log cannot be {doing}: {said}. {MEND if broken else MAKE_ROOM}"
        ) from error


def is_damage(path: Path, error: BaseException | None) -> bool:
    """Whether an error says that a spool's file is damaged, and not that its disk or another process is in the way."""
    broken = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
    return broken or path.is_dir()


class FileLock:
    """An exclusive hold on a spool: a SQLite lock on a file beside it, which ends with the process however it ends."""

    def __init__(self, spool: Path) -> None:
        self.path = spool.with_suffix(".lock")
        self._connection: sqlite3.Connection | None = None

    def take(self) -> bool:
        """Take the hold; False where another process, or another part of this one, has it or was just done with it."""
        for left in reversed(range(TRIES)):
            try:
                disk.make_file(self.path)
            except FileNotFoundError:  # its folder was removed
                return False
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                connection.close()
                if "locked" in str(error) or not self.path.exists():
                    break
                if not left:
                    raise
                continue  # the file that was opened may be one that was removed meanwhile, and is there anew
            self._connection = connection
            return True
        return False

    def free(self, *, remove: bool = False) -> None:
        """Give the hold back; with `remove` its file goes first."""
        if remove:
            self.path.unlink(missing_ok=True)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def spools(folder: Path, use_case: str | None = None) -> list[Path]:
    """The spools of a log's folder by name; of one use case, or of all."""
    paths = sorted((folder / "spool").glob(f"*{ENDING}"))
    return [path for path in paths if use_case in {None, use_case_of(path.stem)}]


def name_for(use_case: str, host: str, pid: int, random: str) -> str:
    """The name of a new spool; all that stands before its last three dashes is the use case."""
    return f"{use_case}-{re.sub('[^A-Za-z0-9.]', '.', host)[:60] or 'host'}-{pid}-{random}"


def use_case_of(name: str) -> str:
    """The use case that a spool's name, or a name that begins with it, was made for."""
    return name.rsplit("-", 3)[0]


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows of a spool's table: after `first - 1`, up to `last`, both row numbers."""

    first: int
    last: int


Reading = Callable[[sqlite3.Connection, str, RowRange], Iterator[tuple[int, Record]]]
"""A function that gives the rows of a range with their numbers."""


def unsealed_rows(connection: sqlite3.Connection, table: str = "answers") -> int:
    """Rows that are not sealed yet."""
    (left,) = connection.execute(
        f"SELECT coalesce(max(id), 0) - (SELECT upto FROM sealed WHERE name = ?) FROM {table}",  # noqa: S608 - our names
        (table,),
    ).fetchone()
    return max(int(left), 0)


def plan(connection: sqlite3.Connection, table: str, most: int, goal: int) -> RowRange | None:
    """The next rows to seal: those of a plan that was not finished, or else the next `most` up to the row `goal`.

    None where none is left.

    The plan is on disk when this returns.
    """
    (done,) = connection.execute("SELECT upto FROM sealed WHERE name = ?", (table,)).fetchone()
    planned = connection.execute("SELECT upto FROM plans WHERE name = ?", (table,)).fetchone()
    if planned is not None:
        return RowRange(done + 1, int(planned[0]))
    if done >= goal:
        return None
    upto = next_range(connection, table, RowRange(done + 1, goal), most).last
    connection.execute("INSERT INTO plans VALUES (?, ?)", (table, upto))
    return RowRange(done + 1, upto)


def next_range(connection: sqlite3.Connection, table: str, rows: RowRange, most: int) -> RowRange:
    """The first of some rows: at most so many, and of `RANGE_BYTES`; at least one, however large it is."""
    last = min(rows.last, rows.first + most - 1)
    if table != "answers":
        return RowRange(rows.first, last)
    ends = rows.first, last
    (size,) = connection.execute(f"{SIZES} WHERE id BETWEEN ? AND ? AND prediction_id IS NOT NULL", ends).fetchone()
    for many in connection.execute(f"{PAIRS} WHERE id BETWEEN ? AND ? AND prediction_id IS NULL", ends):
        size += _unfolded(many)
    return RowRange(rows.first, last if size <= RANGE_BYTES else _last_that_fits(connection, rows.first, last))


def _unfolded(record: tuple[int, int, bytes, bytes]) -> int:
    """Bytes of the features and the prediction of a record (number, whether it is of many, both texts)."""
    _, is_many, *texts = record
    return sum(size_when_unpacked(text, RANGE_BYTES) if is_many else len(text) for text in texts if text is not None)


def _last_that_fits(connection: sqlite3.Connection, first: int, last: int) -> int:
    size, before = 0, 0
    for record in connection.execute(f"{PAIRS} WHERE id BETWEEN ? AND ? ORDER BY id", (first, last)):
        size += _unfolded(record)
        if size > RANGE_BYTES and before:
            return before
        before = record[0]
    return last


def numbered(
    connection: sqlite3.Connection, table: str, row_range: RowRange, order: str = "ASC"
) -> Iterator[tuple[int, Record]]:
    """The rows of a range with their numbers, in their order, or from the last one back with "DESC".

    Answers that were written together are one record, which has their last number. A column that the spool lacks is
    None in every row.
    """
    existing = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}
    columns = ", ".join(name if name in existing else "NULL" for name in TABLES[table])
    query = f"SELECT id, {columns} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id {order}"  # noqa: S608 - our names
    for number, *record in connection.execute(query, (row_range.first, row_range.last)):
        yield number, tuple(record)


def read_in_chunks(
    connection: sqlite3.Connection, table: str, row_range: RowRange, chunk_size: int, read: Reading = numbered
) -> Iterator[list[Record]]:
    """The rows of a range in their order, without their numbers, in chunks of about so many rows.

    Answers that were written together come one by one, and belong to the range that has their last number.
    """
    chunk: list[Record] = []
    size = 0
    for _, record in read(connection, table, row_range):
        for row in unbatch(record) if table == "answers" else [record]:
            chunk.append(row)
            size += len(row[FEATURES] or b"") if table == "answers" else 0
            if size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if len(chunk) >= chunk_size:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def mark_sealed(connection: sqlite3.Connection, table: str, upto: int) -> None:
    """Note that all rows up to one are sealed, in one transaction, and then remove them.

    The last row stays, unseen: SQLite numbers the next one after it, so that no number ever comes twice.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("UPDATE sealed SET upto = ? WHERE name = ?", (upto, table))
        connection.execute("DELETE FROM plans WHERE name = ?", (table,))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    sweep(connection, table)


def sweep(connection: sqlite3.Connection, table: str) -> None:
    """Remove rows that are sealed, a few thousand at a time."""
    (upto,) = connection.execute("SELECT upto FROM sealed WHERE name = ?", (table,)).fetchone()
    (first, last) = connection.execute(f"SELECT min(id), max(id) FROM {table}").fetchone()  # noqa: S608 - our names
    if first is None:
        return
    upto = min(upto, last - 1)
    for start in range(first, upto + 1, AT_ONCE):
        end = min(start + AT_ONCE - 1, upto)
        connection.execute(f"DELETE FROM {table} WHERE id BETWEEN ? AND ?", (start, end))  # noqa: S608 - our names


def bring_back(connection: sqlite3.Connection, spool: Path) -> None:
    """Write a spool whose file was removed to its place again, out of the connection that still has it open.

    The caller holds the spool, and closes the connection afterwards.
    """
    draft = spool.with_name(f"{spool.name}.part")
    draft.unlink(missing_ok=True)
    disk.make_file(draft)
    with closing(sqlite3.connect(draft, isolation_level=None)) as copy:
        connection.backup(copy)
    disk.sync_file(draft)
    remove(spool)  # what lies beside it belongs to the file that is gone
    draft.replace(spool)
    disk.sync_folder(spool.parent)


def remove(spool: Path) -> None:
    """Remove a spool whose rows are all sealed; the caller holds it."""
    for ending in ("", "-wal", "-shm"):
        spool.with_name(spool.name + ending).unlink(missing_ok=True)


@contextmanager
def snapshot(spool: Path) -> Iterator[sqlite3.Connection | None]:
    """A read-only view of a spool as it is now, which later transactions do not change; None where it is gone."""
    try:
        connection = sqlite3.connect(
            f"{spool.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT, isolation_level=None
        )
    except sqlite3.OperationalError:
        if spool.exists():
            raise
        yield None
        return
    with closing(connection):
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sealed").fetchone()
        except sqlite3.OperationalError as error:
            if spool.exists() and "no such table" not in str(error):
                raise
            yield None
            return
        yield connection


def unsealed(connection: sqlite3.Connection, table: str) -> RowRange:
    """All rows that a snapshot's spool has not sealed."""
    (done,) = connection.execute("SELECT upto FROM sealed WHERE name = ?", (table,)).fetchone()
    (last,) = connection.execute(f"SELECT max(id) FROM {table}").fetchone()  # noqa: S608 - our names
    return RowRange(int(done) + 1, int(last or 0))


def known(connection: sqlite3.Connection, ids: list[str]) -> set[str]:
    """Which of the ids are among a spool's answers."""
    marks = ", ".join("?" * len(ids))
    query = f"SELECT DISTINCT prediction_id FROM answers WHERE prediction_id IN ({marks})"  # noqa: S608 - marks only
    known_ids = {name for (name,) in connection.execute(query, ids)}
    left = set(ids) - known_ids
    if left:
        for (answers,) in connection.execute("SELECT prediction FROM answers WHERE prediction_id IS NULL"):
            known_ids |= left & ids_in_batch_record(answers)
    return known_ids
