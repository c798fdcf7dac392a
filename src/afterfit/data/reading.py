"""How the columns of a table are read: by the kinds that settings or versions say, never by what one file holds.

A CSV file brings texts, Parquet and databases bring types of their own. `TableReading.typed` makes the same values of
both, each by itself, so that a row is the same row whatever stands beside it and in whatever format it comes. What
cannot be read stays as it came, for the contract to refuse by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.categories import CategoryCodes
from afterfit.contract.columns import Column, Kind, formatted_column, infer_kind, read_series
from afterfit.contract.contract import Contract
from afterfit.contract.datetimes import ISO
from afterfit.contract.values import distinct_values, read_category
from afterfit.settings import Columns
from afterfit.use_case import UseCase

EXACT = 2**53


@dataclass(frozen=True, slots=True)
class TableReading:
    """How columns are read, by name; other columns stay as they come, and in them too `marks` stand for missing."""

    columns: Mapping[str, Column]
    marks: tuple[str, ...] = ()

    def typed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with readable values in the types of their kinds.

        Numbers are float64, or int64 where all are whole and none is missing; truth values are pandas' `boolean`; dates
        and times are datetime64[us], naive UTC. Categories of other types are the texts that they stand for, where
        the categories are known; each contract finds them as well. A column in which some value cannot be read
        holds objects, and these values as they came.
        """
        changed = {
            name: _typed(frame[name], self.columns[name])
            for name in frame.columns
            if name in self.columns and isinstance(frame[name], pd.Series)
        }
        changed = {name: values for name, values in changed.items() if values is not frame[name]}
        return frame.assign(**changed) if changed else frame

    def without(self, names: Iterable[str]) -> "TableReading":
        """The reading of the other columns."""
        gone = set(names)
        return TableReading({name: column for name, column in self.columns.items() if name not in gone}, self.marks)

    def with_inferred(self, frame: pd.DataFrame, names: Iterable[str]) -> "TableReading":
        """With kinds that the whole table shows, for columns that nothing else says a kind of.

        Dates stay as they come: the contract learns how they are written, and keeps it.
        """
        inferred = {
            name: Column(name, infer_kind(frame[name], self.marks), marks=self.marks)
            for name in names
            if name not in self.columns and name in frame.columns
        }
        inferred = {name: column for name, column in inferred.items() if column.kind != "datetime"}
        return TableReading({**self.columns, **inferred}, self.marks)


def declared(use_case: UseCase) -> TableReading:
    """What the settings file itself says: the kinds and formats of `columns`, and the time column."""
    return TableReading(_columns(use_case.columns, use_case), use_case.columns.missing_marks)


def reading_of(use_case: UseCase, contracts: Iterable[Contract] = ()) -> TableReading:
    """How a use case's tables are read: as its settings say, else as the version that it goes on from; see `inherit`.

    Where settings, that version and the contracts of further versions do not agree, a column stays as it comes, and
    each version reads it in its own way.
    """
    versions = [{column.name: column for column in contract.columns} for contract in contracts]
    columns: dict[str, Column] = {}
    unlike: set[str] = set()
    for some in (_columns(use_case.columns, use_case), _columns(use_case.inherited, use_case), *versions):
        for name, column in some.items():
            if name in columns and _rule(columns[name]) != _rule(column):
                unlike.add(name)
            columns.setdefault(name, _without_categories(column))
    if len(versions) == 1:
        columns |= {name: column for name, column in versions[0].items() if not column.mask}
    apart = {use_case.target} if use_case.task == "classification" else set()
    agreed = {name: column for name, column in columns.items() if name not in unlike | apart}
    return TableReading(agreed, use_case.columns.missing_marks)


def inherit(use_case: UseCase, contract: Contract, formats: Mapping[str, str]) -> UseCase:
    """The use case with what a version knows of its columns: kinds and formats, for those its settings do not name.

    Args:
        use_case: its settings.
        contract: the version's.
        formats: how its time and target were written (`formats_of`).
    """
    kinds = {column.name: column.kind for column in contract.columns}
    written = {column.name: column.datetime_format or ISO for column in contract.columns if column.kind == "datetime"}
    written |= {column.name: column.number_format for column in contract.columns if column.number_format}
    known = Columns(kinds=kinds, formats={**written, **formats}, missing_marks=use_case.columns.missing_marks)
    return use_case.model_copy(update={"inherited": known})


def with_formats(use_case: UseCase, formats: Mapping[str, str]) -> UseCase:
    """The use case that knows how further columns are written, where its settings do not say it."""
    known = use_case.inherited.model_copy(update={"formats": {**use_case.inherited.formats, **formats}})
    return use_case.model_copy(update={"inherited": known})


