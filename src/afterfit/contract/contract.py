"""The contract: what a row must look like, learnt from training rows; it checks frames and single rows alike.

What may come, and what happens then (warnings and errors of the answer carry these codes):

- a value is missing or a column absent: predicted, `missing` or `absent_column`; `required_missing` is an error where
  the column is required;
- a category that training never saw: predicted as "other", `unseen_category`, unless the column is private;
- "12.5", "true" or an ISO date as text, where the kind fits: read without a warning; a fraction for an integer:
  `not_integer`;
- a number outside the trained range: predicted, `out_of_range`, unless the column is private; infinities are errors
  (`infinite`);
- anything else that cannot be read: an error of its row (`invalid_number`, `invalid_boolean`, `invalid_datetime`), or,
  with on_invalid="missing" and where the column is not required, a missing value (`invalid`);
- an unknown column: ignored, `unknown_column` once.

Dates have no trained range: every date in production is later than training.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from afterfit.contract.categories import CategoryCodes
from afterfit.contract.checks import MUST_BE, Checked, CheckedRow, Issue, Note, RowChecker, check_series, check_values
from afterfit.contract.columns import (
    Column,
    Kind,
    OnInvalid,
    check_kind,
    formatted_column,
    infer_kind,
    learn_column,
    suggest_marks,
)
from afterfit.contract.datetimes import ParsedDatetimes, parse_datetimes
from afterfit.contract.values import display_value
from afterfit.errors import DataError, SchemaError

__all__ = [
    "Checked",
    "CheckedRow",
    "Column",
    "Contract",
    "Issue",
    "Kind",
    "ParsedDatetimes",
    "infer_kind",
    "learn",
    "parse_datetimes",
    "suggest_marks",
]

FORMAT = 1
MOST_UNKNOWN = 20  # unknown columns that are named; the rest is counted
UNREADABLE = frozenset({*MUST_BE, "invalid"})
WIDEST_REMEMBERED = 1_000  # the warnings of a row with more columns are not kept
LONGEST_NAME = 200  # nor are those of a row with a longer name; of a longer name only the start is compared
MOST_COMPARED = 2_000  # pairs of an unknown and an absent name that are compared for a suggestion
REMEMBERED = 256  # different sets of columns whose warnings are kept


@dataclass(frozen=True)
class Contract:
    """What a row must look like. The columns are in the order of training; a row or frame may have any order."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        duplicates = _duplicates([column.name for column in self.columns])
        if duplicates:
            raise DataError(f"A contract names each column once; {', '.join(duplicates)} came more than once.")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    def to_dict(self) -> dict[str, Any]:
        """The contract as JSON knows it, with its format's version."""
        return {"format": FORMAT, "columns": [column.to_dict() for column in self.columns]}

    def to_json(self) -> str:
        """The contract as JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False, indent=1)

    @classmethod
    def from_dict(cls, saved: Any) -> "Contract":
        """Read what `to_dict` wrote; anything else is a DataError."""
        if not isinstance(saved, Mapping) or set(saved) != {"format", "columns"}:
            raise DataError("A saved contract must have exactly the fields format and columns; this is something else.")
        if saved["format"] != FORMAT or isinstance(saved["format"], bool):
            raise DataError(f"A saved contract must have format {FORMAT}; got {saved['format']!r}.")
        if not isinstance(saved["columns"], list):
            raise DataError("A saved contract's columns must be a list.")
        return cls(tuple(Column.from_dict(column) for column in saved["columns"]))

    @classmethod
    def from_json(cls, text: str) -> "Contract":
        """Read what `to_json` wrote; anything else is a DataError."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise DataError(f"A saved contract must be JSON; {error}.") from error

    def check_frame(self, frame: pd.DataFrame) -> Checked:
        """Check a frame against the contract, column by column.

        Raises:
            SchemaError: The frame has two columns of the same name.
        """
        _unique_names(frame)
        positions = {name: position for position, name in enumerate(frame.columns) if isinstance(name, str)}
        values: dict[str, Any] = {}
        issues: list[Issue] = []
        for column in self.columns:
            position = positions.get(column.name)
            series = None if position is None else frame.iloc[:, position]
            values[column.name], column_issues = check_series(series, column, len(frame))
            issues += column_issues
        # a frame without rows has absent columns, but no row to warn
        return Checked(len(frame), values, tuple(i for i in issues if len(i.rows)), self.unknown_columns(frame.columns))

    def check_columns(self, columns: Mapping[str, Sequence[Any]], size: int) -> Checked:
        """Check columns of Python objects, each of `size` values as JSON brings them.

        The result is that of `check_frame` for a frame of these columns.
        """
        values: dict[str, Any] = {}
        issues: list[Issue] = []
        for column in self.columns:
            column_values = columns.get(column.name)
            values[column.name], column_issues = (
                check_series(None, column, size)
                if column_values is None
                else check_values(column_values, column, self._categories[column.name])
            )
            issues += column_issues
        return Checked(size, values, tuple(i for i in issues if len(i.rows)), self.unknown_columns(columns))

    @cached_property
    def _categories(self) -> dict[str, CategoryCodes]:
        return {column.name: column.codes() for column in self.columns}

    @cached_property
    def _check_row(self) -> RowChecker:
        return RowChecker(self.columns)

    @cached_property
    def _remembered_notes(self) -> dict[frozenset[Any], list[Note]]:
        return {}

    def check_row(self, row: Mapping[str, Any], *, suggests: bool = True) -> CheckedRow:
        """Check one row, as JSON brings it; the result is that of `check_frame` for the same row.

        Without `suggests` no name is looked for that an unknown column was probably meant to have, where the same
        columns did not come before: that takes longer than all else.

        Raises:
            DataError: The row is not a mapping.
        """
        values, warnings, errors, present_count = self._check_row(row)
        if len(row) != present_count:
            warnings += self._unknown_columns_of_row(row, suggests=suggests)
        return CheckedRow(values, warnings, errors)

    def _unknown_columns_of_row(self, row: Mapping[str, Any], *, suggests: bool) -> list[Note]:
        names = frozenset(row)
        notes = self._remembered_notes.get(names)
        if notes is None:
            notes = self.unknown_columns(row, suggests=suggests)
            if not suggests or len(names) > WIDEST_REMEMBERED or any(len(str(name)) > LONGEST_NAME for name in names):
                return notes
            if len(self._remembered_notes) >= REMEMBERED:
                self._remembered_notes.clear()
            self._remembered_notes[names] = notes
        return [note.copy() for note in notes]

    def unknown_columns(self, names: Iterable[Any], *, suggests: bool = True) -> list[Note]:
        """One warning for each unknown name, sorted by name; at most 20 are named, and the rest is counted.

        `suggestion` is the contract's column that was probably meant: an absent one with a similar name, or the only
        absent one where only one name is unknown; otherwise None, as where there are too many names to compare.
        """
        present = set(names)
        absent = [name for name in self.names if name not in present]
        unknown = sorted(str(name) for name in present.difference(self.names))
        named = unknown[:MOST_UNKNOWN]
        compares = suggests and len(named) * len(absent) <= MOST_COMPARED
        suggestions = _suggest_renames(named, absent) if compares else [None] * len(named)
        notes: list[Note] = [
            {"column": str(display_value(name)), "code": "unknown_column", "value": None, "suggestion": suggestion}
            for name, suggestion in zip(named, suggestions, strict=True)
        ]
        if len(unknown) > MOST_UNKNOWN:
            rest = f"{len(unknown) - MOST_UNKNOWN} more columns"
            notes.append({"column": None, "code": "unknown_column", "value": rest, "suggestion": None})
        return notes

    def differences(self, other: "pd.DataFrame | Contract") -> list[str]:
        """How a table, or another contract, differs from this one: one sentence for each column that differs.

        The values of a table are read by this contract; of another contract the kinds are compared.
        """
        if isinstance(other, Contract):
            kinds = {column.name: column.kind for column in other.columns}
            pairs = [(c.name, c.kind, kinds.get(c.name, c.kind)) for c in self.columns]
            problems = {
                name: f"{kind} is expected, {kind_of_other} came."
                for name, kind, kind_of_other in pairs
                if kind != kind_of_other
            }
            return self._differences(list(kinds), problems)
        checked = self.check_frame(other)
        problems = {}
        for issue in checked.issues:
            if issue.code in UNREADABLE and issue.column.name not in problems:
                first_value = issue.notes(issue.rows[:1])[0]["value"]
                first = "" if issue.column.private else f" (first in row {issue.rows[0]}: {first_value!r})"
                counts = f"{len(issue.rows)} of {checked.size} rows"
                problems[issue.column.name] = f"{issue.column.kind} is expected; {counts} have {issue.code}{first}."
        return self._differences([str(name) for name in other.columns], problems)

    def _differences(self, names: Sequence[str], wrong: Mapping[str, str]) -> list[str]:
        known = set(names)
        absent = {c.name: f"absent; {c.kind} is expected." for c in self.columns if c.name not in known}
        problem_of = {**wrong, **absent}
        lines = [f"{name}: {problem_of[name]}" for name in self.names if name in problem_of]
        for note in self.unknown_columns(names):
            hint = f"; was {note['suggestion']} meant?" if note["suggestion"] else "."
            lines.append(f"{note['column'] or note['value']}: not in the contract{hint}")
        return lines


