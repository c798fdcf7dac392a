"""Checked rows to the float matrix that estimators take, as a frame and one by one, with equal results.

Numbers pass as they are, cut to the range of float32, in which forests compute. Categories become codes:
the frequent ones keep one each, all others share the last one, "other". Missing values are NaN.

Dates become the parts that can come again: hour of day, day of week, day of year. The time itself is left out: every
row in production is later than all training rows, and a tree that split on time would give them all its last leaf. So
is the day of month: in a window of a month or two it is the time itself under another name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from afterfit.contract.checks import Checked, CheckedRow
from afterfit.contract.columns import Column
from afterfit.contract.contract import Contract
from afterfit.contract.datetimes import DAY
from afterfit.errors import DataError

Part = Literal["value", "code", "hour", "weekday", "yearday"]
Matrix = npt.NDArray[np.float64]
FORMAT = 1
LARGEST = float(np.finfo(np.float32).max)
MOST_CODES = 255  # histogram gradient boosting takes no more, "other" included
HOUR = 3_600_000_000  # microseconds
WEEKS = 14  # days of training below which a day of week is no pattern
YEARS = 730  # days of training below which a day of year is no pattern
_MONDAY = 3  # 1970-01-01 was a Thursday
_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the matrix: a part of a column; for codes also the categories that have one of their own."""

    name: str
    column: str
    part: Part
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoder:
    """Turns rows that a contract checked into features.

    Attributes:
        contract: The contract that checks the rows.
        parts: The features, in the matrix's order.
    """

    contract: Contract
    parts: tuple[Feature, ...]

    def __post_init__(self) -> None:
        kinds = {column.name: column.kind for column in self.contract.columns}
        if not self.parts:
            raise DataError("An encoder needs at least one feature.")
        for part in self.parts:
            if part.column not in kinds or part.part not in _parts_of(kinds[part.column]):
                raise DataError(f"The feature {part.name!r} does not fit the contract's column {part.column!r}.")

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the matrix's columns."""
        return tuple(part.name for part in self.parts)

    @property
    def categorical(self) -> tuple[bool, ...]:
        """Which features are codes."""
        return tuple(part.part == "code" for part in self.parts)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of codes of each feature with "other", which is the last; 0 where it is not categorical."""
        return tuple(len(part.categories) + 1 if part.part == "code" else 0 for part in self.parts)

    @cached_property
    def _tables(self) -> list[Matrix]:
        """For each feature its code by the column's code: known ones, "other", and last, for -1, missing."""
        columns = {column.name: column for column in self.contract.columns}
        return [_code_table(part, columns[part.column]) for part in self.parts]

    def encode_frame(self, checked: Checked) -> Matrix:
        """Encode a checked frame of n rows: float64 (n, features), stored by columns (Fortran order).

        Rows with errors are encoded too, their unreadable values as missing.
        """
        matrix: Matrix = np.empty((checked.size, len(self.parts)), order="F")
        for at, (part, table) in enumerate(zip(self.parts, self._tables, strict=True)):
            _ENCODE[part.part](checked.values[part.column], table, matrix[:, at])
        return matrix

    @cached_property
    def _plan(self) -> list[tuple[int, Part, list[float]]]:
        places = {name: place for place, name in enumerate(self.contract.names)}
        tables = [table.tolist() for table in self._tables]
        return [(places[part.column], part.part, table) for part, table in zip(self.parts, tables, strict=True)]

    def encode_row(self, row: CheckedRow) -> list[float]:
        """Encode a checked row: one float a feature, equal to the row of `encode_frame`'s matrix."""
        values = row.values
        encoded: list[float] = []
        push = encoded.append
        for place, part, table in self._plan:
            value = values[place]
            if part == "value":
                push(value if -LARGEST <= value <= LARGEST else _clipped(value))
            elif part == "code":
                push(table[value])
            elif value is None:
                push(math.nan)
            elif part == "hour":
                push(value % DAY / HOUR)
            elif part == "weekday":
                push(float((value // DAY + _MONDAY) % 7))
            else:
                push(float(date.fromordinal(value // DAY + _EPOCH_DAY).timetuple().tm_yday))
        return encoded

    def to_dict(self) -> dict[str, Any]:
        """The encoder as JSON knows it, with its contract and its format's version."""
        parts = [
            {"name": p.name, "column": p.column, "part": p.part, "categories": list(p.categories)} for p in self.parts
        ]
        return {"format": FORMAT, "contract": self.contract.to_dict(), "features": parts}

    @classmethod
    def from_dict(cls, saved: Any) -> "Encoder":
        """Read what `to_dict` wrote; anything else is a DataError."""
        if not isinstance(saved, Mapping) or set(saved) != {"format", "contract", "features"}:
            raise DataError("A saved encoder must have exactly the fields format, contract and features.")
        if saved["format"] != FORMAT or not isinstance(saved["features"], list):
            raise DataError(f"A saved encoder must have format {FORMAT} and a list of features.")
        return cls(Contract.from_dict(saved["contract"]), tuple(_feature(one) for one in saved["features"]))


def _clipped(value: float) -> float:
    return value if math.isnan(value) else math.copysign(LARGEST, value)


def _feature(saved: Any) -> Feature:
    if not isinstance(saved, Mapping) or set(saved) != {"name", "column", "part", "categories"}:
        raise DataError("A saved feature must have exactly the fields name, column, part and categories.")
    texts = [saved["name"], saved["column"], *saved["categories"]] if isinstance(saved["categories"], list) else [None]
    if not all(isinstance(text, str) for text in texts) or saved["part"] not in get_args(Part):
        raise DataError(f"The saved feature {saved['name']!r} has a field of a wrong type.")
    return Feature(saved["name"], saved["column"], saved["part"], tuple(saved["categories"]))


def _parts_of(kind: str) -> tuple[str, ...]:
    return {"category": ("code",), "datetime": ("hour", "weekday", "yearday")}.get(kind, ("value",))


def _code_table(part: Feature, column: Column) -> Matrix:
    if part.part != "code":
        return np.empty(0)
    code_of = {text: float(code) for code, text in enumerate(part.categories)}
    other = float(len(code_of))
    return np.array([*(code_of.get(text, other) for text in column.categories), other, math.nan])


def _encode_number(values: npt.NDArray[Any], _: Matrix, out: Matrix) -> None:
    np.clip(values, -LARGEST, LARGEST, out=out)


def _encode_code(values: npt.NDArray[Any], table: Matrix, out: Matrix) -> None:
    out[:] = table[values]


def _encode_hour(values: npt.NDArray[Any], _: Matrix, out: Matrix) -> None:
    np.divide(values.astype(np.int64) % DAY, HOUR, out=out)
    out[np.isnat(values)] = math.nan


def _encode_weekday(values: npt.NDArray[Any], _: Matrix, out: Matrix) -> None:
    np.mod(values.astype("datetime64[D]").astype(np.int64) + _MONDAY, 7, out=out, casting="unsafe")
    out[np.isnat(values)] = math.nan


def _encode_yearday(values: npt.NDArray[Any], _: Matrix, out: Matrix) -> None:
    days = values.astype("datetime64[D]")
    out[:] = (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1
    out[np.isnat(values)] = math.nan


_ENCODE = {
    "value": _encode_number,
    "code": _encode_code,
    "hour": _encode_hour,
    "weekday": _encode_weekday,
    "yearday": _encode_yearday,
}


def fit_encoder(
    contract: Contract, checked: Checked, *, max_categories: int = 200, min_category_rows: int = 20
) -> Encoder:
    """Decide the features from the training rows that the contract checked.

    Columns that tell nothing apart are left out: those without any value, categories of which none is frequent
    enough, and dates that have no part which comes again.

    Args:
        contract: The contract.
        checked: The training rows, checked by it.
        max_categories: At most so many categories of a column keep a code of their own, at most 254.
        min_category_rows: Rows that a category needs to keep one.

    Raises:
        DataError: No column can be used, or max_categories is out of range.
    """
    if not 1 <= max_categories < MOST_CODES:
        raise DataError(f"max_categories must be from 1 to {MOST_CODES - 1}; got {max_categories}.")
    parts: list[Feature] = []
    for column in contract.columns:
        values = checked.values[column.name]
        if column.kind == "category":
            kept = _kept(values, column, max_categories, min_category_rows)
            parts += [Feature(column.name, column.name, "code", kept)] if kept else []
        elif column.kind == "datetime":
            parts += [Feature(f"{column.name}.{part}", column.name, part) for part in _useful_parts(values)]
        elif not np.isnan(values).all():
            parts.append(Feature(column.name, column.name, "value"))
    if not parts:
        raise DataError(
            f"No column can be used as a feature (of {', '.join(contract.names) or 'none'}): each is without values, "
            f"a category with no value in {min_category_rows} rows, or a date without a part that comes again."
        )
    return Encoder(contract, _renamed(parts))


def _renamed(parts: list[Feature]) -> tuple[Feature, ...]:
    """Keep names unique where a column is called like another's part."""
    taken: set[str] = set()
    unique = []
    for part in parts:
        name = part.name
        while name in taken:
            name += "_"
        taken.add(name)
        unique.append(Feature(name, part.column, part.part, part.categories))
    return tuple(unique)


def _kept(codes: npt.NDArray[Any], column: Column, most: int, least: int) -> tuple[str, ...]:
    counts = np.bincount(codes[codes >= 0], minlength=len(column.categories) + 1)[: len(column.categories)]
    ranked = np.argsort(-counts, kind="stable")[:most]
    return tuple(column.categories[code] for code in ranked.tolist() if counts[code] >= max(least, 1))


def _useful_parts(values: npt.NDArray[Any]) -> list[Part]:
    known = values[~np.isnat(values)].astype(np.int64)
    if not len(known):
        return []
    days = (int(known.max()) - int(known.min())) / DAY
    clock = known % DAY
    useful: list[Part] = ["hour"] if clock.min() != clock.max() else []
    return useful + (["weekday"] if days >= WEEKS else []) + (["yearday"] if days >= YEARS else [])


def mask_some(
    matrix: Matrix, encoder: Encoder, rng: np.random.Generator, *, other: float = 0.01, missing: float = 0.005
) -> Matrix:
    """A copy of a training matrix in which "other" and missing values occur, so that the model learns to answer them.

    For each categorical feature with fewer than the share `other` of rows in "other", randomly chosen rows are moved
    there until it is reached. For each column without any missing value, the share `missing` of rows is set to NaN, in
    all features of the column together. Both round up to whole rows, but a table of one row stays as it is.

    Args:
        matrix: Encoded training rows (n, features); it is not changed.
        encoder: The encoder that made it.
        rng: Where the choice comes from; the same state gives the same choice.
        other: Share of rows, 0 to 1.
        missing: Share of rows, 0 to 1.
    """
    masked: Matrix = np.array(matrix, order="F")
    rows = len(masked)
    if rows < 2:
        return masked
    groups: dict[str, list[int]] = {}
    for at, part in enumerate(encoder.parts):
        groups.setdefault(part.column, []).append(at)
        if part.part == "code":
            _move_to_other(masked[:, at], len(part.categories), math.ceil(rows * other), rng)
    for features in groups.values():
        if not np.isnan(matrix[:, features]).any():
            chosen = rng.choice(rows, size=math.ceil(rows * missing), replace=False)
            masked[np.ix_(chosen, np.array(features))] = math.nan
    return masked


def _move_to_other(codes: Matrix, other: int, wanted: int, rng: np.random.Generator) -> None:
    known = np.flatnonzero(codes < other)
    lacking = min(wanted - int((codes == other).sum()), len(known))
    if lacking > 0:
        codes[rng.choice(known, size=lacking, replace=False)] = other
