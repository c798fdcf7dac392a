"""What `init` writes: a settings file with comments for a raw table, with a reason for each decision.

Decisions about values look at no more than `SAMPLE` rows, drawn with a fixed seed. Nothing here is final: a person is
meant to read the file and change it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from afterfit.contract.columns import suggest_marks
from afterfit.contract.contract import infer_kind, parse_datetimes
from afterfit.contract.values import is_missing_word
from afterfit.data.column_names import absent_column_message, clean_names
from afterfit.data.leakage import GIVES_AWAY, SUSPICIOUS, strength
from afterfit.data.settings_yaml import ColumnEntry, SettingsPlan, render_settings
from afterfit.errors import DataError

SAMPLE = 20_000
FEW_VALUES = 20  # a target of whole numbers with at most this many different values has classes
MOST_CLASSES = 50
NEARLY_UNIQUE = 0.95
FEW_DATES = 10
FEW_ROWS = 30  # with fewer rows, unique values are no sign of an identifier
MANY_CATEGORIES = 200
ID_WORDS = {"id", "uuid", "guid", "identifier", "rowid", "rownum", "serial", "unnamed"}
NESTED = (list, dict, tuple, set, np.ndarray)
MAY_BE_A_CLASS = {"None", "none"}
DECIMAL_COMMA = r"\s*-?\d{1,3}(\.?\d{3})*,\d+\s*"
POSITIVE_WORDS = {"1", "true", "yes", "y", "t", "positive", "pos"}


@dataclass(frozen=True, slots=True)
class Remark:
    """One decision: the column (None: the whole file), what was decided, and why."""

    column: str | None
    decision: str
    reason: str


@dataclass(frozen=True, slots=True)
class Draft:
    """The text of the settings file, which `load_use_case` can read as it is, and the decisions in it."""

    text: str
    notes: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class _InspectedColumn:
    """One column of the table: its kind, the texts that mean missing, and its values that are not missing."""

    name: str
    kind: str
    marks: tuple[str, ...]
    known: "pd.Series[Any]"
    rows: int
    date_note: str = ""


@dataclass(frozen=True, slots=True)
class _Table:
    frame: pd.DataFrame
    sample: pd.DataFrame
    columns: dict[str, _InspectedColumn]
    target: str
    time: str | None
    task: str


def draft(frame: pd.DataFrame, *, name: str, path: str, target: str, time: str | None = None, seed: int = 0) -> Draft:
    """Settings for a table: the task, the features and their kinds, the time column, candidates and metrics.

    Args:
        frame: the whole table, or its first rows.
        name: the use case's name.
        path: where the table is, as it is written into the settings file.
        target: the column to predict.
        time: the column with the time of each row; if None, the only column of dates is proposed.
        seed: for the sample of rows that the checks look at.

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
    sample = frame
    if len(frame) > SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(frame), SAMPLE, replace=False)
        sample = frame.iloc[np.sort(chosen)]
    inspected = {column: _inspect(sample[column], is_target=column == target) for column in frame.columns}
    notes: list[Remark] = []
    target_values = _known_values(frame[target], inspected[target].marks)
    task, positive = _task(inspected[target], target_values, len(frame), notes)
    time = _check_given_time(frame[time], inspected[time], notes) if time else _propose_time(inspected, target, notes)
    table = _Table(frame, sample, inspected, target, time, task)
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
    )
    decisions = [(note.column, note.decision, note.reason) for note in notes if note.column in {None, target, time}]
    return Draft(render_settings(plan, decisions), tuple(notes))


def _inspect(series: "pd.Series[Any]", *, is_target: bool) -> _InspectedColumn:
    marks = suggest_marks(series)
    known = _known_values(series, marks)
    if is_target:  # a class "NA" would be learnt like any other
        marks = (*marks, *_missing_words(known))
        known = _known_values(series, marks)
    kind = infer_kind(series, marks)
    note = parse_datetimes(series, frozenset(marks)).note if kind == "datetime" else ""
    return _InspectedColumn(str(series.name), kind, marks, known, len(series), note)


def _missing_words(known: "pd.Series[Any]") -> list[str]:
    """The texts in a column that other programs write for missing values."""
    if known.dtype.kind in "biufM":
        return []
    texts = set(known.astype(str).str.strip().unique()) - MAY_BE_A_CLASS
    return sorted(text for text in texts if text and is_missing_word(text))


def _known_values(series: "pd.Series[Any]", marks: Sequence[str]) -> "pd.Series[Any]":
    """The values that are not missing."""
    known = series.dropna()
    if known.dtype.kind in "biufM":
        return known
    return known[~known.astype(str).str.strip().isin(["", *marks])]


