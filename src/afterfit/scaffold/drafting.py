"""What `init` writes: a settings file with comments for a raw table, with a reason for each decision.

Decisions about values look at no more than `SAMPLE` rows, drawn with a fixed seed. Nothing here is final: a person is
meant to read the file and change it.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from afterfit.contract.columns import read_formatted
from afterfit.contract.contract import parse_datetimes
from afterfit.data.column_names import absent_column_message, clean_names
from afterfit.errors import DataError
from afterfit.scaffold.inspected_columns import (
    FEW_VALUES,
    InspectedColumn,
    Remark,
    alike_texts,
    inspected_columns,
    known_values,
    missing_words,
)
from afterfit.scaffold.leakage import GIVES_AWAY, SUSPICIOUS, parts_of_sum, strength, time_copies
from afterfit.scaffold.proposed_task import proposed_task
from afterfit.scaffold.settings_yaml import ColumnEntry, FormatEntry, SettingsPlan, render_settings, yaml_scalar
from afterfit.scaffold.written_values import WrittenValues, written_values
from afterfit.use_case import ANSWER_COLUMNS

SAMPLE = 20_000
NEARLY_UNIQUE = 0.95
FEW_DATES = 10
FEW_ROWS = 30  # with fewer rows, unique values are no sign of an identifier
MANY_CATEGORIES = 200
ID_WORDS = {"id", "uuid", "guid", "identifier", "rowid", "rownum", "serial", "unnamed"}
FEWEST_BLANKS = 2  # in the mean value of free text
CODE_WORDS = {
    "zip", "zipcode", "postal", "postalcode", "postcode", "plz", "cap", "cep", "pincode", "phone", "telephone", "tel",
    "mobile", "fax", "telefon", "iban", "ean", "barcode", "sku", "code", "nr", "siren", "siret", "ssn", "vat",
}  # fmt: skip
NESTED = (list, dict, tuple, set, np.ndarray)


@dataclass(frozen=True, slots=True)
class Draft:
    """The text of the settings file, which `load_use_case` can read as it is, and the decisions in it."""

    text: str
    notes: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    frame: pd.DataFrame
    sample: pd.DataFrame
    columns: dict[str, InspectedColumn]
    written: dict[str, WrittenValues]
    target: str
    time: str | None
    task: str

    @property
    def marks(self) -> frozenset[str]:
        """The texts that stand for missing in some column."""
        return frozenset(mark for column in self.columns.values() for mark in column.marks)


def draft(
    frame: pd.DataFrame,
    *,
    name: str,
    path: str,
    target: str,
    time: str | None = None,
    seed: int = 0,
    texts: pd.DataFrame | None = None,
) -> Draft:
    """Settings for a table: the task, the features and their kinds, the time column, candidates and metrics.

    Args:
        frame: the whole table, or its first rows.
        name: the use case's name.
        path: where the table is, as it is written into the settings file.
        target: the column to predict.
        time: the column with the time of each row; if None, the only column of dates is proposed.
        seed: for the sample of rows that the checks look at.
        texts: the same table with all that a CSV file brings as text, which shows how numbers are written; the frame
            itself where None.

    Raises:
        DataError: no rows, duplicate columns, no such target or time column; a target that is constant, missing
            everywhere, or text with too many different values; a time column that cannot be read as times.
    """
    frame = frame.set_axis(clean_names(frame.columns, path), axis=1).reset_index(drop=True)
    if frame.empty:
        raise DataError(f"{path}: the table has no rows")
    for required_column in (target, *([time] if time else [])):
        if required_column not in frame.columns:
            raise DataError(f"{path}: {absent_column_message(required_column, list(frame.columns))}")
    written = _written(frame if texts is None else texts.set_axis(frame.columns, axis=1), target, time)
    frame = _as_written(frame, frame if texts is None else texts.set_axis(frame.columns, axis=1), written, time)
    sample = frame
    if len(frame) > SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(frame), SAMPLE, replace=False)
        sample = frame.iloc[np.sort(chosen)]
    inspected = inspected_columns(sample, target, written)
    notes: list[Remark] = _written_remarks(written)
    target_values = known_values(frame[target], inspected[target].marks)
    task, positive = proposed_task(inspected[target], target_values, len(frame), written.get(target), notes)
    time = _check_given_time(frame[time], inspected[time], notes) if time else _propose_time(inspected, target, notes)
    table = _Table(frame, sample, inspected, written, target, time, task)
    entries, keys = _entries(table, notes)
    if not any(entry.left_out is None for entry in entries) and time is None:
        notes.append(Remark(None, "there is nothing to learn from", "every column but the target is left out"))
    if keys:
        notes.append(Remark(keys[0], "is the key", "it is different in every row: outcomes join predictions by it"))
    plan = SettingsPlan(
        name=name,
        path=path,
        target=target,
        task=task,
        positive=positive,
        classes=int(target_values.nunique()),
        time=time,
        key=keys[0] if keys else None,
        entries=tuple(entries),
        marks=tuple(dict.fromkeys(mark for column in inspected.values() for mark in column.marks)),
        rows=len(frame),
        spread=float(pd.to_numeric(target_values, errors="coerce").std()) if task == "regression" else 0.0,
        slices=tuple(_slices(inspected, entries)),
        formats=tuple(_formats(table, entries)),
    )
    decisions = [(note.column, note.decision, note.reason) for note in notes if note.column in {None, target, time}]
    return Draft(render_settings(plan, decisions), tuple(notes))


def _written(texts: pd.DataFrame, target: str, time: str | None) -> dict[str, WrittenValues]:
    """How columns are written; a target of numbers is not taken for dates."""
    found = written_values(texts, time)
    return {name: seen for name, seen in found.items() if name != target or seen.kind == "number"}


def _as_written(
    frame: pd.DataFrame, texts: pd.DataFrame, written: dict[str, WrittenValues], time: str | None
) -> pd.DataFrame:
    """The table with the values of those columns whose format is sure; a given time with mistakes in it stays as is."""
    read = {}
    for name, seen in written.items():
        marks = _no_mistakes(seen.marks) if name == time else seen.marks
        reading = read_formatted(texts[name], seen.formats[0], marks) if seen.is_sure else None
        if reading is not None and (name != time or reading.problems is None):
            read[name] = pd.Series(reading.values, index=frame.index)
    return frame.assign(**read)


def _no_mistakes(marks: Sequence[str]) -> list[str]:
    """The marks of a time column that stand for missing: "2024-13-45" is a mistake."""
    return [mark for mark in marks if not any(char.isdigit() for char in mark)]


def _written_remarks(written: dict[str, WrittenValues]) -> list[Remark]:
    """What was recognised of how columns are written, and what a person must say."""
    notes = []
    for name, seen in written.items():
        if seen.is_sure:
            stays = f"; if it is a number, take it out of formats and write kinds: {_flow(name, 'number')}"
            reason = seen.reason + (stays if seen.is_number else "")
            notes.append(Remark(name, f"read as {seen.kind}, written as {seen.formats[0]!r}", reason))
        elif seen.is_number:
            reason = f"it may be a date: {seen.reason}; if so, write formats: {_flow(name, seen.formats[0])}"
            notes.append(Remark(name, "kept as a number", reason))
    return notes


def _flow(name: str, value: str) -> str:
    return f"{{{yaml_scalar(name)}: {yaml_scalar(value)}}}"


def _formats(table: _Table, entries: Sequence[ColumnEntry]) -> Iterator[FormatEntry]:
    """The formats of features, time and target, and those to choose between."""
    left_out = {entry.name for entry in entries if entry.left_out is not None}
    for name, seen in table.written.items():
        if seen.is_sure and name not in left_out:
            yield FormatEntry(name, seen.formats, seen.reason, is_sure=True)
        elif not seen.is_sure and not seen.is_number:
            use = " and take it out of ignore" if name in left_out else "; training stops until then"
            names = f"kinds: {_flow(name, 'category')} for names, this line for numbers"
            remark = f"write {'one of these lines' if len(seen.formats) > 1 else names}{use}"
            remark = remark if seen.formats else seen.reason
            yield FormatEntry(name, seen.formats, remark, is_sure=False, meanings=seen.meanings)


def _check_given_time(series: "pd.Series[Any]", column: InspectedColumn, notes: list[Remark]) -> str:
    marks = _no_mistakes(column.marks)
    parsed = parse_datetimes(series, frozenset(marks))
    if parsed.bad.any() or column.known.empty:
        bad_values = ", ".join(f"row {i + 1}: {str(series.iloc[i])[:60]!r}" for i in np.flatnonzero(parsed.bad)[:5])
        raise DataError(
            f"The time column '{column.name}' has values that are no dates or times: {bad_values or 'it is empty'}"
        )
    notes.append(Remark(column.name, "is the time column", f"it was given{_order_asked(parsed.note)}"))
    if marks:
        quoted_marks = ", ".join(repr(mark) for mark in marks)
        notes.append(
            Remark(column.name, f"{quoted_marks} counts as missing", "it is no time: rows without one are left out")
        )
    return column.name


def _propose_time(inspected: dict[str, InspectedColumn], target: str, notes: list[Remark]) -> str | None:
    dates = [
        column
        for name, column in inspected.items()
        if column.kind == "datetime" and name not in {target, *ANSWER_COLUMNS}
    ]
    candidates = [c for c in dates if len(c.known) >= 0.9 * c.rows and c.known.nunique() >= min(c.rows, FEW_DATES)]
    if len(candidates) == 1:
        reason = f"it is the only column of dates, and folds follow it{_order_asked(candidates[0].date_note)}"
        notes.append(
            Remark(candidates[0].name, "is the time column", f"{reason}; take it out if rows do not happen then")
        )
        return candidates[0].name
    if candidates:
        names = ", ".join(column.name for column in candidates)
        reason = f"there are {len(candidates)} columns of dates ({names}): name the one at which a row happens"
        notes.append(Remark(None, "there is no time column", reason))
    return None


def _order_asked(note: str) -> str:
    return "; no value tells day from month: choose below, in formats" if note else ""


def _entries(table: _Table, notes: list[Remark]) -> tuple[list[ColumnEntry], list[str]]:
    """An entry for every column but target and time: its kind, and why it is left out; and the names of keys."""
    entries: list[ColumnEntry] = []
    keys: list[str] = []
    target_values = _without_marks(table.sample[table.target], table.columns[table.target])
    strengths: dict[str, float] = {}
    together = _why_together(table)
    for name, column in table.columns.items():
        if name in {table.target, table.time}:
            continue
        reason_left_out = _why_asked(table.written.get(name)) or _why_useless(column)
        reason_left_out = reason_left_out or _why_identifier(table.frame[name], column) or together.get(name)
        if reason_left_out is None:
            values = _without_marks(table.sample[name], column)
            strengths[name] = strength(values, target_values, column.kind, table.task)
            reason_left_out = _why_leaky(strengths[name], table.task)
        if reason_left_out is not None:
            notes.append(Remark(name, "left out", reason_left_out))
            if reason_left_out.startswith("an identifier") and _is_key(table.frame[name], column):
                keys.append(name)
        entries.append(
            ColumnEntry(
                name,
                column.kind,
                reason_left_out,
                "; ".join(_remarks(column, notes, is_said=name in table.written)) if reason_left_out is None else "",
            )
        )
    _note_suspicious({name: value for name, value in strengths.items() if value < GIVES_AWAY}, table.task, notes)
    return [entry for entry in entries if entry.name not in keys[:1]], keys


def _without_marks(series: "pd.Series[Any]", column: InspectedColumn) -> "pd.Series[Any]":
    return series.where(series.index.isin(column.known.index))


def _why_asked(written: WrittenValues | None) -> str | None:
    """Why a person must say how a column is written before it can be a feature."""
    if written is None or written.is_sure or written.is_number:
        return None
    if not written.formats:
        return written.reason
    return f"{written.reason}; choose below, in formats"


def _why_useless(column: InspectedColumn) -> str | None:
    if column.known.empty:
        return "it is empty"
    if column.known.dtype == object and column.known.map(lambda value: isinstance(value, NESTED)).any():
        return "it holds lists or records: make columns of what is in them"
    if len(column.known.unique()) == 1 and len(column.known) == column.rows:
        return f"constant: it is always {str(column.known.iloc[0])[:40]!r}"
    return None


def _is_key(series: "pd.Series[Any]", column: InspectedColumn) -> bool:
    is_name = column.kind in {"category", "integer"} and column.name not in ANSWER_COLUMNS
    is_name = is_name and not _words(column.name) & CODE_WORDS
    return is_name and bool(series.notna().all()) and series.is_unique


def _why_identifier(series: "pd.Series[Any]", column: InspectedColumn) -> str | None:
    """Why the column seems to name the rows rather than to measure something; None where it does not."""
    words = re.split(r"[\W_]+", column.name.lower())
    named_as_id = bool(ID_WORDS.intersection(words)) or re.search(r"[a-z](Id|ID)$", column.name) is not None
    if column.kind not in {"category", "integer"}:
        return None
    distinct, known_count = column.known.nunique(), len(column.known)
    share = distinct / known_count
    if named_as_id and (distinct > FEW_VALUES or share == 1.0):
        return f"an identifier by its name ({distinct:,} different values in {known_count:,} rows)"
    if known_count < FEW_ROWS or share < NEARLY_UNIQUE:
        return None
    if column.kind == "category":
        return f"an identifier or free text: {share:.0%} of its values are different"
    numbers = pd.to_numeric(series, errors="coerce").dropna()
    consecutive = len(numbers) == numbers.nunique() and float(numbers.max() - numbers.min()) == len(numbers) - 1
    return "an identifier: it numbers the rows" if consecutive else None


def _why_together(table: _Table) -> dict[str, str]:
    """Why columns are left out for what they are together with others: copies of the time, and parts of the target."""
    others = [name for name in table.columns if name not in {table.target, table.time}]
    numeric = [name for name in others if table.columns[name].kind in {"integer", "number"}]
    reasons: dict[str, str] = {}
    if table.time is not None:
        timed = [name for name in others if table.columns[name].kind in {"integer", "number", "datetime"}]
        copies = time_copies(table.sample[[table.time, *timed]], table.time, table.marks)
        reasons |= dict.fromkeys(copies, f"copies the time column '{table.time}': a model would learn the calendar")
    if table.task == "regression":
        values = {name: _without_marks(table.sample[name], table.columns[name]) for name in [table.target, *numeric]}
        parts = parts_of_sum(pd.DataFrame(values), table.target)
        formula = " ".join(f"{'+' if sign > 0 else '-'} '{name}'" for name, sign in parts.items()).removeprefix("+ ")
        reasons |= dict.fromkeys(parts, f"gives the target away: '{table.target}' is {formula}")
    return reasons


def _why_leaky(value: float, task: str) -> str | None:
    if math.isnan(value) or value < GIVES_AWAY:
        return None
    return f"gives the target away: alone it predicts it almost perfectly ({_metric_name(task)} {value:.4f})"


def _metric_name(task: str) -> str:
    return "AUC" if task == "classification" else "R2"


def _note_suspicious(strengths: dict[str, float], task: str, notes: list[Remark]) -> None:
    suspicious = [
        name for name in sorted(strengths, key=lambda n: -strengths[n]) if strengths[name] >= SUSPICIOUS[task]
    ]
    for name in suspicious[:3]:
        reason = f"alone it predicts the target well ({_metric_name(task)} {strengths[name]:.3f})"
        notes.append(Remark(name, "kept; make sure that it is known before the target is", reason))


def _remarks(column: InspectedColumn, notes: list[Remark], *, is_said: bool) -> list[str]:
    """Remarks about a column that is kept; they are added to `notes` too."""
    decisions: list[tuple[str, str]] = []
    missing_share = 1 - len(column.known) / column.rows
    if column.marks:
        quoted = ", ".join(repr(mark) for mark in column.marks)
        is_word = any(char.isalnum() for mark in column.marks for char in mark)
        also = f"; if it is a value of its own, write kinds: {_flow(column.name, 'category')} and no such mark"
        reason = f"nearly all of its texts are of this kind{also if is_word else ''}"
        decisions.append((f"read as {column.kind}; {quoted} counts as missing", reason))
    if column.guessed:
        quoted = ", ".join(map(repr, column.guessed))
        reason = f"nearly all of its texts are numbers or dates, but {quoted} is a value of another column too"
        decisions.append((f"kept as {column.kind}, with {quoted}", reason))
    if missing_share >= 0.5:
        decisions.append(("kept, mostly missing", f"{missing_share:.0%} of its values are missing"))
    shares = column.known.value_counts(normalize=True)
    if shares.iloc[0] >= 0.95 and len(shares) > 1:
        decisions.append(
            ("kept, hardly varies", f"{shares.iloc[0]:.0%} of its values are {str(shares.index[0])[:40]!r}")
        )
    decisions += _named_values(column, len(shares))
    words = missing_words(column.known) if column.kind == "category" else []
    if words:
        quoted = ", ".join(map(repr, words))
        decisions.append((f"{quoted} is a category", "if it stands for missing, add it to missing_marks"))
    if column.kind == "datetime" and not is_said:
        decisions.append(("read as datetime", column.date_note or "all of its values read as dates or times"))
    notes += [Remark(column.name, decision, reason) for decision, reason in decisions]
    return [f"{decision}: {reason}" for decision, reason in decisions]


def _named_values(column: InspectedColumn, distinct: int) -> Iterator[tuple[str, str]]:
    """Remarks about texts and numbers that may be something else than what they are kept as."""
    if column.kind in {"integer", "number"} and _words(column.name) & CODE_WORDS:
        reason = f"a code has no order and no mean; if it is one, write kinds: {_flow(column.name, 'category')}"
        yield f"kept as {column.kind}, but its name is that of a code", reason
    if column.kind != "category":
        return
    alike = alike_texts(column.known)
    if alike:
        yield (
            "kept with labels that are nearly the same",
            f"{alike} differ by case or blanks only, and are two categories",
        )
    if distinct > MANY_CATEGORIES:
        reason = f"{distinct:,} categories; the {MANY_CATEGORIES} most frequent get a code of their own"
        spaces = float(column.known.astype(str).str.strip().str.count(r"\s+").mean())
        if spaces >= FEWEST_BLANKS:
            yield "kept, but it seems to be free text", f"{reason}; it says little as one: put it into ignore"
        else:
            yield "kept, many categories", reason


def _words(name: str) -> set[str]:
    return set(re.split(r"[\W_0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def _slices(inspected: dict[str, InspectedColumn], entries: Sequence[ColumnEntry]) -> list[str]:
    categories = [entry.name for entry in entries if entry.left_out is None and entry.kind == "category"]
    return [name for name in categories if 2 <= inspected[name].known.nunique() <= 12][:2]
