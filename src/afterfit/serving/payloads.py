"""Request bodies to rows, in every form that `mlflow models serve` takes, and in the plain one of /predict."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from afterfit.model.answer import Answer
from afterfit.model.answer_batch import json_list
from afterfit.serving.http_errors import HttpError

Row = Mapping[str, Any]
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
MOST_COLUMNS = 10_000
MOST_BYTES = 2**28
"""Bytes that a Parquet body may unfold to."""


def json_of(body: bytes, *, lenient: bool = False) -> Any:
    """A JSON body.

    Args:
        body: as it came.
        lenient: take `NaN` and `Infinity` as well, which are no JSON, but which Python's own writer writes.

    Raises:
        HttpError: 400, it is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if lenient and (b"NaN" in body or b"Infinity" in body):
            return _lenient(body)
        raise HttpError(400, f"The body must be JSON: {_said(error)}.", "invalid_json") from error


def _lenient(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, "The body must be JSON, and no deeper than it needs to be.", "invalid_json") from error


def _said(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200].rstrip(".")


def plain_rows(content: Any) -> tuple[list[Row], bool]:
    """The rows of a /predict body, and whether it was a single one.

    Raises:
        HttpError: 422, it is neither a row nor a list of rows.
    """
    if type(content) is dict:
        return [content], True
    return _records(content, "The body"), False


def invocation_rows(body: bytes, content_type: str, most: int) -> list[Row]:
    """The rows of an /invocations body; of Parquet no more than `most` are unfolded.

    Raises:
        HttpError: 400 where it cannot be read, 415 for another content type.
    """
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    charset = rest.strip().lower().removeprefix("charset=").strip('"')
    if rest.strip() and charset not in {"utf-8", "utf8"}:
        raise HttpError(415, "The content type takes no other parameter than charset=utf-8.")
    if kind == JSON:
        return _of_json(json_of(body, lenient=True))
    if kind == CSV:
        return _of_csv(body)
    if kind == PARQUET:
        return _of_parquet(body, most)
    raise HttpError(415, f"The content type must be one of {JSON}, {CSV} and {PARQUET}.")


def _of_json(content: Any) -> list[Row]:
    named = [form for form in FORMS if isinstance(content, dict) and form in content]
    if len(named) != 1:
        raise HttpError(400, f"The body must be a JSON object with exactly one of the keys {', '.join(FORMS)}.")
    form, value = named[0], content[named[0]]
    if form == "dataframe_split":
        return _of_split(value)
    if form == "inputs" and isinstance(value, dict):
        return _of_columns(value)
    if form == "instances" and isinstance(value, dict):
        return _of_columns(value)
    return _records(value, form, 400)


def _records(value: Any, what: str, status: int = 422) -> list[Row]:
    if not isinstance(value, list):
        raise HttpError(status, f"{what} must be a row (a JSON object of column names to values) or a list of rows.")
    for number, row in enumerate(value) if {*map(type, value)} != {dict} else ():
        if not isinstance(row, dict):
            raise HttpError(
                status,
                f"{what} must hold rows, JSON objects of column names to values; item {number} is another thing.",
            )
    return value


def _of_split(value: Any) -> list[Row]:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise HttpError(400, "dataframe_split must be an object with the keys columns and data.")
    columns = value.get("columns")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise HttpError(400, "dataframe_split's columns must be a list of names.")
    if len(set(columns)) != len(columns):
        raise HttpError(400, "dataframe_split names a column twice.")
    for row in value["data"]:
        if not isinstance(row, list) or len(row) != len(columns):
            raise HttpError(400, f"Each row of dataframe_split's data must be a list of {len(columns)} values.")
    return [dict(zip(columns, row, strict=True)) for row in value["data"]]


def _of_columns(value: dict[str, Any]) -> list[Row]:
    """A dictionary of columns, each a list; or of single values, which are one row."""
    if not any(isinstance(column, list) for column in value.values()):
        return [value]
    lengths = {len(column) if isinstance(column, list) else -1 for column in value.values()}
    if len(lengths) != 1:
        raise HttpError(400, "Columns must be lists of one length.")
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _of_csv(body: bytes) -> list[Row]:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise HttpError(
            400, "The body must be CSV in UTF-8 with a first line of column names.", "invalid_csv"
        ) from error
    lines = [line for line in lines if line]
    names: list[str] = lines[0] if lines else []
    if not names or len(set(names)) != len(names) or len(names) > MOST_COLUMNS:
        raise HttpError(400, "A CSV body must begin with a line of column names, each once.", "invalid_csv")
    if any(len(line) != len(names) for line in lines):
        raise HttpError(400, f"Each line of the CSV body must have {len(names)} values.", "invalid_csv")
    return [{name: value or None for name, value in zip(names, line, strict=True)} for line in lines[1:]]


def _of_parquet(body: bytes, most: int) -> list[Row]:
    import pyarrow as pa  # noqa: PLC0415 - only those who send Parquet wait for it
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    try:
        with pq.ParquetFile(io.BytesIO(body)) as file:
            known = file.metadata
            groups = (known.row_group(number) for number in range(known.num_row_groups))
            if known.num_rows > most:
                raise HttpError(413, f"A request may have {most} rows; this one has {known.num_rows}.")
            if known.num_columns > MOST_COLUMNS or sum(group.total_byte_size for group in groups) > MOST_BYTES:
                raise HttpError(413, "The Parquet body unfolds to more than is taken.")
            rows: list[Row] = file.read().to_pylist()
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise HttpError(400, "The body must be a Parquet file of plain columns.", "invalid_parquet") from error
    return [row for row in rows if row is not None]


def predictions_body(answers: Sequence[Answer]) -> bytes:
    """What /invocations answers."""
    return b'{"predictions":' + json_list(answers) + b"}"
