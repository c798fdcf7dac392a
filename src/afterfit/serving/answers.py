"""Many answers made together: their JSON from columns at once; a dictionary each only where somebody asks for it."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import orjson

from afterfit.contract.checks import Checked, note
from afterfit.model.bundle import Bundle, fresh_ids
from afterfit.performance.predictions import Predictions

Answer = dict[str, Any]
Column = str | Sequence[str]
"""A piece of each answer's text; a single text where it is the same in all."""
HEAD = '{"prediction_id":"'
NOT_JSON = (orjson.JSONEncodeError, UnicodeError)
BITS = 62
"""Different warnings up to which those of a row are the bits of one machine word."""


class Answers(Sequence[Answer]):
    """Answers to rows of one form; their ids stay the same however they are looked at.

    Attributes:
        bundle: what answered.
        checked: the rows held against the contract.
        predictions: of all rows; arbitrary in those with an error.
        ids: the prediction ids.
    """

    __slots__ = ("_listed", "_text", "bundle", "checked", "ids", "predictions")

    def __init__(
        self, bundle: Bundle, checked: Checked, predictions: Predictions, ids: Sequence[str] | None = None
    ) -> None:
        self.bundle, self.checked, self.predictions = bundle, checked, predictions
        self.ids = fresh_ids(checked.size) if ids is None else ids
        self._listed: list[Answer] | None = None
        self._text: bytes | None = None

    def __len__(self) -> int:
        return self.checked.size

    @overload
    def __getitem__(self, at: int) -> Answer: ...
    @overload
    def __getitem__(self, at: slice) -> list[Answer]: ...
    def __getitem__(self, at: int | slice) -> Answer | list[Answer]:
        return self.listed[at]

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.listed)

    @property
    def listed(self) -> list[Answer]:
        """A dictionary an answer."""
        if self._listed is None:
            self._listed = list(self.bundle.answered_frame(self.checked, self.predictions, self.ids))
        return self._listed

    @property
    def text(self) -> bytes | None:
        """JSON list of them; None where it takes more than orjson, as for half a surrogate pair."""
        if self._text is None:
            try:
                self._text = self._written()
            except NOT_JSON:
                return None
        return self._text

    def _written(self) -> bytes:
        """What orjson writes of the list, byte for byte."""
        middle = _numbers(self.predictions)
        if middle is None or not self.checked.size:
            return orjson.dumps(self.listed)
        ends = f',"model_version":{_json(self.bundle.version)},"warnings":[', f'],"error":null}},{HEAD}'
        pieces = _woven([self.ids, '","prediction":', *middle, ends[0], _warnings(self.checked), ends[1]], len(self))
        width = len(pieces) // len(self)
        odd = np.flatnonzero(self.checked.bad | ~self.predictions.finite).tolist()
        if odd:
            found = self.bundle.answered_frame(self.checked, self.predictions, self.ids, odd)
            for row, answer in zip(odd, found, strict=True):
                pieces[row * width : (row + 1) * width] = [""] * width
                pieces[row * width] = f"{_json(answer)[len(HEAD) :]},{HEAD}"
        pieces[0] = f"[{HEAD}{pieces[0]}"
        pieces[-width:] = ["".join(pieces[-width:])[: -len(HEAD) - 1], "]"]
        return "".join(pieces).encode()


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _column(values: Any) -> list[str]:
    """JSON of (n,) numbers, one by one."""
    return _json(values.tolist())[1:-1].split(",")


def _woven(columns: Sequence[Column], rows: int) -> list[str]:
    """The texts of all columns, row after row."""
    width = len(columns)
    pieces = [""] * (width * rows)
    for at, column in enumerate(columns):
        pieces[at::width] = [column] * rows if isinstance(column, str) else column
    return pieces


def _numbers(predictions: Predictions) -> list[Column] | None:
    """Between `"prediction":` and the version; None where two classes are called the same in JSON."""
    classes, table, sure = predictions.classes, predictions.probabilities, predictions.confidence
    if classes is None or table is None or sure is None:
        ends = [(name, getattr(predictions, name)) for name in ("lower", "upper")]
        found: list[Column] = [_column(predictions.prediction)]
        for name, values in ends:
            found += [f',"{name}":', "null" if values is None else _column(values)]
        return found
    binary = len(classes) == 2
    names = [_json(str(label)) for label in classes]
    if len(set(names)) < len(names) and not binary:
        return None
    after = ',"probability":' if binary else f',"probabilities":{{{names[0]}:'
    labels = [_json(label) + after for label in classes]
    found = [[labels[place] for place in predictions.prediction.tolist()]]
    if binary:
        return [*found, _column(table[:, 1]), ',"confidence":', _column(sure)]
    found += [_column(table[:, 0])]
    for place, name in enumerate(names[1:], start=1):
        found += [f",{name}:", _column(table[:, place])]
    return [*found, '},"confidence":', _column(sure)]


def _warnings(checked: Checked) -> Column:
    """Each row's warnings, without the brackets around them."""
    issues = [issue for issue in checked.issues if not issue.error]
    unknown = [_json(one) for one in checked.unknown]
    if not issues:
        return ",".join(unknown)
    marks: Any = np.zeros(checked.size, dtype=np.int64 if len(issues) <= BITS else object)
    texts: list[str | dict[int, str]] = []
    single = 0
    for bit, issue in enumerate(issues):
        marks[issue.rows] |= 1 << bit
        if issue.alike:
            texts.append(_json(note(issue.column, issue.code, None, error=False)))
        else:
            single |= 1 << bit
            texts.append(dict(zip(issue.rows.tolist(), map(_json, issue.notes()), strict=True)))

    def joined(row: int, mark: int) -> str:
        some = (text for bit, text in enumerate(texts) if mark >> bit & 1)
        return ",".join([*(text[row] if isinstance(text, dict) else text for text in some), *unknown])

    listed = marks.tolist()
    made = {mark: joined(0, mark) for mark in set(listed) if not mark & single}
    if not single:
        return [*map(made.__getitem__, listed)]
    return [joined(row, mark) if mark & single else made[mark] for row, mark in enumerate(listed)]


def text_of_all(answers: Any) -> bytes | None:
    """The text of answers that were made together; None of others."""
    return answers.text if type(answers) is Answers else None


def ids_of(answers: Sequence[Answer]) -> Sequence[str]:
    """Their prediction ids."""
    return answers.ids if type(answers) is Answers else [answer["prediction_id"] for answer in answers]


def named(answers: Sequence[Answer], ids: Sequence[str]) -> Sequence[Answer]:
    """The same answers under other ids."""
    if type(answers) is Answers:
        return Answers(answers.bundle, answers.checked, answers.predictions, ids)
    return [answer | {"prediction_id": one} for answer, one in zip(answers, ids, strict=True)]
