"""One POST to a webhook: it arrived, it surely did not, or nobody knows; within a time limit, and never elsewhere."""

import base64
import http.client
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from afterfit.errors import AlarmError, SettingsError, UnsureAlarmError
from afterfit.texts.redaction import MASK, learn, learn_settings, redact

SECONDS = 10.0
"""Seconds for the whole exchange, from the connection to the last line of the answer's head."""
AGAIN = frozenset({408, 425, 429, 500, 503})
"""Statuses of a receiver that did not take it and may take it soon. With others it says that it never will."""
UNKNOWN = frozenset({502, 504})
"""Statuses of a gateway whose receiver may have taken it."""
SAFE = "/:@!$&'()*+,;=%~-._?[]"
"""What stays in the path and the options of an address; everything else is percent-encoded."""


class FinalAlarmError(AlarmError):
    """The receiver did not take the alarm and will not take it if it comes again."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a webhook is: what is asked for, the host for messages, and the login that stood in the address."""

    url: str
    host: str
    headers: Mapping[str, str]


def address_of(text: str, key: str = "alarms.webhook") -> Address:
    """An address that a request can go to; its secrets are known from then on.

    Raises:
        SettingsError: it is none. What it says is not repeated, as it may be a secret.
    """
    text = text.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        ascii_host = host if ":" in host else host.encode("idna").decode()
    except ValueError as error:  # UnicodeError is one
        raise SettingsError(f"{key} is no address that a request can go to: its host or port is wrong.") from error
    if parts.scheme not in {"http", "https"} or not ascii_host:
        raise SettingsError(f"{key} must be an address such as https://host/path, with http:// or https:// and a host.")
    if port == 0 or re.search(r"[\x00-\x20\x7f]", text) or re.search(r"[^\w.:%-]", ascii_host):
        raise SettingsError(f"{key} has a space or another character in it, or a port, that no address has.")
    _learn(text, parts)
    where = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    netloc = where if port is None else f"{where}:{port}"
    target = quote(parts.path or "/", SAFE) + (f"?{quote(parts.query, SAFE)}" if parts.query else "")
    login = unquote(parts.netloc.rpartition("@")[0])
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    return Address(f"{parts.scheme}://{netloc}{target}", netloc, headers)


def post(address: Address, headers: Mapping[str, str], body: bytes, seconds: float) -> None:
    """Send a body, and see from the head of the answer whether it was taken. Proxies of the environment are used.

    Raises:
        AlarmError: it surely has not arrived.
        FinalAlarmError: as above, and it is no use to send it again.
        UnsureAlarmError: it may have arrived.
    """
    request = urllib.request.Request(address.url, body, {**headers, **address.headers}, method="POST")  # noqa: S310 - http(s)
    exchange = Exchange()
    with exchange.limit(seconds):
        try:
            with exchange.opener().open(request, timeout=seconds) as answer:
                status, location = int(answer.status), str(answer.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failure(error, exchange, address, seconds) from error
    _judge(status, location, address)


class Exchange:
    """What is known of a request under way: its socket, whether anything was sent, and whether its time is over."""

    def __init__(self) -> None:
        self.socket: Any = None
        self.sent = self.late = False

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Cut the connection when the time is over, however slowly the other side goes on."""
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        self.late = True
        if self.socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # below TLS, which would wait for the other side

    def opener(self) -> urllib.request.OpenerDirector:
        """Opens by a proxy or directly, follows nothing, and gives every status as an answer."""
        opener = urllib.request.OpenerDirector()
        for handler in (urllib.request.ProxyHandler(), _Plain(self), _Encrypted(self)):
            opener.add_handler(handler)
        return opener

    def connection(self, kind: type[http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
        """Makes connections of a kind that report to this exchange."""
        exchange = self

        class Watched(kind):  # type: ignore[valid-type,misc]
            """Says when it is connected, and when the first byte of the request goes out."""

            def connect(self) -> None:
                super().connect()
                exchange.socket, exchange.sent = self.sock, False  # what went to a proxy so far was not the alarm
                if exchange.late:
                    raise TimeoutError

            def send(self, data: Any) -> None:
                if self.sock is None:
                    self.connect()
                exchange.sent = True
                super().send(data)

        return Watched


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._exchange.connection(http.client.HTTPConnection), req)


class _Encrypted(urllib.request.HTTPSHandler):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__(context=ssl.create_default_context())
        self._exchange = exchange
        self._trust = ssl.create_default_context()

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._exchange.connection(http.client.HTTPSConnection), req, context=self._trust)


def _judge(status: int, location: str, address: Address) -> None:
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        where = f" to {_cleaned_location(location, address)}" if location else ""
        raise FinalAlarmError(
            f"The webhook at {address.host} redirects{where} (status {status}), and redirects are not followed: "
            "write the address that takes alarms."
        )
    if status in UNKNOWN or not 200 <= status < 600:
        raise UnsureAlarmError(f"The webhook at {address.host} answered {status}: the alarm may have arrived.")
    kind = AlarmError if status in AGAIN or status > 504 else FinalAlarmError
    raise kind(f"The webhook at {address.host} refused the alarm with status {status}.")


def _failure(error: Exception, exchange: Exchange, address: Address, seconds: float) -> AlarmError:
    cause = getattr(error, "reason", error)
    words = " ".join(redact(str(cause)).split())[:200] or type(cause).__name__
    if not exchange.sent:
        words = f"no connection within {seconds:g} s" if exchange.late or isinstance(cause, TimeoutError) else words
        return AlarmError(f"The webhook at {address.host} cannot be reached: {words}.")
    if exchange.late or isinstance(cause, TimeoutError):
        words = f"it gave no whole answer within {seconds:g} s"
    elif isinstance(cause, http.client.HTTPException | ValueError) and not isinstance(cause, ConnectionError):
        words = "its answer is no HTTP"
    return UnsureAlarmError(f"The webhook at {address.host} was sent the alarm, which may have arrived: {words}.")


def _cleaned_location(location: str, address: Address) -> str:
    """Where a redirect points, without options, login and what may be a secret of our own address."""
    printable = "".join(char if char.isprintable() and char != " " else "?" for char in location)
    plain = re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", printable)[0])
    for segment in urlsplit(address.url).path.split("/"):
        plain = re.sub(rf"(?<=/){re.escape(segment)}(?=/|$)", MASK, plain) if len(segment) >= 6 else plain
    return redact(plain)[:200]


def _learn(text: str, parts: SplitResult) -> None:
    """Take for secrets: login, options, and each part of the path that is more than a plain word."""
    learn_settings(text)
    for segment in parts.path.split("/"):
        if len(segment) >= 8 and not (segment.isalpha() and segment.islower()):
            learn(segment)
    if len(parts.path) + len(parts.query) >= 12:
        learn(text.partition("://")[2].partition("/")[2])
