"""Writes into the prediction log what a bundle answered outside Afterfit's server. The module has two jobs.

- It converts: `entries` turns the answers of one request into rows of the spool, `batch` turns a scored table into one
  that goes straight into sealed parts, and `outcomes` does the same for a table of known targets.
- Its class `ServedLog` is a bundle that answers and logs, for other servers: MLflow's, Spark, a notebook.
"""

import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from afterfit import prediction_log
from afterfit.contract.values import is_missing, read_category
from afterfit.errors import DataError
from afterfit.model.answer import Answer, whole_error
from afterfit.model.answer_batch import to_dicts
from afterfit.model.bundle import Bundle
from afterfit.prediction_log.arrow import FEATURE, REST, TEXT, TIME, cast, typed
from afterfit.prediction_log.entries import MOST_UNFOLDED, LogEntry, record_of, text_of, unfolded_bytes
from afterfit.prediction_log.privacy import hashed, key_of, private, salt_of
from afterfit.prediction_log.spool import Spool


def private_columns(bundle: Bundle) -> frozenset[str]:
    """The columns that the bundle's contract marks as private."""
    return frozenset(column.name for column in bundle.scorer.contract.columns if column.private)


def entries(
    bundle: Bundle, rows: Sequence[Mapping[str, Any]], answers: Sequence[Answer], time: int, seconds: float
) -> list[LogEntry]:
    """Entries for the answers of one request, private columns hashed; `time` in microseconds since 1970 UTC."""
    hidden = private_columns(bundle)
    salt = salt_of(bundle.manifest.name, hidden, bundle.manifest.key)
    key, version = bundle.manifest.key, bundle.version or ""
    return [
        LogEntry._make(
            record_of(
                answer,
                time,
                version,
                False,
                key_of(row, key, hidden, salt=salt),
                text_of(private(row, hidden, "hash", salt=salt)),
                seconds,
            )
        )
        for row, answer in zip(rows, answers, strict=True)
    ]


def batch(
    bundle: Bundle,
    frame: pd.DataFrame,
    answered: pa.Table,
    *,
    time: int,
    hidden: Collection[str],
    mode: Literal["hash", "drop"] = "hash",
) -> pa.Table:
    """A scored frame of n rows and its answers (`answer_table.answer_table`) as a table that `write_table` takes.

    The features are the contract's columns, and the use case's time and key where the frame has them.
    """
    n, manifest = len(frame), bundle.manifest
    salt = salt_of(manifest.name, [name for name in hidden if mode == "hash" or name in manifest.key], manifest.key)
    named = dict.fromkeys([*bundle.scorer.contract.names, *([manifest.time] if manifest.time else []), *manifest.key])
    known = [name for name in named if name in frame.columns]
    columns: dict[str, Any] = {
        "prediction_id": answered["prediction_id"],
        "time": pa.array(np.full(n, time)).cast(TIME),
        "version": pc.fill_null(answered["model_version"], ""),
        "shadow": pa.array(np.zeros(n, dtype=np.bool_)),
        "key": _keys(frame, manifest.key, hidden, salt),
        "prediction": _column(answered["prediction"]),
    }
    for name in ("probability", "lower", "upper", "confidence"):
        columns[name] = answered[name] if name in answered.column_names else pa.nulls(n, pa.float64())
    columns["probabilities"] = _shares(bundle, answered)
    columns |= {name: _notes(answered[name], first=name == "error") for name in ("warnings", "error")}
    columns |= {"seconds": pa.nulls(n, pa.float64()), REST: pa.nulls(n, TEXT)}
    for name in known:
        if name not in hidden:
            columns[FEATURE + name] = _of(frame[name])
        elif mode == "hash":
            columns[FEATURE + name] = pa.array([hashed(value, name, salt) for value in frame[name]], TEXT)
    return pa.table(columns)


def outcomes(
    frame: pd.DataFrame, target: str, by: Sequence[str], *, time: int, hidden: Collection[str] = (), salt: str = ""
) -> pa.Table:
    """A table's known targets as outcomes that arrived at a time: by prediction_id, or by the columns of a key."""
    some = frame[frame[target].notna().to_numpy()]
    by_id = list(by) == ["prediction_id"]
    ids = [None if value is None else str(value) for value in some["prediction_id"]] if by_id else [None] * len(some)
    table = pa.table(
        {
            "prediction_id": pa.array(ids, TEXT),
            "key": pa.nulls(len(some), TEXT) if by_id else _keys(some, by, hidden, salt),
            "value": _of(some[target]),
            "time": pa.array(np.full(len(some), time)).cast(TIME),
        }
    )
    return table.filter(pc.is_valid(table["prediction_id" if by_id else "key"]))


