"""The columns of a raw table, each looked at by itself: its kind, its values, and which texts stand for missing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from afterfit.contract.columns import suggest_marks
from afterfit.contract.contract import infer_kind, parse_datetimes
from afterfit.contract.values import is_missing_word
from afterfit.scaffold.written_values import WrittenValues

FEW_VALUES = 20  # a target of whole numbers with at most this many different values has classes
MAY_BE_A_CLASS = {"None", "none"}


@dataclass(frozen=True, slots=True)
class Remark:
    """One decision: the column (None: the whole file), what was decided, and why."""

    column: str | None
    decision: str
    reason: str


@dataclass(frozen=True, slots=True)
class InspectedColumn:
    """One column of the table.

    Attributes:
        name: its name.
        kind: what its values are.
        marks: the texts in it that stand for missing.
        known: its values that are not missing.
        rows: how many rows were looked at.
        date_note: what had to be assumed of its dates.
        guessed: texts that would stand for missing, if they were not classes.
    """

    name: str
    kind: str
    marks: tuple[str, ...]
    known: "pd.Series[Any]"
    rows: int
    date_note: str = ""
    guessed: tuple[str, ...] = ()


def inspected_columns(
    sample: pd.DataFrame, target: str, written: dict[str, WrittenValues]
) -> dict[str, InspectedColumn]:
    """The columns. What is a class of the target, or a value of another column, stands for missing in none.

    For `missing_marks` hold in all columns.
    """
    marks = {
        name: written[name].marks if name in written and written[name].is_sure else suggest_marks(sample[name])
        for name in sample.columns
    }
    own = tuple(mark for mark in marks[target] if _is_no_class(mark, sample[target], marks[target]))
    guessed = tuple(mark for mark in marks[target] if mark not in own)
    inspected = {target: replace(_inspect(sample[target], own, is_target=True), guessed=guessed)}
    every = {mark for found in marks.values() for mark in found}
    texts = {name: _texts(sample[name], every) - set(own if name == target else marks[name]) for name in sample.columns}
    for name in sample.columns:
        if name != target:
            shared = tuple(mark for mark in marks[name] if any(mark in others for others in texts.values()))
            inspected[name] = replace(_inspect(sample[name], () if shared else marks[name]), guessed=shared)
    return {name: inspected[name] for name in sample.columns}


def _texts(series: "pd.Series[Any]", wanted: set[str]) -> set[str]:
    """Which of some texts are among a column's values."""
    if series.dtype.kind in "biufM" or not wanted:
        return set()
    return wanted.intersection(series.dropna().astype(str).str.strip().unique())


def alike_texts(known: "pd.Series[Any]") -> str:
    """Texts of a column that differ by case or blanks only, in quotes; empty without such."""
    if known.dtype.kind in "biufM":
        return ""
    forms: dict[str, list[str]] = {}
    for text in known.astype(str).unique().tolist():
        forms.setdefault(" ".join(text.split()).casefold(), []).append(text)
    groups = sorted((sorted(texts) for texts in forms.values() if len(texts) > 1), key=len, reverse=True)
    shown = [" and ".join(map(repr, texts[:4])) for texts in groups[:3]]
    more = f" and {len(groups) - 3:,} more" if len(groups) > 3 else ""
    return ", ".join(shown) + more


def _is_no_class(mark: str, target: "pd.Series[Any]", marks: Sequence[str]) -> bool:
    """Whether a text in a target of numbers stands for missing: a sign such as "?", or a word among many numbers."""
    few = known_values(target, marks).nunique() <= FEW_VALUES
    return not few or not any(char.isalnum() for char in mark)


def _inspect(series: "pd.Series[Any]", marks: tuple[str, ...], *, is_target: bool = False) -> InspectedColumn:
    known = known_values(series, marks)
    if is_target:  # a class "NA" would be learnt like any other
        marks = (*marks, *missing_words(known))
        known = known_values(series, marks)
    kind = infer_kind(series, marks)
    note = parse_datetimes(series, frozenset(marks)).note if kind == "datetime" else ""
    return InspectedColumn(str(series.name), kind, marks, known, len(series), note)


def missing_words(known: "pd.Series[Any]") -> list[str]:
    """The texts in a column that other programs write for missing values."""
    if known.dtype.kind in "biufM":
        return []
    texts = set(known.astype(str).str.strip().unique()) - MAY_BE_A_CLASS
    return sorted(text for text in texts if text and is_missing_word(text))


def known_values(series: "pd.Series[Any]", marks: Sequence[str]) -> "pd.Series[Any]":
    """The values that are not missing."""
    known = series.dropna()
    if known.dtype.kind in "biufM":
        return known
    return known[~known.astype(str).str.strip().isin(["", *marks])]
