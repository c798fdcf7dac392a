"""Batches: a frame's answers as an Arrow table, column by column, with nothing built row by row."""

import re
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from afterfit.contract.checks import Checked, Issue
from afterfit.model.answer import NO_NUMBER, NUMBERS, numbers_of
from afterfit.model.bundle import Bundle
from afterfit.performance.predictions import Predictions
from afterfit.use_case import ANSWER_COLUMNS

OWN = "source."
"""What stands before the name of a carried column that is called like a column of the answer."""
WARNING = pa.struct([("column", pa.string()), ("code", pa.string()), ("value", pa.string())])


def answer_table(
    bundle: Bundle, frame: pd.DataFrame, keep: Sequence[str], first_row: int
) -> tuple[pa.Table, Checked, Predictions]:
    """Answer a frame of n rows.

    Args:
        bundle: what answers.
        frame: the rows.
        keep: columns of the frame to carry over, so that an answer can be told whose it is; under the name that
            `carried_name` gives them.
        first_row: the number of the frame's first row in its source.

    Returns:
        The table (n rows: `row`, kept columns, prediction_id, prediction, probability or probabilities or lower and
        upper, confidence, model_version, warnings, error), what the contract said, and the predictions. Each row is
        what `Bundle.answers` says of it, with these differences: all errors of a row stand in `error`, without their
        messages; values of warnings are text; columns that the contract does not know are not repeated in every row,
        they stand in `unknown` of what the contract said. A row with an error has no prediction.
    """
    checked, predictions = bundle.scorer.score(frame)
    no_number = ~checked.bad & ~predictions.finite
    bad = checked.bad | no_number
    n = len(frame)
    columns: dict[str, Any] = {"row": pa.array(np.arange(first_row, first_row + n))}
    columns |= {carried_name(name): pa.array(frame[name], from_pandas=True) for name in keep if name in frame.columns}
    columns["prediction_id"] = _ids(n)
    columns |= _predicted(predictions, bad)
    columns["model_version"] = pa.array([bundle.version] * n if n else [], pa.string())
    columns["warnings"] = _notes(checked, n, error=False)
    columns["error"] = _with_no_number(_notes(checked, n, error=True), no_number)
    return pa.table(columns), checked, predictions


def carried_name(name: str) -> str:
    """What a column of the source is called beside an answer: "source.row" for "row", so that neither is lost."""
    return f"{OWN}{name}" if re.sub(r"^(source\.)+", "", name) in ANSWER_COLUMNS else name


def _ids(n: int) -> pa.Array:
    """Unique ids: one random number a batch, and the row's place in it."""
    return pc.binary_join_element_wise(uuid.uuid4().hex, pc.cast(pa.array(np.arange(n)), pa.string()), "-")


def _predicted(predictions: Predictions, bad: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
    """The columns `prediction` and `NUMBERS`; a regression without an interval has no columns for its ends."""

    def masked(values: Any) -> pa.Array:
        return pa.array(np.asarray(values), mask=bad)

    numbers = zip(NUMBERS[predictions.task], numbers_of(predictions), strict=True)
    if predictions.classes is None:
        columns = {"prediction": masked(predictions.prediction)}
    else:
        places = pa.array(predictions.prediction.astype(np.int64), mask=bad)
        columns = {"prediction": pa.array(predictions.classes).take(places)}
    for name, values in numbers:
        if values is not None:
            columns[name] = _shares(values, bad) if values.ndim == 2 else masked(values)
    return columns


def _shares(table: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_]) -> pa.Array:
    """Probabilities (n, k) as n lists."""
    shares = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), table.shape[1])
    return pc.if_else(pa.array(bad), pa.scalar(None, shares.type), shares)


def _notes(checked: Checked, n: int, *, error: bool) -> pa.Array:
    """Each row's warnings, or errors, as a list of structures, in the contract's order of columns."""
    issues = [issue for issue in checked.issues if issue.error is error]
    if not issues:
        return pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, dtype=np.int32)), pa.array([], WARNING))
    rows = np.concatenate([issue.rows for issue in issues])
    order = np.argsort(rows, kind="stable")
    sizes = np.repeat(np.arange(len(issues)), [len(issue.rows) for issue in issues])
    names = pa.array([issue.column.name for issue in issues])
    codes = pa.array([issue.code for issue in issues])
    which = pa.array(sizes[order])
    values = pa.concat_arrays([_values(issue) for issue in issues]).take(pa.array(order))
    flat = pa.StructArray.from_arrays([names.take(which), codes.take(which), values], fields=list(WARNING))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def _with_no_number(errors: pa.Array, no_number: npt.NDArray[np.bool_]) -> pa.Array:
    """The errors, with one more for each row for which the model answered no number."""
    if not no_number.any():
        return errors
    error = pa.scalar([{"column": None, "code": NO_NUMBER["code"], "value": None}], errors.type)
    return pc.if_else(pa.array(no_number), error, errors)


def _values(issue: Issue) -> pa.Array:
    if issue.code in {"missing", "absent_column", "required_missing"} or issue.column.private:
        return pa.nulls(len(issue.rows), pa.string())
    return pa.array([None if value is None else str(value) for value in issue.show(issue.rows)], pa.string())
