"""Answers that were made together, kept as columns: their JSON is woven from columns at once.

The text is what `Answer.to_json` gives for each of them, byte for byte; it takes a fifth of the time.
"""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import orjson

from afterfit.contract.checks import Checked, Note, make_note
from afterfit.model.answer import (
    NOT_JSON,
    NUMBERS,
    Answer,
    answers_of,
    fresh_ids,
    json_values,
    numbers_of,
    refused_answer,
    whole_error,
)
from afterfit.performance.predictions import Predictions

Column = str | Sequence[str]
"""A piece of each answer's text; a single text where it is the same in all."""
HEAD = b'{"prediction_id":"'
BETWEEN = b"," + HEAD
BITS = 62
"""Different warnings up to which those of a row are the bits of one machine word."""


class AnswerBatch(Sequence[Answer]):
    """Answers to n rows that were checked and predicted together; their ids stay the same however they are looked at.

    Attributes:
        version: the registry version that answered, or None.
        checked: the rows held against the contract.
        predictions: of all rows; arbitrary in those with an error.
        ids: the prediction ids.
    """

    __slots__ = ("_answers", "_json", "_json_after_head", "checked", "ids", "predictions", "version")

    def __init__(
        self, version: str | None, checked: Checked, predictions: Predictions, ids: Sequence[str] | None = None
    ) -> None:
        self.version, self.checked, self.predictions = version, checked, predictions
        self.ids = fresh_ids(checked.size) if ids is None else ids
        self._answers: list[Answer] | None = None
        self._json: bytes | None = None
        self._json_after_head: list[bytes] | None = None

    def __len__(self) -> int:
        return self.checked.size

    @overload
    def __getitem__(self, at: int) -> Answer: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Answer]: ...
    def __getitem__(self, at: int | slice) -> Answer | Sequence[Answer]:
        if type(at) is not slice or at.step is not None:
            return self.answers[at]
        start, stop, _ = at.indices(self.checked.size)
        return AnswerSlice(self, start, stop)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    @property
    def answers(self) -> list[Answer]:
        """The n answers one by one."""
        if self._answers is None:
            self._answers = self._of_rows(range(len(self)), self.predictions, self.ids)
        return self._answers

    def to_dicts(self) -> list[dict[str, Any]]:
        """What `Answer.to_dict` gives for each; from columns, which takes half the time."""
        (first_key, second_key), version = NUMBERS[self.predictions.task], self.version
        columns = self.ids, *json_values(self.predictions), self._warnings(range(len(self)))
        dicts = [
            {
                "prediction_id": identity,
                "prediction": prediction,
                first_key: first_number,
                second_key: second_number,
                "model_version": version,
                "warnings": warnings,
                "error": None,
            }
            for identity, prediction, first_number, second_number, warnings in zip(*columns, strict=True)
        ]
        for row, answer in self._without_prediction():
            dicts[row] = answer.to_dict()
        return dicts

    def to_json(self) -> bytes:
        """The JSON list of them."""
        if self._json is None:
            try:
                self._json = self._woven()
            except NOT_JSON:
                self._json = json_list(self.answers)
        return self._json

    @property
    def json_after_head(self) -> list[bytes]:
        """The JSON of each without its `HEAD`."""
        if self._json_after_head is None:
            # `BETWEEN` stands nowhere inside: a text has its quotes escaped, and no other list has such objects
            self._json_after_head = self.to_json()[1 + len(HEAD) : -1].split(BETWEEN) if len(self) else []
        return self._json_after_head

    def _woven(self) -> bytes:
        numbers = _woven_numbers(self.predictions)
        if numbers is None or not self.checked.size:
            return json_list(self.answers)
        close, after = f',"model_version":{_text(self.version)},"warnings":[', f'],"error":null}}{BETWEEN.decode()}'
        columns = [self.ids, '","prediction":', *numbers, close, _warnings(self.checked), after]
        pieces, width = _interleaved(columns, len(self)), len(columns)
        for row, answer in self._without_prediction():
            pieces[row * width : (row + 1) * width] = [""] * width
            pieces[row * width] = _text(answer.to_dict())[len(HEAD) :] + BETWEEN.decode()
        pieces[0] = f"[{HEAD.decode()}{pieces[0]}"
        pieces[-width:] = ["".join(pieces[-width:])[: -len(BETWEEN)], "]"]
        return "".join(pieces).encode()

    def _without_prediction(self) -> Iterator[tuple[int, Answer]]:
        """The rows that get an error in place of a prediction, and their answers."""
        rows = np.flatnonzero(self.checked.bad | ~self.predictions.finite)
        if len(rows):
            places = rows.tolist()
            ids = [self.ids[row] for row in places]
            yield from zip(places, self._of_rows(places, self.predictions.take(rows), ids), strict=True)

    def _of_rows(self, rows: Sequence[int], predictions: Predictions, ids: Sequence[str]) -> list[Answer]:
        """The answers to these rows, which have these predictions and ids."""
        answers = answers_of(predictions, self.version, self._warnings(rows), ids)
        errors = self.checked.errors_by_row()
        for place, row in enumerate(rows) if errors else ():
            if row in errors:
                warnings = answers[place].warnings
                answers[place] = refused_answer(
                    predictions.task, self.version, warnings, whole_error(errors[row]), ids[place]
                )
        return answers

    def _warnings(self, rows: Sequence[int]) -> list[list[Note]]:
        """The warnings of these rows."""
        by_row, unknown = self.checked.warnings_by_row(), self.checked.unknown
        if unknown:
            return [[*by_row.get(row, ()), *(warning.copy() for warning in unknown)] for row in rows]
        return [by_row.get(row) or [] for row in rows]


