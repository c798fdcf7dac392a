"""One loaded version: rows in, answers and log entries out; no HTTP, no clock, no disk."""

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from afterfit.contract.checks import CheckedRow
from afterfit.model.bundle import Bundle, parts
from afterfit.model.compiled import Compiled, compile_scorer
from afterfit.prediction_log.bulk import Bulk, fields, list_of, text_of
from afterfit.prediction_log.spool import Entry
from afterfit.serving.answers import Answers, text_of_all
from afterfit.serving.keeping import NOTHING, Keeping

Row = Mapping[str, Any]
Answer = dict[str, Any]
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
    keeping: Keeping = NOTHING
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

    def _framed(self, rows: Sequence[Row]) -> Answers:
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
        return Answers(self.bundle, checked, predictions)

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
    ) -> list[Entry | Bulk]:
        """What the log keeps of these answers; many of them as one record.

        Args:
            rows: the rows as received.
            answers: theirs, in that order.
            time: of the answers, microseconds since 1970.
            seconds: from request to answer.
            bodies: the rows as JSON where they came so, one by one or as one text (see `Bulk.features`); written anew
                where None or where columns are private.
            shadow: whether nobody got these answers.
        """
        keeping, version = self.keeping, self.bundle.version or ""
        kept = [keeping.features(row) for row in rows] if keeping.private else rows
        texts = None if keeping.private else bodies
        if len(rows) < MANY:
            each = [text_of(row) for row in kept] if texts is None or isinstance(texts, bytes) else texts
            name = keeping.name
            return [
                Entry._make(fields(answer, time, version, shadow, name(row), text, seconds))
                for row, text, answer in zip(rows, each, answers, strict=True)
            ]
        found: list[Entry | Bulk] = []
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
            found.append(Bulk(size, time, version, shadow, keys, features, given, seconds))
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


def engine(bundle: Bundle, keeping: Keeping = NOTHING, *, compile_trees: bool = True) -> Engine:
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
