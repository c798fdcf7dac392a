"""The result of a command, and the exit codes that tell a scheduler what came of it."""

from dataclasses import dataclass, field
from typing import Any

HOLD, REJECT = 3, 4
ALARM = 3


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command did: lines for a person, the same as data for a program, and the exit code."""

    lines: tuple[str, ...]
    data: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
