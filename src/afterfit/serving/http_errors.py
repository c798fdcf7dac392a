"""What a request that gets no answer is told: a status, a code, a sentence; no trace, no path, no foreign data."""

from typing import Any

import orjson

from afterfit.errors import AfterfitError

CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "unprocessable",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
    504: "timeout",
}
"""The code of a status where no narrower one is given."""
RETRY = 1
"""Seconds after which a request that was turned away may come again."""


class HttpError(AfterfitError):
    """A request is turned away.

    Args:
        status: HTTP status.
        message: a sentence for whoever sent it.
        code: narrower than the status, where there is something to tell apart.
        detail: JSON-ready facts.
    """

    def __init__(self, status: int, message: str, code: str = "", detail: Any = None) -> None:
        super().__init__(message)
        self.status, self.code, self.detail = status, code or CODES[status], detail
        self.asks = b"Bearer"

    @property
    def body(self) -> bytes:
        """The answer's JSON."""
        return orjson.dumps({"code": self.code, "message": str(self), "detail": self.detail})

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What belongs to the status beside the body."""
        if self.status in {429, 503}:
            return [(b"retry-after", str(RETRY).encode())]
        return [(b"www-authenticate", self.asks)] if self.status == 401 else []
