"""What a Parquet body says of itself, read from its footer and the heads of its pages without unfolding one.

The format is that of parquet.thrift, release 2.11. Arrow's own reader of footers ends the process on some that are
damaged, so it does not see one that was not read here first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from afterfit.serving.thrift import BINARY, I32, I64, LIST, STRUCT, Fields, ThriftError, struct

MARK = b"PAR1"
MOST_FOOTER = 2**21
"""Bytes of a footer."""
TEXT, FIXED = 6, 7
"""Physical types of columns: texts, and bytes of one width."""
REPEATED = 2
DELTA_BYTE_ARRAY = 7
"""The encoding in which a value says how much of the value before it begins with."""
DESCRIBED = {0: 5, 2: 7, 3: 8}
"""The field that describes a page, by its type: of data, of a dictionary, of data in the second form."""
DATA_PAGES = frozenset({0, 3})
DICTIONARY_ENTRY = 16
"""Bytes that a reader keeps for each entry of a dictionary beside the entry itself."""
ENCRYPTED = {(8, STRUCT), (9, BINARY), (9, STRUCT)}


class PageError(ValueError):
    """The body is not what the format asks for, or does not agree with itself."""


@dataclass(frozen=True, slots=True)
class ParquetColumn:
    """A plain column: its name, its physical type, and its width where its bytes have one."""

    name: str
    kind: int
    width: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column's part of a row group: its values, and where its pages lie."""

    values: int
    begin: int
    length: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer says: rows, columns, and for each row group its rows and the chunks of all columns."""

    rows: int
    columns: tuple[ParquetColumn, ...]
    groups: tuple[tuple[int, tuple[Chunk, ...]], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its bytes when it is unfolded, its values (none in a dictionary's page), and their encoding."""

    size: int
    values: int
    encoding: int


def footer(body: bytes) -> Footer:
    """Read the footer.

    Raises:
        PageError: there is none, it is encrypted or says things that do not agree, or a column is a list or a struct;
            that column's name is the error's text.
    """
    size = int.from_bytes(body[-8:-4], "little")
    end = len(body) - 8
    if body[:4] != MARK or body[-4:] != MARK or not 0 < size <= min(end - 4, MOST_FOOTER):
        raise PageError
    try:
        fields, _ = struct(body, end - size, end)
    except ThriftError as error:
        raise PageError from error
    columns, rows = _columns(fields.get((2, LIST))), _whole(fields.get((3, I64)))
    groups = tuple(_group(one, len(columns)) for one in _structs(fields.get((4, LIST), [])))
    if sum(count for count, _ in groups) != rows or not ENCRYPTED.isdisjoint(fields):
        raise PageError
    return Footer(rows, columns, groups)


def _columns(schema: Any) -> tuple[ParquetColumn, ...]:
    elements = _structs(schema)
    if not elements or elements[0].get((5, I32), 0) != len(elements) - 1:
        nested = next((one for one in elements[1:] if one.get((5, I32))), {})
        raise PageError(_text(nested.get((4, BINARY), b"")))
    columns = []
    for one in elements[1:]:
        name, width = _text(one.get((4, BINARY))), _whole(one.get((2, I32), 0))
        if one.get((5, I32)) or one.get((3, I32)) == REPEATED:
            raise PageError(name)
        columns.append(ParquetColumn(name, _whole(one.get((1, I32))), width))
    return tuple(columns)


def _group(fields: Fields, columns: int) -> tuple[int, tuple[Chunk, ...]]:
    rows, chunks = _whole(fields.get((3, I64))), _structs(fields.get((1, LIST)))
    if len(chunks) != columns:
        raise PageError
    return rows, tuple(_chunk(one, rows) for one in chunks)


def _chunk(fields: Fields, rows: int) -> Chunk:
    """A chunk of a file of its own, or one that is encrypted, is none of ours."""
    known = fields.get((3, STRUCT))
    if known is None or (1, BINARY) in fields or not ENCRYPTED.isdisjoint(fields):
        raise PageError
    begin, dictionary = _whole(known.get((9, I64))), known.get((11, I64))
    if dictionary is not None and 0 < dictionary < begin:
        begin = dictionary
    if _whole(known.get((5, I64))) != rows:
        raise PageError
    return Chunk(rows, begin, _whole(known.get((7, I64))))


def pages(body: bytes, begin: int, length: int) -> Iterator[Page]:
    """The pages of a column chunk, which has `length` bytes from `begin` on.

    Raises:
        PageError: a page does not lie within the chunk, or the chunk not within the body.
    """
    end = begin + length
    if begin < 0 or length < 0 or end > len(body):
        raise PageError
    while begin < end:
        try:
            head, at = struct(body, begin, end)
        except ThriftError as error:
            raise PageError from error
        kind, size, stored = (_whole(head.get((field, I32))) for field in (1, 2, 3))
        begin = at + stored
        if begin > end:
            raise PageError
        described = head.get((DESCRIBED.get(kind, 0), STRUCT)) or {}
        values = _whole(described.get((1, I32), 0))
        encoding = _whole(described.get((4 if kind == 3 else 2, I32), 0))
        if kind in DATA_PAGES:
            yield Page(size, values, encoding)
        else:
            yield Page(size + values * DICTIONARY_ENTRY, 0, encoding)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise PageError
    return value


def _structs(values: Any) -> list[Fields]:
    if type(values) is not list or not {*map(type, values)} <= {dict}:
        raise PageError
    return values


def _text(value: Any) -> str:
    if type(value) is not bytes:
        raise PageError
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise PageError from error
