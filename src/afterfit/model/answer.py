"""An answer: what a row gets back. Both servers, scored batches and the prediction log have its form from here."""

import json
import math
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import orjson

from afterfit.contract.checks import Note
from afterfit.performance.predictions import Predictions, Task

NUMBERS: dict[Task, tuple[str, str]] = {
    "binary": ("probability", "confidence"),
    "multiclass": ("probabilities", "confidence"),
    "regression": ("lower", "upper"),
}
"""The two keys that stand behind `prediction`, by task.

Exactly two. `numbers_of` and `json_values` give two columns, `answers_of` takes them, and `Answer.to_dict`, `keys`,
`AnswerBatch.to_dicts` and `answer_batch._woven_numbers` write two keys: to build the dictionaries in a loop over keys
takes two to four times as long. A third key of one task needs a branch in the last four.
"""
NO_NUMBER: Note = {"column": None, "code": "no_number", "value": None, "message": "The model answered no number."}
NOT_JSON = (orjson.JSONEncodeError, UnicodeError)
"""What orjson raises of an integer beyond 64 bits, or of half a surrogate pair."""
MOST_SENTENCES = 20
"""Errors of a row that are told; the rest is counted."""
POOL = 256
"""Prediction ids that are made ahead."""
_PLACES = tuple(f"{place:04x}" for place in range(1024))


class Answer(NamedTuple):
    """The answer to one row.

    The fields stand in the order of the JSON form. Of the numbers, that form has the two of the task (`NUMBERS`). It is
    a NamedTuple because every served row makes one, and a frozen dataclass takes five times as long.

    Attributes:
        prediction_id: 32 hex digits, by which an outcome may come.
        prediction: a class label or a number; None with an error.
        probability: of the second of two classes.
        probabilities: of each of several classes, by its name.
        lower: lower end of the 90 % interval of a regression, or None where it has none.
        upper: upper end of it.
        confidence: probability of the predicted class.
        model_version: the registry version that answered, or None.
        warnings: in the contract's order of columns; those about unknown columns come last.
        error: the row's first error, with a sentence for each of its errors, or None.
        task: which kind of model answered.
    """

    prediction_id: str
    prediction: Any
    probability: float | None
    probabilities: Mapping[str, float] | None
    lower: float | None
    upper: float | None
    confidence: float | None
    model_version: str | None
    warnings: list[Note]
    error: Note | None
    task: Task

    def to_dict(self) -> dict[str, Any]:
        """The form that users and MLflow get: keys in the order of the JSON."""
        # by place, which takes half as long as by name: the first two fields and the last four
        first_key, first_place, second_key, second_place = _NUMBER_PLACES[self[-1]]
        return {
            "prediction_id": self[0],
            "prediction": self[1],
            first_key: self[first_place],
            second_key: self[second_place],
            "model_version": self[-4],
            "warnings": self[-3],
            "error": self[-2],
        }

    def to_json(self) -> bytes:
        """The JSON form, in UTF-8 and without spaces."""
        return encode_json(self.to_dict())


_answer_from_tuple = partial(
    tuple.__new__, Answer
)  # half the time of a call by position; the number of fields is not checked
_NO_NUMBERS = (None,) * len(Answer._fields[2 : Answer._fields.index("model_version")])
_NUMBER_PLACES = {
    task: (first, Answer._fields.index(first), second, Answer._fields.index(second))
    for task, (first, second) in NUMBERS.items()
}


def keys(task: Task) -> tuple[str, ...]:
    """The keys of an answer's JSON form, in their order."""
    return ("prediction_id", "prediction", *NUMBERS[task], "model_version", "warnings", "error")


def task_of(classes: Sequence[Any] | None) -> Task:
    """The task of a model with these classes, or with none."""
    return "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"


def refused_answer(task: Task, version: str | None, warnings: list[Note], error: Note, prediction_id: str) -> Answer:
    """The answer to a row that gets an error in place of a prediction."""
    return _answer_from_tuple((prediction_id, None, *_NO_NUMBERS, version, warnings, error, task))


def whole_error(errors: Sequence[Note]) -> Note:
    """A row's errors as the one that its answer has: the first of them, with the sentences of all."""
    if len(errors) == 1:
        return errors[0]
    sentences = [error["message"] for error in errors[:MOST_SENTENCES]]
    if len(errors) > MOST_SENTENCES:
        sentences.append(f"{len(errors) - MOST_SENTENCES} more columns have an error.")
    return {**errors[0], "message": " ".join(sentences)}


