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
from afterfit.serving.parquet_pages import DELTA_BYTE_ARRAY, PageError, pages
from afterfit.settings import Serving

Row = dict[str, Any]
TEXTS = frozenset({"BYTE_ARRAY"})
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
        with pq.ParquetFile(
            io.BytesIO(body), thrift_string_size_limit=len(body) + 1, thrift_container_size_limit=MOST_IN_LIST
        ) as file:
            texts = _check(file.metadata, body, limits)
        with pq.ParquetFile(io.BytesIO(body), read_dictionary=texts) as file:
            return _rows(file, limits)
    except (pa.ArrowException, PageError, OSError, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise HttpError(400, NOT_PLAIN, "invalid_parquet") from error


def _check(known: pq.FileMetaData, body: bytes, limits: Serving) -> list[str]:
    """Hold footer and pages against the limits; gives the names of the text columns."""
    check_rows(known.num_rows, limits)
    if known.num_columns > MOST_COLUMNS:
        raise HttpError(413, f"A Parquet body may have {MOST_COLUMNS} columns; this one has {known.num_columns}.")
    columns = [known.schema.column(place) for place in range(known.num_columns)]
    for column in columns:
        if column.max_repetition_level or column.path != column.name:
            raise HttpError(400, f"{NOT_PLAIN} {column.path[:100]} is a list or a struct.", "invalid_parquet")
    wide = sum(max(column.length, 0) for column in columns if column.physical_type == "FIXED_LEN_BYTE_ARRAY")
    check_unfolded([column.name for column in columns], known.num_rows, limits, known.num_rows * wide)
    groups = [known.row_group(number) for number in range(known.num_row_groups)]
    if any(group.num_rows < 0 for group in groups) or sum(group.num_rows for group in groups) != known.num_rows:
        raise PageError
    size = 0
    for group in groups:
        for place in range(known.num_columns if group.num_rows else 0):
            size += _unfolded(group.column(place), group.num_rows, body)
            if size > limits.unfolded_bytes:
                raise HttpError(413, "The pages of the Parquet body unfold to more than is taken: send fewer rows.")
    return [column.name for column in columns if column.physical_type in TEXTS]


def _unfolded(chunk: pq.ColumnChunkMetaData, rows: int, body: bytes) -> int:
    """Bytes of a column chunk's pages when they are unfolded, by the heads of the pages."""
    if chunk.num_values != rows or chunk.file_path:
        raise PageError
    begin, size, values = chunk.data_page_offset, 0, 0
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        begin = min(begin, chunk.dictionary_page_offset)
    for page in pages(body, begin, chunk.total_compressed_size):
        size += page.size
        values += page.values
        if page.encoding == DELTA_BYTE_ARRAY:  # each value may begin with all of the one before
            size += min(page.values, ROWS_AT_ONCE) * page.size
    if values != rows:
        raise PageError
    return size


def _rows(file: pq.ParquetFile, limits: Serving) -> list[Row]:
    names = file.schema_arrow.names
    if len(set(names)) != len(names):
        raise HttpError(400, "A Parquet body names a column twice.", "invalid_parquet")
    size, rows = unfolded_bytes(names, file.metadata.num_rows), []
    known = file.metadata
    filled = [number for number in range(known.num_row_groups) if known.row_group(number).num_rows]
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
