"""Rows held against columns, as a frame and one by one: values to encode, warnings, and the errors of single rows."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.columns import Column, read_series
from afterfit.contract.datetimes import plain_datetimes, read_datetime
from afterfit.contract.values import is_missing_text, read_boolean, read_category, read_number, shown
from afterfit.errors import DataError

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Taker = Callable[[Callable[[Any], Any]], Callable[[Rows], list[Any]]]
ABSENT: Any = object()
_TEXTS = frozenset({str, type(None)})
_INFINITY, _NAN = float("inf"), float("nan")
MUST_BE = {
    "invalid_number": "a number",
    "infinite": "a finite number",
    "invalid_boolean": 'true or false (also 1, 0, "yes", "no")',
    "invalid_datetime": "a date or time, best as ISO text such as 2013-01-31T14:05:00Z (not a number)",
}


class _Note(TypedDict):
    column: str | None
    code: str
    value: Any


class Note(_Note, total=False):
    """One warning or error, in the form in which an answer's JSON carries it.

    Attributes:
        column: which column, or None where it is about none of the row's.
        code: what is odd.
        value: what came, where it may be repeated.
        message: of an error: a sentence.
        suggestion: of an unknown column: the column that was probably meant, or None.
    """

    message: str
    suggestion: str | None


def note(column: Column, code: str, value: Any, *, error: bool) -> Note:
    """One warning (column, code, value) or error (also message) as the answer carries it; private values stay away."""
    value = None if column.private else value
    found: Note = {"column": column.name, "code": code, "value": value}
    if not error:
        return found
    if code == "required_missing":
        message = f"{column.name} is required and has no value: give it one."
    else:
        came = "another value came" if column.private else f"{value!r} came"
        message = f"{column.name} must be {MUST_BE[code]}; {came}."
    return {**found, "message": message}


def _verdict(column: Column, problem: str) -> tuple[str, bool]:
    """The code to report for a value that cannot be read, and whether it is an error."""
    if problem == "infinite" or column.on_invalid == "error" or column.required:
        return problem, True
    return "invalid", False


@dataclass(frozen=True, slots=True)
class Issue:
    """All rows of a frame with the same warning or error in the same column.

    `rows` are positions in ascending order; `show` gives their values as an answer may repeat them, made only when
    asked for.
    """

    column: Column
    code: str
    rows: Rows
    error: bool
    show: Callable[[Rows], list[Any]]

    @property
    def alike(self) -> bool:
        """Whether all of its rows have the same note, as none repeats its value."""
        return self.column.private or self.show is _nothing

    def notes(self, rows: Rows | None = None) -> list[Note]:
        """The warnings or errors of these rows, by default of all rows."""
        rows = self.rows if rows is None else rows
        if self.alike:
            one = note(self.column, self.code, None, error=self.error)
            return [one.copy() for _ in range(len(rows))]
        return [note(self.column, self.code, value, error=self.error) for value in self.show(rows)]


@dataclass(frozen=True, slots=True)
class Checked:
    """A frame of n rows held against a contract.

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

    def _of_row(self, row: int, *, error: bool) -> list[Note]:
        found: list[Note] = []
        for issue in self.issues:
            at = int(np.searchsorted(issue.rows, row))
            if issue.error is error and at < len(issue.rows) and issue.rows[at] == row:
                found += issue.notes(issue.rows[at : at + 1])
        return found

    def _by_row(self, *, error: bool) -> dict[int, list[Note]]:
        found: dict[int, list[Note]] = {}
        for issue in self.issues:
            if issue.error is error:
                for row, one in zip(issue.rows.tolist(), issue.notes(), strict=True):
                    found.setdefault(row, []).append(one)
        return found

    def row_warnings(self, row: int) -> list[Note]:
        """The warnings of one row, in the contract's order of columns."""
        return self._of_row(row, error=False)

    def row_errors(self, row: int) -> list[Note]:
        """The errors of one row, in the contract's order of columns."""
        return self._of_row(row, error=True)

    def warnings_by_row(self) -> dict[int, list[Note]]:
        """The warnings of every row that has some; for large frames with many warnings this takes memory."""
        return self._by_row(error=False)

    def errors_by_row(self) -> dict[int, list[Note]]:
        """The errors of every row that has some."""
        return self._by_row(error=True)


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """One row held against a contract.

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


def _nothing(rows: Rows) -> list[Any]:
    return [None] * len(rows)


def _taker(series: "pd.Series[Any]", show: Callable[[Any], Any] = shown) -> Callable[[Rows], list[Any]]:
    return lambda rows: [show(value) for value in series.iloc[rows].tolist()]


def _picker(values: Sequence[Any], show: Callable[[Any], Any] = shown) -> Callable[[Rows], list[Any]]:
    return lambda rows: [show(values[row]) for row in rows.tolist()]


def _shown_category(value: Any) -> Any:
    return shown(read_category(value))


def check_series(series: "pd.Series[Any] | None", column: Column, size: int) -> tuple[npt.NDArray[Any], list[Issue]]:
    """Hold a column of a frame (None: it is absent) against the contract; gives its values (size,) and issues."""
    if series is None:
        absent = "required_missing" if column.required else "absent_column"
        return _missing_values(column, size), [Issue(column, absent, np.arange(size), column.required, _nothing)]
    reading = read_series(series, column)
    values, problems = reading.values, reading.problems
    if column.kind == "category":
        return values, _category_issues(values, partial(_taker, series), column)
    if column.kind == "datetime":
        missing, strange = np.isnat(values), None
    else:
        missing, strange = _strange(values, column)
    issues = [] if problems is None else _problem_issues(problems, series, column)
    if problems is not None:
        missing = missing & pd.isna(problems)
    issues = _missing_issues(missing, column) + issues
    if column.kind != "datetime":
        issues += _number_issues(values, strange, column, whole=series.dtype.kind in "iub")
    return values, issues


def check_values(
    values: Sequence[Any], column: Column, code_of: Mapping[str, int]
) -> tuple[npt.NDArray[Any], list[Issue]]:
    """Hold a column that came as Python objects against the contract, as `check_series` does, in less time.

    Args:
        values: the n values.
        column: what they must look like.
        code_of: the codes of its categories.
    """
    if column.kind == "category":
        codes = _codes_of(values, column, code_of)
        if codes is not None:
            return codes, _category_issues(codes, partial(_picker, values), column)
    elif column.kind == "datetime":
        stamps = plain_datetimes(values)
        if stamps is not None and frozenset(column.marks).isdisjoint(values if column.marks else ()):
            return stamps, []
    elif column.kind != "boolean":
        floats = _floats_of(values)
        if floats is not None and not np.isinf(floats).any():
            missing, strange = _strange(floats, column)
            issues = [] if strange is None else _missing_issues(missing, column)
            return floats, issues + _number_issues(floats, strange, column)
    return check_series(pd.Series(values, dtype=object), column, len(values))


def _codes_of(values: Sequence[Any], column: Column, code_of: Mapping[str, int]) -> npt.NDArray[np.int32] | None:
    """Codes of texts and None; None where anything else is among them."""
    try:
        distinct = {*values}
    except TypeError:
        return None
    if not set(map(type, distinct)) <= _TEXTS:
        return None
    marks, other = frozenset(column.marks), len(code_of)
    found = {one: -1 if one is None or is_missing_text(one, marks) else code_of.get(one, other) for one in distinct}
    return np.fromiter(map(found.__getitem__, values), dtype=np.int32, count=len(values))


def _floats_of(values: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Numbers and None as floats; None where anything else is among them.

    What adds up to a Python number holds nothing but such. `struct` makes floats of them in a third of numpy's time.
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


def _strange(values: npt.NDArray[np.float64], column: Column) -> tuple[Mask, Mask | None]:
    """Which values are missing; and which are outside the trained range, or None where none is known to be."""
    low, high = _limits(column)
    strange = ~((values >= low) & (values <= high))
    return (np.isnan(values), strange) if strange.any() else (strange, None)


def _number_issues(
    values: npt.NDArray[np.float64], strange: Mask | None, column: Column, *, whole: bool = False
) -> list[Issue]:
    issues: list[Issue] = []
    if column.kind == "integer" and not whole:
        issues += _odd_numbers(values, values != np.floor(values), "not_integer", column)
    return issues if strange is None else issues + _odd_numbers(values, strange, "out_of_range", column)


def _missing_values(column: Column, size: int) -> npt.NDArray[Any]:
    if column.kind == "category":
        return np.full(size, -1, dtype=np.int32)
    if column.kind == "datetime":
        return np.full(size, np.datetime64("NaT"), dtype="datetime64[us]")
    return np.full(size, np.nan)


def _limits(column: Column) -> tuple[float, float]:
    """The trained range; without one, everything that is finite."""
    return (
        -_INFINITY if column.low is None else column.low,
        _INFINITY if column.high is None else column.high,
    )


def _missing_issues(missing: Mask, column: Column) -> list[Issue]:
    rows = np.flatnonzero(missing)
    code = "required_missing" if column.required else "missing"
    return [Issue(column, code, rows, column.required, _nothing)] if len(rows) else []


def _category_issues(codes: npt.NDArray[Any], take: Taker, column: Column) -> list[Issue]:
    issues = _missing_issues(codes < 0, column) if codes.size and codes.min() < 0 else []
    unseen = np.flatnonzero(codes == len(column.categories))
    if len(unseen):
        issues.append(Issue(column, "unseen_category", unseen, False, take(_shown_category)))
    return issues


def _problem_issues(problems: npt.NDArray[np.object_], series: "pd.Series[Any]", column: Column) -> list[Issue]:
    issues = []
    for problem in sorted({problem for problem in problems.tolist() if problem is not None}):
        code, error = _verdict(column, problem)
        issues.append(Issue(column, code, np.flatnonzero(problems == problem), error, _taker(series)))
    return issues


def _odd_numbers(values: npt.NDArray[Any], odd: Mask, code: str, column: Column) -> list[Issue]:
    rows = np.flatnonzero(odd & ~np.isnan(values))
    return [Issue(column, code, rows, False, lambda rows: values[rows].tolist())] if len(rows) else []


class RowChecker:
    """Holds single rows against columns; made once for a contract, then called for each row.

    A value of the expected type within the trained range takes a short way; anything else is read as in a frame.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._plan: list[tuple[Any, ...]] = []
        for column in columns:
            codes = {text: code for code, text in enumerate(column.categories)}
            numeric = column.kind in {"number", "integer"} and column.low is not None and column.high is not None
            low, high = (column.low, column.high) if numeric else (_INFINITY, -_INFINITY)
            marks = frozenset(column.marks)
            whole, nothing = column.kind == "integer", _nothing_of(column)
            self._plan.append((column.name, column, codes, low, high, whole, marks, nothing, column.required))

    def __call__(self, row: Mapping[str, Any]) -> tuple[tuple[Any, ...], list[Note], list[Note], int]:
        """Gives (values, warnings, errors, number of the contract's columns that the row has)."""
        if type(row) is not dict and not isinstance(row, Mapping):
            raise DataError(f"A row must be a mapping of column names to values; got {type(row).__name__}.")
        warnings: list[Note] = []
        errors: list[Note] = []
        values: list[Any] = []
        found = 0
        push, get = values.append, row.get
        for name, column, codes, low, high, whole, marks, nothing, required in self._plan:
            value = get(name, ABSENT)
            if value is not ABSENT:
                found += 1
                kind = type(value)
                if kind is str:
                    if value in codes:
                        push(codes[value])
                        continue
                elif (kind is float or kind is int) and low <= value <= high and (not whole or value == int(value)):
                    push(float(value))
                    continue
                elif value is None and not required:
                    warnings.append({"column": name, "code": "missing", "value": None})
                    push(nothing)
                    continue
            push(_check_value(value, column, codes, marks, warnings, errors))
        return tuple(values), warnings, errors, found