def answer_of_number(
    value: float, offsets: tuple[float, float] | None, version: str | None, warnings: list[Note]
) -> Answer:
    """The answer to one row of a regression, with its interval where the model has one; equal to `answers_of`."""
    lower, upper = (None, None) if offsets is None else (value + offsets[0], value + offsets[1])
    if not all(number is None or math.isfinite(number) for number in (value, lower, upper)):
        return refused_answer("regression", version, warnings, NO_NUMBER.copy(), fresh_id())
    numbers = (None, None, lower, upper, None)
    return _answer_from_tuple((fresh_id(), value, *numbers, version, warnings, None, "regression"))


def answer_of_shares(
    shares: Sequence[float], classes: Sequence[Any], version: str | None, warnings: list[Note]
) -> Answer:
    """The answer to one row from the k probabilities of its classes; equal to `answers_of`."""
    if not all(map(math.isfinite, shares)):
        return refused_answer(task_of(classes), version, warnings, NO_NUMBER.copy(), fresh_id())
    if len(classes) == 2:
        positive = shares[1]
        chosen = 1 if positive >= 0.5 else 0
        numbers: tuple[Any, ...] = (positive, None, None, None, shares[chosen])
        return _answer_from_tuple((fresh_id(), classes[chosen], *numbers, version, warnings, None, "binary"))
    chosen = max(range(len(shares)), key=shares.__getitem__)
    shares_by_name = dict(zip(map(str, classes), shares, strict=True))
    numbers = (None, shares_by_name, None, None, shares[chosen])
    return _answer_from_tuple((fresh_id(), classes[chosen], *numbers, version, warnings, None, "multiclass"))


def answers_of(
    predictions: Predictions, version: str | None, warnings: Iterable[list[Note]], ids: Sequence[str]
) -> list[Answer]:
    """The answers to n rows without errors; where a row's numbers are not finite the model answered none.

    Args:
        predictions: of the n rows.
        version: the registry version that answered, or None.
        warnings: the n rows' warnings.
        ids: the n prediction ids.
    """
    task = predictions.task
    labels, first_numbers, second_numbers = json_values(predictions)
    first_key, second_key = NUMBERS[task]
    columns: dict[str, Any] = dict.fromkeys(Answer._fields, repeat(None))
    columns |= {"prediction_id": ids, "prediction": labels, first_key: first_numbers, second_key: second_numbers}
    columns |= {"model_version": repeat(version), "warnings": warnings, "task": repeat(task)}
    answers = list(map(_answer_from_tuple, zip(*columns.values(), strict=False)))  # what is repeated has no end
    for row in np.flatnonzero(~predictions.finite).tolist():
        answers[row] = refused_answer(task, version, answers[row].warnings, NO_NUMBER.copy(), ids[row])
    return answers


def json_values(predictions: Predictions) -> tuple[Iterable[Any], Iterable[Any], Iterable[Any]]:
    """The predictions of n rows and their two numbers (`NUMBERS`) as JSON has them, one by one."""
    classes, labels = predictions.classes, predictions.prediction.tolist()
    missing: list[Any] = [None] * len(labels)
    first_numbers, second_numbers = (
        missing if values is None else values.tolist() for values in numbers_of(predictions)
    )
    if classes is None:
        return labels, first_numbers, second_numbers
    if len(classes) > 2:
        names = [str(label) for label in classes]
        first_numbers = [dict(zip(names, row, strict=True)) for row in first_numbers]
    return [classes[place] for place in labels], first_numbers, second_numbers


def numbers_of(predictions: Predictions) -> tuple[Any, Any]:
    """The columns called `NUMBERS`: (n,) numbers, (n, k) for `probabilities`; None where a regression has no ends."""
    if predictions.classes is None:
        return predictions.lower, predictions.upper
    table = np.asarray(predictions.probabilities)
    return table[:, 1] if len(predictions.classes) == 2 else table, predictions.confidence


def encode_json(content: Any) -> bytes:
    """JSON in UTF-8 and without spaces; numbers that are not finite become null."""
    try:
        return orjson.dumps(content)
    except NOT_JSON:  # as warnings may repeat them
        return json.dumps(_finite(content), separators=(",", ":")).encode()


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content if isinstance(content, str | int | bool | None) else str(content)


_ids: deque[str] = deque()
os.register_at_fork(after_in_child=_ids.clear)  # two processes must not give the same ids


def fresh_id() -> str:
    """A new prediction id; the system is asked for many at once."""
    try:
        return _ids.pop()
    except IndexError:
        text = os.urandom(16 * POOL).hex()
        _ids.extend([text[start : start + 32] for start in range(0, len(text), 32)])
        return fresh_id()


def fresh_ids(count: int) -> list[str]:
    """New prediction ids: 112 random bits that up to 1,024 answers share, which the log packs, and each one's place."""
    ids: list[str] = []
    for first in range(0, count, len(_PLACES)):
        shared = os.urandom(14).hex()
        ids += [shared + place for place in _PLACES[: count - first]]
    return ids
