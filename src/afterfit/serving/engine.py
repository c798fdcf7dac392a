"""One loaded version: rows in, answers and log entries out; no HTTP, no clock, no disk.

Many answers made together: their JSON from columns at once; a dictionary each only where somebody asks for it.
"""

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, overload

import numpy as np
import orjson

from afterfit.contract.checks import Checked, CheckedRow, note
from afterfit.model.bundle import Bundle, fresh_ids, parts
from afterfit.model.compiled import Compiled, compile_scorer
from afterfit.performance.predictions import Predictions
from afterfit.prediction_log.entries import BatchRecord, LogEntry, fields, list_of, text_of
from afterfit.prediction_log.privacy import NO_REDACTION, LogRedaction

Answer = dict[str, Any]
Column = str | Sequence[str]
"""A piece of each answer's text; a single text where it is the same in all."""
HEAD = '{"prediction_id":"'
NOT_JSON = (orjson.JSONEncodeError, UnicodeError)
BITS = 62
"""Different warnings up to which those of a row are the bits of one machine word."""


class AnswerBatch(Sequence[Answer]):
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
    return answers.text if type(answers) is AnswerBatch else None


def ids_of(answers: Sequence[Answer]) -> Sequence[str]:
    """Their prediction ids."""
    return answers.ids if type(answers) is AnswerBatch else [answer["prediction_id"] for answer in answers]


def named(answers: Sequence[Answer], ids: Sequence[str]) -> Sequence[Answer]:
    """The same answers under other ids."""
    if type(answers) is AnswerBatch:
        return AnswerBatch(answers.bundle, answers.checked, answers.predictions, ids)
    return [answer | {"prediction_id": one} for answer, one in zip(answers, ids, strict=True)]


