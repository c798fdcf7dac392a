"""The task that a raw table's target shows: classification with its positive class, or regression."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from afterfit.errors import DataError
from afterfit.scaffold.inspected_columns import FEW_VALUES, InspectedColumn, Remark, alike_texts
from afterfit.scaffold.written_values import WrittenValues

MOST_CLASSES = 50
FEWEST_OF_A_CLASS = 20
POSITIVE_WORDS = {"1", "true", "yes", "y", "t", "positive", "pos"}


def proposed_task(
    target: InspectedColumn,
    target_values: "pd.Series[Any]",
    rows: int,
    written: WrittenValues | None,
    notes: list[Remark],
) -> tuple[str, Any]:
    """The task and the positive class.

    Args:
        target: the column.
        target_values: its values that are not missing.
        rows: the rows of the table.
        written: how it is written, where that was recognised.
        notes: the decisions, to which those about the target are added.

    Raises:
        DataError: nothing can be learnt of it: it is missing, constant, a date, or text with too many values.
    """
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
    if written is not None and not written.is_sure:
        reason = f"{written.reason}; until the settings file says which, training stops"
        notes.append(Remark(target.name, "regression, and its format must be chosen", reason))
        return "regression", None
    if _is_amount(target, values, written):
        notes.append(Remark(target.name, "regression", f"it is a number with {len(values):,} different values"))
        _note_skew(target_values, target.name, notes)
        return "regression", None
    return "classification", _classes(target, target_values, notes)


def _is_amount(target: InspectedColumn, values: Sequence[Any], written: WrittenValues | None) -> bool:
    """Whether the target is a number to be predicted as such; what has a unit or decimals is, and few classes not."""
    if written is not None:
        return len(values) > 2
    return target.kind in {"integer", "number"} and not (_all_whole(target) and len(values) <= FEW_VALUES)


def _classes(target: InspectedColumn, target_values: "pd.Series[Any]", notes: list[Remark]) -> Any:
    """The positive class of two; None of more."""
    values = target_values.unique().tolist()
    if len(values) > MOST_CLASSES:
        raise DataError(
            f"The target '{target.name}' is text with {len(values):,} different values: a classification needs a few "
            f"classes (at most {MOST_CLASSES}), a regression numbers"
        )
    hint = "; if they are amounts, set task: regression" if _all_whole(target) and len(values) > 2 else ""
    notes.append(Remark(target.name, "classification", f"it has {len(values)} different values{hint}"))
    if target.guessed:
        quoted = ", ".join(map(repr, target.guessed))
        reason = f"all other classes are numbers; if it stands for missing, write missing_marks: [{quoted}]"
        notes.append(Remark(target.name, f"{quoted} is a class", reason))
    alike = alike_texts(target.known)
    if alike:
        reason = "they differ by case or blanks only: if they are one class, make them alike in the data"
        notes.append(Remark(target.name, f"{alike} are classes of their own", reason))
    rarest = min(target_values.value_counts())
    if rarest < FEWEST_OF_A_CLASS:
        notes.append(Remark(target.name, "look at its rarest class", f"it has {rarest} rows: too few to judge it"))
    return _positive_class(target_values, target.name, notes) if len(values) == 2 else None


def _all_whole(target: InspectedColumn) -> bool:
    if target.kind != "number":
        return target.kind == "integer"
    numbers = pd.to_numeric(target.known, errors="coerce").to_numpy(dtype=float)
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
