"""What rows are by content: fingerprints that do not follow the types or the format of the file that brought them.

Equal values have equal fingerprints: 1, 1.0 and "1" in a column of numbers; text in any string type; times in any unit,
with a zone or in UTC; in whatever order the columns come, in every process and release. In a column that the settings
call a category a text is a name, and "1.1" is not "1.10". In a column of which the settings say nothing, a text that
reads as a number, as true or false, or as an ISO date is that: what the other rows hold changes nothing.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.categories import whole_number
from afterfit.contract.columns import Column
from afterfit.contract.datetimes import read_datetime
from afterfit.contract.values import NO_MARKS, decode_text, is_missing, is_missing_word, read_category, read_number
from afterfit.data.reading import TableReading, declared
from afterfit.use_case import UseCase

FORMAT = 2
MOST_MARKS = 1_000_000
"""Fingerprints of training rows that a version carries: 8 MB."""
_TRUTHS = {"true": 1.0, "false": 0.0}
Hashes = npt.NDArray[np.uint64]
_MISSING, _TIME = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a window's rows are, by content.

    `sha256` covers the names and values of `columns` and the order of the rows; not the order of the columns, nor the
    types and the file format that held them (`row_hashes`). `start` and `end` are the first and the last row's time.
    """

    sha256: str
    rows: int
    columns: tuple[str, ...]
    start: str | None
    end: str | None


@dataclass(frozen=True, slots=True)
class FingerprintRule:
    """How the rows of a table are told apart: by which columns, and how these are read.

    A version keeps the rule of its training rows, so that the settings may change after it.

    Attributes:
        columns: the key, where the use case has one, else features, target and time; empty for all columns.
        reading: how they are read.
    """

    columns: tuple[str, ...]
    reading: TableReading

    def of(self, frame: pd.DataFrame) -> Hashes:
        """(n,) the rows' fingerprints."""
        columns = list(self.columns) or [str(name) for name in frame.columns]
        return row_hashes(self.reading.typed(frame[list(dict.fromkeys(columns))]), columns, self.reading)

    def to_dict(self) -> dict[str, Any]:
        """The rule as JSON knows it."""
        columns = [column.to_dict() for column in self.reading.columns.values()]
        return {
            "format": FORMAT, "columns": list(self.columns), "marks": list(self.reading.marks), "reading": columns
        }  # fmt: skip

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "FingerprintRule":
        """The inverse of `to_dict`."""
        read = [Column.from_dict(column) for column in saved["reading"]]
        reading = TableReading({column.name: column for column in read}, tuple(saved["marks"]))
        return cls(tuple(saved["columns"]), reading)


def rule_of(use_case: UseCase) -> FingerprintRule:
    """The rule that the settings of today give."""
    columns = list(use_case.key)
    if not columns and use_case.columns.features:
        named = [*use_case.columns.features, use_case.target, use_case.time]
        columns = [column for column in named if column is not None]
    reading = declared(use_case)
    if columns:
        reading = reading.without(set(reading.columns) - set(columns))
    names = {name: Column(name, "category") for name in use_case.key if name not in reading.columns}
    return FingerprintRule(tuple(columns), TableReading({**reading.columns, **names}, reading.marks))


