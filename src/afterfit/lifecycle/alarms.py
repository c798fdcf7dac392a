"""Send alarms: a signed POST to a webhook, or a command; a failed try is repeated after longer and longer pauses.

One cause is told at most once. The step records that it is sending before it sends. If it dies after that, the alarm
may have arrived, and it is not sent again. If the receiver refused or could not be reached, the alarm surely has not
arrived: it is sent again, now and by later steps. An alarm that may be lost is named in the answer and in the step's
run.
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
"""Seconds that a receiver has for its answer."""
PAUSE = 1.0
"""Seconds before the second try; each pause after it is twice as long."""


def message(use_case: str, window: str, action: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The content of an alarm. Same causes in the same window give the same id, so that receivers can drop a copy."""
    content = {"use_case": use_case, "window": window, "version": version, **action}
    keys = [use_case, window, version, *(cause["key"] for cause in action["causes"])]
    return {"id": hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32], **content}


def send(settings: Alarms, alarm: Mapping[str, Any], root: Path, sleep: Callable[[float], None]) -> None:
    """Deliver one alarm to the webhook and the command that the settings name.

    Args:
        settings: where to, and how often it is tried.
        alarm: its content, as `message` gives it.
        root: the folder that a command runs in.
        sleep: waits between tries.

    Raises:
        AlarmError: it could not be delivered in so many tries.
        UnsureAlarmError: it may have been delivered.
        SettingsError: an environment variable that the settings name is not set.
    """
    body = json.dumps(alarm, sort_keys=True).encode()
    deliveries: list[Callable[[], None]] = []
    if settings.webhook is not None:
        address, headers = _fill_variables(settings.webhook), _headers(settings, body)
        deliveries.append(lambda: _post(address, headers, body))
    if settings.command:
        deliveries.append(lambda: _run_command(settings.command, body, root))
    for deliver in deliveries:
        _deliver_with_retries(deliver, settings.tries, sleep)


def signature(secret: bytes, body: bytes) -> str:
    """HMAC-SHA256 of a body, as the text of the header."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def _deliver_with_retries(
    deliver: Callable[[], None], tries: int, sleep: Callable[[float], None], pause: float = PAUSE
) -> None:
    try:
        deliver()
    except UnsureAlarmError:
        raise
    except AlarmError:
        if tries <= 1:
            raise
        sleep(pause)
        _deliver_with_retries(deliver, tries - 1, sleep, 2 * pause)


def _headers(settings: Alarms, body: bytes) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "afterfit"}
    if settings.secret is not None:
        headers[SIGNATURE] = signature(_environment_variable(settings.secret).encode(), body)
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


def _run_command(command: tuple[str, ...], body: bytes, root: Path) -> None:
    arguments = [_fill_variables(word) for word in command]
    try:
        process = subprocess.run(arguments, input=body, capture_output=True, timeout=60, cwd=root, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnsureAlarmError(f"The command '{arguments[0]}' for alarms did not end in 60 s.") from error
    except OSError as error:
        raise AlarmError(f"The command '{arguments[0]}' for alarms could not be run: {error}.") from error
    if process.returncode:
        output = process.stderr.decode(errors="replace").strip()[-300:]
        raise AlarmError(f"The command '{arguments[0]}' for alarms ended with {process.returncode}: {output}")


def _fill_variables(text: str) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: _environment_variable(match[1]), text)


def _environment_variable(name: str) -> str:
    if name not in os.environ:
        raise SettingsError(f"alarms needs the environment variable {name}, which is not set.")
    return os.environ[name]
