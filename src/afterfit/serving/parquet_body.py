"""A Parquet body to rows. What it unfolds to is counted from its pages before one of them is unfolded.

A few hundred bytes of Parquet can hold gigabytes: a long text once for many rows, or a page that compresses well. The
footer tells sizes, but nothing holds it to the truth. So the heads of all pages are read first: their sizes are added
up, and each must lie where the footer says. Text columns are read as dictionaries, so that a text that comes again is
one object.
"""

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from afterfit.prediction_log.entries import unfolded_bytes
from afterfit.serving.bounds import MOST_COLUMNS, check_rows, check_unfolded
from afterfit.serving.http_errors import HttpError
from afterfit.serving.parquet_pages import DELTA_BYTE_ARRAY, FIXED, TEXT, Chunk, Footer, PageError, footer, pages
from afterfit.settings import Serving

Row = dict[str, Any]
NOT_PLAIN = "The body must be a Parquet file of plain columns."
ROWS_AT_ONCE = 1_000
"""Rows that are read at once."""
MOST_IN_LIST = 100_000
"""Entries of a list in the footer that are read: columns, row groups."""


def parquet_rows(body: bytes, limits: Serving) -> list[Row]:
    """The rows of a Parquet body.

    Raises:
        HttpError: 400 it cannot be read or has columns of lists or structs, 413 it unfolds to more than the limits.
    """
    try:
        known = footer(body)
        _check(known, body, limits)
        texts = [column.name for column in known.columns if column.kind == TEXT]
        with pq.ParquetFile(
            io.BytesIO(body),
            read_dictionary=texts,
            thrift_string_size_limit=len(body) + 1,
            thrift_container_size_limit=MOST_IN_LIST,
        ) as file:
            return _rows(file, known, limits)
    except PageError as error:
        nested = f" {str(error)[:100]} is a list or a struct." if str(error) else ""
        raise HttpError(400, NOT_PLAIN + nested, "invalid_parquet") from error
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        raise HttpError(400, NOT_PLAIN, "invalid_parquet") from error


def _check(known: Footer, body: bytes, limits: Serving) -> None:
    """Hold footer and pages against the limits."""
    check_rows(known.rows, limits)
    if len(known.columns) > MOST_COLUMNS:
        raise HttpError(413, f"A Parquet body may have {MOST_COLUMNS} columns; this one has {len(known.columns)}.")
    wide = sum(column.width for column in known.columns if column.kind == FIXED)
    check_unfolded([column.name for column in known.columns], known.rows, limits, known.rows * wide)
    size = 0
    for rows, chunks in known.groups:
        for chunk in chunks if rows else ():
            size += _unfolded(chunk, body)
            if size > limits.unfolded_bytes:
                raise HttpError(413, "The pages of the Parquet body unfold to more than is taken: send fewer rows.")


def _unfolded(chunk: Chunk, body: bytes) -> int:
    """Bytes of a column chunk's pages when they are unfolded, by the heads of the pages."""
    size = values = 0
    for page in pages(body, chunk.begin, chunk.length):
        size += page.size
        values += page.values
        if page.encoding == DELTA_BYTE_ARRAY:  # each value may begin with all of the one before
            size += min(page.values, ROWS_AT_ONCE) * page.size
    if values != chunk.values:
        raise PageError
    return size


def _rows(file: pq.ParquetFile, known: Footer, limits: Serving) -> list[Row]:
    names = file.schema_arrow.names
    if len(set(names)) != len(names):
        raise HttpError(400, "A Parquet body names a column twice.", "invalid_parquet")
    size, rows = unfolded_bytes(names, known.rows), []
    filled = [number for number, (count, _) in enumerate(known.groups) if count]
    for batch in file.iter_batches(ROWS_AT_ONCE, filled, use_threads=False) if filled else ():
        size += sum(map(_text_bytes, batch.columns))
        if size > limits.unfolded_bytes:
            raise HttpError(413, f"The texts of the Parquet body unfold to more than {limits.unfolded_bytes:,} bytes.")
        if names:
            rows += [dict(zip(names, row, strict=True)) for row in zip(*map(_values, batch.columns), strict=True)]
        else:
            rows += [{}] * batch.num_rows
    return rows


def _text_bytes(column: pa.Array) -> int:
    """Bytes of a column's texts when each row has its own."""
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary)
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0)


def _is_text(kind: pa.DataType) -> bool:
    return any(ask(kind) for ask in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _values(column: pa.Array) -> Iterator[Any]:
    """A column's values as Python objects; equal texts of a dictionary are one object."""
    if not pa.types.is_dictionary(column.type):
        return iter(column.to_pylist())
    texts = [*column.dictionary.to_pylist(), None]
    return map(texts.__getitem__, column.indices.fill_null(len(texts) - 1).to_pylist())
