"""A second version that answers the same rows behind the answers that leave: into the log, marked as shadow."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import NamedTuple

from afterfit.errors import AfterfitError
from afterfit.prediction_log.spool import Spool
from afterfit.serving.answers import ids_of, named
from afterfit.serving.engine import Answer, Bodies, Engine, Row
from afterfit.serving.metrics import Tally

MOST_WAITING = 1_000
"""Batches that wait for the shadow; further ones are dropped and counted."""
TOGETHER = 64


class _Batch(NamedTuple):
    rows: Sequence[Row]
    answers: Sequence[Answer]
    bodies: Bodies
    arrived: float


class Shadow:
    """A thread of its own, so that an answer never waits for it.

    Args:
        log: where its answers go.
        faults: told of what went wrong.
    """

    def __init__(self, log: Spool, faults: Callable[[str, BaseException], None]) -> None:
        self.engine: Engine | None = None
        self.tally = Tally()
        self.dropped = 0
        self._log, self._faults = log, faults
        self._queue: Queue[_Batch | None] = Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, rows: Sequence[Row], answers: Sequence[Answer], bodies: Bodies, arrived: float) -> None:
        """Leave answered rows for the shadow; dropped where it lags."""
        if self.engine is None:
            return
        try:
            self._queue.put_nowait(_Batch(rows, answers, bodies, arrived))
        except Full:
            self.dropped += len(rows)

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            batches = [batch]
            with suppress(Empty):
                while len(batches) < TOGETHER and (more := self._queue.get_nowait()) is not None:
                    batches.append(more)
            self._score(batches)

    def _score(self, batches: Sequence[_Batch]) -> None:
        engine = self.engine
        rows = [row for batch in batches for row in batch.rows]
        if engine is None:
            return
        try:
            answers = named(engine.answers(rows), [one for batch in batches for one in ids_of(batch.answers)])
            self._log.write(engine.entries(rows, answers, time.time_ns() // 1000, None, shadow=True))
            self.tally.counts["shadow_rows", engine.bundle.version or ""] += len(rows)
        except (AfterfitError, ArithmeticError, ValueError, TypeError) as error:
            self.dropped += len(rows)
            self._faults("shadow", error)
        self.tally.counts["shadow_dropped",] = self.dropped

    def close(self) -> None:
        """Finish what waits, within a moment."""
        with suppress(Full):
            self._queue.put(None, timeout=1)
        self._thread.join(timeout=5)
