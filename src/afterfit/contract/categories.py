"""Which category a value is, in whatever type a file, a database or a request brings it.

A category is a text. A source with types of its own brings some texts as other things: "1.10" as 1.1, "true" as a truth
value, a day as a time. Each value is first looked up by its own text; only where that is no category, and the value is
no text, by what it stands for: the one category that reads as this number, truth value or moment. Two categories that
read alike ("1.1" and "1.10") cannot be told apart by a number, and then the value is an unseen one.
"""

import math
import re
from collections.abc import Collection, Hashable, Iterable
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from afterfit.contract.datetimes import read_datetime
from afterfit.contract.values import NO_MARKS, TRUTH_WORDS, is_number, is_truth, read_category, read_number

WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?", re.ASCII)
"""A whole number, also as a float is written; no leading zeros, which only a name has."""


def whole_number(text: str) -> str | None:
    """The text of a whole number without a fraction of zeros ("17.0" is "17"); None for any other text."""
    match = WHOLE.fullmatch(text)
    return match[1] if match else None


class CategoryCodes:
    """The codes of a column's categories.

    Attributes:
        texts: the categories.
        code_of: each category's code, its place among them.
    """

    def __init__(self, categories: Iterable[str]) -> None:
        self.texts = tuple(categories)
        self.code_of = {text: code for code, text in enumerate(self.texts)}

    def __len__(self) -> int:
        return len(self.code_of)

    def code(self, value: Any, marks: Collection[str] = NO_MARKS) -> int:
        """The code of a value: -1 where it is missing, the number of categories where it is none of them."""
        text = read_category(value, marks)
        return -1 if text is None else self.code_of_text(value, text)

    def code_of_text(self, value: Any, text: str) -> int:
        """The code of a value that is not missing, with its text as `read_category` gives it."""
        code = self.code_of.get(text)
        if code is None:
            code = self._by_whole_number.get(whole_number(text)) if self._by_whole_number else None
        if code is None and not isinstance(value, str | bytes | bytearray):
            code = self._by_meaning.get(meaning(value, text))
        return len(self.code_of) if code is None else code

    @cached_property
    def _by_whole_number(self) -> dict[str | None, int]:
        """Codes by whole number, where all categories are whole numbers and no two are the same one."""
        codes: dict[str | None, int] = {whole_number(text): code for text, code in self.code_of.items()}
        return codes if None not in codes and len(codes) == len(self.code_of) else {}

    @cached_property
    def _by_meaning(self) -> dict[Hashable, int]:
        """Codes by what the categories stand for; without those that two categories share."""
        codes: dict[Hashable, int] = {}
        shared: set[Hashable] = set()
        for text, code in self.code_of.items():
            for stands_for in meanings(text):
                shared.update({stands_for} & codes.keys())
                codes[stands_for] = code
        return {stands_for: code for stands_for, code in codes.items() if stands_for not in shared}


def meaning(value: Any, text: str) -> Hashable:
    """What a value that is not text stands for: a truth value, a number or a moment; other things for their text."""
    if is_truth(value):
        return ("truth", bool(value))
    if is_number(value):
        return ("number", read_number(value)[0])
    if isinstance(value, date | np.datetime64 | pd.Timestamp):
        return ("moment", read_datetime(value)[0])
    return text


def meanings(text: str) -> Iterable[Hashable]:
    """What a category stands for besides its text, as `meaning` says it of values."""
    word = text.strip().lower()
    if word in TRUTH_WORDS:
        yield ("truth", bool(TRUTH_WORDS[word]))
    if word in {"true", "false"}:  # databases without truth values keep them as 1 and 0
        yield ("number", TRUTH_WORDS[word])
    number, problem = read_number(text)
    if problem is None and not math.isnan(number):
        yield ("number", number)
    moment, problem = read_datetime(text)
    if problem is None and moment is not None:
        yield ("moment", moment)
