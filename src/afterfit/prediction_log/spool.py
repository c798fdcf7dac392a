"""The prediction log's writer: answers and outcomes into a spool of this process, on disk before they leave.

`acknowledged` (the default) has each batch on disk (fsync) when `write` returns, in one transaction. `buffered` takes
it into memory and returns: a thread writes about every 50 ms, so that a process that is killed loses that much, and
a machine that loses its power what the system had not yet written.
"""

import atexit
import contextlib
import os
import socket
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from afterfit.errors import LogError, SettingsError
from afterfit.prediction_log import disk, spool_file
from afterfit.prediction_log.entries import BatchRecord, LogEntry, Outcome, batch_record_of
from afterfit.prediction_log.spool_file import TABLES, UNFIT, FileLock, translate_errors

EVERY = 0.05
"""Seconds that the buffered writer collects for."""
SOON = 1_000
"""Buffered entries at which it writes at once."""
MOST_BUFFERED = 100_000
"""Buffered entries that wait for a failing disk; further ones are refused with an error."""
LARGE, MOST_BUFFERED_BYTES = 4_096, 2**28
"""Bytes of an entry's features from which on all that waits is added up, and how much may wait."""
PATIENCE = 0.5
"""Seconds after which the buffered writer tries a failing disk again."""
ROWS_PER_STATEMENT = 128
"""Rows that one statement writes: the interpreter is given away once for all of them, not once for each."""
FEWEST_FOR_BATCH_RECORD = 16
"""Answers of one version that follow each other are written as one record from so many on."""
_forks = [0]
"""How many forks made this process from one that knew this module; asking the system each time would cost more.

Of the process and not of a log, since the system calls no object after a fork: that is why it lies in the module.
"""
os.register_at_fork(after_in_child=lambda: _forks.__setitem__(0, _forks[0] + 1))


