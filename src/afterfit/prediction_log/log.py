"""The prediction log as a whole: where it is, sealing, outcomes, which ids it knows, reading, what stays private."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from afterfit.contract.values import read_category
from afterfit.errors import LogError, SettingsError
from afterfit.prediction_log import id_index, reader, sealing, spool_file
from afterfit.prediction_log.damage import guarded
from afterfit.prediction_log.entries import LogEntry, Outcome
from afterfit.prediction_log.reader import LogQuery, feature_column, features_of
from afterfit.prediction_log.sealing import Sealed
from afterfit.prediction_log.spool import Spool
from afterfit.prediction_log.spool_file import translate_errors
from afterfit.prediction_log.store import Part, Store, store
from afterfit.use_case import UseCase

__all__ = ["LogEntry", "Outcome", "PredictionLog", "Sealed", "Spool", "feature_column", "features_of"]
VARIABLE = "AFTERFIT_LOG"
"""The environment variable that names a log's folder where there is no settings file."""
SIDE = 500
"""Ids that one query of a spool asks for."""


@dataclass(frozen=True, slots=True)
class PredictionLog:
    """Where a use case's log is.

    Attributes:
        use_case: its name.
        folder: the local folder with the spools of this machine, in `spool` below it.
        root: the folder or s3:// address of the sealed parts, which lie below it by use case.
        durability: how answers are written.
        keep_days: sealed days older than this are removed; None keeps all.
    """

    use_case: str
    folder: Path
    root: str
    durability: Literal["acknowledged", "buffered"] = "acknowledged"
    keep_days: int | None = None

    @property
    def store(self) -> Store:
        """Where its sealed parts are."""
        return store(self.root, self.use_case)

    def spool(self) -> Spool:
        """A new spool of this process.

        Raises:
            LogError: the folder cannot be written.
        """
        return Spool(self.folder, durability=self.durability, use_case=self.use_case)


def log_of(use_case: UseCase) -> PredictionLog | None:
    """The log that a use case's settings name; else that of the environment variable AFTERFIT_LOG; None without."""
    settings = use_case.log
    if settings.folder is None:
        return log_at(os.environ.get(VARIABLE, ""), use_case.name)
    remote = settings.folder.startswith("s3://")
    root = settings.folder if remote else str(use_case.root / Path(settings.folder).expanduser())
    folder = use_case.root / Path(settings.spool or settings.folder).expanduser()
    return PredictionLog(use_case.name, folder, root, settings.durability, settings.keep_days)


def log_at(place: str, use_case: str) -> PredictionLog | None:
    """The log in a folder; None where the place is empty."""
    return PredictionLog(use_case, Path(place).expanduser(), str(Path(place).expanduser())) if place.strip() else None


def required(use_case: UseCase, folder: str = "") -> PredictionLog:
    """The log in a folder, or else that of the use case.

    Raises:
        SettingsError: there is none.
    """
    log = log_at(folder, use_case.name) or log_of(use_case)
    if log is None:
        raise SettingsError(
            f"{use_case.name} keeps no prediction log: name a folder under log in its settings file, in the "
            f"environment variable {VARIABLE}, or with --folder."
        )
    return log


def seal(log: PredictionLog, own: Sequence[Spool] = ()) -> Sealed:
    """Seal this process's spools (`own`) and those of processes that are gone; nothing else is touched.

    Raises:
        LogError: a spool or the store failed. What is not sealed stays in its spool.
    """
    return sealing.seal(log.folder, log.store, log.use_case, own)


def tidy(log: PredictionLog, now: datetime) -> tuple[int, int]:
    """Join small parts of past days and remove days past `keep_days`; gives (parts joined, parts removed).

    Raises:
        LogError: a part cannot be read, written or removed.
        SourceError: S3 refused or does not answer.
    """
    day = now.astimezone(timezone.utc).date().isoformat()
    removed = 0 if log.keep_days is None else sealing.retain(log.store, log.keep_days, day)
    return sealing.join(log.folder, log.store, log.use_case, day, now.timestamp()), removed