def _keys(frame: pd.DataFrame, key: Sequence[str], hidden: Collection[str], salt: str) -> pa.Array:
    if not key or not set(key) <= set(frame.columns):
        return pa.nulls(len(frame), TEXT)
    rows = zip(*(frame[name].astype(object) for name in key), strict=True)
    return pa.array([key_of(dict(zip(key, row, strict=True)), key, hidden, salt=salt) for row in rows], TEXT)


def _of(series: "pd.Series[Any]") -> pa.ChunkedArray:
    """A frame's column in one of the types that JSON has; objects one by one, whatever they are."""
    if series.dtype != object:
        return _column(pa.chunked_array([pa.array(series, from_pandas=True)]))
    return pa.chunked_array([typed([None if is_missing(value) else _plain(value) for value in series])])


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | bool | int | float) else read_category(value)


def _column(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in one of the types that JSON has; dates and times as ISO text."""
    type_ = values.type
    if pa.types.is_dictionary(type_):
        return _column(values.cast(type_.value_type))
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        whole = values.cast(pa.int64()) if pa.types.is_signed_integer(type_) else values
        return (
            pa.chunked_array([typed(whole.to_pylist())]) if pa.types.is_integer(type_) else cast(values, pa.float64())
        )
    if pa.types.is_temporal(type_):
        return values.cast(pa.timestamp("us")).cast(TEXT)
    if pa.types.is_boolean(type_) or pa.types.is_null(type_):
        return values
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return values.cast(TEXT)
    return pa.chunked_array([typed(values.to_pylist())])


def _shares(bundle: Bundle, answered: pa.Table) -> pa.Array:
    if "probabilities" not in answered.column_names:
        return pa.nulls(answered.num_rows, TEXT)
    names = [str(label) for label in bundle.scorer.classes or ()]
    rows = answered["probabilities"].to_pylist()
    texts = [None if row is None else text_of(dict(zip(names, row, strict=True))).decode() for row in rows]
    return pa.array(texts, TEXT)


def _notes(column: pa.ChunkedArray, *, first: bool) -> pa.Array:
    """Warnings as a JSON list, or the first error as a JSON object; missing where there is none."""
    some = pc.greater(pc.list_value_length(column), 0).to_numpy()
    texts: list[str | None] = [None] * len(column)
    for at, notes in zip(np.flatnonzero(some).tolist(), column.filter(pa.array(some)).to_pylist(), strict=True):
        texts[at] = text_of(whole_error(notes) if first else notes).decode()
    return pa.array(texts, TEXT)


class ServedLog:
    """Answers a frame and logs the answers before it returns them; several threads may call it.

    Raises:
        SettingsError: private values would be hashed without a secret.
    """

    def __init__(self, place: str, bundle: Bundle) -> None:
        salt_of(bundle.manifest.name, private_columns(bundle), bundle.manifest.key)  # refused now, and not with a row
        self._place = place
        self._bundle = bundle
        self._lock = threading.Lock()
        self._spool: Spool | None = None
        self._pid = 0

    def answers(self, frame: pd.DataFrame) -> list[dict[str, object]]:
        """The bundle's answers, logged.

        Raises:
            LogError: they could not be logged, and are not given.
            DataError: the rows would take too much of the log.
            SchemaError: two columns have the same name.
        """
        began = time.perf_counter()
        answers = self._bundle.answer_frame(frame)
        now = time.time_ns() // 1000
        names = [str(name) for name in frame.columns]
        size = unfolded_bytes(names, len(frame))
        if size > MOST_UNFOLDED:
            raise DataError(
                f"{len(frame):,} rows of {len(names):,} columns unfold to {size:,} bytes in the prediction log, which "
                f"takes {MOST_UNFOLDED:,}: send fewer rows at once, or shorter names."
            )
        rows = [dict(zip(names, row, strict=True)) for row in frame.to_numpy(dtype=object)]
        self._opened().write(entries(self._bundle, rows, answers, now, time.perf_counter() - began))
        return to_dicts(answers)

    def _opened(self) -> Spool:
        """This process's spool; a process that was forked meanwhile makes its own."""
        with self._lock:
            if self._spool is None or self._pid != os.getpid():
                log = prediction_log.log_at(self._place, self._bundle.manifest.name)
                assert log is not None  # noqa: S101 - the place is not empty
                self._spool, self._pid = log.spool(), os.getpid()
            return self._spool
