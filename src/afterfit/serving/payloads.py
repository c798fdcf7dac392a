"""Request bodies to rows, in every form that `mlflow models serve` takes, and in the plain one of /predict.

What a body unfolds to is bounded before it is unfolded: its depth, its rows, and what its names and values take when
each row has them (`bounds`).
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from afterfit.model.answer import Answer
from afterfit.model.answer_batch import json_list
from afterfit.serving.bounds import DEPTH, MOST_COLUMNS, check_depth, check_rows, check_unfolded
from afterfit.serving.http_errors import HttpError
from afterfit.settings import Serving

Row = Mapping[str, Any]
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
UTF16 = (b"\xff\xfe", b"\xfe\xff")
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00")
"""How gzip, zstd, zip, bzip2 and xz begin."""


def json_of(body: bytes, depth: int = DEPTH, *, lenient: bool = False) -> Any:
    """A JSON body.

    Args:
        body: as it came.
        depth: how deep it may be nested.
        lenient: take `NaN` and `Infinity` as well, which are no JSON, but which Python's own writer writes.

    Raises:
        HttpError: 400, it is no JSON or nested deeper; 415, it is compressed.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not lenient or (b"NaN" not in body and b"Infinity" not in body):
            _check_encoding(body, "JSON")
            raise HttpError(400, f"The body must be JSON: {_said(error)}.", "invalid_json") from error
        content = _lenient(body)
    check_depth(content, body, depth)
    return content


def _lenient(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        _check_encoding(body, "JSON")
        raise HttpError(400, "The body must be JSON, and no deeper than it needs to be.", "invalid_json") from error


def _check_encoding(body: bytes, what: str) -> None:
    """Say so where a body that cannot be read is in another encoding, or compressed.

    Raises:
        HttpError: 415 for a compressed one, 400 for UTF-16 and UTF-32.
    """
    if body.startswith(COMPRESSED):
        raise HttpError(415, "The body is compressed; send it as it is, without a Content-Encoding.")
    if body.startswith(UTF16) or b"\0" in body[:4]:
        raise HttpError(400, f"The body is text in UTF-16 or UTF-32; {what} must come in UTF-8.", "invalid_encoding")


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


def invocation_rows(body: bytes, content_type: str, limits: Serving) -> list[Row]:
    """The rows of an /invocations body.

    Raises:
        HttpError: 400 where it cannot be read, 413 where it unfolds to more than the limits, 415 for another content
            type.
    """
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    charset = rest.strip().lower().removeprefix("charset=").strip('"')
    if rest.strip() and charset not in {"utf-8", "utf8"}:
        raise HttpError(415, "The content type takes no other parameter than charset=utf-8.")
    if kind == JSON:
        return _of_json(json_of(body, limits.depth, lenient=True), limits)
    if kind == CSV:
        return _of_csv(body, limits)
    if kind == PARQUET:
        from afterfit.serving.parquet_body import parquet_rows  # noqa: PLC0415 - only those who send Parquet wait for it

        return [*parquet_rows(body, limits)]
    raise HttpError(415, f"The content type must be one of {JSON}, {CSV} and {PARQUET}.")


def _of_json(content: Any, limits: Serving) -> list[Row]:
    named = [form for form in FORMS if isinstance(content, dict) and form in content]
    if len(named) != 1:
        raise HttpError(400, f"The body must be a JSON object with exactly one of the keys {', '.join(FORMS)}.")
    form, value = named[0], content[named[0]]
    if form == "dataframe_split":
        return _of_split(value, limits)
    if form in {"inputs", "instances"} and isinstance(value, dict):
        return _of_columns(value, limits)
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


def _of_split(value: Any, limits: Serving) -> list[Row]:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise HttpError(400, "dataframe_split must be an object with the keys columns and data.")
    columns, data = value.get("columns"), value["data"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise HttpError(400, "dataframe_split's columns must be a list of names.")
    if len(set(columns)) != len(columns):
        raise HttpError(400, "dataframe_split names a column twice.")
    check_unfolded(columns, len(data), limits)
    for row in data:
        if not isinstance(row, list) or len(row) != len(columns):
            raise HttpError(400, f"Each row of dataframe_split's data must be a list of {len(columns)} values.")
    return [dict(zip(columns, row, strict=True)) for row in data]


def _of_columns(value: dict[str, Any], limits: Serving) -> list[Row]:
    """A dictionary of columns, each a list; or of single values, which are one row."""
    if not any(isinstance(column, list) for column in value.values()):
        return [value]
    lengths = {len(column) if isinstance(column, list) else -1 for column in value.values()}
    if len(lengths) != 1:
        raise HttpError(400, "Columns must be lists of one length.")
    check_unfolded([*value], lengths.pop(), limits)
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _of_csv(body: bytes, limits: Serving) -> list[Row]:
    _check_encoding(body, "CSV")
    try:
        text = body.decode("utf-8-sig")
        lines = _csv_lines(text)
        names = next(lines, [])
        if not names or len(set(names)) != len(names) or len(names) > MOST_COLUMNS:
            raise HttpError(400, "A CSV body must begin with a line of column names, each once.", "invalid_csv")
        rows = list(islice(lines, limits.rows + 1))
    except (UnicodeDecodeError, csv.Error) as error:
        raise HttpError(
            400, "The body must be CSV in UTF-8 with a first line of column names.", "invalid_csv"
        ) from error
    if any(len(line) != len(names) for line in rows):
        raise HttpError(400, f"Each line of the CSV body must have {len(names)} values.", "invalid_csv")
    check_rows(len(rows), limits, more=True)
    check_unfolded(names, len(rows), limits)
    return [{name: value or None for name, value in zip(names, line, strict=True)} for line in rows]


def _csv_lines(text: str) -> Iterator[list[str]]:
    """The lines that are not empty, by the delimiter that stands in the first of them, as in a file."""
    from afterfit.data.files import delimiter_of  # noqa: PLC0415 - only those who send CSV wait for it

    head = next((line for line in io.StringIO(text) if line.strip()), "")
    return filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(head), strict=True))


def predictions_body(answers: Sequence[Answer]) -> bytes:
    """What /invocations answers."""
    return b'{"predictions":' + json_list(answers) + b"}"
