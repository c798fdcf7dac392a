"""One loaded version: rows in, answers and log entries out; no HTTP, no clock, no disk."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pandas as pd

from afterfit.bundle import Bundle, parts
from afterfit.checks import CheckedRow
from afterfit.compiled import Compiled, compile_scorer
from afterfit.serving.keeping import NOTHING, Keeping
from afterfit.spool import Entry

Row = Mapping[str, Any]
Answer = dict[str, Any]
MANY = 64
"""Rows of one form from which they are checked column by column."""
DUMP = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Engine:
    """A bundle made ready to answer quickly. Safe to call from several threads.

    Attributes:
        bundle: what answers.
        compiled: its trees compiled, or None where the estimator itself answers.
        keeping: what of a row the log keeps.
        beside: key columns that are no features, and so not held against the contract.
        columns: the contract's columns.
        edges: of the counts of predicted numbers; none for classes.
    """

    bundle: Bundle
    compiled: Compiled | None
    keeping: Keeping = NOTHING
    beside: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    edges: tuple[float, ...] = ()

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer a row, equal to `Bundle.answer` of it.

        Raises:
            DataError: a row is no mapping.
        """
        if len(rows) == 1 and self.compiled is not None:
            return [self._single(rows[0], self.compiled)]
        if len(rows) >= MANY and all(row.keys() == rows[0].keys() for row in rows):
            return self._framed(rows)
        checked = [self._checked(row) for row in rows]
        good = [one for one in checked if not one.errors]
        found = self._predicted(good)
        return [self.bundle.answered({} if one.errors else next(found), one.warnings, one.errors) for one in checked]

    def _framed(self, rows: Sequence[Row]) -> list[Answer]:
        """Many rows of one form, column by column."""
        scorer = self.bundle.scorer
        columns = {}
        for name in rows[0]:
            if name not in self.beside:
                columns[name] = values = np.empty(len(rows), dtype=object)
                values[:] = [row[name] for row in rows]
        checked = scorer.contract.check_frame(pd.DataFrame(columns, index=range(len(rows)), dtype=object))
        predictions = (self.compiled or scorer).predict(scorer.encoder.encode_frame(checked))
        return list(self.bundle.answered_frame(checked, predictions))

    def _single(self, row: Row, compiled: Compiled) -> Answer:
        bundle, checked = self.bundle, self._checked(row)
        if checked.errors:
            return bundle.answered({}, checked.warnings, checked.errors)
        values = compiled.row(bundle.scorer.encoder.encode_row(checked))
        return bundle.answered(self._part(values), checked.warnings, [])

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
        bodies: Sequence[bytes] | None = None,
        shadow: bool = False,
    ) -> list[Entry]:
        """What the log keeps of these answers.

        Args:
            rows: the rows as received.
            answers: theirs, in that order.
            time: of the answers, microseconds since 1970.
            seconds: from request to answer.
            bodies: the rows as JSON where they came so; written anew where None or where columns are private.
            shadow: whether nobody got these answers.
        """
        if bodies is None or self.keeping.private:
            bodies = [text_of(self.keeping.features(row)) for row in rows]
        return [
            self._entry(row, text, answer, time, seconds, shadow=shadow)
            for row, text, answer in zip(rows, bodies, answers, strict=True)
        ]

    def _entry(self, row: Row, text: bytes, answer: Answer, time: int, seconds: float | None, *, shadow: bool) -> Entry:
        get = answer.get
        prediction, shares, warnings, error = (
            answer["prediction"],
            get("probabilities"),
            answer["warnings"],
            get("error"),
        )
        return Entry(
            answer["prediction_id"],
            time,
            answer["model_version"] or "",
            shadow,
            self.keeping.name(row),
            text,
            None if prediction is None else text_of(prediction),
            get("probability"),
            None if shares is None else text_of(shares),
            get("lower"),
            get("upper"),
            get("confidence"),
            text_of(warnings) if warnings else None,
            None if error is None else text_of(error),
            seconds,
        )


def engine(bundle: Bundle, keeping: Keeping = NOTHING, *, compile_trees: bool = True) -> Engine:
    """Make a bundle ready: compile its trees where that gives the same answers.

    Args:
        bundle: the loaded bundle.
        keeping: what of a row the log keeps.
        compile_trees: False leaves the estimator as it is.
    """
    scorer = bundle.scorer
    beside = frozenset(keeping.key).difference(scorer.contract.names)
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


def text_of(value: Any) -> bytes:
    """JSON of any value that a door can bring: what orjson does not know is written as text."""
    try:
        return orjson.dumps(value, default=str, option=DUMP)
    except (orjson.JSONEncodeError, UnicodeError):  # half a surrogate pair, an integer beyond 64 bits
        return json.dumps(value, default=str).encode()