def _check_value(  # noqa: PLR0917 - called once for each value: keywords would cost time
    value: Any, column: Column, codes: dict[str, int], marks: frozenset[str], warnings: list[Note], errors: list[Note]
) -> Any:
    """Read one value the long way; adds to warnings and errors."""
    if value is ABSENT:
        found: Any = None
        problem = None
    elif column.kind == "category":
        found, problem = read_category(value, marks), None
    elif column.kind == "datetime":
        found, problem = read_datetime(value, marks, column.datetime_format)
    else:
        number, problem = (read_boolean if column.kind == "boolean" else read_number)(value, marks)
        found = None if number != number else number  # noqa: PLR0124 - the definition of NaN
    if problem is not None:
        code, error = _verdict(column, problem)
        (errors if error else warnings).append(note(column, code, shown(value), error=error))
    elif found is None:
        code = "required_missing" if column.required else "absent_column" if value is ABSENT else "missing"
        (errors if column.required else warnings).append(note(column, code, None, error=column.required))
    elif column.kind == "category":
        return _code(found, column, codes, warnings)
    elif column.kind != "datetime":
        _check_number(found, column, warnings)
    return _nothing_of(column) if found is None else found


def _nothing_of(column: Column) -> Any:
    return {"category": -1, "datetime": None}.get(column.kind, float("nan"))


def _code(text: str, column: Column, codes: dict[str, int], warnings: list[Note]) -> int:
    code = codes.get(text)
    if code is None:
        warnings.append(note(column, "unseen_category", shown(text), error=False))
        return len(codes)
    return code


def _check_number(number: float, column: Column, warnings: list[Note]) -> None:
    if column.kind == "integer" and not number.is_integer():
        warnings.append(note(column, "not_integer", number, error=False))
    low, high = _limits(column)
    if not low <= number <= high:
        warnings.append(note(column, "out_of_range", number, error=False))
