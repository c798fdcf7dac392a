"""What a worker serves: the current version, the log and the counts; a new version takes over between two batches.

A shadow is a second version that answers the same rows later; its answers go into the log only, marked as shadow.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from afterfit.contract.checks import Checked
from afterfit.errors import AfterfitError, LogError
from afterfit.model.answer import Answer
from afterfit.model.answer_batch import AnswerBatch, prediction_ids, with_ids
from afterfit.prediction_log.entries import unfolded_bytes
from afterfit.prediction_log.log import PredictionLog
from afterfit.prediction_log.spool import Spool
from afterfit.serving.batching import Job
from afterfit.serving.engine import Bodies, Engine, Row
from afterfit.serving.http_errors import HttpError
from afterfit.serving.metrics import Histogram, ServerMetrics
from afterfit.settings import Serving

MOST_WAITING, MOST_WAITING_BYTES = 1_000, 2**29
"""Batches that wait for the shadow, and what their rows take; further ones are dropped and counted."""
MOST_AT_ONCE = 64
"""Batches that the shadow answers in one go."""
NTH = 10
"""Which of the requests of one row is kept for trying new versions: each so many-th, as the look at it costs time."""
MOST_KEPT = 200
"""Columns of a row above which it is not kept for trying new versions."""
LONGEST_KEPT = 100
"""Characters of a name or text above which the same holds."""
FOREIGN = "other"
"""The label of columns that the contract does not know: their names are the clients' own, and without end."""
MISSED, STANDSTILL = 3, 60.0
"""Sealings that may be missed, and seconds beside that, before the log counts as not sealed any more."""
NOT_WRITTEN = "The prediction cannot be logged at the moment, and is not given without that. Try again."


class _Batch(NamedTuple):
    rows: Sequence[Row]
    answers: Sequence[Answer]
    bodies: Bodies
    arrived: float

    @property
    def size(self) -> int:
        """Bytes that the rows take, about, where all have the names of the first; bodies bound what others take."""
        return unfolded_bytes(self.rows[0], len(self.rows)) if self.rows else 0