def _task(target: _InspectedColumn, target_values: "pd.Series[Any]", rows: int, notes: list[Remark]) -> tuple[str, Any]:
    """The task and the positive class."""
    if target_values.empty:
        raise DataError(f"The target '{target.name}' is missing in all {rows:,} rows")
    values = target_values.unique().tolist()
    if len(values) < 2:
        raise DataError(f"The target '{target.name}' is {values[0]!r} in every row: there is nothing to learn")
    if target.marks:
        notes.append(Remark(target.name, f"{', '.join(map(repr, target.marks))} counts as missing", "it is no outcome"))
    if len(target_values) < rows:
        reason = f"the target is missing in {rows - len(target_values):,} of {rows:,} rows"
        notes.append(Remark(target.name, "rows without it are left out", reason))
    if target.kind == "datetime":
        raise DataError(f"The target '{target.name}' is a date: give a number, such as days, or a class")
    all_whole = target.kind == "integer" or (target.kind == "number" and _all_whole(target.known))
    if target.kind in {"integer", "number"} and not (all_whole and len(values) <= FEW_VALUES):
        notes.append(Remark(target.name, "regression", f"it is a number with {len(values):,} different values"))
        _note_skew(target_values, target.name, notes)
        return "regression", None
    if len(values) > MOST_CLASSES:
        raise DataError(
            f"The target '{target.name}' is text with {len(values):,} different values: a classification needs a few "
            f"classes (at most {MOST_CLASSES}), a regression numbers"
        )
    hint = "; if they are amounts, set task: regression" if all_whole and len(values) > 2 else ""
    notes.append(Remark(target.name, "classification", f"it has {len(values)} different values{hint}"))
    rarest = min(target_values.value_counts())
    if rarest < 20:
        notes.append(Remark(target.name, "look at its rarest class", f"it has {rarest} rows: too few to judge it"))
    return "classification", _positive_class(target_values, target.name, notes) if len(values) == 2 else None


def _all_whole(values: "pd.Series[Any]") -> bool:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
    return bool((numbers == np.floor(numbers)).all())


def _positive_class(target_values: "pd.Series[Any]", column: str, notes: list[Remark]) -> Any:
    counts = target_values.value_counts()
    labels = [value.item() if isinstance(value, np.generic) else value for value in counts.index.tolist()]
    labels = [int(label) if isinstance(label, float) and label.is_integer() else label for label in labels]
    positive_labels = [label for label in labels if str(label).strip().lower() in POSITIVE_WORDS]
    if len(positive_labels) == 1:
        reason = "that is the usual word for the class that is looked for"
        positive = positive_labels[0]
    else:
        reason = f"it is the rarer class ({counts.iloc[-1]:,} of {counts.sum():,} rows)"
        positive = labels[-1]
    notes.append(Remark(column, f"positive is {positive!r}", reason))
    return positive


def _note_skew(target_values: "pd.Series[Any]", column: str, notes: list[Remark]) -> None:
    numbers = pd.to_numeric(target_values, errors="coerce").dropna().astype(float)
    skewness = float(((numbers - numbers.mean()) ** 3).mean() / max(numbers.std(ddof=0) ** 3, 1e-300))
    if abs(skewness) > 2:
        notes.append(
            Remark(
                column,
                "the metric is mae",
                f"it is skewed ({skewness:.1f}): a few large values would dominate a squared error",
            )
        )


def _check_given_time(series: "pd.Series[Any]", column: _InspectedColumn, notes: list[Remark]) -> str:
    marks = [mark for mark in column.marks if not any(char.isdigit() for char in mark)]  # "2024-13-45" is a mistake
    parsed = parse_datetimes(series, frozenset(marks))
    if parsed.bad.any() or column.known.empty:
        bad_values = ", ".join(f"row {i + 1}: {str(series.iloc[i])[:60]!r}" for i in np.flatnonzero(parsed.bad)[:5])
        raise DataError(
            f"The time column '{column.name}' has values that are no dates or times: {bad_values or 'it is empty'}"
        )
    notes.append(Remark(column.name, "is the time column", f"it was given{_note_suffix(parsed.note)}"))
    if marks:
        quoted_marks = ", ".join(repr(mark) for mark in marks)
        notes.append(
            Remark(column.name, f"{quoted_marks} counts as missing", "it is no time: rows without one are left out")
        )
    return column.name


