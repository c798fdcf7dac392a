"""One loaded version: rows in, answers and log entries out; no HTTP, no clock, no disk."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from afterfit.contract.checks import CheckedRow
from afterfit.model.answer import (
    Answer,
    answer_of_number,
    answer_of_shares,
    answers_of,
    fresh_id,
    refused_answer,
    task_of,
    whole_error,
)
from afterfit.model.answer_batch import AnswerBatch, json_list
from afterfit.model.bundle import Bundle
from afterfit.model.compiled import Compiled, compile_scorer
from afterfit.prediction_log.entries import BatchRecord, LogEntry, list_of, record_of, text_of, unfolded_bytes
from afterfit.prediction_log.privacy import NO_REDACTION, LogRedaction

Row = Mapping[str, Any]
Bodies = Sequence[bytes] | bytes | None
FEWEST_FOR_COLUMNS = 64
"""Rows of one form from which they are checked column by column, and logged together."""
MOST = 5_000
"""Rows that are logged together."""
MOST_BYTES = 2**25
"""Bytes that their names and values take together, about."""
FEW = 12
"""Rows up to which compiled trees answer them one by one."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A bundle made ready to answer quickly. Safe to call from several threads.

    Attributes:
        bundle: what answers.
        compiled: its trees compiled, or None where the estimator itself answers.
        redaction: what of a row the log keeps.
        beside: target, time, key and ignored columns that are no features, and so not held against the contract.
        columns: the contract's columns.
        edges: of the counts of predicted numbers; none for classes.
    """

    bundle: Bundle
    compiled: Compiled | None
    redaction: LogRedaction = NO_REDACTION
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
        if len(rows) >= FEWEST_FOR_COLUMNS and set(map(len, rows)) == {len(rows[0])}:
            with suppress(KeyError):
                return self._framed(rows)
        checked = [self._checked(row, suggests=at < FEWEST_FOR_COLUMNS) for at, row in enumerate(rows)]
        predicted = iter(self._predicted([row for row in checked if not row.errors]))
        return [self._refused(row) if row.errors else next(predicted) for row in checked]

    def _framed(self, rows: Sequence[Row]) -> AnswerBatch:
        """Answers to many rows with the same columns; a KeyError where their columns differ."""
        scorer, names, size = self.bundle.scorer, tuple(rows[0]), len(rows)
        taken = (
            zip(*map(itemgetter(*names), rows), strict=True)
            if len(names) > 1
            else ([row[n] for row in rows] for n in names)
        )
        columns = {name: values for name, values in zip(names, taken, strict=True) if name not in self.beside}
        checked = scorer.contract.check_columns(columns, size)
        predictions = (self.compiled or scorer).predict(scorer.encoder.encode_frame(checked))
        return AnswerBatch(self.bundle.version, checked, predictions)

    def _single(self, row: Row, compiled: Compiled) -> Answer:
        scorer, version, checked = self.bundle.scorer, self.bundle.version, self._checked(row)
        if checked.errors:
            return self._refused(checked)
        values = compiled.row(scorer.encoder.encode_row(checked))
        if scorer.classes is None:
            return answer_of_number(values[0], scorer.offsets, version, checked.warnings)
        return answer_of_shares(values, scorer.classes, version, checked.warnings)

    def _refused(self, row: CheckedRow) -> Answer:
        task = task_of(self.bundle.scorer.classes)
        return refused_answer(task, self.bundle.version, row.warnings, whole_error(row.errors), fresh_id())

    def _checked(self, row: Row, *, suggests: bool = True) -> CheckedRow:
        if self.beside and not self.beside.isdisjoint(row):
            row = {name: value for name, value in row.items() if name not in self.beside}
        return self.bundle.scorer.contract.check_row(row, suggests=suggests)

    def _predicted(self, rows: Sequence[CheckedRow]) -> list[Answer]:
        """Answers to rows without errors."""
        if not rows:
            return []
        scorer = self.bundle.scorer
        predictions = (self.compiled or scorer).predict(np.array([scorer.encoder.encode_row(row) for row in rows]))
        return answers_of(predictions, self.bundle.version, [row.warnings for row in rows], [fresh_id() for _ in rows])

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
            bodies: the rows as JSON where they came so, one by one or as one text (see `BatchRecord.features`). They
                are written anew where None, or where columns are private.
            shadow: whether nobody got these answers.
        """
        redaction, version = self.redaction, self.bundle.version or ""
        logged_rows = [redaction.features(row) for row in rows] if redaction.private else rows
        texts = None if redaction.private else bodies
        if len(rows) < FEWEST_FOR_COLUMNS:
            row_texts = [text_of(row) for row in logged_rows] if texts is None or isinstance(texts, bytes) else texts
            name = redaction.name
            return [
                LogEntry._make(record_of(answer, time, version, shadow, name(row), text, seconds))
                for row, text, answer in zip(rows, row_texts, answers, strict=True)
            ]
        records: list[LogEntry | BatchRecord] = []
        most = MOST if isinstance(texts, bytes) else _rows_together(rows[0])
        for first in range(0, len(rows), most):
            chunk = slice(first, first + most)
            whole = len(rows) <= most
            if isinstance(texts, bytes):
                features = texts if whole else text_of(logged_rows[chunk])
            else:
                features = text_of(logged_rows[chunk]) if texts is None else list_of(texts[chunk])
            keys = text_of([redaction.name(row) for row in rows[chunk]]) if redaction.key else None
            size, answers_text = len(rows[chunk]), json_list(answers if whole else answers[chunk])
            records.append(BatchRecord(size, time, version, shadow, keys, features, answers_text, seconds))
        return records


def _rows_together(row: Row) -> int:
    """Rows that are logged as one record, where each has the names of this one."""
    return max(1, min(MOST, MOST_BYTES // (1 + unfolded_bytes(row, 1))))


def engine(bundle: Bundle, redaction: LogRedaction = NO_REDACTION, *, compile_trees: bool = True) -> Engine:
    """Make a bundle ready: compile its trees where that gives the same answers.

    Args:
        bundle: the loaded bundle.
        redaction: what of a row the log keeps.
        compile_trees: False leaves the estimator as it is.
    """
    scorer = bundle.scorer
    beside = bundle.beside.union(redaction.key, redaction.aside).difference(scorer.contract.names)
    compiled = None
    if compile_trees:
        rows = [scorer.encoder.encode_row(scorer.contract.check_row(row)) for row in bundle.example]
        compiled = compile_scorer(scorer, np.array(rows).reshape(len(rows), len(scorer.encoder.parts)))
    return Engine(bundle, compiled, redaction, beside, frozenset(scorer.contract.names), _edges(bundle))


def _edges(bundle: Bundle) -> tuple[float, ...]:
    """Where predicted numbers are counted apart: around the dummy's answer, in steps of the interval's width."""
    scorer = bundle.scorer
    if scorer.classes is not None:
        return ()
    middle, (low, high) = scorer.baseline[0], scorer.offsets or (-1.0, 1.0)
    step = (high - low) / 4 or 1.0
    return tuple(middle + step * k for k in range(-6, 7))