class AnswerSlice(Sequence[Answer]):
    """Some answers of a batch that follow one another, such as those to one of its requests."""

    __slots__ = ("_batch", "_start", "_stop")

    def __init__(self, batch: AnswerBatch, start: int, stop: int) -> None:
        self._batch, self._start, self._stop = batch, start, stop

    def __len__(self) -> int:
        return max(self._stop - self._start, 0)

    @overload
    def __getitem__(self, at: int) -> Answer: ...
    @overload
    def __getitem__(self, at: slice) -> list[Answer]: ...
    def __getitem__(self, at: int | slice) -> Answer | list[Answer]:
        return self._batch.answers[self._start : self._stop][at]

    def to_json(self) -> bytes:
        """The JSON list of them."""
        texts = self._batch.json_after_head[self._start : self._stop]
        return b"[" + HEAD + BETWEEN.join(texts) + b"]" if texts else b"[]"

    def first_to_json(self) -> bytes:
        """The JSON of the first of them."""
        return HEAD + self._batch.json_after_head[self._start]


def to_dicts(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The dictionaries of answers, however they were made."""
    return answers.to_dicts() if type(answers) is AnswerBatch else [answer.to_dict() for answer in answers]


def json_list(answers: Sequence[Answer]) -> bytes:
    """The JSON list of answers, however they were made."""
    if isinstance(answers, (AnswerBatch, AnswerSlice)):
        return answers.to_json()
    try:
        return orjson.dumps([answer.to_dict() for answer in answers])
    except NOT_JSON:  # only those that hold such a value take the long way
        return b"[" + b",".join([answer.to_json() for answer in answers]) + b"]"


def json_of_single(answers: Sequence[Answer]) -> bytes:
    """The JSON of the only one of some answers."""
    return answers.first_to_json() if type(answers) is AnswerSlice else answers[0].to_json()


def prediction_ids(answers: Sequence[Answer]) -> Sequence[str]:
    """Their prediction ids."""
    return answers.ids if type(answers) is AnswerBatch else [answer.prediction_id for answer in answers]


def with_ids(answers: Sequence[Answer], ids: Sequence[str]) -> Sequence[Answer]:
    """The same answers under other ids."""
    if type(answers) is AnswerBatch:
        return AnswerBatch(answers.version, answers.checked, answers.predictions, ids)
    return [answer._replace(prediction_id=name) for answer, name in zip(answers, ids, strict=True)]


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _column(values: Any) -> list[str]:
    """JSON of (n,) numbers, one by one."""
    return _text(values.tolist())[1:-1].split(",")


def _interleaved(columns: Sequence[Column], rows: int) -> list[str]:
    """The texts of all columns, row after row."""
    width = len(columns)
    pieces = [""] * (width * rows)
    for at, column in enumerate(columns):
        pieces[at::width] = [column] * rows if isinstance(column, str) else column
    return pieces


def _woven_numbers(predictions: Predictions) -> list[Column] | None:
    """The texts between `"prediction":` and the version; None where two classes are called the same in JSON."""
    task, classes = predictions.task, predictions.classes
    first_key, second_key = NUMBERS[task]
    first_numbers, second_numbers = numbers_of(predictions)
    if classes is None:
        columns: list[Column] = [_column(predictions.prediction)]
        for name, values in ((first_key, first_numbers), (second_key, second_numbers)):
            columns += [f',"{name}":', "null" if values is None else _column(values)]
        return columns
    names = [_text(str(label)) for label in classes]
    if len(set(names)) < len(names) and task == "multiclass":
        return None
    before_first = f',"{first_key}":' + (f"{{{names[0]}:" if task == "multiclass" else "")
    before_second = f',"{second_key}":'
    labels = [_text(label) + before_first for label in classes]
    columns = [[labels[place] for place in predictions.prediction.tolist()]]
    if task == "binary":
        return [*columns, _column(first_numbers), before_second, _column(second_numbers)]
    columns += [_column(first_numbers[:, 0])]
    for place, name in enumerate(names[1:], start=1):
        columns += [f",{name}:", _column(first_numbers[:, place])]
    return [*columns, "}" + before_second, _column(second_numbers)]


def _warnings(checked: Checked) -> Column:
    """Each row's warnings, without the brackets around them."""
    issues = [issue for issue in checked.issues if not issue.error]
    unknown = [_text(warning) for warning in checked.unknown]
    if not issues:
        return ",".join(unknown)
    marks: Any = np.zeros(checked.size, dtype=np.int64 if len(issues) <= BITS else object)
    texts: list[str | dict[int, str]] = []
    single = 0
    for bit, issue in enumerate(issues):
        marks[issue.rows] |= 1 << bit
        if issue.alike:
            texts.append(_text(make_note(issue.column, issue.code, None, error=False)))
        else:
            single |= 1 << bit
            texts.append(dict(zip(issue.rows.tolist(), map(_text, issue.notes()), strict=True)))

    def joined(row: int, mark: int) -> str:
        some = (text for bit, text in enumerate(texts) if mark >> bit & 1)
        return ",".join([*(text[row] if isinstance(text, dict) else text for text in some), *unknown])

    mark_by_row = marks.tolist()
    shared = {mark: joined(0, mark) for mark in set(mark_by_row) if not mark & single}
    if not single:
        return [*map(shared.__getitem__, mark_by_row)]
    return [joined(row, mark) if mark & single else shared[mark] for row, mark in enumerate(mark_by_row)]
