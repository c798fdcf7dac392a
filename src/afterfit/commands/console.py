"""Shared by all commands: parse options, print lines, write JSON, and turn errors into sentences and exit codes."""

import argparse
import gc
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from math import isfinite
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from afterfit.commands.streams import settle_streams
from afterfit.errors import AfterfitError, SettingsError
from afterfit.texts.redaction import redact, redacted

if TYPE_CHECKING:
    from afterfit.lifecycle.result import CommandResult

INTERRUPTED = 130
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # a server that goes away in the middle is reported within seconds; MLflow's own 7 retries take minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # threads that wait for each other sleep: on a busy machine spinning makes a fit of 1 s take 14
    "OMP_WAIT_POLICY": "passive",
}


def run(parser: argparse.ArgumentParser, name: str, arguments: list[str] | None = None) -> int:
    """Parse the options, call the command of that name with them, print its answer; gives the exit code.

    The command's module is imported only after parsing, so that `--help` and wrong options answer at once.

    `--json PATH` is added to every command: the answer as data, written whole or not at all. What a command has done
    is done: where its words or its JSON cannot be written afterwards, a sentence says so, and the exit code is that of
    what was done.
    """
    settle_streams()
    parser.add_argument("--json", default="", metavar="PATH", help="also write the answer as JSON to this file")
    plain_error = parser.error
    parser.error = lambda message: plain_error(redact(message))  # type: ignore[method-assign]
    options = vars(parser.parse_args(arguments))
    path = options.pop("json")
    settle()
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background it is ignored, and stays so
        signal.signal(signal.SIGINT, _interrupt)
    try:
        place = _json_place(path)
        _check_texts(options)
        answer: CommandResult = imported(name).command(**options)
    except AfterfitError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201 - this is where a command speaks
        return error.exit_code
    except KeyboardInterrupt:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(f"{parser.prog}: interrupted; what was finished is kept.", file=sys.stderr)  # noqa: T201 - as above
        return INTERRUPTED
    print(redact("\n".join(answer.lines)), flush=True)  # noqa: T201 - as above
    try:
        _write_json(place, answer.data)
    except OSError as error:
        said = f"the command has done its work; only its answer could not be written to '{path}': {error.strerror}."
        print(f"{parser.prog}: {said}", file=sys.stderr)  # noqa: T201 - as above
    return answer.exit_code


def imported(name: str) -> ModuleType:
    """The module of a command. What it imports lives as long as the process: no garbage is looked for in it."""
    whole_name = f"afterfit.commands.{name}"
    if whole_name in sys.modules or not gc.isenabled():
        return import_module(whole_name)
    gc.disable()
    try:
        return import_module(whole_name)
    finally:
        gc.freeze()
        gc.enable()


def whole(text: str) -> int:
    """A whole number; MLflow hands its own over as 12.0."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


def yes(text: str) -> bool:
    """Whether a text means yes, in the words that people and MLflow use; empty means no."""
    word = text.strip().lower()
    if word not in {"true", "yes", "1", "false", "no", "0", ""}:
        raise SettingsError(f"'{text}' must be true or false.")
    return word in {"true", "yes", "1"}


def add_skip_damaged(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that read the prediction log."""
    words = "true: leave damaged files and rows of the prediction log out, and say which"
    parser.add_argument("--skip_damaged", "--skip-damaged", nargs="?", const="true", default="false", help=words)


def leaving_out(option: str, work: Callable[[], "CommandResult"]) -> "CommandResult":
    """Do a command's work, without what is damaged of the prediction log where the option says so.

    The answer says what was left out: its lines first, its data under `damaged`.
    """
    from afterfit import prediction_log  # noqa: PLC0415 - `--help` answers sooner without it

    with prediction_log.skipping(yes(option)) as left_out:
        answer = work()
    if not left_out:
        return answer
    lines = [f"Left out: {sentence}" for sentence in left_out]
    return replace(answer, lines=(*lines, *answer.lines), data={**answer.data, "damaged": list(left_out)})


def settle() -> None:
    """Set defaults of the process, before heavy imports: quiet libraries, and threads that do not spin."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    sys.excepthook = _crash
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in ("mlflow.store.db.utils", "sqlalchemy.pool"):  # they print the trace of what is told in a sentence
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the trace of an error that nobody expected, without secrets: a library's error often holds an address."""
    import traceback  # noqa: PLC0415 - only a fault of ours needs it

    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Stop, but leave time to end the runs: `mlflow run` sends SIGTERM right after Ctrl-C, which is ignored here.

    A second Ctrl-C still stops at once.
    """
    del signum, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which holds until the process is gone; a handler of ours would not
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)  # a query cut in the middle is no news, nor its trace
    sys.unraisablehook = _unraisable
    _insist()
    raise KeyboardInterrupt


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Ignore an interrupt where Python cannot raise, such as in a weak reference's callback: it is tried again."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)


def _insist() -> None:
    """Interrupt again in a second: a library that was in a callback may have swallowed the first interrupt."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt_again)
        signal.setitimer(signal.ITIMER_REAL, 1.0)


def _interrupt_again(signum: int, frame: FrameType | None) -> None:
    """Interrupt once more, unless an interrupt is being handled already and runs are being ended."""
    del signum, frame
    _insist()
    handled = sys.exc_info()[1]
    while handled is not None:
        if isinstance(handled, KeyboardInterrupt):
            return
        handled = handled.__context__
    raise KeyboardInterrupt


def _check_texts(options: dict[str, Any]) -> None:
    """Refuse what no settings, tag or table could hold, before anything is done."""
    for name, value in options.items():
        shown = str(value).encode("utf-8", "backslashreplace").decode()
        if shown != str(value):
            raise SettingsError(
                f"--{name} '{shown}' must be text of UTF-8: rename the file, or make a link to it under such a name."
            )


def _json_place(path: str) -> Path | None:
    if not path:
        return None
    place = Path(path)
    if place.is_dir():
        raise SettingsError(f"--json '{path}' is a folder: a file's name is needed.")
    try:
        if _is_stream(place):
            place.open("ab").close()
            return place
        place = place.resolve()  # a link stays a link
        _draft(place).touch()  # tried, not asked: what root may do and what can be done are two things
        _draft(place).unlink()
    except OSError as error:
        raise SettingsError(f"--json '{path}' cannot be written: {error.strerror}.") from error
    return place


def _draft(place: Path) -> Path:
    return place.with_name(place.name + ".part")


def _is_stream(place: Path) -> bool:
    """Whether it is written to and never replaced: a device or a pipe, or the file that this process prints to."""
    if not place.exists():
        return False
    printed = [os.fstat(number) for number in (1, 2) if Path(f"/dev/fd/{number}").exists()]
    return not place.is_file() or any(os.path.samestat(place.stat(), each) for each in printed)


def _write_json(place: Path | None, data: dict[str, Any]) -> None:
    if place is None:
        return
    text = json.dumps(redacted(_plain(data)), indent=1, default=str, allow_nan=False) + "\n"
    if _is_stream(place):
        with place.open("a", encoding="utf-8") as stream:
            stream.write(text)
        return
    _draft(place).write_text(text, "utf-8")
    _draft(place).replace(place)


def _plain(value: Any) -> Any:
    """The same with null for what JSON has no number for: nan and the infinities."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
