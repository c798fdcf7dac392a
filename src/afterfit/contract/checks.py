"""Frames and single rows checked against columns: the values to encode, the warnings, and the errors of each row."""

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.categories import CategoryCodes
from afterfit.contract.columns import Column, read_series
from afterfit.contract.datetimes import plain_datetimes, read_datetime
from afterfit.contract.number_formats import number_reader
from afterfit.contract.values import display_value, read_boolean, read_category
from afterfit.errors import DataError

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
ValueGetter = Callable[[Callable[[Any], Any]], Callable[[Rows], list[Any]]]
ABSENT: Any = object()
_TEXTS = frozenset({str, type(None)})
LARGEST = sys.float_info.max
_INFINITY, _NAN = float("inf"), float("nan")
MUST_BE = {
    "invalid_number": "a number",
    "infinite": "a finite number",
    "invalid_boolean": 'true or false (also 1, 0, "yes", "no")',
    "invalid_datetime": "a date or time, best as ISO text such as 2013-01-31T14:05:00Z",
}


class _Note(TypedDict):
    column: str | None
    code: str
    value: Any


class Note(_Note, total=False):
    """One warning or error, in the form in which an answer's JSON carries it.

    Attributes:
        column: the column, or None where the note is about no single column.
        code: what is wrong, such as "missing".
        value: the value that came, where it may be repeated.
        message: for an error, a sentence.
        suggestion: for an unknown column, the column that was probably meant, or None.
    """

    message: str
    suggestion: str | None


def make_note(column: Column, code: str, value: Any, *, error: bool) -> Note:
    """One warning (column, code, value) or error (also message) as the answer carries it, without private values."""
    value = None if column.private else value
    note: Note = {"column": column.name, "code": code, "value": value}
    if not error:
        return note
    if code == "required_missing":
        message = f"{column.name} is required and has no value: give it one."
    else:
        came = "another value came" if column.private else f"{value!r} came"
        message = f"{column.name} must be {MUST_BE[code]}{_as_written(column, code)}; {came}."
    return {**note, "message": message}


def _as_written(column: Column, code: str) -> str:
    """How a column's values are written, where its training said so."""
    if code == "invalid_number" and column.number_format is not None:
        return f", or text written like {column.number_format!r}"
    if code == "invalid_datetime" and column.datetime_format is not None:
        return f", or written as {column.datetime_format}"
    return ""


@dataclass(frozen=True, slots=True)
class Issue:
    """All rows of a frame with the same warning or error in the same column.

    `rows` are positions in ascending order. `show` gives the values of some rows as an answer may repeat them; it is
    called only when they are needed.
    """

    column: Column
    code: str
    rows: Rows
    error: bool
    show: Callable[[Rows], list[Any]]

    @property
    def alike(self) -> bool:
        """Whether all rows have the same note, since none of the notes repeats the row's value."""
        return self.column.private or self.show is _no_values

    def notes(self, rows: Rows | None = None) -> list[Note]:
        """The warnings or errors of these rows, by default of all rows."""
        rows = self.rows if rows is None else rows
        if self.alike:
            note = make_note(self.column, self.code, None, error=self.error)
            return [note.copy() for _ in range(len(rows))]
        return [make_note(self.column, self.code, value, error=self.error) for value in self.show(rows)]


