"""The heads of a Parquet column's pages: what each takes when it is unfolded, read without unfolding one.

The format is Thrift's compact protocol and `PageHeader` of the Parquet format (parquet.thrift, release 2.11).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DELTA_BYTE_ARRAY = 7
"""The encoding in which a value says how much of the value before it begins with."""
DESCRIBED = {0: 5, 2: 7, 3: 8}
"""The field that describes a page, by its type: of data, of a dictionary, of data in the second form."""
DATA_PAGES = frozenset({0, 3})
DICTIONARY_ENTRY = 16
"""Bytes that a reader keeps for each entry of a dictionary beside the entry itself."""
MOST_NESTED = 8
TRUTHS, BYTE, I32, NUMBERS, DOUBLE, BINARY, STRUCT = frozenset({1, 2}), 3, 5, frozenset({4, 5, 6}), 7, 8, 12
Fields = dict[int, Any]


class PageError(ValueError):
    """The pages are not what the format asks for, or what the footer says of them."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its bytes when it is unfolded, its values (none in a dictionary's page), and their encoding."""

    size: int
    values: int
    encoding: int


def pages(body: bytes, begin: int, length: int) -> Iterator[Page]:
    """The pages of a column chunk, which has `length` bytes from `begin` on.

    Raises:
        PageError: a page does not lie within the chunk, or the chunk not within the body.
    """
    end = begin + length
    if begin < 0 or length < 0 or end > len(body):
        raise PageError
    while begin < end:
        head, at = _struct(body, begin, end, 0)
        kind, size, stored = (_whole(head.get(field)) for field in (1, 2, 3))
        begin = at + stored
        if begin > end:
            raise PageError
        described = head.get(DESCRIBED.get(kind, 0)) or {}
        values, encoding = _whole(described.get(1, 0)), _whole(described.get(4 if kind == 3 else 2, 0))
        if kind in DATA_PAGES:
            yield Page(size, values, encoding)
        else:
            yield Page(size + values * DICTIONARY_ENTRY, 0, encoding)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise PageError
    return value


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise PageError


def _struct(body: bytes, at: int, end: int, level: int) -> tuple[Fields, int]:
    """A struct's fields by number: 32-bit numbers and structs; others are None.

    A reader takes a field only in its own type, and passes over any other. So no field may come twice.
    """
    fields: Fields = {}
    number = 0
    while True:
        if at >= end or level > MOST_NESTED:
            raise PageError
        byte = body[at]
        at += 1
        if not byte:
            return fields, at
        kind, step = byte & 15, byte >> 4
        if step:
            number += step
        else:
            coded, at = _varint(body, at, end)
            number = _signed(coded)
        if number in fields:
            raise PageError
        fields[number], at = (None, at) if kind in TRUTHS else _value(kind, body, at, end, level + 1)


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _value(kind: int, body: bytes, at: int, end: int, level: int) -> tuple[Any, int]:
    """A value that is no truth value, or None where it is passed over, and where it ends."""
    if kind in NUMBERS:
        coded, at = _varint(body, at, end)
        return (_signed(coded) if kind == I32 else None), at
    if kind == STRUCT:
        return _struct(body, at, end, level)
    if kind == BINARY:
        length, at = _varint(body, at, end)
        return None, _within(at + length, end)
    if kind in {BYTE, DOUBLE}:
        return None, _within(at + (1 if kind == BYTE else 8), end)
    raise PageError  # no head of a page has lists, sets or maps


def _within(at: int, end: int) -> int:
    if at > end:
        raise PageError
    return at
