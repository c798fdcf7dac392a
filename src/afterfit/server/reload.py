"""Takes a new version into service: it is loaded beside the old one, tried on real rows, then put in its place."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from afterfit.errors import AfterfitError, BundleError
from afterfit.model.bundle import load
from afterfit.model.version_files import check_code
from afterfit.prediction_log.privacy import LogRedaction
from afterfit.serving.engine import Engine, Row, engine
from afterfit.serving.service import Service

EVERY = 0.1
"""Seconds between looks at what should be served; a look is one stat of a file."""
TARGET = "target.json"
LOADER = "served.py"
Tell = Callable[[str], None]


class Reloader:
    """Watches the file in which another process says what should be served, and loads it in a thread.

    Args:
        service: what serves.
        shared: the folder that the server's processes share.
        redaction: what the log keeps of a row.
        tell: takes a sentence for the operator.

    Attributes:
        settled: whether it has heard once what to serve, and has loaded or refused it.
    """

    def __init__(self, service: Service, shared: Path, redaction: LogRedaction, tell: Tell) -> None:
        self._service, self._shared, self._redaction, self._tell = service, shared, redaction, tell
        self._refused: set[tuple[str, ...]] = set()
        self._seen, self.settled = "", False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - what is served goes on whatever happens here
                self._service.faults("reload", error)
            self._stop.wait(EVERY)

    def look(self) -> None:
        """Read what should be served; load what is new."""
        try:
            stat = (self._shared / TARGET).stat()
            mark = f"{stat.st_mtime_ns} {stat.st_ino}"
            if mark == self._seen:
                return
            target = orjson.loads((self._shared / TARGET).read_bytes())
        except (OSError, ValueError):
            return
        self._seen = mark
        self._service.registry = target["registry"]
        self._serve(target.get("served"))
        self.settled = True
        if self._service.shadow is not None:
            self._follow_shadow(target.get("shadow"))

    def _serve(self, wanted: Mapping[str, str] | None) -> None:
        service = self._service
        if wanted is None or _same(service.engine, wanted) or _mark(wanted) in self._refused:
            return
        try:
            made = loaded(wanted, self._redaction)
            try_out(made, service.engine, list(service.recent))
        except AfterfitError as error:
            if self._wanted() == wanted:  # else it was replaced while it was read, and its files may be gone
                self._refuse(wanted, error)
            return
        service.take(made, wanted["bundle"])
        how = "compiled" if made.compiled else "as it is"
        self._tell(f"Version {wanted['version']} is in service (process {os.getpid()}, {how}).")

    def _wanted(self) -> Any:
        return orjson.loads((self._shared / TARGET).read_bytes()).get("served")

    def _refuse(self, wanted: Mapping[str, str], error: AfterfitError) -> None:
        self._refused.add(_mark(wanted))
        self._service.refuse(wanted["version"])
        reason = str(error).replace(wanted["home"], f"version {wanted['version']}")  # not where this server's copy lies
        note = {**wanted, "reason": reason}
        part = self._shared / f"refused-{os.getpid()}-{wanted['version']}-{wanted.get('attempt', 1)}.part"
        part.write_bytes(orjson.dumps(note))
        part.replace(part.with_suffix(".json"))
        kept = self._service.engine.bundle.version if self._service.engine else None
        self._tell(f"Version {wanted['version']} is refused: {reason} Served is version {kept or '-'}.")

    def _follow_shadow(self, wanted: Mapping[str, str] | None) -> None:
        shadow = self._service.shadow
        if shadow is None or _same(shadow.engine, wanted):
            return
        if wanted is None:
            shadow.engine = None
            return
        if _mark(wanted) in self._refused:
            return
        try:
            shadow.engine = loaded(wanted, self._redaction)
            self._tell(f"Version {wanted['version']} answers in the shadow.")
        except AfterfitError as error:
            self._refused.add(_mark(wanted))
            self._tell(f"Version {wanted['version']} cannot answer in the shadow: {error}")


def _mark(wanted: Mapping[str, str]) -> tuple[str, ...]:
    """A version as it was fetched: it is not tried twice, unless it is fetched again."""
    return wanted["version"], wanted["digest"], str(wanted.get("attempt", 1))


def _same(known: Engine | None, wanted: Mapping[str, str] | None) -> bool:
    if known is None or wanted is None:
        return known is None and wanted is None
    return (known.bundle.version, known.bundle.digest) == (wanted["version"], wanted["digest"])


def loaded(wanted: Mapping[str, str], redaction: LogRedaction) -> Engine:
    """Load a version, held against the digest that was recorded at registration, and make it ready.

    Raises:
        BundleError: it is not what was registered, or does not load.
    """
    folder = Path(wanted["bundle"])
    bundle = load(folder, wanted["digest"], wanted["version"])
    check_code(Path(wanted["home"]), bundle.manifest.code, LOADER)
    return engine(bundle, redaction)


def try_out(made: Engine, old: Engine | None, recent: Sequence[Row]) -> None:
    """Answer the examples and the rows answered last, alone and together; this warms it too.

    Raises:
        BundleError: an example gets no prediction, or a row which the old version predicts.
    """
    examples: list[Any] = list(made.bundle.example)
    try:
        for answer in [*(made.answers([row])[0] for row in examples), *made.answers(examples)]:
            if answer.error is not None:
                raise BundleError(f"An example of its own gets no prediction: {answer.error['message']}")
        if old is None or not recent:
            return
        before, now = old.answers(recent), made.answers(recent)
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise BundleError(f"It cannot answer: {type(error).__name__}.") from error
    lost = [new.error for was, new in zip(before, now, strict=True) if was.error is None and new.error]
    if lost:
        raise BundleError(
            f"{len(lost)} of the last {len(recent)} rows, which the version in service predicts, get no prediction "
            f"({lost[0]['code']} in {lost[0]['column'] or 'the answer'})."
        )