Row = Mapping[str, Any]
Bodies = Sequence[bytes] | bytes | None
MANY = 64
"""Rows of one form from which they are checked column by column, and logged together."""
MOST = 5_000
"""Rows that are logged together."""
POOL = 256
"""Prediction ids that are made ahead."""
FEW = 12
"""Rows up to which compiled trees answer them one by one."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A bundle made ready to answer quickly. Safe to call from several threads.

    Attributes:
        bundle: what answers.
        compiled: its trees compiled, or None where the estimator itself answers.
        keeping: what of a row the log keeps.
        beside: time and key columns that are no features, and so not held against the contract.
        columns: the contract's columns.
        edges: of the counts of predicted numbers; none for classes.
    """

    bundle: Bundle
    compiled: Compiled | None
    keeping: LogRedaction = NO_REDACTION
    beside: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    edges: tuple[float, ...] = ()

    def answers(self, rows: Sequence[Row]) -> Sequence[Answer]:
        """One answer a row, equal to `Bundle.answer` of it.

        Raises:
            DataError: a row is no mapping.
        """
        if len(rows) <= FEW and self.compiled is not None:
            return [self._single(row, self.compiled) for row in rows]
        if len(rows) >= MANY and set(map(len, rows)) == {len(rows[0])}:
            with suppress(KeyError):
                return self._framed(rows)
        checked = [self._checked(row) for row in rows]
        good = [one for one in checked if not one.errors]
        found = self._predicted(good)
        return [self.bundle.answered({} if one.errors else next(found), one.warnings, one.errors) for one in checked]

    def _framed(self, rows: Sequence[Row]) -> AnswerBatch:
        """Many rows of one form, column by column; a KeyError where they are not of one form."""
        scorer, names, size = self.bundle.scorer, tuple(rows[0]), len(rows)
        taken = (
            zip(*map(itemgetter(*names), rows), strict=True)
            if len(names) > 1
            else ([row[n] for row in rows] for n in names)
        )
        columns = {name: values for name, values in zip(names, taken, strict=True) if name not in self.beside}
        checked = scorer.contract.check_columns(columns, size)
        predictions = (self.compiled or scorer).predict(scorer.encoder.encode_frame(checked))
        return AnswerBatch(self.bundle, checked, predictions)

    def _single(self, row: Row, compiled: Compiled) -> Answer:
        bundle, checked = self.bundle, self._checked(row)
        if checked.errors:
            return bundle.answered({}, checked.warnings, checked.errors)
        part = self._part(compiled.row(bundle.scorer.encoder.encode_row(checked)))
        if part["prediction"] is None:
            return bundle.answered(part, checked.warnings, [])
        return {
            "prediction_id": fresh_id(),
            **part,
            "model_version": bundle.version,
            "warnings": checked.warnings,
            "error": None,
        }

    def _part(self, values: list[float]) -> dict[str, Any]:
        """What `bundle.parts` gives, for one row of a compiled model."""
        scorer = self.bundle.scorer
        classes = scorer.classes
        if classes is None:
            value, (low, high) = values[0], scorer.offsets or (None, None)
            ends = (None if low is None else value + low, None if high is None else value + high)
            known = all(end is None or math.isfinite(end) for end in (value, *ends))
            return {"prediction": value if known else None, "lower": ends[0], "upper": ends[1]}
        known = all(map(math.isfinite, values))
        if len(classes) == 2:
            positive = values[1]
            chosen = 1 if positive >= 0.5 else 0
            label = classes[chosen] if known else None
            return {"prediction": label, "probability": positive, "confidence": values[chosen]}
        chosen = max(range(len(values)), key=values.__getitem__)
        shares = dict(zip(map(str, classes), values, strict=True))
        return {
            "prediction": classes[chosen] if known else None,
            "probabilities": shares,
            "confidence": values[chosen],
        }

    def _checked(self, row: Row) -> CheckedRow:
        if self.beside and not self.beside.isdisjoint(row):
            row = {name: value for name, value in row.items() if name not in self.beside}
        return self.bundle.scorer.contract.check_row(row)

    def _predicted(self, good: Sequence[CheckedRow]) -> Iterator[dict[str, Any]]:
        if not good:
            return iter(())
        scorer = self.bundle.scorer
        matrix = np.array([scorer.encoder.encode_row(one) for one in good])
        return parts((self.compiled or scorer).predict(matrix))

    def entries(
        self,
        rows: Sequence[Row],
        answers: Sequence[Answer],
        time: int,
        seconds: float | None,
        *,
        bodies: Bodies = None,
        shadow: bool = False,
    ) -> list[LogEntry | BatchRecord]:
        """What the log keeps of these answers; many of them as one record.

        Args:
            rows: the rows as received.
            answers: theirs, in that order.
            time: of the answers, microseconds since 1970.
            seconds: from request to answer.
            bodies: the rows as JSON where they came so, one by one or as one text (see `BatchRecord.features`); written
                anew where None or where columns are private.
            shadow: whether nobody got these answers.
        """
        keeping, version = self.keeping, self.bundle.version or ""
        kept = [keeping.features(row) for row in rows] if keeping.private else rows
        texts = None if keeping.private else bodies
        if len(rows) < MANY:
            each = [text_of(row) for row in kept] if texts is None or isinstance(texts, bytes) else texts
            name = keeping.name
            return [
                LogEntry._make(fields(answer, time, version, shadow, name(row), text, seconds))
                for row, text, answer in zip(rows, each, answers, strict=True)
            ]
        found: list[LogEntry | BatchRecord] = []
        for first in range(0, len(rows), MOST):
            some = slice(first, first + MOST)
            whole = len(rows) <= MOST
            given = text_of_all(answers) if whole else None
            if isinstance(texts, bytes):
                features = texts if whole else text_of(kept[some])
            else:
                features = text_of(kept[some]) if texts is None else list_of(texts[some])
            keys = text_of([keeping.name(row) for row in rows[some]]) if keeping.key else None
            size, given = len(rows[some]), given or text_of(answers[some])
            found.append(BatchRecord(size, time, version, shadow, keys, features, given, seconds))
        return found


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


def engine(bundle: Bundle, keeping: LogRedaction = NO_REDACTION, *, compile_trees: bool = True) -> Engine:
    """Make a bundle ready: compile its trees where that gives the same answers.

    Args:
        bundle: the loaded bundle.
        keeping: what of a row the log keeps.
        compile_trees: False leaves the estimator as it is.
    """
    scorer = bundle.scorer
    known = [*keeping.key, *filter(None, [bundle.manifest.time])]
    beside = frozenset(known).difference(scorer.contract.names)
    compiled = None
    if compile_trees:
        rows = [scorer.encoder.encode_row(scorer.contract.check_row(row)) for row in bundle.example]
        compiled = compile_scorer(scorer, np.array(rows).reshape(len(rows), len(scorer.encoder.parts)))
    return Engine(bundle, compiled, keeping, beside, frozenset(scorer.contract.names), _edges(bundle))


def _edges(bundle: Bundle) -> tuple[float, ...]:
    """Where predicted numbers are counted apart: around the dummy's answer, in steps of the interval's width."""
    scorer = bundle.scorer
    if scorer.classes is not None:
        return ()
    middle, (low, high) = scorer.baseline[0], scorer.offsets or (-1.0, 1.0)
    step = (high - low) / 4 or 1.0
    return tuple(middle + step * k for k in range(-6, 7))
