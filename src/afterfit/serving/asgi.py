"""The endpoints that predict, as a plain ASGI application: the routing of a web framework would cost too much time.

Also the access log: a thread writes one JSON line a request, after the answer.
"""

import asyncio
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache, partial
from typing import IO, Any

import orjson

from afterfit.errors import AfterfitError
from afterfit.model.answer import fresh_id
from afterfit.model.answer_batch import json_list, json_of_single
from afterfit.prediction_log.entries import RECORDS
from afterfit.serving import payloads
from afterfit.serving.auth import Tokens
from afterfit.serving.batching import Batches, Job, Parsed
from afterfit.serving.bounds import check_rows, check_unknown
from afterfit.serving.http_errors import HttpError
from afterfit.serving.metrics import Histogram
from afterfit.serving.service import Service
from afterfit.texts.redaction import redact

EVERY = 0.5
"""Seconds between writes."""
TOGETHER = 500
"""Lines of one write."""
MOST_WAITING = 100_000
ENDPOINTS = frozenset(
    {
        "/predict",
        "/invocations",
        "/ping",
        "/health",
        "/version",
        "/live",
        "/ready",
        "/model",
        "/metrics",
        "/outcomes",
        "/webhook",
        "/openapi.json",
        "/docs",
        "/",
    }
)


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    """One second's ISO time, with a place for its milliseconds."""
    return datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%%03d+00:00")


