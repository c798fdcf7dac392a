"""A lock over any MLflow store: commands work one at a time. It uses what every store does atomically."""

import json
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from afterfit.errors import BusyError, StoreError
from afterfit.mlflow_store.tracking import check_reachable, store, store_errors

LEASE = 300.0
"""Seconds after which a lock counts as left behind, even if its process still lives or runs on another machine."""
PATIENCE = 60.0
"""Seconds to wait for a living holder; work under the lock takes one or two."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock.

    Attributes:
        token: made anew each time the lock is taken.
        machine: host, boot and process space, so that a process id means something.
        pid: the process.
        born: when that process began, in the machine's own count; ids are used again.
        who: the person or service, for sentences.
        since: seconds since 1970 on the holder's clock.
        lease: seconds after which it counts as left behind.
    """

    token: str
    machine: str
    pid: int
    born: str
    who: str
    since: float
    lease: float = LEASE

    def left_behind(self, now: float) -> bool:
        """Whether its process is known to be gone, or its lease has run out."""
        if now - self.since > self.lease:
            return True
        return self.machine == _machine() and _start_of(self.pid) != self.born

    def to_text(self) -> str:
        """As the description of the lock."""
        return json.dumps(asdict(self))


class Lease:
    """A lock while it is held; call `require` before each step that must not run beside another command."""

    def __init__(self, name: str, since: float, lease: float = LEASE) -> None:
        self.name = name
        self._lease = lease
        self._until = since + lease / 2

    def require(self) -> None:
        """Fail if so much time has passed that another command may soon take the lock.

        Raises:
            StoreError: half of the lease is over.
        """
        if time.monotonic() > self._until:
            raise StoreError(
                f"MLflow at {store()} was too slow: '{self.name}' was held for {self._lease / 2:g} s. "
                "Run the command again: it finishes or undoes what was begun."
            )


@contextmanager
def locked(name: str, who: str, patience: float = PATIENCE, lease: float = LEASE) -> Iterator[Lease]:
    """Hold the lock of that name while the block runs.

    MLflow has no compare-and-set. But each of its stores creates a registered model atomically: names are unique, and
    the second request for a name is refused. So the lock is a registered model without versions. Its description names
    the owner (both are one row in the store, so that both are there or neither is). It is deleted at the end.

    A lock is left behind if its process is gone or its lease is over. To delete it, a process first takes the lock of
    that one ownership (`name.token`) and then looks again: so two processes that see it at the same time cannot delete
    each other's new lock. Leases compare clocks of machines, which must agree to within a minute or two.

    Args:
        name: of the lock; it stands in the registry while it is held.
        who: named to those who wait too long.
        patience: seconds to wait for a living holder.
        lease: seconds after which it counts as left behind where its process cannot be looked at.

    Raises:
        StoreError: another process holds it all that time (it is named), or the store is away.
    """
    check_reachable()
    owner = Owner(uuid.uuid4().hex[:12], _machine(), os.getpid(), _start_of(os.getpid()), who, time.time(), lease)
    _take(name, owner, time.monotonic() + patience)
    try:
        yield Lease(name, time.monotonic(), lease)
    finally:
        # what cannot be deleted now is left behind, which the next command sees
        with suppress(StoreError):
            _delete_own(name, owner)


def retry_if_locked(call: Callable[[], Result], tries: int = 20) -> Result:
    """Repeat a call that SQLite refused because another process was writing; a refused call has changed nothing."""
    try:
        return call()
    except MlflowException as error:
        if tries <= 1 or "database is locked" not in str(error.message):
            raise
    time.sleep(random.uniform(0.05, 0.25))  # noqa: S311 - see above
    return retry_if_locked(call, tries - 1)


def _take(name: str, owner: Owner, deadline: float) -> None:
    while not _create(name, owner):
        while (holder := _holder(name)) is not None:  # reading only: writers of a SQLite file wait for each other
            if holder.left_behind(time.time()):
                _break(name, holder, owner, deadline)
                break
            if time.monotonic() > deadline:
                raise BusyError(
                    f"{holder.who} (process {holder.pid} on {holder.machine.partition(' ')[0]}) holds '{name}' for "
                    f"{time.time() - holder.since:.0f} s already. Wait for it, or end it: the next command clears up."
                )
            time.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - so that those who wait do not ask in step


def _break(name: str, holder: Owner, owner: Owner, deadline: float) -> None:
    """Delete a lock that was left behind, exactly that one."""
    right = f"{name}.{holder.token}"
    _take(right, owner, deadline)
    try:
        _delete_own(name, holder)
    finally:
        _delete_own(right, owner)


def _create(name: str, owner: Owner) -> bool:
    try:
        with store_errors():
            retry_if_locked(lambda: MlflowClient().create_registered_model(name, description=owner.to_text()))
    except StoreError as error:
        # RESOURCE_DOES_NOT_EXIST: it was there when it was asked for, and gone when MLflow looked whose it is
        if _code(error) in {"RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}:
            return False
        raise
    return True


def _delete_own(name: str, owner: Owner) -> None:
    """Delete the lock if it still is this owner's."""
    holder = _holder(name)
    if holder is None or holder.token != owner.token:
        return
    try:
        with store_errors():
            retry_if_locked(lambda: MlflowClient().delete_registered_model(name))
    except StoreError as error:
        if _code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise


def _holder(name: str) -> Owner | None:
    try:
        with store_errors():
            model = retry_if_locked(lambda: MlflowClient().get_registered_model(name))
    except StoreError as error:
        if _code(error) == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    try:
        return _owner_of(model.description or "")
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(
            f"The registered model '{name}' is no lock of Afterfit's: rename it, the name is needed."
        ) from error


def _owner_of(text: str) -> Owner:
    """The owner that a lock's description names; ValueError or TypeError where somebody has changed it."""
    owner = Owner(**json.loads(text))
    texts, numbers = (owner.token, owner.machine, owner.born, owner.who), (owner.pid, owner.since, owner.lease)
    if not all(isinstance(one, str) for one in texts) or not all(isinstance(one, int | float) for one in numbers):
        raise TypeError("an owner's names are text, and its process and times are numbers")
    return owner


def _code(error: StoreError) -> str:
    return str(getattr(error.__cause__, "error_code", ""))


def _machine() -> str:
    return " ".join([socket.gethostname(), _read_text("/proc/sys/kernel/random/boot_id"), _process_space()])


def _process_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "-"


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text("ascii").strip()
    except OSError:
        return "-"


def _start_of(pid: int) -> str:
    """When a living process began; empty where there is none, or it has ended and waits for its parent (a zombie)."""
    stat = _read_text(f"/proc/{pid}/stat")
    if stat != "-":
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    if Path("/proc/self/stat").exists():
        return ""
    try:  # without /proc an id is all there is
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
