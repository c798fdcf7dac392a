"""Thrift's compact protocol, read without trusting a byte of it: structs of numbers, texts, lists and structs.

A reader takes a field only in its own type, and passes over any other. So a field is asked for by number and type here
too, and none may come twice: what is read here is what any other reader reads.
"""

from typing import Any

MOST_NESTED = 16
TRUTHS, BYTE, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = frozenset({1, 2}), 3, 5, 6, 7, 8, 9, 10, 12
NUMBERS = frozenset({4, I32, I64})
Fields = dict[tuple[int, int], Any]
"""A struct's fields by number and type. Truth values, bytes and fractions are None."""


class ThriftError(ValueError):
    """The bytes are no struct of the protocol."""


def struct(body: bytes, at: int, end: int, level: int = 0) -> tuple[Fields, int]:
    """The struct that begins at a place, and where it ends.

    Raises:
        ThriftError: it does not end before `end`, is nested too deep, has a field twice or of a type that is not known.
    """
    fields: Fields = {}
    numbers: set[int] = set()
    number = 0
    while True:
        if at >= end or level > MOST_NESTED:
            raise ThriftError
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
        if number in numbers:
            raise ThriftError
        numbers.add(number)
        fields[number, kind], at = (None, at) if kind in TRUTHS else _value(kind, body, at, end, level + 1)


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ThriftError


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _value(kind: int, body: bytes, at: int, end: int, level: int) -> tuple[Any, int]:
    """A value, and where it ends."""
    if kind in NUMBERS:
        coded, at = _varint(body, at, end)
        return _signed(coded), at
    if kind == STRUCT:
        return struct(body, at, end, level)
    if kind == BINARY:
        length, at = _varint(body, at, end)
        return body[at : at + length], _within(at + length, end)
    if kind in {LIST, SET}:
        return _list(body, at, end, level)
    if kind in {BYTE, DOUBLE}:
        return None, _within(at + (1 if kind == BYTE else 8), end)
    raise ThriftError


def _list(body: bytes, at: int, end: int, level: int) -> tuple[list[Any], int]:
    if at >= end or level > MOST_NESTED:
        raise ThriftError
    size, kind = body[at] >> 4, body[at] & 15
    at += 1
    if size == 15:
        size, at = _varint(body, at, end)
    if size > end - at:  # each takes a byte at least
        raise ThriftError
    found = []
    for _ in range(size):
        value, at = _value(BYTE if kind in TRUTHS else kind, body, at, end, level + 1)
        found.append(value)
    return found, at


def _within(at: int, end: int) -> int:
    if at > end:
        raise ThriftError
    return at
