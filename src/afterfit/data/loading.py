"""From a use case's source to windows of rows: read, stream, load with known targets, split, fingerprint, classes."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.contract import parse_datetimes
from afterfit.data import databases, files
from afterfit.data.column_names import absent_column_message, choose_columns
from afterfit.data.flights import flights
from afterfit.data.splits import Rows, row_hashes
from afterfit.errors import DataError, SettingsError
from afterfit.settings import Period, Source, order_fault
from afterfit.use_case import UseCase

BUILTIN = {"flights": flights}
MOST_CLASSES = 200
MOST_MARKS = 1_000_000
"""Fingerprints of training rows that a version carries: 8 MB."""
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a window's rows are, by content.

    `sha256` covers the names and values of `columns` and the order of the rows; not the order of the columns, nor the
    types and the file format that held them, as far as values are equal (`row_hashes`). A column of dates held as text
    in CSV and as times in Parquet is not equal, except for the time column, which is parsed before. `start` and `end`
    are the first and the last row's time.
    """

    sha256: str
    rows: int
    columns: tuple[str, ...]
    start: str | None
    end: str | None


@dataclass(frozen=True, slots=True)
class Window:
    """Rows with known targets, in the order of their time, and how many rows were left out for which reason."""

    frame: pd.DataFrame
    fingerprint: Fingerprint
    dropped: dict[str, int]
    name: str


def stream(
    source: Source, root: Path, *, columns: Sequence[str] | None = None, rows: int = files.ROWS
) -> Iterator[pd.DataFrame]:
    """The source's rows in frames of at most `rows` rows; memory does not grow with the number of rows.

    The built-in table is made whole and cut. Column names lose white space around them, as in settings files.

    Args:
        source: what to read.
        root: the folder that relative paths are meant from.
        columns: the columns wanted, in that order; all where None.
        rows: the most rows of one frame.

    Raises:
        SourceError: the source is not there, refuses, or is broken.
        DataError: no rows, duplicate columns, or a column that is not there.
        SettingsError: an unknown built-in name, or a database address or driver that does not work.
    """
    if source.builtin is not None:
        whole = _builtin(source.builtin)
        chosen = choose_columns(list(whole.columns), columns, describe(source))
        for start in range(0, len(whole), rows):
            yield whole[chosen].iloc[start : start + rows].reset_index(drop=True)
    elif source.path is not None:
        yield from files.frames(files.items(source.path, root), columns, rows)
    else:
        yield from databases.frames(source.sql or "", source.query or "", columns, rows)


