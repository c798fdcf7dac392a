"""Send alarms: a signed POST to a webhook, or a command; a failed try is repeated after longer and longer pauses.

One cause is told at most once. What the settings name is looked at first (`prepare`). Then the step records that it is
sending, and only then it sends. If it dies after that, the alarm may have arrived, and it is not sent again. If the
receiver refused or could not be reached, the alarm surely has not arrived: it is sent again, now and by later steps. An
alarm that may be lost is named in the answer and in the step's run.
"""

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from afterfit.alarms import webhook
from afterfit.alarms.webhook import FinalAlarmError
from afterfit.errors import AlarmError, SettingsError, UnsureAlarmError
from afterfit.settings import Alarms
from afterfit.texts.redaction import learn, redact, redacted

SIGNATURE = "X-Afterfit-Signature"
PAUSE = 1.0
"""Seconds before the second try; each pause after it is twice as long."""
COMMAND_SECONDS = 60.0
"""Seconds that a command may take; then it is killed with all that it started."""
MOST_OUTPUT = 300
"""Characters of what a command says that an error repeats, the last ones."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One way that an alarm goes: its name for people, and what sends it."""

    way: str
    send: Callable[[], None]


def message(use_case: str, window: str, action: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The content of an alarm. Same causes in the same window give the same id, so that receivers can drop a copy."""
    content = {"use_case": use_case, "window": window, "version": version, **action}
    keys = [use_case, window, version, *(cause["key"] for cause in action["causes"])]
    return {"id": hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32], **content}


def prepare(settings: Alarms, alarm: Mapping[str, Any], root: Path) -> list[Delivery]:
    """The ways that an alarm goes, after a look at all that can be wrong with them; nothing is sent.

    Args:
        settings: where to.
        alarm: its content, as `message` gives it.
        root: the folder that a command runs in.

    Raises:
        SettingsError: an environment variable that the settings name is not set, or an address or a word of the
            command cannot be used.
    """
    body = json.dumps(redacted(alarm), sort_keys=True).encode()
    deliveries: list[Delivery] = []
    if settings.webhook is not None:
        address, headers = webhook.address_of(_fill_variables(settings.webhook)), _headers(settings, body)
        deliveries.append(Delivery("webhook", lambda: webhook.post(address, headers, body, webhook.SECONDS)))
    if settings.command:
        arguments = [_fill_variables(word) for word in settings.command]
        if not arguments[0].strip() or any("\0" in word for word in arguments):
            raise SettingsError("alarms.command must be the words of a command line, and none of them may hold a NUL.")
        name = settings.command[0]
        deliveries.append(Delivery("command", lambda: _run_command(name, arguments, body, root)))
    return deliveries


def deliver(deliveries: Sequence[Delivery], tries: int, sleep: Callable[[float], None]) -> list[str]:
    """Send an alarm all the ways, each with so many tries; gives a sentence for each way that failed beside another.

    Raises:
        AlarmError: it arrived by no way.
        UnsureAlarmError: it may have arrived, and is not known to have.
    """
    outcomes = [_deliver_with_retries(delivery.send, tries, sleep) for delivery in deliveries]
    faults = [fault for fault in outcomes if fault is not None]
    sentences = [str(fault) for fault in faults]
    if len(faults) < len(deliveries) or not faults:
        return sentences
    unsure = any(isinstance(fault, UnsureAlarmError) for fault in faults)
    raise (UnsureAlarmError if unsure else AlarmError)(" ".join(sentences)) from faults[0]


def send(settings: Alarms, alarm: Mapping[str, Any], root: Path, sleep: Callable[[float], None]) -> list[str]:
    """Prepare and deliver one alarm; arguments, result and errors as there."""
    return deliver(prepare(settings, alarm, root), settings.tries, sleep)


def signature(secret: bytes, body: bytes) -> str:
    """HMAC-SHA256 of a body, as the text of the header."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def _deliver_with_retries(
    deliver: Callable[[], None], tries: int, sleep: Callable[[float], None], pause: float = PAUSE
) -> AlarmError | None:
    """Try until it arrived, may have arrived, or never will; gives the last error, or None."""
    try:
        deliver()
    except AlarmError as error:
        if tries <= 1 or isinstance(error, UnsureAlarmError | FinalAlarmError):
            return error
    else:
        return None
    sleep(pause)
    return _deliver_with_retries(deliver, tries - 1, sleep, 2 * pause)


def _headers(settings: Alarms, body: bytes) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "afterfit"}
    if settings.secret is not None:
        headers[SIGNATURE] = signature(_signing_key(settings.secret), body)
    return headers


def _signing_key(name: str) -> bytes:
    key = _environment_variable(name)
    if not key:
        raise SettingsError(f"alarms.secret names the environment variable {name}, which is empty.")
    return key.encode("utf-8", "surrogateescape")


def _run_command(name: str, arguments: list[str], body: bytes, root: Path) -> None:
    """Run a command with the alarm on its standard input, and with all that it starts in a group of its own.

    Input and output are files: a process that it leaves behind keeps no pipe open that somebody waits for.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(body)
        given.seek(0)
        try:
            process = subprocess.Popen(arguments, stdin=given, stdout=out, stderr=err, cwd=root, start_new_session=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no command line"
            raise AlarmError(f"The command '{name}' for alarms could not be run: {reason}.") from error
        try:
            code = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise UnsureAlarmError(
                f"The command '{name}' for alarms did not end in {COMMAND_SECONDS:g} s and was stopped: the alarm may "
                "have arrived."
            ) from error
        finally:
            if process.poll() is None:
                _kill(process)
        said = _last_words(err) or _last_words(out)
    if code < 0:
        raise UnsureAlarmError(
            f"The command '{name}' for alarms was ended by signal {-code}: the alarm may have arrived. {said}".rstrip()
        )
    if code:
        raise AlarmError(f"The command '{name}' for alarms ended with {code}: {said}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(output: IO[bytes]) -> str:
    """The end of what a command said, without secrets and without characters that a terminal obeys."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 65_536))
    text = redact(output.read().decode(errors="replace"))
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[-MOST_OUTPUT:]


def _fill_variables(text: str) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: _environment_variable(match[1]), text)


def _environment_variable(name: str) -> str:
    if name not in os.environ:
        raise SettingsError(f"alarms needs the environment variable {name}, which is not set.")
    learn(os.environ[name])
    return os.environ[name]
