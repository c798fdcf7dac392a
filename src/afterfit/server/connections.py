"""The connections of a worker: how many there may be, and how long one may wait without asking anything.

uvicorn ends a kept connection on which nothing comes. It knows no end for a head that never comes, or comes byte by
byte, nor for an answer that nobody takes, and no limit on heads, on requests that are sent ahead, or on connections.
`Connections.sweep` looks at all connections every so often, so that a request costs next to nothing more.
"""

import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

import orjson
from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from afterfit.settings import Serving

MOST_HEAD = 65_536
"""Bytes of a request's head."""
MOST_AHEAD = 64
"""Requests that a client may send before the first of them is answered."""
SPARE = 64
"""File descriptors that are no connections: the log, models, the listening socket."""
SHARE = 10
"""Of connections that ask nothing, each so many-th is closed at once when there are too many: the oldest."""
INVALID = b"The request cannot be read as HTTP."
LATE = b"The request's head did not arrive in time."


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end to heads and to requests that are sent ahead.

    Attributes:
        born: when the connection was made, by the monotonic clock.
        unread: bytes of a head that is not complete.
        in_body: whether a request's body is still to come.
    """

    born = 0.0
    unread = 0
    in_body = False

    def connection_made(self, transport: Any) -> None:
        """Note the time, and make room where there are too many."""
        super().connection_made(transport)
        self.born = time.monotonic()
        connections: Connections | None = getattr(self.server_state, "afterfit", None)
        if connections is not None:
            connections.make_room(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that is too long ends the connection."""
        if not self.in_body:
            self.unread += len(data)
            if self.unread > MOST_HEAD + len(data):
                self.refuse(431, "headers_too_large", b"A request's head may have 65,536 bytes.")
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Begin a request; too many that are sent ahead end the connection."""
        self.unread, self.in_body = 0, True
        if len(self.pipeline) >= MOST_AHEAD:
            raise HttpParserError("too many requests ahead of their answers")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request's body."""
        self.in_body = False
        super().on_message_complete()

    @property
    def asks(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waits(self) -> int:
        """Bytes that the client has not taken."""
        return self.transport.get_write_buffer_size()

    def send_400_response(self, msg: str) -> None:
        """Say in the form of all refusals that nothing can be read."""
        del msg
        self.refuse(400, "bad_request", INVALID)

    def refuse(self, status: int, code: str, message: bytes) -> None:
        """Answer outside any request, and close."""
        if self.transport.is_closing():
            return
        body = orjson.dumps({"code": code, "message": message.decode(), "detail": None})
        head = f"HTTP/1.1 {status} {code}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()


@dataclass
class Connections:
    """All connections of a worker.

    Args:
        state: uvicorn's, which holds them.
        limits: of the settings.

    Attributes:
        closed: how many were closed, by reason.
        unsent: bytes that clients had not taken at the last look.
    """

    state: ServerState
    limits: Serving
    closed: "Counter[str]" = field(default_factory=Counter)
    unsent: int = 0
    _seen: dict[Protocol, tuple[Any, int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state.afterfit = self  # type: ignore[attr-defined] # each connection knows uvicorn's state, and nothing else
        self.most = min(self.limits.connections, descriptors() - SPARE)

    def make_room(self, new: Protocol) -> None:
        """Close the oldest connections that ask nothing, where there are too many; the new one stays."""
        if len(self.state.connections) <= self.most:
            return
        others = [one for one in self.state.connections if isinstance(one, Protocol) and one is not new]
        idle = [one for one in others if not one.asks and not one.waits]
        for one in nsmallest(max(1, len(idle) // SHARE), idle, key=lambda one: one.born):
            self._end(one, "too_many")

    def sweep(self, now: float) -> None:
        """Close what waits for too long: for a head, or for a client that takes its answer.

        Args:
            now: by the monotonic clock.
        """
        before, self._seen, self.unsent = self._seen, {}, 0
        for one in [one for one in self.state.connections if isinstance(one, Protocol)]:
            waits = one.waits
            self.unsent += waits
            if one.asks and not waits:
                continue  # it is read and answered, within limits of their own
            cycle, left, since = before.get(one, (None, -1, one.born if one.cycle is None else now))
            if left >= 0 and (cycle is not one.cycle or left != waits):
                since = now
            self._seen[one] = (one.cycle, waits, since)
            if now - since > (self.limits.seconds if waits else self.limits.head_seconds):
                self._end(one, "not_taken" if waits else "late_head")

    def _end(self, one: Protocol, reason: str) -> None:
        self.closed[reason] += 1
        if reason == "late_head" and one.unread and not one.transport.is_closing():
            one.refuse(408, "request_timeout", LATE)
            return  # if that is not taken either, the next look ends it
        one.transport.abort()


def descriptors() -> int:
    """How many files this process may have open: as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 2**20
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft if soft != resource.RLIM_INFINITY else wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted
