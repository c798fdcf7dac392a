"""The contract: what a row must look like, learnt from training rows; it checks frames and single rows alike.

What comes and what happens (the answer's warnings and errors carry these codes):

- a value is missing or a column absent: predicted, `missing` or `absent_column`; `required_missing` is an error where
  the column is required;
- a category that training never saw: predicted as "other", `unseen_category`;
- "12.5", "true" or an ISO date for the right kind: read silently; a fraction for an integer: `not_integer`;
- a number outside the trained range: predicted, `out_of_range`; infinities are errors (`infinite`);
- anything else that cannot be read: an error of its row (`invalid_number`, `invalid_boolean`, `invalid_datetime`), or,
  with on_invalid="missing" and where the column is not required, a missing value (`invalid`);
- an unknown column: ignored, `unknown_column` once.

Dates have no trained range: every date in production is later than training.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from afterfit.contract.checks import MUST_BE, Checked, CheckedRow, Issue, Note, RowChecker, check_series, check_values
from afterfit.contract.columns import Column, Kind, OnInvalid, check_kind, infer_kind, learn_column, suggest_marks
from afterfit.contract.datetimes import ParsedDatetimes, parse_datetimes
from afterfit.contract.values import shown
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
MOST_NAMED = 20  # unknown columns that are named; the rest is counted
LONGEST_NAME = 100  # characters of an unknown name that a rename is sought for
UNREADABLE = frozenset({*MUST_BE, "invalid"})
WIDEST = 1_000  # columns of a row above which nothing of it is kept
LONGEST_NAME = 200  # characters of a column's name above which nothing of its row is kept
REMEMBERED = 256  # different sets of unknown columns whose warnings are kept


@dataclass(frozen=True)
class Contract:
    """What a row must look like. Column order is that of training; the order of what comes does not matter."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        doubled = _doubled([column.name for column in self.columns])
        if doubled:
            raise DataError(f"A contract names each column once; {', '.join(doubled)} came more than once.")

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
        """Hold a frame against the contract, column by column.

        Raises:
            SchemaError: The frame has two columns of the same name.
        """
        _names(frame)
        places = {name: place for place, name in enumerate(frame.columns) if isinstance(name, str)}
        values: dict[str, Any] = {}
        issues: list[Issue] = []
        for column in self.columns:
            place = places.get(column.name)
            series = None if place is None else frame.iloc[:, place]
            values[column.name], found = check_series(series, column, len(frame))
            issues += found
        # a frame without rows has absent columns, but no row to warn
        return Checked(len(frame), values, tuple(i for i in issues if len(i.rows)), self.unknown_columns(frame.columns))

    def check_columns(self, columns: Mapping[str, Sequence[Any]], size: int) -> Checked:
        """Hold columns of Python objects, each of `size` values as JSON brings them, against the contract.

        Gives what `check_frame` gives for a frame of them.
        """
        values: dict[str, Any] = {}
        issues: list[Issue] = []
        for column in self.columns:
            came = columns.get(column.name)
            one = (
                check_series(None, column, size)
                if came is None
                else check_values(came, column, self._code_of[column.name])
            )
            values[column.name] = one[0]
            issues += one[1]
        return Checked(size, values, tuple(i for i in issues if len(i.rows)), self.unknown_columns(columns))

    @cached_property
    def _code_of(self) -> dict[str, dict[str, int]]:
        return {one.name: {text: code for code, text in enumerate(one.categories)} for one in self.columns}

    @cached_property
    def _check_row(self) -> RowChecker:
        return RowChecker(self.columns)

    @cached_property
    def _unknown(self) -> dict[frozenset[Any], list[Note]]:
        return {}

    def check_row(self, row: Mapping[str, Any]) -> CheckedRow:
        """Hold one row, as JSON brings it, against the contract; gives what `check_frame` gives for the same row.

        Raises:
            DataError: The row is not a mapping.
        """
        values, warnings, errors, found = self._check_row(row)
        if len(row) != found:
            warnings += self._remembered_unknown(row)
        return CheckedRow(values, warnings, errors)

    def _remembered_unknown(self, row: Mapping[str, Any]) -> list[Note]:
        names = frozenset(row)
        notes = self._unknown.get(names)
        if notes is None:
            notes = self.unknown_columns(row)
            if len(names) > WIDEST or any(len(str(name)) > LONGEST_NAME for name in names):
                return notes
            if len(self._unknown) >= REMEMBERED:
                self._unknown.clear()
            self._unknown[names] = notes
        return [one.copy() for one in notes]

    def unknown_columns(self, names: Iterable[Any]) -> list[Note]:
        """One warning for each name that the contract does not know, by name; at most 20 are named, the rest counted.

        `suggestion` is the contract's column that was probably meant: one that is absent and spelled alike, or the
        only absent one where only one is unknown; otherwise None.
        """
        came = set(names)
        absent = [name for name in self.names if name not in came]
        unknown = sorted(str(name) for name in came.difference(self.names))
        notes: list[Note] = [
            {"column": str(shown(name)), "code": "unknown_column", "value": None, "suggestion": suggestion}
            for name, suggestion in zip(unknown, _renames(unknown[:MOST_NAMED], absent), strict=False)
        ]
        if len(unknown) > MOST_NAMED:
            rest = f"{len(unknown) - MOST_NAMED} more columns"
            notes.append({"column": None, "code": "unknown_column", "value": rest, "suggestion": None})
        return notes

    def differences(self, other: "pd.DataFrame | Contract") -> list[str]:
        """How a table, or another contract, differs from this one: a sentence a column, none where it fits.

        Of a table its values are read by this contract; of a contract the kinds are compared.
        """
        if isinstance(other, Contract):
            kinds = {column.name: column.kind for column in other.columns}
            pairs = [(c.name, c.kind, kinds.get(c.name, c.kind)) for c in self.columns]
            wrong = {name: f"{kind} is expected, {came} came." for name, kind, came in pairs if kind != came}
            return self._differences(list(kinds), wrong)
        checked = self.check_frame(other)
        wrong = {}
        for issue in checked.issues:
            if issue.code in UNREADABLE and issue.column.name not in wrong:
                came = issue.notes(issue.rows[:1])[0]["value"]
                first = "" if issue.column.private else f" (first in row {issue.rows[0]}: {came!r})"
                counts = f"{len(issue.rows)} of {checked.size} rows"
                wrong[issue.column.name] = f"{issue.column.kind} is expected; {counts} have {issue.code}{first}."
        return self._differences([str(name) for name in other.columns], wrong)

    def _differences(self, names: Sequence[str], wrong: Mapping[str, str]) -> list[str]:
        known = set(names)
        absent = {c.name: f"absent; {c.kind} is expected." for c in self.columns if c.name not in known}
        told = {**wrong, **absent}
        lines = [f"{name}: {told[name]}" for name in self.names if name in told]
        for one in self.unknown_columns(names):
            hint = f"; was {one['suggestion']} meant?" if one["suggestion"] else "."
            lines.append(f"{one['column'] or one['value']}: not in the contract{hint}")
        return lines


