"""Class labels: what they are in a training table, and which of them a value of any type is.

A label has one reading, wherever it comes from: 1, 1.0 and "1" are one label, and so are true, "true" and "True". Text
is matched as it is, and without its case and the white space around it only where that leaves no doubt.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.categories import whole_number
from afterfit.contract.columns import infer_kind
from afterfit.contract.values import (
    TRUTH_TEXTS,
    decode_text,
    distinct_values,
    is_missing_text,
    is_missing_word,
    is_truth,
    read_category,
    read_number,
)

Label: TypeAlias = str | int | float | bool
TRUTHS = frozenset({"true", "false"})


def label_of(value: Any) -> Label:
    """A value as a plain label: whole numbers in floats are integers, bytes are text; text stays as it is."""
    value = decode_text(value)
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and plain.is_integer():
        return int(plain)
    return plain if isinstance(plain, str | int | float | bool) else str(plain)


def learn_labels(values: Iterable[Any]) -> tuple[Label, ...]:
    """The different labels among values that are not missing, sorted, numbers before text.

    Texts that all are numbers, or all true or false, are these; a table that holds them as text then has the same
    labels as one that does not.
    """
    distinct = [decode_text(value) for value in values]
    kind = infer_kind(pd.Series(distinct, dtype=object)) if distinct else "category"
    if kind in {"integer", "number"}:
        numbers = {label_of(read_number(value)[0]) for value in distinct}
        if len(numbers) == len({_text(value) for value in distinct}):  # "1.1" and "1.10" are two names
            return tuple(sorted(numbers))
    if kind == "boolean" and all(is_truth(value) or str(value).strip().lower() in TRUTHS for value in distinct):
        return tuple(sorted({str(value).strip().lower() == "true" for value in distinct}))
    return tuple(sorted({label_of(value) for value in distinct}, key=_order))


class Labels:
    """The classes of a model, and which one a value is.

    Attributes:
        classes: the k labels, in the order of their codes.
    """

    def __init__(self, classes: Sequence[Any]) -> None:
        self.classes = tuple(classes)
        self._code_of_text = {_text(label): code for code, label in enumerate(self.classes)}

    def code(self, value: Any) -> int:
        """The class's code; -1 where a value is none of the classes, or missing."""
        text = _text(value)
        if text is None:
            return -1
        for known, key in ((self._code_of_text, text), (self._by_word, text.strip().lower()), (self._by_truth, value)):
            code = known(key) if callable(known) else known.get(key)
            if code is not None:
                return code
        return -1

    def codes(self, values: "pd.Series[Any]") -> npt.NDArray[np.int64]:
        """(n,) the codes of a column; -1 where a value is none of the classes, or missing."""
        positions, distinct = distinct_values(values)
        return np.array([*(self.code(value) for value in distinct), -1], dtype=np.int64)[positions]

    @property
    def words_are_missing(self) -> bool:
        """Whether "NA" and the like stand for a missing label: where all classes are numbers or truth values."""
        return not any(isinstance(label, str) for label in self.classes)

    @cached_property
    def _by_word(self) -> dict[str, int]:
        """Codes by lower case, where no two labels differ by case or white space only."""
        codes = {text.strip().lower(): code for text, code in self._code_of_text.items() if text is not None}
        return codes if len(codes) == len(self.classes) else {}

    def _by_truth(self, value: Any) -> int | None:
        """The code of a truth value under another name: 0 for a class False, True for a class 1."""
        text = str(_text(value)).strip().lower()
        if set(self._by_word) == TRUTHS and text in {"0", "1"}:
            return self._by_word["true" if text == "1" else "false"]
        if set(self._by_word) == {"0", "1"} and text in TRUTHS:
            return self._by_word[f"{TRUTH_TEXTS[text]:.0f}"]
        return None


def missing_labels(values: "pd.Series[Any]", marks: Iterable[str], *, words: bool) -> "pd.Series[bool]":
    """Which labels or numbers of a target column are missing: null, empty, a mark, or with `words` a missing word."""
    positions, distinct = distinct_values(values)
    known_marks, absent = frozenset(marks), is_missing_word if words else is_missing_text
    texts = (read_category(value) for value in distinct)
    missing = [text is None or absent(text, known_marks) for text in texts]
    return pd.Series(np.array([*missing, True], dtype=np.bool_)[positions], index=values.index)


def _text(value: Any) -> str | None:
    """A label's text, the same in whatever type it is held."""
    text = read_category(value)
    if text is None:
        return None
    return whole_number(text.strip()) or ("true" if is_truth(value) and value else "false" if is_truth(value) else text)


def _order(label: Label) -> tuple[bool, float, str]:
    return (True, 0.0, label) if isinstance(label, str) else (False, float(label), "")