def learn(
    frame: pd.DataFrame,
    *,
    kinds: Mapping[str, Kind] | None = None,
    formats: Mapping[str, str] | None = None,
    required: Iterable[str] = (),
    private: Iterable[str] = (),
    mask: str = "open:",
    marks: Sequence[str] | Mapping[str, Sequence[str]] = (),
    on_invalid: OnInvalid = "error",
    ignore: Iterable[str] = (),
) -> Contract:
    """Learn the contract of the feature columns of a training table.

    Args:
        frame: Training rows (n, columns); the target and other non-features belong into `ignore`.
        kinds: Kinds of some columns; those of the others are inferred (`infer_kind`).
        formats: How numbers and dates of some columns are written (`formatted_column`); columns that are no features
            may be among them. Of other columns of dates the values say it.
        required: Columns without which a row is not predicted.
        private: Columns whose values must not appear in warnings and errors, nor in the contract.
        mask: By what their categories are hashed (`masks.mask_of`): the encoder must know them again.
        marks: Texts that count as missing besides empty ones, for all columns or by column.
        on_invalid: Whether a value that cannot be read is its row's error or counts as missing.
        ignore: Columns that are no features; they need not be there.

    Raises:
        DataError: There are no rows or no columns left, a column name is not text or comes twice, or an option names
            an unknown column.
        SettingsError: A format is none, or does not fit the column's kind.
    """
    for name in frame.columns:
        if not isinstance(name, str):
            raise DataError(f"Column names must be texts; got {name!r} ({type(name).__name__}). Rename it.")
    names = _unique_names(frame, DataError)
    if not len(frame):
        raise DataError("A contract is learnt from rows; the table has none.")
    kinds, formats = dict(kinds or {}), dict(formats or {})
    required, private, ignore = set(required), set(private), set(ignore)
    by_column = dict(marks) if isinstance(marks, Mapping) else dict.fromkeys(names, marks)
    for option, option_names in (("kinds", kinds), ("required", required), ("private", private), ("marks", by_column)):
        _check_known(sorted(option_names), names, option)
    features = [name for name in names if name not in ignore]
    if not features:
        raise DataError("A contract needs at least one feature column; all columns of the table are ignored.")
    columns = []
    for name in features:
        column_marks = by_column.get(name, ())
        column_marks = [column_marks] if isinstance(column_marks, str) else column_marks
        kind = check_kind(kinds[name], name) if name in kinds else None
        if name in formats:
            written = formatted_column(name, formats[name], kind)
        else:
            written = Column(name, infer_kind(frame[name], column_marks) if kind is None else kind)
        blank = replace(
            written,
            required=name in required,
            on_invalid=on_invalid,
            marks=tuple(dict.fromkeys(mark.strip() for mark in column_marks)),
            private=name in private,
            mask=mask if name in private and written.kind == "category" else "",
        )
        columns.append(learn_column(frame[name], blank))
    return Contract(tuple(columns))


def _check_known(names: Iterable[str], columns: Sequence[str], option: str) -> None:
    for name in names:
        if name not in columns:
            close = difflib.get_close_matches(str(name), columns, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" The table has {', '.join(columns)}."
            raise DataError(f"{option} names the column {name!r}, which the table does not have.{hint}")


def _suggest_renames(unknown: Sequence[str], absent: Sequence[str]) -> list[str | None]:
    if len(unknown) == len(absent) == 1:
        return [absent[0]]
    remaining = list(absent)
    suggestions: list[str | None] = []
    for name in unknown:
        close = difflib.get_close_matches(name[:LONGEST_NAME], remaining, n=1)
        suggestions.append(close[0] if close else None)
        remaining = [candidate for candidate in remaining if candidate not in close]
    return suggestions


def _unique_names(frame: pd.DataFrame, kind_of_error: type[DataError] = SchemaError) -> list[str]:
    names = [str(name) for name in frame.columns]
    duplicates = _duplicates(names)
    if duplicates:
        raise kind_of_error(
            f"Column names must be unique; {', '.join(duplicates)} came more than once. Rename or drop one."
        )
    return names


def _duplicates(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
