"""Load true targets from a table into the prediction log."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from afterfit import data as tables
from afterfit import prediction_log
from afterfit.data import encode_target, missing_target, stream
from afterfit.errors import AfterfitError, DataError
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import registry
from afterfit.prediction_log import from_bundle
from afterfit.prediction_log.log import PredictionLog
from afterfit.settings import Source
from afterfit.use_case import UseCase


@dataclass(slots=True)
class OutcomeCounts:
    """Rows of a table: new and repeated outcomes, outcomes without a known answer, rows without a target or key."""

    rows: int = 0
    new: int = 0
    repeated: int = 0
    unknown: int = 0
    without: int = 0


def load(use_case: UseCase, data: str, by: str, log: PredictionLog) -> CommandResult:
    """Load the outcomes of a table, or of the use case's own source where `data` is empty, into a log.

    Args:
        use_case: its settings.
        data: the table.
        by: the column that joins, "prediction_id" or "key"; where empty, the one that the table has.
        log: the prediction log.

    Raises:
        DataError: a target is no number, or none of the classes of the version in production (if there is one).
            Nothing of this part of the table is loaded.
    """
    source = Source(path=data) if data else use_case.source
    use_case, classes = _as_in_production(use_case)
    reading = tables.reading_of(use_case)
    name, counts = f"table-{uuid.uuid4().hex}", OutcomeCounts()
    for number, frame in enumerate(stream(source, Path.cwd() if data else use_case.root, reading=reading)):
        table = _outcomes(use_case, frame, _columns(use_case, frame, by, is_source=not data), classes)
        counts.rows += len(frame)
        counts.without += len(frame) - table.num_rows
        _write_new(log, table, f"{name}-{number}", counts)
    total = f"of {counts.rows:,} rows ({counts.without:,} without a target or key)"
    lines = [f"{counts.new:,} outcomes are new, {counts.repeated:,} were known, {total}."]
    lines += [f"{counts.unknown:,} belong to no answer of the log (yet); they are kept."] * bool(counts.unknown)
    numbers = {"new": counts.new, "repeated": counts.repeated, "unknown": counts.unknown, "without": counts.without}
    return CommandResult(tuple(lines), {"use_case": use_case.name, "rows": counts.rows, **numbers})


def _as_in_production(use_case: UseCase) -> tuple[UseCase, tuple[Any, ...]]:
    """The use case as the version in production reads its columns, and its classes; none of both without the store."""
    try:
        holder = registry.holder(use_case.name, registry.PRODUCTION)
        if holder is None:
            return use_case, ()
        bundle = registry.load_bundle(holder)
    except AfterfitError:
        return use_case, ()
    return bundle.read_on(use_case), bundle.scorer.classes or ()


def _columns(use_case: UseCase, frame: pd.DataFrame, by: str, *, is_source: bool) -> list[str]:
    """The columns by which a table's rows are joined.

    In the use case's own source a column `prediction_id` is a feature like any other, where there is a key.

    Raises:
        DataError: the table lacks them, or the target.
    """
    has_ids = "prediction_id" in frame.columns and not (is_source and use_case.key)
    chosen = by or ("prediction_id" if has_ids else "key")
    columns = ["prediction_id"] if chosen == "prediction_id" else list(use_case.key)
    if not columns:
        raise DataError(
            f"{use_case.name} names no key, and the table has no column prediction_id: outcomes need one of them."
        )
    absent = [name for name in [*columns, use_case.target] if name not in frame.columns]
    if absent:
        raise DataError(
            f"The table of outcomes lacks {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}."
        )
    return columns


def _outcomes(use_case: UseCase, frame: pd.DataFrame, columns: list[str], classes: Sequence[Any]) -> pa.Table:
    known = ~missing_target(use_case, frame[use_case.target], classes).to_numpy()
    if classes or use_case.task == "regression":
        encode_target(use_case, frame.loc[known, use_case.target], classes)  # refuses what no model answers
    now, hidden = time.time_ns() // 1000, use_case.columns.private
    salt = prediction_log.salt_of(use_case.name, set(hidden) & set(columns), columns)
    return from_bundle.outcomes(frame[known], use_case.target, columns, time=now, hidden=hidden, salt=salt)


def _write_new(log: PredictionLog, table: pa.Table, name: str, counts: OutcomeCounts) -> None:
    if not table.num_rows:
        return
    repeated = prediction_log.known_outcomes(log, table)
    new = table.filter(pa.array(~repeated))
    counts.repeated += int(repeated.sum())
    counts.new += new.num_rows
    counts.unknown += _unknown(log, table)
    prediction_log.write_table(log, name, "outcomes", new)


def _unknown(log: PredictionLog, table: pa.Table) -> int:
    column = "prediction_id" if table["key"].null_count else "key"
    texts = table[column].to_pylist()
    find_unknown = prediction_log.unknown_ids if column == "prediction_id" else prediction_log.unknown_keys
    unknown = find_unknown(log, texts)
    return int(pc.sum(pc.is_in(table[column], pa.array(sorted(unknown), pa.string()))).as_py() or 0)