class AccessLine:
    """What is noted of one request."""

    __slots__ = ("client", "endpoint", "identity", "method", "rows", "seconds", "status", "time")

    def __init__(self, scope: Mapping[str, Any], path: str, identity: bytes) -> None:
        client = scope.get("client")
        self.client = client[0] if client else None
        self.endpoint = path if path in ENDPOINTS else "other"
        self.method, self.identity, self.time = scope["method"], identity, time.time()
        self.rows, self.status, self.seconds = 0, 500, 0.0

    def text(self) -> bytes:
        """The line as JSON."""
        return orjson.dumps(
            {
                "time": _second(int(self.time)) % (1000 * (self.time % 1.0)),
                "request_id": self.identity.decode(),
                "method": self.method,
                "path": self.endpoint,
                "status": self.status,
                "rows": self.rows,
                "milliseconds": round(1000 * self.seconds, 3),
                "client": self.client,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )


class AccessLog:
    """Collects lines, and writes them twice a second. Where nobody reads the output, lines are dropped, not answers.

    Args:
        output: where to; None keeps no access log.
    """

    def __init__(self, output: IO[bytes] | None = None) -> None:
        self._output = output
        self._lines: deque[AccessLine] = deque(maxlen=MOST_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        if output is not None:
            self._thread.start()

    def add(self, line: AccessLine) -> None:
        """Note a request."""
        if self._output is not None:
            self._lines.append(line)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        """Write the lines that wait now; those that come meanwhile wait for the next time."""
        left = len(self._lines)
        while left > 0 and self._output is not None:
            some = [self._lines.popleft() for _ in range(min(left, TOGETHER))]
            left -= len(some)
            try:
                self._output.write(b"".join(line.text() for line in some))
                self._output.flush()
            except (OSError, ValueError) as error:
                sys.stderr.write(redact(f"The access log cannot be written: {error}\n"))
                return

    def close(self) -> None:
        """Write what waits."""
        self._stop.set()
        if self._output is not None:
            self._thread.join(timeout=2)


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
PREDICT, INVOCATIONS = "/predict", "/invocations"
QUICK = frozenset({PREDICT, INVOCATIONS})
PLAIN_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
MOST_UNSENT = 2**28
"""Bytes of answers that clients have not taken, from which on requests are turned away."""
FEW = 16
"""Rows of a request that are answered in the event loop where nothing has to be waited for."""
LONG = 65_536
"""Bytes from which a body is read beside the event loop, which has others to listen to meanwhile."""
NOT_READ: Parsed = (), json_list, None
RECORDS_BODY = b'{"' + RECORDS.encode() + b'"'
JSON_TYPE = (b"content-type", b"application/json")


@dataclass(slots=True)
class Head:
    """What a request says before its body."""

    kind: str = ""
    length: int | None = 0
    identity: bytes = b""
    bearer: bytes = b""
    held: int = 0
    """Bytes of the body that were read."""


def head_of(scope: Scope) -> Head:
    """Read the headers that matter."""
    head = Head()
    for name, value in scope["headers"]:
        if name == b"content-type":
            head.kind = value.decode("latin-1")
        elif name == b"content-length":
            head.length = int(value) if value.isdigit() else None
        elif name == b"x-request-id":
            head.identity = value if PLAIN_ID.fullmatch(value) else b""
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            head.bearer = value[7:].strip()
    if not head.identity:
        head.identity = fresh_id()[:16].encode()
    return head


@dataclass
class Endpoints:
    """/predict and /invocations as an ASGI application; everything else goes on to another one.

    Attributes:
        service: what answers.
        access: the access log.
        tokens: who may ask.
        rest: the application behind.
        in_flight: requests being answered.
        held: bytes of their bodies.
    """

    service: Service
    access: AccessLog
    tokens: Tokens
    rest: App
    in_flight: int = 0
    held: int = 0
    _batches: Batches | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _reading: dict["asyncio.Task[Any]", float] = field(default_factory=dict)
    _late: set["asyncio.Task[Any]"] = field(default_factory=set)
    _times: dict[str, Histogram] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.rest(scope, receive, send)
            return
        arrived, head, path = time.perf_counter(), head_of(scope), scope["path"]
        self.in_flight += 1
        line = AccessLine(scope, path, head.identity)
        try:
            if path in QUICK and scope["method"] == "POST":
                status, headers, body = await self._quick(head, path, receive, arrived, line)
                headers = [*headers, (b"content-length", str(len(body)).encode()), (b"x-request-id", head.identity)]
                line.status = status
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
            else:
                await self._slow(scope, head, receive, send, line)
        finally:
            self.in_flight -= 1
            self.held -= head.held
            line.seconds = time.perf_counter() - arrived
            self._count(line)
            self.access.add(line)

    def _count(self, line: AccessLine) -> None:
        counters, endpoint = self.service.metrics, line.endpoint
        counters.counts["requests", endpoint, str(line.status)] += 1
        histogram = self._times.get(endpoint)
        if histogram is None:
            histogram = self._times[endpoint] = counters.histogram("request_seconds", endpoint)
        histogram.observe(line.seconds)

    async def _quick(
        self, head: Head, path: str, receive: Receive, arrived: float, line: AccessLine
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        try:
            return 200, [JSON_TYPE], await self._answer(head, path, receive, arrived, line)
        except HttpError as error:
            refusal = error
        except AfterfitError as error:
            refusal = HttpError(422, str(error))
        except Exception as error:  # noqa: BLE001 - told in the log, not to the client
            self.service.faults(head.identity.decode(), error)
            refusal = HttpError(500, "Something unexpected happened; it was noted under the request's id.")
        self.service.metrics.counts["request_errors", line.endpoint, refusal.code] += 1
        return refusal.status, [JSON_TYPE, *refusal.headers], refusal.body

    async def _answer(self, head: Head, path: str, receive: Receive, arrived: float, line: AccessLine) -> bytes:
        service = self.service
        self.admit()
        self.tokens.check("predict", head.bearer)
        if service.engine is None:
            raise HttpError(503, "No version is loaded yet.")
        body = await self.body(head, receive)
        if len(body) > LONG:
            read = partial(self._parsed, head, path, body, line)
            return await self._submitted(NOT_READ, arrived, read)
        parsed = rows, render, texts = self._parsed(head, path, body, line)
        if not rows:
            return render([])
        if service.inline and len(rows) <= FEW:
            return render(service.answer(rows, texts, arrived, service.metrics))
        return await self._submitted(parsed, arrived)

    def _submitted(
        self, parsed: Parsed, arrived: float, read: Callable[[], Parsed] | None = None
    ) -> "asyncio.Future[bytes]":
        """Put rows, or the function that reads them, into the next batch; gives the future of their answer."""
        limits = self.service.limits
        if self._batches is None:
            self._batches = Batches(self.service.work, limits.batch_rows, limits.batch_milliseconds / 1000)
        answered = asyncio.get_running_loop().create_future()
        rows, render, texts = parsed
        self._batches.submit(Job(rows, render, answered, time.monotonic() + limits.seconds, texts, arrived, read=read))
        return answered

    def admit(self) -> None:
        """Turn a request away where there are too many, or where the server stops.

        Raises:
            HttpError: 429 or 503.
        """
        service = self.service
        if service.stopping:
            raise HttpError(503, "The server is stopping.", "stopping")
        if self.in_flight > service.limits.requests or service.unsent > MOST_UNSENT:
            raise HttpError(429, "Too many requests at once; come again in a moment.")

    def _parsed(self, head: Head, path: str, body: bytes, line: AccessLine) -> Parsed:
        """The rows of a body, what writes their answers, and the rows' own texts; what is too large is refused."""
        rows, render, texts = self._of_body(head, path, body)
        line.rows = len(rows)
        check_rows(len(rows), self.service.limits)
        if self.service.engine is not None:
            check_unknown(rows, self.service.engine, self.service.limits)
        return rows, render, texts

    def _of_body(self, head: Head, path: str, body: bytes) -> Parsed:
        if path == INVOCATIONS:
            if not head.kind:
                raise HttpError(415, "The request must have a content type, such as application/json.")
            rows = payloads.invocation_rows(body, head.kind, self.service.limits)
            return rows, payloads.predictions_body, body if body.startswith(RECORDS_BODY) else None
        kind = head.kind.partition(";")[0].strip().lower()
        if kind != payloads.JSON:
            raise HttpError(415, f"The content type must be {payloads.JSON}.")
        rows, single = payloads.plain_rows(payloads.json_of(body, self.service.limits.depth))
        return (rows, json_of_single, [body]) if single else (rows, json_list, body)

    def _task(self) -> "asyncio.Task[Any] | None":
        """The task that runs. The loop is remembered, because asyncio asks the system to find it."""
        task = None if self._loop is None else asyncio.current_task(self._loop)
        if task is None:
            self._loop = asyncio.get_running_loop()
            task = asyncio.current_task(self._loop)
        return task

    async def body(self, head: Head, receive: Receive) -> bytes:
        """Read a request's body, within the limits of size and time.

        Raises:
            HttpError: 413, 408, or 429 where the bodies of all requests take too much.
        """
        most = self.service.limits.body_bytes
        if head.length is None or head.length > most:
            raise HttpError(413, f"A request body may have {most} bytes.")
        task = self._task()
        if task is not None:
            self._reading[task] = time.monotonic()
        try:
            message = await receive()
            body: bytes = message.get("body", b"")
            self._hold(head, len(body))
            if not message.get("more_body"):
                return body
            parts = [body]
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
                self._hold(head, len(parts[-1]))
                if head.held > most:
                    raise HttpError(413, f"A request body may have {most} bytes.")
            return b"".join(parts)
        except asyncio.CancelledError:
            if task is None or task not in self._late:
                raise
            self._late.discard(task)
            getattr(task, "uncancel", int)()
            raise HttpError(408, "The request's body did not arrive in time.") from None
        finally:
            if task is not None:
                self._reading.pop(task, None)

    def _hold(self, head: Head, size: int) -> None:
        head.held += size
        self.held += size
        limits = self.service.limits
        if self.held > limits.waiting_bytes and self.held > limits.body_bytes:
            raise HttpError(429, "Too much is asked at once; come again in a moment.")

    async def _slow(self, scope: Scope, head: Head, receive: Receive, send: Send, line: AccessLine) -> None:
        """Hand on to the other application; its status and the request's id are noted on the way."""

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                line.status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", head.identity)]
            await send(message)

        scope["state"] = {**scope.get("state", {}), "request_id": head.identity.decode(), "head": head}
        await self.rest(scope, receive, noting)

    def tick(self) -> None:
        """Called several times a second: end what takes too long."""
        if self._batches is not None:
            self._batches.expire()
        before = time.monotonic() - self.service.limits.seconds
        for task in [task for task, since in self._reading.items() if since < before]:
            self._late.add(task)
            task.cancel()

    def close(self) -> None:
        """End the batches' thread."""
        if self._batches is not None:
            self._batches.close()