@dataclass(frozen=True, slots=True)
class Checked:
    """A frame of n rows, checked against a contract.

    Attributes:
        size: n.
        values: For each column of the contract an array (n,): float64 with NaN for missing (number, integer, boolean);
            int32 codes into the column's categories, their number for any other category, -1 for missing (category);
            datetime64[us] in naive UTC with NaT for missing (datetime). Do not write to them: they may share memory
            with the frame.
        issues: Warnings and errors by column and code.
        unknown: The warnings about unknown columns, once for the whole frame.
    """

    size: int
    values: dict[str, npt.NDArray[Any]]
    issues: tuple[Issue, ...]
    unknown: list[Note]

    @property
    def bad(self) -> Mask:
        """Which rows (n,) have an error and get no prediction."""
        mask = np.zeros(self.size, dtype=np.bool_)
        for issue in self.issues:
            if issue.error:
                mask[issue.rows] = True
        return mask

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """Number of rows for each (column, code) of warnings and errors; unknown columns are in `unknown`."""
        return {(issue.column.name, issue.code): len(issue.rows) for issue in self.issues}

    def _notes_of_row(self, row: int, *, error: bool) -> list[Note]:
        notes: list[Note] = []
        for issue in self.issues:
            position = int(np.searchsorted(issue.rows, row))
            if issue.error is error and position < len(issue.rows) and issue.rows[position] == row:
                notes += issue.notes(issue.rows[position : position + 1])
        return notes

    def _notes_by_row(self, *, error: bool) -> dict[int, list[Note]]:
        notes_of_row: dict[int, list[Note]] = {}
        for issue in self.issues:
            if issue.error is error:
                for row, note in zip(issue.rows.tolist(), issue.notes(), strict=True):
                    notes_of_row.setdefault(row, []).append(note)
        return notes_of_row

    def row_warnings(self, row: int) -> list[Note]:
        """The warnings of one row, in the contract's order of columns."""
        return self._notes_of_row(row, error=False)

    def row_errors(self, row: int) -> list[Note]:
        """The errors of one row, in the contract's order of columns."""
        return self._notes_of_row(row, error=True)

    def warnings_by_row(self) -> dict[int, list[Note]]:
        """The warnings of every row that has some; for large frames with many warnings this takes memory."""
        return self._notes_by_row(error=False)

    def errors_by_row(self) -> dict[int, list[Note]]:
        """The errors of every row that has some."""
        return self._notes_by_row(error=True)


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """One row, checked against a contract.

    Attributes:
        values: In the contract's order: a float with NaN for missing (number, integer, boolean); a code as in `Checked`
            (category); microseconds since 1970 in UTC or None (datetime).
        warnings: Column, code and value of each; those about unknown columns come last.
        errors: Column, code, value and message of each; a row with one gets no prediction.
    """

    values: tuple[Any, ...]
    warnings: list[Note]
    errors: list[Note]

    @property
    def error(self) -> str | None:
        """All errors in sentences; None without any."""
        return " ".join(error["message"] for error in self.errors) or None


def check_series(series: "pd.Series[Any] | None", column: Column, size: int) -> tuple[npt.NDArray[Any], list[Issue]]:
    """Check a column of a frame (None where it is absent): its values (size,) and its issues."""
    if series is None:
        code = "required_missing" if column.required else "absent_column"
        return _missing_values(column, size), [Issue(column, code, np.arange(size), column.required, _no_values)]
    reading = read_series(series, column)
    values, problems = reading.values, reading.problems
    if column.kind == "category":
        return values, _category_issues(values, partial(_values_of_series, series), column)
    if column.kind == "datetime":
        is_missing, out_of_range = np.isnat(values), None
    else:
        is_missing, out_of_range = _missing_and_out_of_range(values, column)
    issues = [] if problems is None else _problem_issues(problems, series, column)
    if problems is not None:
        is_missing = is_missing & pd.isna(problems)
    issues = _missing_issues(is_missing, column) + issues
    if column.kind != "datetime":
        issues += _number_issues(values, out_of_range, column, whole=series.dtype.kind in "iub")
    return values, issues


def check_values(values: Sequence[Any], column: Column, known: CategoryCodes) -> tuple[npt.NDArray[Any], list[Issue]]:
    """Check a column that came as Python objects: the same result as `check_series`, in less time.

    Args:
        values: the n values.
        column: the column of the contract.
        known: the codes of its categories.
    """
    if column.kind == "category":
        codes = _codes_of_texts(values, column, known)
        if codes is not None:
            return codes, _category_issues(codes, partial(_values_of_sequence, values), column)
    elif column.kind == "datetime":
        stamps = plain_datetimes(values)
        if stamps is not None and frozenset(column.marks).isdisjoint(values if column.marks else ()):
            return stamps, []
    elif column.kind != "boolean":
        floats = _floats_of_numbers(values)
        if floats is not None and not np.isinf(floats).any():
            is_missing, out_of_range = _missing_and_out_of_range(floats, column)
            issues = [] if out_of_range is None else _missing_issues(is_missing, column)
            return floats, issues + _number_issues(floats, out_of_range, column)
    return check_series(pd.Series(values, dtype=object), column, len(values))


