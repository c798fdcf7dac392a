"""Micro-batches: requests collect while the batch before is answered and logged. One version answers a whole batch."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

from afterfit.model.answer import Answer
from afterfit.serving.engine import Bodies, Row
from afterfit.serving.http_errors import HttpError

Work = Callable[[list["Job"]], None]
Render = Callable[[Sequence[Answer]], bytes]
Parsed = tuple[Sequence[Row], Render, Bodies]


@dataclass(eq=False, slots=True)
class Job:
    """One request's rows on their way to answers.

    Attributes:
        rows: as received; none until it is read.
        render: makes the answer's body.
        answered: where the body, or a refusal, arrives.
        deadline: by the monotonic clock, when nobody waits any more.
        bodies: the rows as JSON where they came so, one by one or as one text.
        arrived: by the performance counter.
        outcome: what the worker made of it: the body or an error.
        read: gives rows, render and bodies of a long body, which is read by the worker and is a batch of its own.
    """

    rows: Sequence[Row]
    render: Render
    answered: "asyncio.Future[bytes]"
    deadline: float
    bodies: Bodies = None
    arrived: float = field(default_factory=time.perf_counter)
    outcome: bytes | Exception | None = None
    read: Callable[[], Parsed] | None = None

    def take_in(self) -> None:
        """Read what was not read yet."""
        if self.read is not None:
            self.rows, self.render, self.bodies = self.read()
            self.read = None


class Batches:
    """A queue of jobs, and one thread that works on them in batches; used from one event loop.

    Args:
        work: fills in the `outcome` of each job of a batch; runs in the thread.
        most_rows: of a batch; a larger job is a batch of its own.
        longest_wait: seconds to wait for a batch to fill.
    """

    def __init__(self, work: Work, most_rows: int, longest_wait: float) -> None:
        self._work, self._most, self._longest = work, most_rows, longest_wait
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Job] = deque()
        self._running: list[Job] = []
        self._inbox: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._expected = self._took = 0.0
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._thread = threading.Thread(target=self._loop_forever, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs not answered yet."""
        return len(self._queue) + len(self._running)

    def submit(self, job: Job) -> None:
        """Take a job in; its future is answered later."""
        self._queue.append(job)
        if self._running:
            return
        if self._timer is None:
            # jobs that arrive in the same turn of the loop go together, and under load a little later ones too
            wait = min(self._longest, self._took / 2) if self._expected > len(self._queue) else 0.0
            self._timer = self._loop.call_later(wait, self._start) if wait else self._loop.call_soon(self._start)
        elif len(self._queue) >= self._expected:
            self._timer.cancel()
            self._timer = self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._timer = None
        batch: list[Job] = []
        rows = 0
        while self._queue and (not batch or rows + self._size(self._queue[0]) <= self._most):
            job = self._queue.popleft()
            if not job.answered.done():
                batch.append(job)
                rows += self._size(job)
        if batch:
            self._running = batch
            self._inbox.put(batch)

    def _size(self, job: Job) -> int:
        return len(job.rows) if job.read is None else self._most

    def _loop_forever(self) -> None:
        while (batch := self._inbox.get()) is not None:
            started = time.perf_counter()
            try:
                self._work(batch)
            except Exception as error:  # noqa: BLE001 - those who wait must hear of it, whatever it is
                for job in batch:
                    job.outcome = job.outcome or error
            try:
                self._loop.call_soon_threadsafe(self._finish, time.perf_counter() - started)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _finish(self, took: float) -> None:
        batch, self._running = self._running, []
        self._took, self._expected = took, len(batch) + len(self._queue)
        for job in batch:
            if not job.answered.done():
                _settle(job)
        if self._queue:
            wait = min(self._longest, took / 2) if len(self._queue) < self._expected else 0.0
            self._timer = self._loop.call_later(wait, self._start) if wait else self._loop.call_soon(self._start)

    def expire(self) -> None:
        """Tell those who waited longer than they may."""
        now = time.monotonic()
        for job in [*self._queue, *self._running]:
            if job.deadline < now and not job.answered.done():
                job.answered.set_exception(HttpError(504, "The answer took longer than a request may take."))

    def close(self) -> None:
        """End the thread when the batch that it works on is done."""
        self._inbox.put(None)
        self._thread.join(timeout=5)


def _settle(job: Job) -> None:
    if isinstance(job.outcome, bytes):
        job.answered.set_result(job.outcome)
    else:
        job.answered.set_exception(job.outcome or HttpError(500, "No answer was made."))