def format_of(use_case: UseCase, column: str | None) -> str | None:
    """How a column's numbers or dates are written, `ISO` where dates are ISO 8601; None where nothing says it yet."""
    if column is None:
        return None
    return use_case.columns.formats.get(column) or use_case.inherited.formats.get(column)


def kinds_of(use_case: UseCase, names: Iterable[str]) -> Columns:
    """Kinds and formats of some columns by settings and inheritance, as a contract learns by them."""
    wanted = set(names)
    kinds = {**use_case.inherited.kinds, **use_case.columns.kinds}
    formats = {name: text for name, text in use_case.inherited.formats.items() if name not in use_case.columns.kinds}
    formats |= use_case.columns.formats
    return use_case.columns.model_copy(
        update={
            "kinds": {name: kind for name, kind in kinds.items() if name in wanted},
            "formats": {name: text for name, text in formats.items() if name in wanted and text != ISO},
        }
    )


def _columns(said: Columns, use_case: UseCase) -> dict[str, Column]:
    marks = use_case.columns.missing_marks
    kinds: dict[str, Any] = dict(said.kinds)
    if use_case.task == "regression":
        kinds[use_case.target] = "number"
    columns = {
        name: replace(_written(name, kind, said), marks=marks)
        for name, kind in kinds.items()
        if kind != "datetime" or name in said.formats  # else the contract learns how they are written, and keeps it
    }
    for name in said.formats:
        if name not in columns:
            kind: Kind | None = "datetime" if name == use_case.time else None
            columns[name] = replace(_written(name, kind, said), marks=marks)
    return columns


def _written(name: str, kind: Kind | None, said: Columns) -> Column:
    if name in said.formats:
        return formatted_column(name, said.formats[name], kind)
    return Column(name, kind or "category")


def _without_categories(column: Column) -> Column:
    """The column as several versions read it, each with its own categories, or one that knows only their hashes."""
    return replace(column, categories=(), mask="", aliases=()) if column.categories or column.mask else column


def _rule(column: Column) -> tuple[Any, ...]:
    """What must be alike for two columns to be read alike."""
    kind = "number" if column.kind == "integer" else column.kind
    return kind, column.number_format, column.datetime_format, frozenset(column.marks)


def _typed(values: "pd.Series[Any]", column: Column) -> "pd.Series[Any]":
    if column.kind == "category":
        return _as_texts(values, column)
    plain = isinstance(values.dtype, pd.BooleanDtype) if column.kind == "boolean" else _is_plain_number(values)
    if plain and column.kind != "datetime":
        return values
    reading = read_series(values, column)
    if reading.problems is not None:
        return _mixed(values, reading.values, reading.problems)
    if column.kind == "datetime":
        return pd.Series(reading.values, index=values.index)
    read = _truths(reading.values) if column.kind == "boolean" else _whole(reading.values)
    return pd.Series(read, index=values.index)


def _truths(numbers: npt.NDArray[Any]) -> Any:
    missing = np.isnan(numbers)
    return pd.arrays.BooleanArray(np.where(missing, 0.0, numbers).astype(np.bool_), missing)


def _is_plain_number(values: "pd.Series[Any]") -> bool:
    return isinstance(values.dtype, np.dtype) and values.dtype.kind in "fiu"


def _whole(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Floats as integers where all are whole and exact; 17 is then shown as 17, not as 17.0."""
    if len(numbers) and (np.abs(numbers) <= EXACT).all() and (numbers == np.floor(numbers)).all():
        return numbers.astype(np.int64)
    return numbers


def _mixed(values: "pd.Series[Any]", read: npt.NDArray[Any], problems: npt.NDArray[Any]) -> "pd.Series[Any]":
    """The readable values by their kind, beside those that cannot be read as they came."""
    objects = values.astype(object).to_numpy(copy=True)
    sound = pd.isna(problems)
    objects[sound] = read[sound].astype(object)  # of a moment a datetime, of a missing one None
    objects[sound & pd.isna(objects)] = None
    return pd.Series(objects, index=values.index, dtype=object)


def _as_texts(values: "pd.Series[Any]", column: Column) -> "pd.Series[Any]":
    """Categories as text: of values that are none, the category that they stand for, where one is known."""
    if isinstance(values.dtype, pd.StringDtype) or not column.categories:
        return values
    positions, distinct = distinct_values(values)
    if all(isinstance(value, str) for value in distinct) and values.dtype == object:
        return values
    known = CategoryCodes(column.categories)
    texts = np.array([*(_category_text(value, known) for value in distinct), None], dtype=object)
    return pd.Series(texts[positions], index=values.index, dtype="str")


def _category_text(value: Any, known: CategoryCodes) -> str | None:
    text = read_category(value)
    if text is None:
        return None
    code = known.code_of_text(value, text)
    return known.texts[code] if code < len(known) else text