class Spool:
    """This process's part of a log. Threads may share it; processes must not: each makes its own.

    Where somebody removes its file or folder while it is open, the next write, sealing or close brings it back with
    all that it had.

    Args:
        folder: the log's folder, on a local disk (SQLite's WAL needs one); the spool is a file in `spool` below it.
        durability: "acknowledged" or "buffered".
        use_case: the use case's name.

    Attributes:
        path: the spool's file.
        fault: why the buffered writer cannot write now, or could not hold a row; None where all is well.
        lost: buffered entries that no file can hold, such as text with half a surrogate pair.
        sealing: held while this process seals the spool.

    Raises:
        LogError: the folder cannot be written.
        SettingsError: an unknown durability.
    """

    def __init__(self, folder: Path, *, durability: str = "acknowledged", use_case: str = "") -> None:
        if durability not in {"acknowledged", "buffered"}:
            raise SettingsError(f"durability must be acknowledged or buffered, and came as '{durability}'.")
        self._forks, self._folder, self._use_case = _forks[0], folder, use_case
        self._synchronous = "FULL" if durability == "acknowledged" else "NORMAL"
        self._lock = threading.Lock()
        self.sealing = threading.Lock()
        self._queue: deque[LogEntry | BatchRecord] = deque()
        self._taken: list[LogEntry | BatchRecord] = []
        self._closing, self._called = threading.Event(), threading.Event()
        self._hurry, self._closed = threading.Event(), False
        self.fault: str | None = None
        self._unfit: str | None = None
        self.lost = 0
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        with translate_errors(folder, "written"):
            self.path, self._hold = _hold_new_path(folder, use_case)
        try:
            with translate_errors(self.path, "written"):
                self._last = self._ready()
        except LogError:
            self._drop()
            self._hold.free(remove=True)
            raise
        self._thread: threading.Thread | None = None
        if durability == "buffered":
            self._thread = threading.Thread(target=self._write_on, name="prediction log", daemon=True)
            self._thread.start()
        atexit.register(self.close)

    def write(self, entries: Sequence[LogEntry | BatchRecord]) -> None:
        """Write answers, all or none of them.

        Raises:
            LogError: the disk is full or fails (or, buffered, so many entries wait for it); a later call may succeed.
        """
        if self._thread is None:
            with self._lock:
                self._insert("answers", entries)
            return
        full = len(self._queue) > MOST_BUFFERED or (_holds_many(entries[-1:]) and self._waiting() > MOST_BUFFERED)
        large = any(len(entry.features) > LARGE for entry in entries)
        full = full or (large and self._bytes_waiting() > MOST_BUFFERED_BYTES)
        if full or self._closed or self._forks != _forks[0]:
            raise self._refused()
        self._queue.extend(entries)
        if not self._called.is_set():
            self._called.set()
        if len(self._queue) > SOON and not self._hurry.is_set():
            self._hurry.set()

    def _waiting(self) -> int:
        """Answers in memory."""
        return size(self._queue.copy()) + size(self._taken)

    def _bytes_waiting(self) -> int:
        """Bytes of features in memory."""
        return sum(len(entry.features) for entry in chain(self._queue.copy(), self._taken))

    def write_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes, all or none of them; they are on disk (fsync) when this returns, in either durability.

        Raises:
            LogError: the disk is full or fails.
        """
        with self._lock:
            self._insert("outcomes", outcomes, durable=True)

    @property
    def backlog(self) -> int:
        """Answers not sealed yet, those in memory among them."""
        waiting = self._waiting()
        with self._lock, translate_errors(self.path, "read"):
            return waiting + (0 if self._closed else spool_file.unsealed_rows(self._opened()))

    def rotate(self) -> None:
        """Go on in a new file and leave the old one for another process to seal, which then does this one's work.

        Raises:
            LogError: there can be no new file; the old one goes on.
        """
        with self.sealing, self._lock:
            if self._closed or self._forks != _forks[0]:
                raise self._refused()
            self._restore()
            with translate_errors(self.path, "written"):
                if not any(spool_file.unsealed_rows(self._opened(), table) for table in TABLES):
                    return
                path, hold = _hold_new_path(self._folder, self._use_case)
            before = self.path, self._hold, self._last
            self._drop()
            self.path, self._hold = path, hold
            try:
                with translate_errors(path, "written"):
                    self._last = self._ready()
            except LogError:
                self._drop()
                spool_file.remove(path)
                hold.free(remove=True)
                self.path, self._hold, self._last = before
                raise
            before[1].free()

    def close(self) -> None:
        """Write what is in memory and give the file back; the next sealing takes it over, if anything is in it.

        Raises:
            LogError: entries were in memory and the disk fails; it says how many are lost.
        """
        if self._closed or self._forks != _forks[0]:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._closing.set()
        self._called.set()
        self._hurry.set()
        if self._thread is not None:
            self._thread.join()
        with self.sealing, self._lock:
            self._leave()
        left = self._waiting() + self.lost
        if left:
            raise LogError(f"{self.path}: {left:,} answers could not be written and are lost: {self.fault}")

    def _leave(self) -> None:
        empty = False
        with contextlib.suppress(LogError, sqlite3.Error, OSError):
            self._restore()
            empty = not any(spool_file.unsealed_rows(self._opened(), table) for table in TABLES)
        self._drop()
        if empty:
            spool_file.remove(self.path)
        self._hold.free(remove=empty)

    def _ready(self) -> int:
        """Make the tables where they are not there; gives the last row's number."""
        self._connection = spool_file.connect(self.path, synchronous=self._synchronous)
        spool_file.prepare(self._connection)
        self._file = disk.identity(self.path)
        return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM answers").fetchone()[0])

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:  # after a failure, when the file may be fine again
            self._hold_again()
            self._ready()
        assert self._connection is not None  # noqa: S101 - _ready made it
        return self._connection

    def restore(self) -> None:
        """Bring the spool's file back where it was removed.

        Raises:
            LogError: it cannot be written.
        """
        with self._lock:
            if not self._closed and self._forks == _forks[0]:
                self._restore()

    def _restore(self) -> None:
        if self._connection is None or self._is_there():
            return
        with translate_errors(self.path, "written"):
            self._hold_again()
            spool_file.bring_back(self._connection, self.path)
            self._drop()
            self._ready()

    def _is_there(self) -> bool:
        return self._file is not None and disk.identity(self.path) == self._file

    def _hold_again(self) -> None:
        """Take the hold anew where its file or folder was removed."""
        disk.make_folder(self.path.parent)
        if self._hold.path.exists():
            return
        hold = FileLock(self.path)
        if hold.take():
            self._hold.free()
            self._hold = hold

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]], *, durable: bool = False) -> None:
        """One transaction, held under the lock; after a failure the file is opened anew."""
        if not rows:
            return
        if self._forks != _forks[0] or (self._closed and self._thread is not threading.current_thread()):
            raise self._refused()
        try:
            with translate_errors(self.path, "written"):
                connection = self._opened()
                if durable and self._synchronous != "FULL":
                    connection.execute("PRAGMA synchronous=FULL")
                _insert(connection, table, rows)
                if durable and self._synchronous != "FULL":
                    connection.execute(f"PRAGMA synchronous={self._synchronous}")
            self._restore()  # or it would be written where nobody finds it
        except LogError:
            if self._is_there():  # else this connection alone still has what was acknowledged
                self._drop()
            raise

    def _refused(self) -> LogError:
        if self._forks != _forks[0]:
            return LogError(f"{self.path}: this spool is another process's: make one in each process.")
        if self._closed:
            return LogError(f"{self.path}: this spool is closed.")
        return LogError(f"{self.path}: {self._waiting():,} answers wait for the disk, no more fit: {self.fault}")

    def _write_on(self) -> None:
        """The buffered writer's thread."""
        while not self._closing.is_set():
            self._called.wait()
            self._hurry.wait(EVERY)
            self._hurry.clear()
            self._called.clear()
            while not self._flush() and not self._closing.wait(PATIENCE):
                pass
        self._flush()

    def _flush(self) -> bool:
        """Write what is in memory now; what comes meanwhile waits for the next time. False where the disk fails."""
        left = len(self._taken) + len(self._queue)
        while left > 0:
            if not self._taken:  # what is tried again stays as it was, or it could not be told what was written of it
                self._taken = [self._queue.popleft() for _ in range(min(left, SOON))]
            count = len(self._taken)
            try:
                with self._lock:
                    self._once()
            except LogError as error:
                self.fault = str(error)
                if not isinstance(error.__cause__, UNFIT):
                    return False
                self._unfit, self._taken = self.fault, self._fit(self._taken)
                left -= count - len(self._taken)
                continue
            self._taken, self.fault = [], self._unfit
            left -= count
        return True

    def _fit(self, entries: list[LogEntry | BatchRecord]) -> list[LogEntry | BatchRecord]:
        """The entries that a file can hold; the others are counted as lost, and do not stop the rest."""
        kept: list[LogEntry | BatchRecord] = []
        with sqlite3.connect(":memory:", isolation_level=None) as trial:
            spool_file.prepare(trial)
            for entry in entries:
                with contextlib.suppress(*UNFIT):
                    _insert(trial, "answers", [entry])
                    kept.append(entry)
        trial.close()
        self.lost += size(entries) - size(kept)
        return kept

    def _once(self) -> None:
        """Write what was taken, unless an earlier attempt that was reported as failed did so after all."""
        with translate_errors(self.path, "written"):
            (last,) = self._opened().execute("SELECT coalesce(max(id), 0) FROM answers").fetchone()
        if last == self._last:
            self._insert("answers", self._taken)
            last += size(self._taken)
        self._last = last