def _renames(unknown: Sequence[str], absent: Sequence[str]) -> list[str | None]:
    if len(unknown) == len(absent) == 1:
        return [absent[0]]
    left = list(absent)
    found: list[str | None] = []
    for name in unknown:
        close = difflib.get_close_matches(name[:LONGEST_NAME], left, n=1)
        found.append(close[0] if close else None)
        left = [one for one in left if one not in close]
    return found


def _doubled(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _names(frame: pd.DataFrame, kind_of_error: type[DataError] = SchemaError) -> list[str]:
    names = [str(name) for name in frame.columns]
    doubled = _doubled(names)
    if doubled:
        raise kind_of_error(
            f"Column names must be unique; {', '.join(doubled)} came more than once. Rename or drop one."
        )
    return names


def _check_known(names: Iterable[str], columns: Sequence[str], what: str) -> None:
    for name in names:
        if name not in columns:
            close = difflib.get_close_matches(str(name), columns, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" The table has {', '.join(columns)}."
            raise DataError(f"{what} names the column {name!r}, which the table does not have.{hint}")


def learn(
    frame: pd.DataFrame,
    *,
    kinds: Mapping[str, Kind] | None = None,
    required: Iterable[str] = (),
    private: Iterable[str] = (),
    marks: Sequence[str] | Mapping[str, Sequence[str]] = (),
    on_invalid: OnInvalid = "error",
    ignore: Iterable[str] = (),
) -> Contract:
    """Learn the contract of the feature columns of a training table.

    Args:
        frame: Training rows (n, columns); the target and other non-features belong into `ignore`.
        kinds: Kinds of some columns; the others' are inferred (`infer_kind`).
        required: Columns without which a row is not predicted.
        private: Columns whose values must not appear in warnings and errors. The texts of a private category are
            still part of the contract, since the encoder needs them.
        marks: Texts that count as missing besides empty ones; for all columns, or by column.
        on_invalid: Whether a value that cannot be read is its row's error or counts as missing.
        ignore: Columns that are no features; they need not be there.

    Raises:
        DataError: No rows, no columns left, a column name twice or not text, an option that names an unknown column.
    """
    for name in frame.columns:
        if not isinstance(name, str):
            raise DataError(f"Column names must be texts; got {name!r} ({type(name).__name__}). Rename it.")
    names = _names(frame, DataError)
    if not len(frame):
        raise DataError("A contract is learnt from rows; the table has none.")
    kinds, required, private, ignore = dict(kinds or {}), set(required), set(private), set(ignore)
    by_column = dict(marks) if isinstance(marks, Mapping) else dict.fromkeys(names, marks)
    for what, named in (("kinds", kinds), ("required", required), ("private", private), ("marks", by_column)):
        _check_known(sorted(named), names, what)
    features = [name for name in names if name not in ignore]
    if not features:
        raise DataError("A contract needs at least one feature column; all columns of the table are ignored.")
    columns = []
    for name in features:
        own = by_column.get(name, ())
        own = [own] if isinstance(own, str) else own
        blank = Column(
            name=name,
            kind=check_kind(kinds[name], name) if name in kinds else infer_kind(frame[name], own),
            required=name in required,
            on_invalid=on_invalid,
            marks=tuple(dict.fromkeys(mark.strip() for mark in own)),
            private=name in private,
        )
        columns.append(learn_column(frame[name], blank))
    return Contract(tuple(columns))