def row_fingerprints(use_case: UseCase, frame: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """(n,) each row's fingerprint: of its key, where the use case has one, else of its features, target and time."""
    return rule_of(use_case).of(frame)


def trained_fingerprints(
    use_case: UseCase, frame: pd.DataFrame, rule: Mapping[str, Any] | None
) -> npt.NDArray[np.uint64]:
    """(n,) each row's fingerprint as a version has that of its training rows.

    Args:
        use_case: its settings.
        frame: the rows.
        rule: the rule that the version keeps (`FingerprintRule.to_dict`). Where None, the fingerprints followed the
            types that the file gave its columns, and so do these.
    """
    if rule is not None:
        return FingerprintRule.from_dict(rule).of(frame)
    columns = list(rule_of(use_case).columns) or [str(name) for name in frame.columns]
    from afterfit.data.files import typed_by_file  # noqa: PLC0415 - it brings boto3; only rows of old versions need it

    return row_hashes(typed_by_file(frame[list(dict.fromkeys(columns))]), columns, None)


def fingerprint(use_case: UseCase, frame: pd.DataFrame) -> Fingerprint:
    """The fingerprint of a frame whose time column, if any, is parsed and in order."""
    columns = tuple(str(column) for column in frame.columns)
    reading = declared(use_case)
    digest = hashlib.sha256("\n".join(sorted(columns)).encode("utf-8", "surrogatepass"))
    digest.update(row_hashes(reading.typed(frame), columns, reading).astype("<u8").tobytes())
    time = use_case.time
    ends = [frame[time].iloc[i].isoformat() for i in (0, -1)] if time and len(frame) else [None, None]
    return Fingerprint(digest.hexdigest(), len(frame), columns, ends[0], ends[1])


def shares(marks: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """(n,) fingerprints as numbers from 0 to 1, spread evenly and the same wherever a row is met."""
    return marks.astype(np.float64) / 2.0**64


def kept_fingerprints(marks: npt.NDArray[np.uint64], most: int = MOST_MARKS) -> npt.NDArray[np.uint64]:
    """At most about `most` of the marks: those below a bound, a sample that any other table would keep alike.

    Half of the rows can be told where half are kept: one training row among others is then missed every second time.
    """
    return marks[marks < np.uint64(2**64 * (most / len(marks)))] if len(marks) > most else marks


def row_hashes(frame: pd.DataFrame, columns: Sequence[str], reading: TableReading | None) -> Hashes:
    """A 64-bit hash of each row's values in these columns, (n,) uint64.

    Not for keeping secrets: an attacker can make two rows collide.

    Args:
        frame: the rows, read by `reading`.
        columns: the columns that count.
        reading: which columns are categories, and which texts are missing. Without one, text is hashed as it is.
    """
    total = np.zeros(len(frame), dtype=np.uint64)
    for column in columns:
        total += _mixed(_value_hashes(frame[column], _texts(reading, column)) ^ _text_hash(str(column)))
    return _mixed(total)


@dataclass(frozen=True, slots=True)
class _Texts:
    """What a column's texts are: names, what they mean, or (`plain`) no more than their letters."""

    names: bool = False
    plain: bool = False
    marks: Collection[str] = NO_MARKS

    def hash(self, text: str) -> np.uint64:
        if self.plain:
            return _text_hash(text)
        if self.names:
            name = read_category(text, self.marks)
            if name is None:
                return _MISSING
            number, truth = _whole_hash(name), _TRUTHS.get(name.lower())
            return number if number is not None else (_text_hash(name) if truth is None else _number_hash(truth))
        return self._meaning(text)

    def _meaning(self, text: str) -> np.uint64:
        if is_missing_word(text, self.marks):
            return _MISSING
        whole, truth = _whole_hash(text.strip()), _TRUTHS.get(text.strip().lower())
        if truth is not None:
            return _number_hash(truth)
        if whole is not None:
            return whole
        number, problem = read_number(text)
        if problem is None:
            return _number_hash(number)
        moment, problem = read_datetime(text)
        if problem is None and moment is not None:
            return np.uint64(_mixed(np.array([moment], dtype=np.int64).view(np.uint64) ^ _TIME)[0])
        return _text_hash(text)


def _texts(reading: TableReading | None, column: str) -> _Texts:
    if reading is None:
        return _Texts(plain=True)
    known = reading.columns.get(column)
    if known is None:
        return _Texts(marks=reading.marks)
    return _Texts(names=known.kind == "category", marks=frozenset(known.marks))


def _whole_hash(text: str) -> np.uint64 | None:
    """The hash of a whole number that is written as text, as of the integer; None for another text."""
    number = whole_number(text)
    if number is None or not -(2**63) <= int(number[:25]) < 2**63:
        return None
    return np.uint64(_whole_hashes(np.array([int(number)]))[0])


def _number_hash(number: float) -> np.uint64:
    return np.uint64(_float_hashes(np.array([number]))[0])


def _value_hashes(series: "pd.Series[Any]", texts: _Texts) -> Hashes:
    dtype = series.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if series.dtype.kind == "M":
        stamps = series.to_numpy().astype("datetime64[us]").view(np.int64).view(np.uint64)
        return np.where(series.isna().to_numpy(), _MISSING, _mixed(stamps ^ _TIME))
    if texts.names and series.dtype.kind in "biuf":
        series = series.astype(object)
    if series.dtype.kind in "iu" and not series.hasnans:
        return _whole_hashes(series.to_numpy())
    if series.dtype.kind in "biuf":
        return _float_hashes(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return _object_hashes(series, texts)


def _float_hashes(values: npt.NDArray[np.float64]) -> Hashes:
    hashes = _mixed((values + 0.0).view(np.uint64))  # adding 0.0 makes one of the two zeros
    return np.where(np.isnan(values), _MISSING, hashes)


def _whole_hashes(values: npt.NDArray[Any]) -> Hashes:
    floats = values.astype(np.float64)
    large = np.abs(floats) > 2**53  # these would collide as floats
    return np.where(large, _mixed(values.astype(np.uint64) ^ _TIME), _float_hashes(floats))


def _object_hashes(series: "pd.Series[Any]", texts: _Texts) -> Hashes:
    if series.dtype == object and pd.api.types.infer_dtype(series, skipna=True) != "string":
        known: dict[tuple[type, str], np.uint64] = {}
        return np.array([_remembered(value, known, texts) for value in series], dtype=np.uint64)
    codes, uniques = pd.factorize(series)
    table = np.array([*(_object_hash(value, texts) for value in uniques.tolist()), _MISSING], dtype=np.uint64)
    return table[codes]  # the code of a missing value is -1, the last place


def _remembered(value: Any, known: dict[tuple[type, str], np.uint64], texts: _Texts) -> np.uint64:
    name = (type(value), repr(value))
    if name not in known:
        known[name] = _object_hash(value, texts)
    return known[name]


def _object_hash(value: Any, texts: _Texts) -> np.uint64:
    if isinstance(value, bytes) and not texts.plain:
        value = decode_text(value)
    if isinstance(value, str):
        return texts.hash(value)
    if texts.names and not is_missing(value):
        return texts.hash(str(read_category(value)))
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return _MISSING
    if isinstance(value, bool | int | float | np.number | np.bool_) or hasattr(value, "isoformat"):
        single = pd.Series([value])
        return np.uint64(_text_hash(str(value)) if single.dtype == object else _value_hashes(single, texts)[0])
    return _text_hash(repr(value))


def _text_hash(text: str) -> np.uint64:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _mixed(bits: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of the input moves half of the output's."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))