def _hold_new_path(folder: Path, use_case: str) -> tuple[Path, FileLock]:
    """A new spool's path, held before there is a file that somebody else could take for a dead process's."""
    while True:
        disk.make_folder(folder / "spool")
        disk.narrow(folder / "spool")
        name = spool_file.name_for(use_case, socket.gethostname(), os.getpid(), os.urandom(6).hex())
        path = (folder / "spool" / f"{name}{spool_file.ENDING}").absolute()
        hold = FileLock(path)
        if hold.take() and hold.path.exists():
            return path, hold
        hold.free()


def size(entries: Iterable[LogEntry | BatchRecord]) -> int:
    """How many answers the entries hold."""
    return sum(entry.size if type(entry) is BatchRecord else 1 for entry in entries)


def _holds_many(entries: Sequence[LogEntry | BatchRecord]) -> bool:
    return any(type(entry) is BatchRecord for entry in entries)


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    statements = _statements(table, rows)
    if len(statements) == 1:
        connection.execute(*statements[0])
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(*statement)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _statements(table: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, list[Any]]]:
    """The statements that write rows in their order: few answers in one statement, many as one record."""
    columns = TABLES[table]
    names, row = ", ".join(columns), ", ".join("?" * len(columns))
    statements: list[tuple[str, list[Any]]] = []
    for kind, run in groupby(rows, _kind):
        some = list(run)
        # a record takes the numbers of all its answers; SQLite gives the next row the number after
        into = f"INSERT INTO {table} (id, {names}) SELECT coalesce(max(id), 0) + ?, {row} FROM {table}"  # noqa: S608
        bulks = _bulks(kind, some)
        statements += [(into, [bulk.size, *bulk.record()]) for bulk in bulks]
        for start in range(0, 0 if bulks else len(some), ROWS_PER_STATEMENT):
            part = some[start : start + ROWS_PER_STATEMENT]
            into = f"INSERT INTO {table} ({names}) VALUES {', '.join([f'({row})'] * len(part))}"  # noqa: S608 - our names
            statements.append((into, list(chain.from_iterable(part))))
    return statements


def _kind(row: tuple[Any, ...]) -> object:
    """What rows must share to be one record."""
    return (row.version, row.shadow) if type(row) is LogEntry else type(row)


def _bulks(kind: object, rows: Sequence[tuple[Any, ...]]) -> list[BatchRecord]:
    """Rows of a kind as records of many; none where they are to be written one by one."""
    if kind is BatchRecord:
        return [row for row in rows if isinstance(row, BatchRecord)]
    many = type(kind) is tuple and len(rows) >= FEWEST_FOR_BATCH_RECORD
    batch_record = batch_record_of(rows) if many else None
    return [] if batch_record is None else [batch_record]