class RowChecker:
    """Checks single rows against columns; made once for a contract, then called for each row.

    A value of the expected type within the trained range is taken at once; any other value is read as in a frame.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._plan: list[tuple[Any, ...]] = []
        for column in columns:
            known = column.codes()
            has_range = column.kind in {"number", "integer"} and (column.low is not None or column.private)
            low, high = _finite_limits(column) if has_range else (_INFINITY, -_INFINITY)
            marks = frozenset(column.marks)
            is_integer, missing_value = column.kind == "integer", _missing_value_of(column)
            self._plan.append(
                (
                    column.name,
                    column,
                    known,
                    low,
                    high,
                    is_integer,
                    marks,
                    missing_value,
                    column.required,
                )
            )

    def __call__(self, row: Mapping[str, Any]) -> tuple[tuple[Any, ...], list[Note], list[Note], int]:
        """Check a row: (values, warnings, errors, number of the contract's columns that the row has)."""
        if type(row) is not dict and not isinstance(row, Mapping):
            raise DataError(f"A row must be a mapping of column names to values; got {type(row).__name__}.")
        warnings: list[Note] = []
        errors: list[Note] = []
        values: list[Any] = []
        present_count = 0
        push, get = values.append, row.get
        for name, column, known, low, high, is_integer, marks, missing_value, required in self._plan:
            value = get(name, ABSENT)
            if value is not ABSENT:
                present_count += 1
                kind = type(value)
                if kind is str:
                    code = known.code_of.get(value)
                    if code is not None:
                        push(code)
                        continue
                elif (
                    (kind is float or kind is int) and low <= value <= high and (not is_integer or value == int(value))
                ):
                    push(float(value))
                    continue
                elif value is None and not required:
                    warnings.append({"column": name, "code": "missing", "value": None})
                    push(missing_value)
                    continue
            push(_check_value(value, column, known, marks, warnings, errors))
        return tuple(values), warnings, errors, present_count


def _code_of_problem(column: Column, problem: str) -> tuple[str, bool]:
    """The code to report for a value that cannot be read, and whether it is an error."""
    if problem == "infinite" or column.on_invalid == "error" or column.required:
        return problem, True
    return "invalid", False


def _no_values(rows: Rows) -> list[Any]:
    return [None] * len(rows)


def _values_of_series(
    series: "pd.Series[Any]", show: Callable[[Any], Any] = display_value
) -> Callable[[Rows], list[Any]]:
    return lambda rows: [show(value) for value in series.iloc[rows].tolist()]


def _values_of_sequence(
    values: Sequence[Any], show: Callable[[Any], Any] = display_value
) -> Callable[[Rows], list[Any]]:
    return lambda rows: [show(values[row]) for row in rows.tolist()]


def _display_category(value: Any) -> Any:
    return display_value(read_category(value))


def _codes_of_texts(values: Sequence[Any], column: Column, known: CategoryCodes) -> npt.NDArray[np.int32] | None:
    """The codes of values that are all text or None; None where another type is among them."""
    try:
        distinct_values = {*values}
    except TypeError:
        return None
    if not set(map(type, distinct_values)) <= _TEXTS:
        return None
    marks = frozenset(column.marks)
    code_of_value: dict[Any, int] = {}
    for value in distinct_values:
        code = None if value is None else known.code_of.get(value)
        code_of_value[value] = known.code(value, marks) if code is None else code
    return np.fromiter(map(code_of_value.__getitem__, values), dtype=np.int32, count=len(values))


def _floats_of_numbers(values: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Values that are all numbers or None as floats; None where another type is among them.

    A sum that is a Python number proves that all values are numbers. `struct` makes floats of them in a third of the
    time that numpy needs.
    """
    try:
        try:
            total = sum(values)
        except TypeError:
            values = [_NAN if value is None else value for value in values]
            total = sum(values)
        if type(total) is not float and type(total) is not int:
            return None
        return np.frombuffer(struct.pack(f"{len(values)}d", *values))
    except (TypeError, ArithmeticError, struct.error):
        return None


def _missing_and_out_of_range(values: npt.NDArray[np.float64], column: Column) -> tuple[Mask, Mask | None]:
    """Which values are missing; and which are missing or outside the trained range, or None where no value is."""
    low, high = _limits(column)
    out_of_range = ~((values >= low) & (values <= high))
    return (np.isnan(values), out_of_range) if out_of_range.any() else (out_of_range, None)


def _number_issues(
    values: npt.NDArray[np.float64], out_of_range: Mask | None, column: Column, *, whole: bool = False
) -> list[Issue]:
    issues: list[Issue] = []
    if column.kind == "integer" and not whole:
        issues += _issues_of_numbers(values, values != np.floor(values), "not_integer", column)
    return issues if out_of_range is None else issues + _issues_of_numbers(values, out_of_range, "out_of_range", column)


def _missing_values(column: Column, size: int) -> npt.NDArray[Any]:
    if column.kind == "category":
        return np.full(size, -1, dtype=np.int32)
    if column.kind == "datetime":
        return np.full(size, np.datetime64("NaT"), dtype="datetime64[us]")
    return np.full(size, np.nan)


def _limits(column: Column) -> tuple[float, float]:
    """The trained range; without one, and in a private column, all finite numbers."""
    return (
        -_INFINITY if column.low is None or column.private else column.low,
        _INFINITY if column.high is None or column.private else column.high,
    )


def _finite_limits(column: Column) -> tuple[float, float]:
    """The same, without the infinities."""
    low, high = _limits(column)
    return max(low, -LARGEST), min(high, LARGEST)


def _missing_issues(is_missing: Mask, column: Column) -> list[Issue]:
    rows = np.flatnonzero(is_missing)
    code = "required_missing" if column.required else "missing"
    return [Issue(column, code, rows, column.required, _no_values)] if len(rows) else []


def _category_issues(codes: npt.NDArray[Any], values_getter: ValueGetter, column: Column) -> list[Issue]:
    issues = _missing_issues(codes < 0, column) if codes.size and codes.min() < 0 else []
    unseen = np.flatnonzero(codes == len(column.categories))
    if len(unseen) and not column.private:
        issues.append(Issue(column, "unseen_category", unseen, False, values_getter(_display_category)))
    return issues


def _problem_issues(problems: npt.NDArray[np.object_], series: "pd.Series[Any]", column: Column) -> list[Issue]:
    issues = []
    for problem in sorted({problem for problem in problems.tolist() if problem is not None}):
        code, error = _code_of_problem(column, problem)
        issues.append(Issue(column, code, np.flatnonzero(problems == problem), error, _values_of_series(series)))
    return issues


def _issues_of_numbers(values: npt.NDArray[Any], affected: Mask, code: str, column: Column) -> list[Issue]:
    rows = np.flatnonzero(affected & ~np.isnan(values))
    return [Issue(column, code, rows, False, lambda rows: values[rows].tolist())] if len(rows) else []


def _check_value(  # noqa: PLR0917 - called once for each value: keywords would cost time
    value: Any, column: Column, known: CategoryCodes, marks: frozenset[str], warnings: list[Note], errors: list[Note]
) -> Any:
    """Read one value that is not of the expected form; adds to warnings and errors."""
    if value is ABSENT:
        parsed: Any = None
        problem = None
    elif column.kind == "category":
        parsed, problem = read_category(value, marks), None
    elif column.kind == "datetime":
        parsed, problem = read_datetime(value, marks, column.datetime_format)
    else:
        read_value = read_boolean if column.kind == "boolean" else number_reader(column.number_format)
        number, problem = read_value(value, marks)
        parsed = None if number != number else number  # noqa: PLR0124 - the definition of NaN
    if problem is not None:
        code, error = _code_of_problem(column, problem)
        (errors if error else warnings).append(make_note(column, code, display_value(value), error=error))
    elif parsed is None:
        code = "required_missing" if column.required else "absent_column" if value is ABSENT else "missing"
        (errors if column.required else warnings).append(make_note(column, code, None, error=column.required))
    elif column.kind == "category":
        return _code_of_category(value, parsed, column, known, warnings)
    elif column.kind != "datetime":
        _check_number(parsed, column, warnings)
    return _missing_value_of(column) if parsed is None else parsed


def _missing_value_of(column: Column) -> Any:
    return {"category": -1, "datetime": None}.get(column.kind, float("nan"))


def _code_of_category(value: Any, text: str, column: Column, known: CategoryCodes, warnings: list[Note]) -> int:
    code = known.code_of_text(value, text)
    if code == len(known) and not column.private:  # whether training saw a private value is nobody's to know
        warnings.append(make_note(column, "unseen_category", display_value(text), error=False))
    return code


def _check_number(number: float, column: Column, warnings: list[Note]) -> None:
    if column.kind == "integer" and not number.is_integer():
        warnings.append(make_note(column, "not_integer", number, error=False))
    low, high = _limits(column)
    if not low <= number <= high:
        warnings.append(make_note(column, "out_of_range", number, error=False))
