"""A process that answers: one event loop, one thread for batches, one that loads new versions, no MLflow."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

import uvicorn

from afterfit import prediction_log
from afterfit.errors import AfterfitError, LogError
from afterfit.prediction_log.privacy import NO_REDACTION, redaction_of
from afterfit.server.connections import Connections, Protocol
from afterfit.server.memory import FreedMemory
from afterfit.server.options import ServerOptions, plan_of
from afterfit.server.reload import Reloader
from afterfit.serving import metrics
from afterfit.serving.asgi import AccessLog, Endpoints
from afterfit.serving.auth import tokens_of_environment
from afterfit.serving.routes import application
from afterfit.serving.service import Service, Shadow
from afterfit.texts.redaction import redact

TICK = 0.1
"""Seconds between looks at requests that take too long."""
LOOK = 0.5
"""Seconds between looks at connections that ask nothing."""
COUNT = 2.0
"""Seconds between counts of the answers that are not sealed yet."""
WRITE = 0.5
"""Seconds between writes of the counts for the other processes."""
THRESHOLDS = 20_000, 20, 50
"""Of the garbage collector: requests leave next to no cycles, and what waits for the logs is looked through seldom."""
LONGEST_LOAD = 60.0
"""Seconds after which a worker that has no version yet answers all the same, with 503."""


class Worker:
    """Everything that one process serves with, put together.

    Args:
        plan: what is served.
        stopped: set by a signal that comes before the server is there to obey it.
    """

    def __init__(self, plan: ServerOptions, stopped: threading.Event) -> None:
        self._faults, self._stopped = FaultReports(), stopped
        use_case, self.shared, self._parent = plan.use_case, Path(plan.shared), os.getppid()
        place = prediction_log.log_of(use_case)
        log = place.spool() if place is not None else None
        acknowledged = place is not None and place.durability == "acknowledged"
        self.service = Service(use_case.name, plan.alias, use_case.serving, log, place, acknowledged)
        self.service.faults = self._faults.tell
        if plan.shadow and log is not None:
            self.service.shadow = Shadow(log, self._faults.tell)
        self.access = AccessLog(_output(plan.access))
        self.endpoints = Endpoints(self.service, self.access, tokens_of_environment(), _nowhere)
        self.endpoints.rest = application(self.service, self.endpoints, self.shared)
        redaction = NO_REDACTION if place is None else redaction_of(use_case)
        self.reloader = Reloader(self.service, self.shared, redaction, _tell)
        self._sealer = threading.Thread(target=self._seal, name="sealer", daemon=True)
        self._stop = threading.Event()

    def run(self, listening: socket.socket) -> None:
        """Serve until a signal says to stop."""
        limits = self.service.limits
        config = uvicorn.Config(
            self.endpoints,
            http=Protocol,
            ws="none",
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
            lifespan="off",
            timeout_graceful_shutdown=int(limits.stop_seconds) + 1,
        )
        sys.setswitchinterval(0.001)  # the event loop must not wait long for the threads beside it
        self.reloader.start()
        self._sealer.start()
        if self._has_something_to_say():
            _Server(config, self).run(sockets=[listening])
        self.close()

    def _has_something_to_say(self) -> bool:
        """Leave the shared socket to other workers until a version is loaded here, or there is none to load.

        Returns:
            False where a signal said to stop meanwhile.
        """
        until = time.monotonic() + LONGEST_LOAD
        while not self.reloader.settled and time.monotonic() < until:
            if self._stopped.wait(0.01):
                return False
        return not self._stopped.is_set()

    def _count_connections(self, connections: Connections) -> None:
        self.service.connections = len(connections.state.connections)
        for reason, number in connections.closed.items():
            self.service.metrics.counts["connections_closed", reason] = number

    async def tick(self, connections: Connections) -> None:
        """Runs beside the requests."""
        last, looked, written = 0.0, 0.0, b""
        while True:
            await asyncio.sleep(TICK)
            self.endpoints.tick()
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                connections.sweep(looked)
                self.service.unsent = connections.unsent
                self._count_connections(connections)
            if os.getppid() != self._parent and not self.service.stopping:
                _tell("The server's first process is gone: stopping.")
                os.kill(os.getpid(), signal.SIGTERM)
            if time.monotonic() - last > WRITE:
                last = time.monotonic()
                text = self.service.text(self.endpoints.in_flight)
                if text != written:
                    written = text
                    with suppress(OSError):  # a full disk must not stop the answers
                        metrics.write(self.shared, text)
            self._say_ready()

    def _say_ready(self) -> None:
        file = self.shared / f"ready-{os.getpid()}"
        if self.service.engine is not None and not file.exists():
            gc.collect()
            gc.freeze()  # what was loaded is not looked at again
            gc.set_threshold(*THRESHOLDS)
            with suppress(OSError):
                file.touch()

    def _seal(self) -> None:
        """Seal every so often; in between, count what waits for it, and give back memory that was freed."""
        service, last, freed = self.service, time.monotonic(), FreedMemory()
        seconds = service.limits.seal_seconds
        while not self._stop.wait(min(seconds, COUNT)):
            if service.log is not None and service.place is not None and time.monotonic() - last >= seconds:
                last = time.monotonic()
                self._survive(partial(prediction_log.seal, service.place, [service.log]), seals=True)
            self._survive(self._count_backlog)
            freed.give_back()

    def _count_backlog(self) -> None:
        if self.service.log is not None:
            self.service.backlog = self.service.log.backlog

    def _survive(self, do: Callable[[], object], *, seals: bool = False) -> None:
        """Do something for the log; whatever goes wrong is told, and the thread goes on."""
        try:
            do()
        except Exception as error:  # noqa: BLE001 - nothing that the log holds may end its sealing
            self._faults.tell("seal", error)
            self.service.seal_fails = self.service.seal_fails or seals
        else:
            if seals:
                self.service.sealed, self.service.seal_fails = time.time(), False

    def close(self) -> None:
        """End the threads, write what is in memory; the log is sealed by whoever started this process."""
        self._stop.set()
        self.reloader.close()
        self.endpoints.close()
        if self.service.shadow is not None:
            self.service.shadow.close()
        if self.service.log is not None:
            try:
                self.service.log.close()
            except LogError as error:
                self._faults.tell("log", error)
        with suppress(OSError):
            metrics.write(self.shared, self.service.text(0))
        self.access.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._worker = worker

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._connections = Connections(self.server_state, self._worker.service.limits)
        await super().startup(sockets)
        self._ticking = asyncio.create_task(self._worker.tick(self._connections))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._worker.service.stopping = True
        super().handle_exit(sig, frame)


async def _nowhere(*_: object) -> None:
    """Stands where the application will be."""


def _output(access: str) -> IO[bytes] | None:
    if access == "none":
        return None
    return sys.stdout.buffer if access == "stdout" else Path(access).open("ab")


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{redact(sentence)}\n")
    sys.stderr.flush()


class FaultReports:
    """Tells the operator of faults, those of one place at most once in five seconds."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def tell(self, identity: str, error: BaseException) -> None:
        """Tell of a fault, where none of that place was told just now."""
        now = time.monotonic()
        if now - self._told.get(identity, -10.0) < 5:
            return
        if len(self._told) > 1_000:
            self._told.clear()
        self._told[identity] = now
        trace = "" if isinstance(error, AfterfitError) else "".join(traceback.format_exception(error))
        _tell(f"{identity}: {error}\n{trace}".rstrip())


def main(text: str, descriptor: str) -> None:
    """Serve on a socket that the parent process bound."""
    stopped = threading.Event()

    def stay(number: int, frame: FrameType | None) -> None:
        """A signal that uvicorn has obeyed already, or one that comes before uvicorn is there to obey it."""
        del number, frame
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stay)  # uvicorn raises them again when it has stopped, and what it wrote must be closed
    Worker(plan_of(text), stopped).run(socket.socket(fileno=int(descriptor)))