def _propose_time(inspected: dict[str, _InspectedColumn], target: str, notes: list[Remark]) -> str | None:
    dates = [column for name, column in inspected.items() if column.kind == "datetime" and name != target]
    candidates = [c for c in dates if len(c.known) >= 0.9 * c.rows and c.known.nunique() >= min(c.rows, FEW_DATES)]
    if len(candidates) == 1:
        reason = f"it is the only column of dates, and folds follow it{_note_suffix(candidates[0].date_note)}"
        notes.append(
            Remark(candidates[0].name, "is the time column", f"{reason}; take it out if rows do not happen then")
        )
        return candidates[0].name
    if candidates:
        names = ", ".join(column.name for column in candidates)
        reason = f"there are {len(candidates)} columns of dates ({names}): name the one at which a row happens"
        notes.append(Remark(None, "there is no time column", reason))
    return None


def _note_suffix(note: str) -> str:
    return f"; {note}" if note else ""


def _entries(table: _Table, notes: list[Remark]) -> tuple[list[ColumnEntry], list[str]]:
    """An entry for every column but target and time: its kind, and why it is left out; and the names of keys."""
    entries: list[ColumnEntry] = []
    keys: list[str] = []
    target_values = _without_marks(table.sample[table.target], table.columns[table.target])
    strengths: dict[str, float] = {}
    for name, column in table.columns.items():
        if name in {table.target, table.time}:
            continue
        reason_left_out = _why_useless(column) or _why_identifier(table.frame[name], column)
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
                "; ".join(_remarks(column, notes)) if reason_left_out is None else "",
            )
        )
    _note_suspicious({name: value for name, value in strengths.items() if value < GIVES_AWAY}, table.task, notes)
    return [entry for entry in entries if entry.name not in keys[:1]], keys


def _without_marks(series: "pd.Series[Any]", column: _InspectedColumn) -> "pd.Series[Any]":
    return series.where(series.index.isin(column.known.index))


def _why_useless(column: _InspectedColumn) -> str | None:
    if column.known.empty:
        return "it is empty"
    if column.known.dtype == object and column.known.map(lambda value: isinstance(value, NESTED)).any():
        return "it holds lists or records: make columns of what is in them"
    if column.kind == "category" and column.known.astype(str).str.fullmatch(DECIMAL_COMMA).mean() > 0.9:
        return "numbers with a decimal comma are read as text: write them with a point"
    if len(column.known.unique()) == 1 and len(column.known) == column.rows:
        return f"constant: it is always {str(column.known.iloc[0])[:40]!r}"
    return None


def _is_key(series: "pd.Series[Any]", column: _InspectedColumn) -> bool:
    return column.kind in {"category", "integer"} and bool(series.notna().all()) and series.is_unique


def _why_identifier(series: "pd.Series[Any]", column: _InspectedColumn) -> str | None:
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


def _remarks(column: _InspectedColumn, notes: list[Remark]) -> list[str]:
    """Remarks about a column that is kept; they are added to `notes` too."""
    decisions: list[tuple[str, str]] = []
    missing_share = 1 - len(column.known) / column.rows
    if column.marks:
        quoted = ", ".join(repr(mark) for mark in column.marks)
        decisions.append(
            (f"read as {column.kind}; {quoted} counts as missing", "nearly all of its texts are of this kind")
        )
    if missing_share >= 0.5:
        decisions.append(("kept, mostly missing", f"{missing_share:.0%} of its values are missing"))
    shares = column.known.value_counts(normalize=True)
    if shares.iloc[0] >= 0.95 and len(shares) > 1:
        decisions.append(
            ("kept, hardly varies", f"{shares.iloc[0]:.0%} of its values are {str(shares.index[0])[:40]!r}")
        )
    if column.kind == "category" and len(shares) > MANY_CATEGORIES:
        reason = f"{len(shares):,} categories; the {MANY_CATEGORIES} most frequent get a code of their own"
        decisions.append(("kept, many categories", reason))
    missing_words = _missing_words(column.known) if column.kind == "category" else []
    if missing_words:
        quoted = ", ".join(map(repr, missing_words))
        decisions.append((f"{quoted} is a category", "if it stands for missing, add it to missing_marks"))
    if column.kind == "datetime":
        decisions.append(("read as datetime", column.date_note or "all of its values read as dates or times"))
    notes += [Remark(column.name, decision, reason) for decision, reason in decisions]
    return [f"{decision}: {reason}" for decision, reason in decisions]


def _slices(inspected: dict[str, _InspectedColumn], entries: Sequence[ColumnEntry]) -> list[str]:
    categories = [entry.name for entry in entries if entry.left_out is None and entry.kind == "category"]
    return [name for name in categories if 2 <= inspected[name].known.nunique() <= 12][:2]
