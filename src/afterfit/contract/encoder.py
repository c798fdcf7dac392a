"""From checked rows to the float matrix that estimators take; a frame and its single rows give the same numbers.

Numbers pass as they are, clipped to the range of float32, in which forests compute. Categories become codes: each
frequent one has its own, all others share the last one, "other". Missing values are NaN.

Dates become the parts that come again: hour of day, day of week, day of year. The time itself is left out: every row in
production is later than all training rows, and a tree that splits on time would put them all into its last leaf. The
day of month is left out too: in a window of a month or two it is the time under another name.
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
MOST_CODES = 255  # with "other"; histogram gradient boosting takes no more
HOUR = 3_600_000_000  # microseconds
WEEKS = 14  # the day of week needs training rows from at least this many days
YEARS = 730  # and the day of year from at least this many
_MONDAY = 3  # 1970-01-01 was a Thursday
_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the matrix: a part of a contract's column, and for codes the categories that have their own."""

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
        """The number of codes of each feature, with "other", the last one; 0 where the feature is not categorical."""
        return tuple(len(part.categories) + 1 if part.part == "code" else 0 for part in self.parts)

    @cached_property
    def _code_tables(self) -> list[Matrix]:
        """For each feature its codes by the codes of the contract: known categories, "other", and last (-1) missing."""
        columns = {column.name: column for column in self.contract.columns}
        return [_code_table(part, columns[part.column]) for part in self.parts]

    def encode_frame(self, checked: Checked) -> Matrix:
        """Encode a checked frame of n rows: float64 (n, features), stored by columns (Fortran order).

        Rows with errors are encoded too, their unreadable values as missing.
        """
        matrix: Matrix = np.empty((checked.size, len(self.parts)), order="F")
        for position, (part, table) in enumerate(zip(self.parts, self._code_tables, strict=True)):
            _ENCODE[part.part](checked.values[part.column], table, matrix[:, position])
        return matrix

    @cached_property
    def _plan(self) -> list[tuple[int, Part, list[float]]]:
        positions = {name: place for place, name in enumerate(self.contract.names)}
        tables = [table.tolist() for table in self._code_tables]
        return [(positions[part.column], part.part, table) for part, table in zip(self.parts, tables, strict=True)]

    def encode_row(self, row: CheckedRow) -> list[float]:
        """Encode a checked row: one float a feature, equal to the row of `encode_frame`'s matrix."""
        values = row.values
        encoded: list[float] = []
        append = encoded.append
        for position, part, table in self._plan:
            value = values[position]
            if part == "value":
                append(value if -LARGEST <= value <= LARGEST else _clip(value))
            elif part == "code":
                append(table[value])
            elif value is None:
                append(math.nan)
            elif part == "hour":
                append(value % DAY / HOUR)
            elif part == "weekday":
                append(float((value // DAY + _MONDAY) % 7))
            else:
                append(float(date.fromordinal(value // DAY + _EPOCH_DAY).timetuple().tm_yday))
        return encoded

    def without_rare_private(self) -> "Encoder":
        """The same encoder, whose contract knows of private columns only the categories with a code of their own."""
        own = {part.column: part.categories for part in self.parts if part.part == "code"}
        columns = [
            column.with_categories(own.get(column.name, ())) if column.private else column
            for column in self.contract.columns
        ]
        return Encoder(Contract(tuple(columns)), self.parts)

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
        return cls(
            Contract.from_dict(saved["contract"]), tuple(_feature_from_dict(feature) for feature in saved["features"])
        )


def fit_encoder(
    contract: Contract, checked: Checked, *, max_categories: int = 200, min_category_rows: int = 20
) -> Encoder:
    """Decide the features from the training rows that the contract checked.

    Columns that cannot help are left out: those without any value, those of categories of which none is frequent
    enough, and dates of which no part comes again.

    Args:
        contract: The contract.
        checked: The training rows, checked by it.
        max_categories: The most categories of a column that get a code of their own; at most 254.
        min_category_rows: The rows that a category needs to get one.

    Raises:
        DataError: No column can be used, or max_categories is out of range.
    """
    if not 1 <= max_categories < MOST_CODES:
        raise DataError(f"max_categories must be from 1 to {MOST_CODES - 1}; got {max_categories}.")
    parts: list[Feature] = []
    for column in contract.columns:
        values = checked.values[column.name]
        if column.kind == "category":
            categories = _frequent_categories(values, column, max_categories, min_category_rows)
            parts += [Feature(column.name, column.name, "code", categories)] if categories else []
        elif column.kind == "datetime":
            parts += [Feature(f"{column.name}.{part}", column.name, part) for part in _recurring_parts(values)]
        elif not np.isnan(values).all():
            parts.append(Feature(column.name, column.name, "value"))
    if not parts:
        raise DataError(
            f"No column can be used as a feature (of {', '.join(contract.names) or 'none'}): each is without values, "
            f"a category with no value in {min_category_rows} rows, or a date without a part that comes again."
        )
    return Encoder(contract, _with_unique_names(parts))


def mask_some(
    matrix: Matrix, encoder: Encoder, rng: np.random.Generator, *, other: float = 0.01, missing: float = 0.005
) -> Matrix:
    """A copy of a training matrix in which "other" and missing values occur, so that the model learns to handle them.

    Where fewer rows than the share `other` have "other" in a categorical feature, randomly chosen rows are set to it
    until the share is reached. Where a column has no missing value, it is set to NaN in a share `missing` of the rows,
    in all of its features together. Both numbers of rows are rounded up; a table of one row stays as it is.

    Args:
        matrix: Encoded training rows (n, features); it is not changed.
        encoder: The encoder that made it.
        rng: Chooses the rows; the same state gives the same choice.
        other: Share of rows, 0 to 1.
        missing: Share of rows, 0 to 1.
    """
    masked: Matrix = np.array(matrix, order="F")
    rows = len(masked)
    if rows < 2:
        return masked
    groups: dict[str, list[int]] = {}
    for position, part in enumerate(encoder.parts):
        groups.setdefault(part.column, []).append(position)
        if part.part == "code":
            _move_to_other(masked[:, position], len(part.categories), math.ceil(rows * other), rng)
    for features in groups.values():
        if not np.isnan(matrix[:, features]).any():
            chosen = rng.choice(rows, size=math.ceil(rows * missing), replace=False)
            masked[np.ix_(chosen, np.array(features))] = math.nan
    return masked


def _clip(value: float) -> float:
    return value if math.isnan(value) else math.copysign(LARGEST, value)


def _feature_from_dict(saved: Any) -> Feature:
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


def _with_unique_names(parts: list[Feature]) -> tuple[Feature, ...]:
    """Features with unique names, also where a column is called like a part of another one."""
    taken_names: set[str] = set()
    features = []
    for part in parts:
        name = part.name
        while name in taken_names:
            name += "_"
        taken_names.add(name)
        features.append(Feature(name, part.column, part.part, part.categories))
    return tuple(features)


def _frequent_categories(
    codes: npt.NDArray[Any], column: Column, most_categories: int, fewest_rows: int
) -> tuple[str, ...]:
    counts = np.bincount(codes[codes >= 0], minlength=len(column.categories) + 1)[: len(column.categories)]
    ranked = np.argsort(-counts, kind="stable")[:most_categories]
    return tuple(column.categories[code] for code in ranked.tolist() if counts[code] >= max(fewest_rows, 1))


def _recurring_parts(values: npt.NDArray[Any]) -> list[Part]:
    known = values[~np.isnat(values)].astype(np.int64)
    if not len(known):
        return []
    days = (int(known.max()) - int(known.min())) / DAY
    times_of_day = known % DAY
    useful: list[Part] = ["hour"] if times_of_day.min() != times_of_day.max() else []
    return useful + (["weekday"] if days >= WEEKS else []) + (["yearday"] if days >= YEARS else [])


def _move_to_other(codes: Matrix, other: int, wanted_rows: int, rng: np.random.Generator) -> None:
    known = np.flatnonzero(codes < other)
    missing_rows = min(wanted_rows - int((codes == other).sum()), len(known))
    if missing_rows > 0:
        codes[rng.choice(known, size=missing_rows, replace=False)] = other
