"""What can still be read of a spool with damaged pages; the file is put aside, and never removed.

It is asked for only where damage may be left out. A row whose text no decoder understands needs nothing of this: it is
sealed as it is, as text (`arrow.readable_tables`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from afterfit.prediction_log import disk, spool_file
from afterfit.prediction_log.damage import leave_out, said
from afterfit.prediction_log.entries import Record
from afterfit.prediction_log.spool_file import RowRange

ASIDE = "damaged"
"""The folder beside `spool` that damaged spools are put into."""


def around(connection: sqlite3.Connection, kind: str, row_range: RowRange) -> Iterator[tuple[int, Record]]:
    """The rows of a range with their numbers: up to a damaged page, and from the end back to one.

    Raises:
        LogError: a page is damaged, and damage is not to be left out.
    """
    last = row_range.first - 1
    try:
        for number, record in spool_file.numbered(connection, kind, row_range):
            yield number, record
            last = number
    except sqlite3.DatabaseError as error:
        end, behind = row_range.last + 1, list[tuple[int, Record]]()
        with suppress(sqlite3.DatabaseError):
            for number, record in spool_file.numbered(connection, kind, RowRange(last + 1, row_range.last), "DESC"):
                behind.append((number, record))
                end = number
        place = connection.execute("PRAGMA database_list").fetchone()[2]
        words = f"{place}: damaged. Rows {last + 1:,} to {end - 1:,} of its {kind} cannot be read: {said(error)}."
        leave_out(words, error)
        yield from reversed(behind)


def put_aside(spool: Path) -> Path:
    """Move a damaged spool out of the way, whole; gives where it is now. The caller holds it."""
    folder = spool.parent.parent / ASIDE
    with spool_file.translate_errors(folder, "written"):
        disk.make_folder(folder)
        disk.narrow(folder)
        for ending in ("-wal", "-shm", ""):
            beside = spool.with_name(spool.name + ending)
            if beside.exists():
                beside.replace(folder / beside.name)
        disk.sync_folder(folder)
        disk.sync_folder(spool.parent)
    return folder / spool.name


def ranges(connection: sqlite3.Connection, kind: str, most: int) -> list[RowRange]:
    """The ranges in which the unsealed rows of a spool go that nobody writes any more, the planned one first.

    They are the same each time, so that parts that were written before a kill are written again.
    """
    (done,) = connection.execute("SELECT upto FROM sealed WHERE name = ?", (kind,)).fetchone()
    planned = connection.execute("SELECT upto FROM plans WHERE name = ?", (kind,)).fetchone()
    (last,) = connection.execute(f"SELECT max(id) FROM {kind}").fetchone()  # noqa: S608 - our names
    ends = [] if planned is None else [int(planned[0])]
    while (ends[-1] if ends else done) < (last or 0):
        ends.append(min((ends[-1] if ends else done) + most, last))
    starts = [done + 1, *(end + 1 for end in ends[:-1])]
    return [RowRange(first, end) for first, end in zip(starts, ends, strict=False)]
