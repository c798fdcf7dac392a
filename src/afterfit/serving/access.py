"""The access log: one JSON line a request, written behind the answers by a thread."""

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import IO, Any

import orjson

EVERY = 0.5
"""Seconds between writes."""
TOGETHER = 500
"""Lines of one write."""
MOST_WAITING = 100_000
DOORS = frozenset(
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


class Line:
    """What is noted of one request."""

    __slots__ = ("client", "door", "identity", "method", "rows", "seconds", "status", "time")

    def __init__(self, scope: Mapping[str, Any], path: str, identity: bytes) -> None:
        client = scope.get("client")
        self.client = client[0] if client else None
        self.door = path if path in DOORS else "other"
        self.method, self.identity, self.time = scope["method"], identity, time.time()
        self.rows, self.status, self.seconds = 0, 500, 0.0

    def text(self) -> bytes:
        """The line as JSON."""
        return orjson.dumps(
            {
                "time": _second(int(self.time)) % (1000 * (self.time % 1.0)),
                "request_id": self.identity.decode(),
                "method": self.method,
                "path": self.door,
                "status": self.status,
                "rows": self.rows,
                "milliseconds": round(1000 * self.seconds, 3),
                "client": self.client,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )


class Access:
    """Collects lines, and writes them twice a second. Where nobody reads the output, lines are dropped, not answers.

    Args:
        output: where to; None keeps no access log.
    """

    def __init__(self, output: IO[bytes] | None = None) -> None:
        self._output = output
        self._lines: deque[Line] = deque(maxlen=MOST_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        if output is not None:
            self._thread.start()

    def add(self, line: Line) -> None:
        """Note a request."""
        if self._output is not None:
            self._lines.append(line)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        """Write the lines that wait now, not those that come meanwhile, one by one."""
        left = len(self._lines)
        while left > 0 and self._output is not None:
            some = [self._lines.popleft() for _ in range(min(left, TOGETHER))]
            left -= len(some)
            try:
                self._output.write(b"".join(line.text() for line in some))
                self._output.flush()
            except (OSError, ValueError) as error:
                sys.stderr.write(f"The access log cannot be written: {error}\n")
                return

    def close(self) -> None:
        """Write what waits."""
        self._stop.set()
        if self._output is not None:
            self._thread.join(timeout=2)
