"""Memory that was freed is given back to the system: after one large request a process would keep it otherwise."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

SLACK = 2**26
"""Bytes of growth from which it is worth a try: the allocator is held up for some milliseconds."""
PAGE = 4_096
STATM = Path("/proc/self/statm")


class FreedMemory:
    """Gives back what this process has freed, where it has grown since the last time."""

    def __init__(self) -> None:
        self._least = resident()
        self._trim = _trim()

    def give_back(self) -> bool:
        """Give back what is free; says whether that was tried. It may be called as often as one likes."""
        now = resident()
        if self._trim is None or now < self._least + SLACK:
            self._least = min(now, self._least) or now
            return False
        pa.default_memory_pool().release_unused()
        self._trim(0)
        self._least = resident()
        return True


def resident() -> int:
    """This process's resident bytes; 0 where the system does not say."""
    try:
        return int(STATM.read_bytes().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _trim() -> Callable[[int], int] | None:
    """The C library's `malloc_trim`; None where it has none."""
    with suppress(OSError, AttributeError):
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return found
    return None
