"""What a command did, and the exit codes that say it to a scheduler."""

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