def read(source: Source, root: Path, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All rows of the source in one frame; arguments and errors as in `stream`."""
    if source.builtin is not None:
        return next(stream(source, root, columns=columns, rows=2**62))
    parts = [part for part in stream(source, root, columns=columns) if len(part)]
    whole = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    return whole.infer_objects() if source.sql is not None else whole


def describe(source: Source) -> str:
    """The source in one line, without passwords."""
    if source.builtin is not None:
        return f"builtin {source.builtin}"
    return source.path if source.path is not None else f"{databases.mask_secrets(source.sql or '')}: {source.query}"


def load(
    use_case: UseCase, *, start: datetime | None = None, end: datetime | None = None, waiting: bool = False
) -> Window:
    """The rows of a use case from `start` (included) to `end` (excluded) whose target is known, in order of time.

    The time column is parsed to naive UTC. Rows of one time keep the order of the source. `dropped` counts the rows
    of this stretch of time without a target, and the rows anywhere without a time. With `waiting` rows without a
    target stay, for it may come yet.

    Raises:
        DataError: a column is absent, a time does not parse, the target is missing everywhere, or no row is left.
        SettingsError: `start` or `end` without a time column.
    """
    if use_case.time is None and (start or end):
        raise SettingsError(f"{use_case.name}: a start or end needs a time column, and the use case names none")
    frame = read(use_case.source, use_case.root, columns=wanted(use_case))
    return window(use_case, frame, describe(use_case.source), start=start, end=end, waiting=waiting)


def window(
    use_case: UseCase,
    frame: pd.DataFrame,
    name: str,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    waiting: bool = False,
) -> Window:
    """A table that was read, as `load` gives it; with `waiting` rows without a target stay, for it may come yet.

    Raises:
        DataError: as `load`.
    """
    if use_case.target not in frame.columns:
        raise DataError(f"{name}: {absent_column_message(use_case.target, list(frame.columns))}")
    dropped: dict[str, int] = {}
    if use_case.time is not None:
        frame = _timed(frame, use_case, name, dropped)
        frame = _between(frame, use_case.time, start, end, name)
    known = ~missing_target(use_case, frame[use_case.target]).to_numpy()
    if not known.any():
        raise DataError(f"{name}: the target '{use_case.target}' is missing in all {len(frame):,} rows")
    if not known.all() and not waiting:
        dropped["target is missing"] = int((~known).sum())
        frame = frame[known]
    frame = frame.reset_index(drop=True)
    return Window(frame, fingerprint(frame, use_case.time), dropped, name)


def fingerprint(frame: pd.DataFrame, time: str | None = None) -> Fingerprint:
    """The fingerprint of a frame whose time column, if any, is parsed and in order."""
    columns = tuple(str(column) for column in frame.columns)
    digest = hashlib.sha256("\n".join(sorted(columns)).encode("utf-8", "surrogatepass"))
    digest.update(row_hashes(frame, columns).astype("<u8").tobytes())
    ends = [frame[time].iloc[i].isoformat() for i in (0, -1)] if time and len(frame) else [None, None]
    return Fingerprint(digest.hexdigest(), len(frame), columns, ends[0], ends[1])


def row_fingerprints(use_case: UseCase, frame: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """(n,) each row's fingerprint: of its key, where the use case has one, else of its features, target and time."""
    columns = list(use_case.key)
    if not columns:
        named = [*use_case.columns.features, use_case.target, use_case.time]
        columns = (
            [column for column in named if column is not None] if use_case.columns.features else list(map(str, frame))
        )
    return row_hashes(frame, columns)


def shares(marks: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """(n,) fingerprints as numbers from 0 to 1, spread evenly and the same wherever a row is met."""
    return marks.astype(np.float64) / 2.0**64


def kept_fingerprints(marks: npt.NDArray[np.uint64], most: int = MOST_MARKS) -> npt.NDArray[np.uint64]:
    """At most about `most` of the marks: those below a bound, a sample that any other table would keep alike.

    Half of the rows can be told where half are kept: one training row among others is then missed every second time.
    """
    return marks[marks < np.uint64(2**64 * (most / len(marks)))] if len(marks) > most else marks


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
        chosen = row_hashes(frame, columns) < np.uint64(int(use_case.split.share * 2.0**64))
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


def missing_target(use_case: UseCase, target: "pd.Series[Any]") -> "pd.Series[bool]":
    """Which targets are missing: null, empty text, or one of the use case's missing marks."""
    missing = target.isna()
    if target.dtype.kind not in "biufM":
        text = target.astype(str).str.strip()
        missing |= text.isin(["", *use_case.columns.missing_marks])
    return missing


def classes(use_case: UseCase, target: "pd.Series[Any]") -> tuple[Scalar, ...]:
    """The class labels as plain Python values: negative and positive where the use case names the positive one.

    Otherwise sorted, so that of two classes the positive one is True, 1 or "yes". Whole numbers held as floats are
    integers again; a `positive` of another type matches by its text, whatever its case.

    Raises:
        DataError: fewer than two classes, or so many that it is no classification.
        SettingsError: `positive` is none of the labels, or there are more than two.
    """
    labels = sorted({_label(value) for value in target.dropna().unique().tolist()}, key=_sorting)
    if len(labels) < 2:
        raise DataError(f"The target '{use_case.target}' is always {labels[0]!r}: a classification needs two classes")
    if len(labels) > MOST_CLASSES:
        raise DataError(
            f"The target '{use_case.target}' has {len(labels):,} different values, and at most {MOST_CLASSES} classes "
            "are possible: is it a regression?"
        )
    if use_case.positive is None:
        return tuple(labels)
    said = ", ".join(repr(label) for label in labels[:12])
    if len(labels) > 2:
        raise SettingsError(f"positive is for two classes; the target '{use_case.target}' has {len(labels)}: {said}")
    positive = [label for label in labels if label == use_case.positive] or [
        label for label in labels if str(label).strip().lower() == str(use_case.positive).lower()
    ]
    if not positive:
        raise SettingsError(f"positive: {use_case.positive!r} is no class of the target '{use_case.target}' ({said})")
    return (*(label for label in labels if label != positive[0]), positive[0])


def encode_target(
    use_case: UseCase, target: "pd.Series[Any]", labels: Sequence[Scalar] = ()
) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """The target for an estimator: positions in `labels` as int64, or float64 for a regression, each (n,).

    Raises:
        DataError: a missing target, a label that is not among `labels`, or a regression's target that is no number.
    """
    if use_case.task == "regression":
        return _numeric(use_case, target)
    position = {label: i for i, label in enumerate(labels)}
    codes, uniques = pd.factorize(target)
    of_unique = [position.get(_label(value), -1) for value in pd.Index(uniques).tolist()]
    encoded = np.array([*of_unique, -1], dtype=np.int64)[codes]
    if (encoded < 0).any():
        said = ", ".join(repr(label) for label in list(labels)[:12])
        raise DataError(_rows_said(f"the target '{use_case.target}' is none of {said}", target, encoded < 0))
    return encoded


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


def _timed(frame: pd.DataFrame, use_case: UseCase, name: str, dropped: dict[str, int]) -> pd.DataFrame:
    """The frame with its time column parsed, in order of time."""
    column = str(use_case.time)
    if column not in frame.columns:
        raise DataError(f"{name}: {absent_column_message(column, list(frame.columns))}")
    parsed = parse_datetimes(frame[column], frozenset(use_case.columns.missing_marks))
    if parsed.bad.any():
        said = f"{name}: the time column '{column}' has values that are no dates or times"
        raise DataError(_rows_said(said, frame[column], parsed.bad))
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
            f"{use_case.name}: the target '{use_case.target}' is {_label(values[0])!r} in all {len(target):,} training "
            "rows: there is nothing to learn"
        )


def _label(value: Any) -> Scalar:
    """A label as a plain Python value; 1.0 is 1, since a missing value elsewhere turns integers into floats."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and plain.is_integer():
        return int(plain)
    return plain if isinstance(plain, str | int | float | bool) else str(plain)


def _sorting(label: Scalar) -> tuple[bool, float, str]:
    return (True, 0.0, label) if isinstance(label, str) else (False, float(label), "")


def _numeric(use_case: UseCase, target: "pd.Series[Any]") -> npt.NDArray[np.float64]:
    numbers = pd.to_numeric(target, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise DataError(_rows_said(f"the target '{use_case.target}' of a regression must be a number", target, bad))
    return numbers


def _rows_said(said: str, values: "pd.Series[Any]", bad: npt.NDArray[np.bool_]) -> str:
    """The sentence with up to five of the rows; rows are counted from 1."""
    first = np.flatnonzero(bad)[:5]
    shown = ", ".join(f"row {i + 1}: {str(values.iloc[i])[:60]!r}" for i in first)
    count = int(bad.sum())
    return f"{said}: {shown}{f' and {count - len(first):,} more' if count > len(first) else ''}"
