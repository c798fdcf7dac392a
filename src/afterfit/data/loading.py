"""From a use case's source to windows of rows: read, stream, load with known targets, split."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.contract import Contract
from afterfit.contract.datetimes import ISO, as_written, parse_as
from afterfit.contract.labels import label_of
from afterfit.data import databases, files
from afterfit.data.column_names import absent_column_message, choose_columns
from afterfit.data.fingerprints import Fingerprint, fingerprint, row_hashes
from afterfit.data.flights import flights
from afterfit.data.reading import TableReading, declared, format_of, reading_of
from afterfit.data.splits import Rows
from afterfit.data.targets import missing_target, plain_labels, rows_said
from afterfit.errors import DataError, SettingsError
from afterfit.settings import Period, Source, order_fault
from afterfit.texts.redaction import redact
from afterfit.use_case import UseCase

BUILTIN = {"flights": flights}


@dataclass(frozen=True, slots=True)
class Window:
    """Rows with known targets, in the order of their time.

    Attributes:
        frame: the rows.
        fingerprint: what they are.
        dropped: how many rows were left out, by reason.
        name: where they are from.
        formats: how the time column's dates are written, by its name (`format_of`); empty where it has no texts.
    """

    frame: pd.DataFrame
    fingerprint: Fingerprint
    dropped: dict[str, int]
    name: str
    formats: Mapping[str, str] = field(default_factory=dict)


def stream(
    source: Source,
    root: Path,
    *,
    columns: Sequence[str] | None = None,
    rows: int = files.ROWS,
    reading: TableReading | None = None,
    infer: bool = False,
) -> Iterator[pd.DataFrame]:
    """The source's rows in frames of at most `rows` rows; memory does not grow with the number of rows.

    The built-in table is made whole and cut. Column names lose white space around them, as in settings files.

    Args:
        source: what to read.
        root: the folder that relative paths are meant from.
        columns: the columns wanted, in that order; all where None.
        rows: the most rows of one frame.
        reading: how the columns are read; of CSV files other columns stay text. Where None, all columns of CSV files
            have the types that all their values fit.
        infer: give such types also to the columns of which the reading says nothing.

    Raises:
        SourceError: the source is not there, refuses, or is broken.
        DataError: no rows, duplicate columns, or a column that is not there.
        SettingsError: an unknown built-in name, or a database address or driver that does not work.
    """
    texts: Collection[str] | None = () if reading is None else reading.columns.keys() if infer else None
    for frame in _frames(source, root, columns, rows, texts):
        yield frame if reading is None else reading.typed(frame)


def _frames(
    source: Source, root: Path, columns: Sequence[str] | None, rows: int, texts: Collection[str] | None
) -> Iterator[pd.DataFrame]:
    if source.builtin is not None:
        whole = _builtin(source.builtin)
        chosen = choose_columns(list(whole.columns), columns, describe(source))
        for start in range(0, len(whole), rows):
            yield whole[chosen].iloc[start : start + rows].reset_index(drop=True)
    elif source.path is not None:
        yield from files.frames(files.items(source.path, root), columns, rows, texts=texts)
    else:
        yield from databases.frames(source.sql or "", source.query or "", columns, rows)


def read(
    source: Source, root: Path, *, columns: Sequence[str] | None = None, reading: TableReading | None = None
) -> pd.DataFrame:
    """All rows of the source in one frame; arguments and errors as in `stream`."""
    rows = 2**62 if source.builtin is not None else files.ROWS
    parts = [part for part in _frames(source, root, columns, rows, () if reading is None else None) if len(part)]
    whole = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    if reading is not None:
        return reading.typed(whole)
    return whole.infer_objects() if source.sql is not None else whole


def describe(source: Source) -> str:
    """The source in one line, without secrets."""
    if source.builtin is not None:
        return f"builtin {source.builtin}"
    return redact(source.path or f"{databases.mask_secrets(source.sql or '')}: {source.query}")


def load(
    use_case: UseCase,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    waiting: bool = False,
    contracts: Iterable[Contract] = (),
) -> Window:
    """The rows of a use case from `start` (included) to `end` (excluded) whose target is known, in order of time.

    The time column is parsed to naive UTC. Rows of one time keep the order of the source. `dropped` counts the rows
    of this stretch of time without a target, and the rows anywhere without a time. With `waiting` rows without a
    target stay, for it may come yet.

    Columns are read as settings and versions say (`reading_of`), the others by the kind that the whole source shows.
    `contracts` are those of versions that will answer the rows.

    Raises:
        DataError: a column is absent, a time does not parse, the target is missing everywhere, or no row is left.
        SettingsError: `start` or `end` without a time column.
    """
    if use_case.time is None and (start or end):
        raise SettingsError(f"{use_case.name}: a start or end needs a time column, and the use case names none")
    frame = read(use_case.source, use_case.root, columns=wanted(use_case), reading=TableReading({}))
    name = describe(use_case.source)
    return window(use_case, frame, name, start=start, end=end, waiting=waiting, contracts=contracts)


def window(
    use_case: UseCase,
    frame: pd.DataFrame,
    name: str,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    waiting: bool = False,
    contracts: Iterable[Contract] = (),
) -> Window:
    """A table that was read, as `load` gives it; with `waiting` rows without a target stay, for it may come yet.

    Raises:
        DataError: as `load`.
    """
    if use_case.target not in frame.columns:
        raise DataError(f"{name}: {absent_column_message(use_case.target, list(frame.columns))}")
    reading, others = reading_of(use_case, contracts), set(frame.columns) - {use_case.target, use_case.time}
    frame = reading.with_inferred(frame, others).typed(frame)
    dropped: dict[str, int] = {}
    formats: dict[str, str] = {}
    if use_case.time is not None:
        frame = _timed(frame, use_case, name, dropped, formats)
        frame = _between(frame, use_case.time, start, end, name)
    known = ~missing_target(use_case, frame[use_case.target]).to_numpy()
    if not known.any():
        raise DataError(f"{name}: the target '{use_case.target}' is missing in all {len(frame):,} rows")
    if not known.all() and not waiting:
        dropped["target is missing"] = int((~known).sum())
        frame = frame[known]
    frame = frame.reset_index(drop=True)
    if use_case.task == "classification":
        frame = frame.assign(**{use_case.target: plain_labels(frame[use_case.target], known if waiting else None)})
    return Window(frame, fingerprint(use_case, frame), dropped, name, formats)


def split(use_case: UseCase, frame: pd.DataFrame) -> tuple[Rows, Rows]:
    """Positions of the rows that train and of those held out, as the use case's `split` says.

    With windows: the rows in them; where only one is given, the other is all before (after) it. With a time column
    and no windows: the last `share` of the rows, cut between two times. Without a time column: the rows whose key (or
    whole content, where there is no key) hashes into the share, so that a row stays on its side whatever is added.

    Raises:
        SettingsError: the windows overlap.
        DataError: one of the sides is empty, or the training rows' target is constant.
    """
    if use_case.time is None:
        columns = list(use_case.key) or [str(column) for column in frame.columns]
        reading = declared(use_case)
        chosen = row_hashes(reading.typed(frame[columns]), columns, reading) < np.uint64(
            int(use_case.split.share * 2.0**64)
        )
        train, holdout = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    elif use_case.split.train or use_case.split.holdout:
        train, holdout = _by_windows(use_case, frame[use_case.time].to_numpy())
    else:
        train, holdout = _by_share(frame[use_case.time].to_numpy(), use_case.split.share)
    for rows, side in ((train, "train on"), (holdout, "hold out")):
        if not len(rows):
            raise DataError(
                f"{use_case.name}: the split leaves no rows to {side}{_range(use_case, frame)}: look at split in the "
                "settings file"
            )
    _require_varied(use_case, frame[use_case.target].iloc[train])
    return train, holdout


def _builtin(name: str) -> pd.DataFrame:
    if name not in BUILTIN:
        raise SettingsError(f"source.builtin: there is no built-in table '{name}'; there are {', '.join(BUILTIN)}")
    return BUILTIN[name]()


def wanted(use_case: UseCase) -> list[str] | None:
    """The columns that a use case needs of its source; None for all, where it names no features."""
    if not use_case.columns.features:
        return None
    extra = [use_case.target, use_case.time, *use_case.key, *use_case.metrics.slices]
    return list(dict.fromkeys([*use_case.columns.features, *(column for column in extra if column is not None)]))


def _timed(
    frame: pd.DataFrame, use_case: UseCase, name: str, dropped: dict[str, int], formats: dict[str, str]
) -> pd.DataFrame:
    """The frame with its time column parsed, in order of time."""
    column = str(use_case.time)
    if column not in frame.columns:
        raise DataError(f"{name}: {absent_column_message(column, list(frame.columns))}")
    written = format_of(use_case, column)
    parsed = parse_as(frame[column], written, frozenset(use_case.columns.missing_marks))
    if parsed.note:
        other = str(parsed.format).translate(str.maketrans("dm", "md"))
        raise DataError(
            f"{name}: in the time column '{column}' no value tells day from month. Say it in the settings file, in "
            f'columns: formats: {{{column}: "{parsed.format}"}} or {{{column}: "{other}"}}'
        )
    if parsed.bad.any():
        said = f"{name}: the time column '{column}' has values that are no dates or times{as_written(written)}"
        raise DataError(rows_said(said, frame[column], parsed.bad))
    if written or frame[column].dtype.kind != "M":
        formats[column] = written or parsed.format or ISO
    times = parsed.values
    missing = np.isnat(times)
    if missing.any():
        dropped["time is missing"] = int(missing.sum())
    order = np.argsort(times, kind="stable")  # those without a time come last
    order = order[: len(order) - int(missing.sum())]
    if not len(order):
        raise DataError(f"{name}: the time column '{column}' is missing in all {len(frame):,} rows")
    return frame.assign(**{column: times}).iloc[order]


def _between(frame: pd.DataFrame, time: str, start: datetime | None, end: datetime | None, name: str) -> pd.DataFrame:
    if start is None and end is None:
        return frame
    fault = order_fault(start, end)
    if fault:
        raise DataError(f"{name}: of the rows asked for, {fault}.")
    period = Period(start=start, end=end)
    kept = frame[_inside(frame[time].to_numpy(), period)]
    if kept.empty:
        first, last = frame[time].iloc[0], frame[time].iloc[-1]
        raise DataError(f"{name}: no row is from {_period(period)}: '{time}' goes from {first} to {last}")
    return kept


def _inside(times: npt.NDArray[Any], period: Period) -> npt.NDArray[np.bool_]:
    inside = np.ones(len(times), dtype=np.bool_)
    if period.start is not None:
        inside &= times >= _naive(period.start)
    if period.end is not None:
        inside &= times < _naive(period.end)
    return inside


def _naive(moment: datetime) -> np.datetime64:
    stamp = pd.Timestamp(moment)
    return (stamp if stamp.tzinfo is None else stamp.tz_convert(None)).to_datetime64()


def _by_windows(use_case: UseCase, times: npt.NDArray[Any]) -> tuple[Rows, Rows]:
    train, holdout = use_case.split.train, use_case.split.holdout
    if train is None:
        train = Period(end=holdout.start if holdout else None)
    if holdout is None:
        holdout = Period(start=train.end)
    before = train.end is not None and holdout.start is not None and _naive(train.end) <= _naive(holdout.start)
    after = holdout.end is not None and train.start is not None and _naive(holdout.end) <= _naive(train.start)
    if not (before or after):
        raise SettingsError(
            f"{use_case.name}: split.train ({_period(train)}) and split.holdout ({_period(holdout)}) overlap: rows "
            "that train cannot judge"
        )
    return np.flatnonzero(_inside(times, train)), np.flatnonzero(_inside(times, holdout))


def _period(period: Period) -> str:
    return f"{period.start or 'the beginning'} to {period.end or 'the end'}"


def _by_share(times: npt.NDArray[Any], share: float) -> tuple[Rows, Rows]:
    distinct, counts = np.unique(times, return_counts=True)
    if len(distinct) < 2:
        return np.arange(len(times)), np.arange(0)
    later = counts[::-1].cumsum()[::-1][1:]  # rows held out where the cut is before distinct[1:]
    cut = distinct[1:][np.argmin(np.abs(later - share * len(times)))]
    return np.flatnonzero(times < cut), np.flatnonzero(times >= cut)


def _range(use_case: UseCase, frame: pd.DataFrame) -> str:
    if use_case.time is None or frame.empty:
        return f" of {len(frame):,}"
    times = frame[use_case.time]
    return f" of {len(frame):,} ({use_case.time} goes from {times.min()} to {times.max()})"


def _require_varied(use_case: UseCase, target: "pd.Series[Any]") -> None:
    values = target.unique()
    if len(values) < 2:
        raise DataError(
            f"{use_case.name}: the target '{use_case.target}' is {label_of(values[0])!r} in all {len(target):,} "
            "training rows: there is nothing to learn"
        )