class Shadow:
    """The shadow version, in a thread of its own: no answer waits for it.

    Args:
        log: where its answers go.
        faults: told of what went wrong.
    """

    def __init__(self, log: Spool, faults: Callable[[str, BaseException], None]) -> None:
        self.engine: Engine | None = None
        self.metrics = ServerMetrics()
        self.dropped = 0
        self._log, self._faults = log, faults
        self._queue: Queue[_Batch | None] = Queue(MOST_WAITING)
        self._waiting, self._lock = 0, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, rows: Sequence[Row], answers: Sequence[Answer], bodies: Bodies, arrived: float) -> None:
        """Give answered rows to the shadow; they are dropped where it is too slow."""
        if self.engine is None:
            return
        batch = _Batch(rows, answers, bodies, arrived)
        with self._lock:
            if self._waiting > MOST_WAITING_BYTES or self._queue.full():
                self.dropped += len(rows)
                return
            self._waiting += batch.size
            self._queue.put_nowait(batch)

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            batches = [batch]
            with suppress(Empty):
                while len(batches) < MOST_AT_ONCE and (more := self._queue.get_nowait()) is not None:
                    batches.append(more)
            self._score(batches)
            with self._lock:
                self._waiting -= sum(batch.size for batch in batches)

    def _score(self, batches: Sequence[_Batch]) -> None:
        engine = self.engine
        rows = [row for batch in batches for row in batch.rows]
        if engine is None:
            return
        try:
            answers = with_ids(
                engine.answers(rows), [identity for batch in batches for identity in prediction_ids(batch.answers)]
            )
            self._log.write(engine.entries(rows, answers, time.time_ns() // 1000, None, shadow=True))
            self.metrics.counts["shadow_rows", engine.bundle.version or ""] += len(rows)
        except (AfterfitError, ArithmeticError, ValueError, TypeError) as error:
            self.dropped += len(rows)
            self._faults("shadow", error)
        self.metrics.counts["shadow_dropped",] = self.dropped

    def close(self) -> None:
        """Finish what waits, for a few seconds at most."""
        with suppress(Full):
            self._queue.put(None, timeout=1)
        self._thread.join(timeout=5)


@dataclass(slots=True)
class Service:
    """The state of one worker.

    Attributes:
        name: the use case's name.
        alias: which alias is served.
        limits: what is taken.
        log: this process's spool of the prediction log, or None.
        place: where the log is.
        acknowledged: an answer leaves only once it is on disk.
        engine: the version that answers; None until one is loaded.
        home: where that version came from, as the registry said.
        since: when it was taken into service, seconds since 1970.
        recent: the rows answered last.
        metrics: what the event loop counts.
        batch_metrics: what the batches' thread counts.
        shadow: the version that answers behind it, where there is one.
        backlog: answers in this process's spool that were not sealed when they were counted last.
        sealed: when the log was sealed last, or the worker began, seconds since 1970.
        seal_fails: whether the last sealing failed.
        connections: open connections when they were looked at last.
        unsent: bytes of answers that clients have not taken yet.
        stopping: no new request is taken.
        seen: batches answered; of requests of one row each tenth is kept among the recent ones.
        registry: what is known of the registry: reachable, checked, error.
        faults: where unexpected errors are told, with the request's id.
    """

    name: str
    alias: str
    limits: Serving
    log: Spool | None = None
    place: PredictionLog | None = None
    acknowledged: bool = True
    engine: Engine | None = None
    home: str = ""
    since: float = 0.0
    recent: deque[Row] = field(default_factory=deque)
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    batch_metrics: ServerMetrics = field(default_factory=ServerMetrics)
    shadow: Shadow | None = None
    backlog: int = 0
    sealed: float = field(default_factory=time.time)
    seal_fails: bool = False
    connections: int = 0
    unsent: int = 0
    stopping: bool = False
    seen: int = 0
    registry: Mapping[str, Any] = field(default_factory=dict)
    faults: Callable[[str, BaseException], None] = lambda *_: None

    def __post_init__(self) -> None:
        self.recent = deque(maxlen=self.limits.last_rows)

    @property
    def inline(self) -> bool:
        """Whether a single row is answered in the event loop: a compiled model, and no disk to wait for."""
        engine = self.engine
        return engine is not None and engine.compiled is not None and (self.log is None or not self.acknowledged)

    @property
    def seals(self) -> bool:
        """Whether what waits in the log is sealed: the last time did not fail, and was not long ago."""
        return not self.seal_fails and time.time() - self.sealed < MISSED * self.limits.seal_seconds + STANDSTILL

    def take(self, engine: Engine, home: str = "") -> None:
        """Serve this version from the next batch on."""
        self.engine, self.home, self.since = engine, home, time.time()
        self.metrics.counts["reloads", version_of(engine)] += 1

    def refuse(self, version: str) -> None:
        """Note that a version failed its checks."""
        self.metrics.counts["reloads_refused", version] += 1

    def answer(self, rows: Sequence[Row], bodies: Bodies, arrived: float, counters: ServerMetrics) -> Sequence[Answer]:
        """Answer rows by the current version, and log them.

        Raises:
            HttpError: 503, nothing is loaded, or the log fails and answers must be in it.
        """
        engine = self.engine
        if engine is None:
            raise HttpError(503, "No version is loaded yet.")
        answers = engine.answers(rows)
        self._log(engine, rows, answers, bodies, arrived)
        count(counters, engine, answers)
        self._after(rows, answers, bodies, arrived)
        return answers

    def _log(
        self,
        engine: Engine,
        rows: Sequence[Row],
        answers: Sequence[Answer],
        bodies: Bodies,
        arrived: float,
    ) -> None:
        if self.log is None:
            return
        seconds = time.perf_counter() - arrived
        try:
            self.log.write(engine.entries(rows, answers, time.time_ns() // 1000, seconds, bodies=bodies))
        except LogError as error:
            self.failed_log(error)
            if self.acknowledged:
                raise HttpError(503, NOT_WRITTEN, "log_unavailable") from error

    def failed_log(self, error: LogError) -> None:
        """Count that the log could not be written, and say so once in a while."""
        self.batch_metrics.counts["log_failures",] += 1
        self.faults("log", error)

    def _after(self, rows: Sequence[Row], answers: Sequence[Answer], bodies: Bodies, arrived: float) -> None:
        self.seen += 1
        if len(rows) > 1 or not self.recent or self.seen % NTH == 0:
            self.recent.extend(row for row in rows[-20:] if is_small(row))
        if self.shadow is not None:
            self.shadow.offer(rows, answers, bodies, arrived)

    def work(self, batch: list[Job]) -> None:
        """Answer a batch by one version; runs in the batches' thread.

        Raises:
            HttpError: of the only job of a batch, whose body cannot be read.
        """
        batch[0].take_in()  # one that is not read yet is alone
        rows = [row for job in batch for row in job.rows]
        bodies = batch[0].bodies if len(batch) == 1 else _texts(batch)
        arrived = min(job.arrived for job in batch)
        try:
            answers = self.answer(rows, bodies, arrived, self.batch_metrics)
        except AfterfitError as error:
            for job in batch:
                job.outcome = error
            return
        except Exception as error:
            if len(batch) == 1:
                raise
            self.faults("batch", error)
            for job in batch:  # one request's rows must not cost the others their answers
                self._alone(job)
            return
        self.batch_metrics.histogram("batch_rows").observe(len(rows))
        if len(batch) == 1:
            batch[0].outcome = batch[0].render(answers)
            return
        at = 0
        for job in batch:
            job.outcome = job.render(answers[at : at + len(job.rows)])
            at += len(job.rows)

    def _alone(self, job: Job) -> None:
        try:
            job.outcome = job.render(self.answer(job.rows, job.bodies, job.arrived, self.batch_metrics))
        except Exception as error:  # noqa: BLE001 - told to whoever waits for it
            job.outcome = error

    def text(self, in_flight: int) -> bytes:
        """All counts of this worker."""
        whole = ServerMetrics()
        for part in (self.metrics, self.batch_metrics, *((self.shadow.metrics,) if self.shadow else ())):
            whole.merge(part.text(), alive=True)
        whole.gauges = self._gauges(in_flight)
        return whole.text()

    def _gauges(self, in_flight: int) -> dict[tuple[str, ...], float]:
        now = time.time()
        gauges: dict[tuple[str, ...], float] = {
            ("workers",): 1,
            ("in_flight",): in_flight,
            ("connections",): self.connections,
        }
        if self.log is not None:
            gauges["log_backlog",] = self.backlog
            gauges["log_seals",] = float(self.seals)
            gauges["seconds_since_seal",] = now - self.sealed
        if self.engine is not None:
            bundle = self.engine.bundle
            gauges["model_info", self.name, self.alias, bundle.version or "", bundle.digest[:12]] = 1
            gauges["seconds_since_reload",] = now - self.since
        if self.registry:
            gauges["registry_up",] = float(bool(self.registry.get("reachable")))
            gauges["seconds_since_registry",] = now - float(self.registry.get("answered") or now)
        return gauges


def _texts(batch: Sequence[Job]) -> list[bytes] | None:
    """Each row's own JSON, where all jobs came with it."""
    texts: list[bytes] = []
    for job in batch:
        if job.bodies is None or isinstance(job.bodies, bytes):
            return None
        texts += job.bodies
    return texts


def is_small(row: Row) -> bool:
    """Whether a row may be kept: few columns, short names and texts, nothing nested."""
    return len(row) <= MOST_KEPT and all(
        len(name) <= LONGEST_KEPT
        and not isinstance(value, list | dict)
        and not (isinstance(value, str) and len(value) > LONGEST_KEPT)
        for name, value in row.items()
    )


def version_of(engine: Engine) -> str:
    """The version as a label."""
    return engine.bundle.version or ""


def count(counters: ServerMetrics, engine: Engine, answers: Sequence[Answer]) -> None:
    """Count answers: rows, predictions, warnings and errors by column and code."""
    version, counts = version_of(engine), counters.counts
    counts["rows", version] += len(answers)
    if type(answers) is AnswerBatch:
        _count_together(counters, engine, answers)
        return
    known = engine.columns
    for answer in answers:
        for note in answer.warnings:
            column = note["column"]
            counts["warnings", column if column in known else FOREIGN, note["code"]] += 1
        error = answer.error
        if error is not None:
            counts["row_errors", error["column"] or FOREIGN, error["code"]] += 1
    good = [answer for answer in answers if answer.error is None]
    if not good:
        return
    if good[0].task == "regression":
        _observe(counters.histogram("prediction_value", version, edges=engine.edges), good, "prediction")
        return
    for answer in good:
        counts["predictions", version, str(answer.prediction)] += 1
    _observe(counters.histogram("confidence", version), good, "confidence")
    if good[0].task == "binary":
        _observe(counters.histogram("probability", version), good, "probability")


def _count_together(counters: ServerMetrics, engine: Engine, answers: AnswerBatch) -> None:
    """Count answers from their columns."""
    bad = _count_notes(counters, engine, answers.checked)
    version, counts, predictions = version_of(engine), counters.counts, answers.predictions
    known = predictions.finite
    if not known.all() and (number := int((~known & ~bad).sum())):
        counts["row_errors", FOREIGN, "no_number"] += number
    good = known & ~bad
    predictions = predictions if good.all() else predictions.take(good)
    if not len(predictions):
        return
    if predictions.classes is None:
        counters.histogram("prediction_value", version, edges=engine.edges).observe_all(predictions.prediction)
        return
    for place, number in enumerate(np.bincount(predictions.prediction).tolist()):
        if number:
            counts["predictions", version, str(predictions.classes[place])] += number
    if predictions.confidence is not None:
        counters.histogram("confidence", version).observe_all(predictions.confidence)
    if len(predictions.classes) == 2:
        counters.histogram("probability", version).observe_all(predictions.probability)


def _count_notes(counters: ServerMetrics, engine: Engine, checked: Checked) -> npt.NDArray[np.bool_]:
    """Count warnings and errors; gives which rows (n,) have an error."""
    counts, bad = counters.counts, np.zeros(checked.size, dtype=np.bool_)
    for issue in checked.issues:
        if not issue.error:
            counts["warnings", issue.column.name, issue.code] += len(issue.rows)
        elif number := int((~bad[issue.rows]).sum()):  # of a row's errors its answer has the first
            counts["row_errors", issue.column.name, issue.code] += number
            bad[issue.rows] = True
    for note in checked.unknown:
        column = note["column"]
        counts["warnings", column if column in engine.columns else FOREIGN, note["code"]] += checked.size
    return bad


def _observe(histogram: Histogram, answers: Sequence[Answer], name: str) -> None:
    for answer in answers:
        histogram.observe(getattr(answer, name))
