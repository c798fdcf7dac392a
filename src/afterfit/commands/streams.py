"""Standard output and error of a command: whatever becomes of them, it does its work to the end.

A character that the encoding lacks is written as its escape. Where the other end is gone, or its disk is full, the rest
of the words goes nowhere: a command that has moved an alias must not end as if it had not.
"""

import errno
import os
import sys
from collections.abc import Iterable
from typing import IO, Any

GONE = frozenset({errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET})
"""The reader went away, as `head -1` does: that is no news."""


class SureStream:
    """A text stream whose words may be lost, and whose writer is never stopped by that.

    Args:
        stream: the text stream that it writes to.
        name: what a message calls it.
    """

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream, self._name, self._lost = stream, name, False

    def write(self, text: str) -> int:
        """Write a text as far as that is possible."""
        try:
            self._stream.write(text)
        except UnicodeError:  # a stream of another kind, which cannot be told to write escapes
            self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError) as error:
            self._lose(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand over what was written so far."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: Exception) -> None:
        """Let all that follows go nowhere, what is still in buffers too; told once, on standard error."""
        if self._lost:
            return
        self._lost = True
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):  # a stream without a descriptor, or a closed one
            return
        if isinstance(error, OSError) and error.errno not in GONE and self._name == "standard output":
            said = f"{self._name} cannot be written ({error.strerror}): the work goes on, its words are lost."
            sys.stderr.write(f"{said}\n")


def settle_streams() -> None:
    """Make standard output and error such that no write to them fails; done again it changes nothing."""
    _occupy()
    for attribute, name in (("stdout", "standard output"), ("stderr", "standard error")):
        stream = getattr(sys, attribute)
        if stream is None or isinstance(stream, SureStream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, attribute, SureStream(stream, name))


def _occupy() -> None:
    """Open the null device where a standard descriptor is closed, or the next file would get its number and words."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # noqa: PERF203 - three times
            os.open(os.devnull, os.O_RDWR)