def read(
    log: PredictionLog,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    time: str = "served",
    written: str | None = None,
    version: str | None = None,
    shadow: bool | None = False,
    columns: Collection[str] | None = None,
) -> Iterator[pa.Table]:
    """Stream a window's answers with their outcomes: what is sealed, and what is not, each answer once.

    Args:
        log: the log.
        start: only answers from this time on (naive UTC), or None.
        end: only answers before it, or None.
        time: "served" for the time of the answer, or the name of a time column among the features.
        written: how the dates of that column are written, where that is known (`contract.datetimes.parse_as`).
        version: only answers of this version.
        shadow: answers given behind others: False leaves them out, True gives only these, None gives all.
        columns: the columns wanted; all where None.

    Returns:
        Tables of at most 65,536 rows, all with the same columns, in order of the days of serving: prediction_id, time
        (timestamp[us], UTC), version, shadow, key, prediction, probability, probabilities (JSON), lower, upper,
        confidence, warnings (JSON), error (JSON), seconds; a column for each feature, named as received (`features.`
        stands before a name that is one of these: `feature_column`; `features_of` gives the features alone); outcome
        and outcome_time. Memory is bounded by parts of the log, not by the log; nothing is yielded where no row is.

    Raises:
        LogError: a part or a spool cannot be read.
        SourceError: S3 refused or does not answer.
    """
    chosen = None if columns is None else tuple(columns)
    return reader.read(
        log.folder, log.store, log.use_case, LogQuery(start, end, time, version, shadow, chosen, written)
    )


def unknown_ids(log: PredictionLog, ids: Iterable[str]) -> set[str]:
    """Which of some prediction ids are not in the log.

    What it costs: a scan of the answers that are not sealed yet; for each sealed part, newest first until all are
    found, a binary search in its index. An index on S3 (8 bytes an answer) is fetched once and kept in `ids` below the
    log's folder. Indexes hold 64-bit hashes: an unknown id is taken for a known one once in 10^19 / (answers in the
    log) times.

    Raises:
        LogError, SourceError: spool or store cannot be read.
    """
    left = set(ids)
    odd = {name for name in left if not _encodable(name)}  # half a surrogate pair is in no log
    left -= odd
    for path in spool_file.spools(log.folder, log.use_case):
        if left:
            left -= _spooled(path, left)
    if left:
        left = id_index.unknown(log.store, log.folder / "ids" / log.use_case, left)
    return left | odd


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spooled(path: Path, ids: set[str]) -> set[str]:
    """Those of the ids that a spool holds."""
    known: set[str] = set()
    with guarded(path, "Ids in it"), translate_errors(path, "read"), spool_file.snapshot(path) as connection:
        if connection is not None:
            wanted = sorted(ids)
            for first in range(0, len(wanted), SIDE):
                known |= spool_file.known(connection, wanted[first : first + SIDE])
    return known


def known_outcomes(log: PredictionLog, outcomes: pa.Table) -> npt.NDArray[np.bool_]:
    """(n,) which of n outcomes (prediction_id, key, value) the log has already: the last known value is the same.

    Memory is bounded as in `read`; all outcomes of the log are read.
    """
    known = reader.outcomes_of(log.folder, log.store, log.use_case, outcomes.select(["prediction_id", "key"]))
    pairs = zip(known.to_pylist(), outcomes["value"].to_pylist(), strict=True)
    return np.array(
        [old is not None and read_category(old) == read_category(new) for old, new in pairs], dtype=np.bool_
    )


def unknown_keys(log: PredictionLog, keys: Collection[str]) -> set[str]:
    """Which of some keys no answer of the log has; the keys of all answers are read, part by part."""
    left = set(keys)
    for table in read(log, shadow=None, columns=["key"]):
        if not left:
            break
        left.difference_update(table["key"].drop_null().unique().to_pylist())
    return left


def write_table(log: PredictionLog, name: str, kind: Literal["answers", "outcomes"], table: pa.Table) -> int:
    """Write a table of many answers or outcomes straight into sealed parts, one a day, under a name that repeats.

    Args:
        log: the log.
        name: what the parts are called; the same name replaces them.
        kind: what the rows are.
        table: the columns that parts have (see `arrow`), with `f:` before a feature's name.

    Raises:
        LogError: the store failed; days that were written stay.
    """
    if "/" in name:
        raise LogError(f"A part's name must have no '/': '{name}'.")
    place = log.store
    for day, some in sealing.split(table):
        sealing.put(place, Part(kind, day, f"{name}.parquet"), some)
    return int(table.num_rows)
