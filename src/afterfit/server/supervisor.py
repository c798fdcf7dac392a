"""The processes of a server: one that asks MLflow, some that answer, and this one, which starts and stops them.

A server may also serve a version from a folder, as in a container image; then no process asks a registry.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import yaml

from afterfit.errors import BundleError, SettingsError, UnknownVersionError
from afterfit.server.options import ServerOptions

BUNDLE = Path("artifacts", "bundle")
NOTED = "registered_model_meta"
"""The file in which MLflow notes the registered version beside a model that it downloaded."""


def version_in(home: Path, name: str, copy: Path) -> dict[str, str | None]:
    """What should be served, as the process that asks the registry would say it: from a copy, whose files are checked.

    The digest is the one that was written into the MLmodel file when the version was logged, and the version's number
    the one that MLflow noted beside it; None where it noted none.

    Args:
        home: the folder with the MLmodel file.
        name: of the use case.
        copy: a new folder of this server's own.

    Raises:
        BundleError: there is no MLmodel file of an Afterfit version, it is another use case's, or a file was altered.
    """
    from afterfit.model import version_files  # noqa: PLC0415 - only a server without a registry needs it

    what = f"The version in '{home}'"
    if (home / "MLmodel").is_file():
        version_files.private_copy(home, copy, what)
    try:
        described = yaml.safe_load((copy / "MLmodel").read_text("utf-8"))
        digest = str(described["metadata"]["digest"])
        noted = copy / NOTED
        known = json.loads((copy / BUNDLE / "manifest.json").read_text("utf-8"))["name"]
        number = str(yaml.safe_load(noted.read_text("utf-8"))["model_version"]) if noted.is_file() else None
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BundleError(
            f"'{home}' must be a version's folder as MLflow downloads it, with an MLmodel file that Afterfit wrote."
        ) from error
    if known != name:
        raise BundleError(f"'{home}' holds a version of {known}; the settings file is that of {name}.")
    version_files.check_alone(copy, what, name)
    return {"version": number, "digest": digest, "home": str(copy), "bundle": str(copy / BUNDLE)}


BACKLOG = 2048
TARGET = "target.json"
LOOK = 0.1
LONGEST_PAUSE = 30.0
"""Seconds between starts of a process that dies again and again."""


@dataclass
class _Process:
    command: list[str]
    descriptors: tuple[int, ...] = ()
    running: "subprocess.Popen[bytes] | None" = None
    starts: int = 0
    again: float = 0.0
    born: float = 0.0

    def look(self, environment: dict[str, str]) -> None:
        """Start it where it does not run, later each time that it dies young."""
        now = time.monotonic()
        if self.running is not None and self.running.poll() is None:
            return
        if self.running is not None:
            young = now - self.born < LONGEST_PAUSE
            self.starts = self.starts + 1 if young else 0
            self.again = now + min(0.5 * 2**self.starts, LONGEST_PAUSE) if young else now
            sys.stderr.write(f"A process ended with code {self.running.returncode} and is started again.\n")
            self.running = None
        if now >= self.again:
            self.born = now
            self.running = subprocess.Popen(
                self.command, pass_fds=self.descriptors, env=environment, stdin=subprocess.DEVNULL
            )


@dataclass
class Supervisor:
    """A server: its socket, its shared folder, its processes.

    Args:
        plan: what is served; its shared folder is made here.
        host: address to listen at.
        port: 0 for a free one.
        workers: processes that answer.
        tell: called once, when every worker is ready, with the address and seconds since the start.
    """

    plan: ServerOptions
    host: str
    port: int
    workers: int
    tell: Callable[[str, float], None]
    _stopping: bool = field(default=False, init=False)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; what was begun is finished.

        Raises:
            SettingsError: the address cannot be listened at.
            UnknownVersionError: nothing holds the alias.
            BundleError: the folder that is served alone holds no version, or one that fails its checks.
        """
        started = time.monotonic()
        listening = _bound(self.host, self.port)
        shared = Path(tempfile.mkdtemp(prefix="afterfit-serve-"))
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._run(listening, shared, started)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            listening.close()
            shutil.rmtree(shared, ignore_errors=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopping = True

    def _run(self, listening: socket.socket, shared: Path, started: float) -> None:
        text = replace(self.plan, shared=str(shared)).to_json()
        place = listening.fileno()
        worker = [sys.executable, "-m", "afterfit.server.start", "worker", text, str(place)]
        workers = [_Process(worker, (place,)) for _ in range(self.workers)]
        beside = [_Process([sys.executable, "-m", "afterfit.server.start", "watcher", text])]
        if self.plan.model:  # nobody has to be asked what should be served
            beside = []
            served = version_in(Path(self.plan.model).absolute(), self.plan.use_case.name, shared / "version")
            (shared / TARGET).write_bytes(orjson.dumps({"served": served, "shadow": None, "registry": {}}))
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        ready = False
        try:
            while not self._stopping:
                for process in (*beside, *workers):
                    process.look(environment)
                _check_target(shared)
                if self.plan.model and not ready:
                    _check_refused(shared)
                if not ready and all(_is_ready(shared, process) for process in workers):
                    ready = True
                    self.tell(_address(listening), time.monotonic() - started)
                time.sleep(LOOK)
        finally:
            self._end([*workers, *beside])

    def _end(self, processes: list[_Process]) -> None:
        running = [process.running for process in processes if process.running is not None]
        for process in running:
            with suppress(ProcessLookupError):
                process.terminate()
        until = time.monotonic() + self.plan.use_case.serving.stop_seconds + 5
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(until - time.monotonic(), 0.1))
            if process.poll() is None:
                process.kill()
                process.wait()


def _is_ready(shared: Path, process: _Process) -> bool:
    return process.running is not None and (shared / f"ready-{process.running.pid}").exists()


def _check_target(shared: Path) -> None:
    try:
        target: dict[str, Any] = orjson.loads((shared / TARGET).read_bytes())
    except (OSError, ValueError):
        return
    if target["registry"].get("fatal"):
        raise UnknownVersionError(target["registry"]["fatal"])


def _check_refused(shared: Path) -> None:
    for file in shared.glob("refused-*.json"):
        raise BundleError(orjson.loads(file.read_bytes())["reason"])


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"The server cannot listen at {host}:{port}: {error.strerror}. Give another port."
        ) from error
    listening.set_inheritable(True)
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
