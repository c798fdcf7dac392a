"""The target of a use case: which values are missing, which classes there are, and the target as numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.columns import Column, infer_kind, read_series
from afterfit.contract.labels import Label, Labels, learn_labels, missing_labels
from afterfit.contract.values import distinct_values
from afterfit.data.reading import format_of
from afterfit.errors import DataError, SettingsError
from afterfit.use_case import UseCase

MOST_CLASSES = 200


def missing_target(
    use_case: UseCase, target: "pd.Series[Any]", labels: Sequence[Label] | None = None
) -> "pd.Series[bool]":
    """Which targets are missing: null, empty text, one of the use case's missing marks, or a word such as "NA".

    A word counts in a regression, and beside classes that are numbers or truth values; among other texts it is a class.

    Args:
        use_case: its settings.
        target: (n,) the column.
        labels: the classes that are known; where None, the other values of the column say what they are.
    """
    marks = use_case.columns.missing_marks
    if use_case.task == "regression":
        words = True
    elif labels:
        words = Labels(labels).words_are_missing
    else:
        words = infer_kind(target, marks) != "category"
    return missing_labels(target, marks, words=words)


def plain_labels(target: "pd.Series[Any]", known: npt.NDArray[np.bool_] | None = None) -> "pd.Series[Any]":
    """Labels that came as text as the numbers or truth values that they all are; other labels unchanged.

    Args:
        target: (n,) the column.
        known: (n,) which of its values are labels; all where None.
    """
    if not isinstance(target.dtype, pd.StringDtype):
        return target
    some = target if known is None else target[known]
    labels = Labels(learn_labels(distinct_values(some)[1]))
    if any(isinstance(label, str) for label in labels.classes):
        return target
    named = np.array([*labels.classes, None], dtype=object)[labels.codes(target)]
    return pd.Series(named, index=target.index).infer_objects()


def classes(use_case: UseCase, target: "pd.Series[Any]") -> tuple[Label, ...]:
    """The class labels as plain Python values: negative and positive where the use case names the positive one.

    Otherwise sorted, so that of two classes the positive one is True, 1 or "yes". Texts that all are numbers, or all
    true or false, are these. A `positive` of another type matches by its text, whatever its case.

    Args:
        use_case: its settings.
        target: (n,) labels that are known.

    Raises:
        DataError: fewer than two classes, or so many that it is no classification.
        SettingsError: `positive` is none of the labels, or there are more than two.
    """
    positions, distinct = distinct_values(target)
    used = np.unique(positions[positions >= 0])
    labels = learn_labels(distinct[place] for place in used.tolist())
    if len(labels) < 2:
        raise DataError(f"The target '{use_case.target}' is always {labels[0]!r}: a classification needs two classes")
    if len(labels) > MOST_CLASSES:
        raise DataError(
            f"The target '{use_case.target}' has {len(labels):,} different values, and at most {MOST_CLASSES} classes "
            "are possible: is it a regression?"
        )
    if use_case.positive is None:
        return tuple(labels)
    said = ", ".join(repr(label) for label in labels[:12])
    if len(labels) > 2:
        raise SettingsError(f"positive is for two classes; the target '{use_case.target}' has {len(labels)}: {said}")
    positive = [label for label in labels if label == use_case.positive] or [
        label for label in labels if str(label).strip().lower() == str(use_case.positive).lower()
    ]
    if not positive:
        raise SettingsError(f"positive: {use_case.positive!r} is no class of the target '{use_case.target}' ({said})")
    return (*(label for label in labels if label != positive[0]), positive[0])


def encode_target(
    use_case: UseCase, target: "pd.Series[Any]", labels: Sequence[Label] = ()
) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """The target for an estimator: positions in `labels` as int64, or float64 for a regression, each (n,).

    Raises:
        DataError: a missing target, a label that is not among `labels`, or a regression's target that is no number.
    """
    if use_case.task == "regression":
        numbers = target_numbers(use_case, target)
        bad = ~np.isfinite(numbers)
        if bad.any():
            raise DataError(rows_said(f"the target '{use_case.target}' of a regression must be a number", target, bad))
        return numbers
    encoded = Labels(labels).codes(target)
    if (encoded < 0).any():
        said = ", ".join(repr(label) for label in list(labels)[:12])
        raise DataError(rows_said(f"the target '{use_case.target}' is none of {said}", target, encoded < 0))
    return encoded


def target_numbers(use_case: UseCase, target: "pd.Series[Any]") -> npt.NDArray[np.float64]:
    """The (n,) values of a regression's target; nan where one is missing or is no number."""
    written = format_of(use_case, use_case.target)
    column = Column(use_case.target, "number", marks=use_case.columns.missing_marks, number_format=written)
    values: npt.NDArray[np.float64] = read_series(target, column).values
    return values


def rows_said(said: str, values: "pd.Series[Any]", bad: npt.NDArray[np.bool_]) -> str:
    """The sentence with up to five of the rows; rows are counted from 1."""
    first = np.flatnonzero(bad)[:5]
    shown = ", ".join(f"row {i + 1}: {str(values.iloc[i])[:60]!r}" for i in first)
    count = int(bad.sum())
    return f"{said}: {shown}{f' and {count - len(first):,} more' if count > len(first) else ''}"
