"""Alarms on their way out: a signed POST to a webhook, or a command; tried again with longer and longer pauses.

Never twice for one cause: that it is being sent is recorded before it goes out, and a step that died after that does
not send it again, since it may have arrived (at most once). A refusal and a receiver that is not there are known not to
have arrived: these are tried again, now and by later steps. What may have been lost is said, and is in the step's run.
"""

import hashlib
import hmac
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from afterfit.errors import AlarmError, SettingsError, UnsureAlarmError
from afterfit.settings import Alarms

SIGNATURE = "X-Afterfit-Signature"
SECONDS = 10.0
"""That a receiver has for its answer."""
PAUSE = 1.0
"""Seconds before the second try; each pause after it is twice as long."""


def message(use_case: str, window: str, action: Mapping[str, Any], version: str) -> dict[str, Any]:
    """What is sent: the same causes in the same window have the same id, so that a receiver can drop a second copy."""
    told = {"use_case": use_case, "window": window, "version": version, **action}
    keys = [use_case, window, version, *(cause["key"] for cause in action["causes"])]
    return {"id": hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32], **told}


def send(settings: Alarms, told: Mapping[str, Any], root: Path, sleep: Callable[[float], None]) -> None:
    """Deliver one alarm to all that the settings name.

    Args:
        settings: where to, and how often it is tried.
        told: the alarm.
        root: the folder that a command runs in.
        sleep: waits between tries.

    Raises:
        AlarmError: it could not be delivered in so many tries.
        UnsureAlarmError: it may have been delivered.
        SettingsError: an environment variable that the settings name is not there.
    """
    body = json.dumps(told, sort_keys=True).encode()
    ways: list[Callable[[], None]] = []
    if settings.webhook is not None:
        address, headers = _filled(settings.webhook), _headers(settings, body)
        ways.append(lambda: _post(address, headers, body))
    if settings.command:
        ways.append(lambda: _call(settings.command, body, root))
    for way in ways:
        _tried(way, settings.tries, sleep)


def signature(secret: bytes, body: bytes) -> str:
    """HMAC-SHA256 of a body, as the header has it."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def _tried(way: Callable[[], None], tries: int, sleep: Callable[[float], None], pause: float = PAUSE) -> None:
    try:
        way()
    except UnsureAlarmError:
        raise
    except AlarmError:
        if tries <= 1:
            raise
        sleep(pause)
        _tried(way, tries - 1, sleep, 2 * pause)


def _headers(settings: Alarms, body: bytes) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "afterfit"}
    if settings.secret is not None:
        headers[SIGNATURE] = signature(_variable(settings.secret).encode(), body)
    return headers


def _post(address: str, headers: Mapping[str, str], body: bytes) -> None:
    if not address.startswith(("http://", "https://")):
        raise SettingsError("alarms.webhook must be an http:// or https:// address.")
    request = urllib.request.Request(address, body, dict(headers), method="POST")  # noqa: S310 - looked at above
    host = request.host
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310 - as above
            return
    except urllib.error.HTTPError as error:
        raise AlarmError(f"The webhook at {host} refused the alarm with status {error.code}.") from error
    except TimeoutError as error:
        raise UnsureAlarmError(f"The webhook at {host} took the alarm and did not answer in {SECONDS:g} s.") from error
    except OSError as error:
        raise AlarmError(f"The webhook at {host} cannot be reached: {getattr(error, 'reason', error)}.") from error


def _call(command: tuple[str, ...], body: bytes, root: Path) -> None:
    words = [_filled(word) for word in command]
    try:
        done = subprocess.run(words, input=body, capture_output=True, timeout=60, cwd=root, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnsureAlarmError(f"The command '{words[0]}' for alarms did not end in 60 s.") from error
    except OSError as error:
        raise AlarmError(f"The command '{words[0]}' for alarms could not be run: {error}.") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise AlarmError(f"The command '{words[0]}' for alarms ended with {done.returncode}: {said}")


def _filled(text: str) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: _variable(found[1]), text)


def _variable(name: str) -> str:
    if name not in os.environ:
        raise SettingsError(f"alarms needs the environment variable {name}, which is not set.")
    return os.environ[name]
