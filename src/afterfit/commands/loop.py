"""Take steps for ever: all that are due, then a pause, and again."""

import sys
import time

import pandas as pd

from afterfit.commands import step
from afterfit.errors import SettingsError, StoreError
from afterfit.lifecycle.result import CommandResult
from afterfit.texts.redaction import redact

IDLE = frozenset({"nothing is due", "busy"})


def command(
    config: str, every: str = "1h", folder: str = "steps", rounds: int = 0, skip_damaged: str = "false"
) -> CommandResult:
    """Step whenever a window is over; see scripts/loop.py for the options."""
    pause = parse_seconds(every)
    if rounds < 0:
        raise SettingsError(f"--rounds must be 0 (for ever) or more, not {rounds}.")
    taken, looks = 0, 0
    while True:
        looks += 1
        taken += take_due_steps(config, folder, skip_damaged)
        if rounds and looks >= rounds:
            return CommandResult((f"{taken} steps in {looks} looks.",), {"steps": taken, "looks": looks})
        time.sleep(pause)


def parse_seconds(every: str) -> float:
    """A length of time such as 15min, 1h or 1d, in seconds.

    Raises:
        SettingsError: the text is no length of time.
    """
    try:
        length = pd.Timedelta(every.strip()).total_seconds()
    except ValueError:
        length = 0.0
    if not length > 0:
        raise SettingsError(f"--every '{every}' must be a length of time, such as 15min, 1h or 1d.")
    return float(length)


def take_due_steps(config: str, folder: str, skip_damaged: str = "false") -> int:
    """Take the steps that are due; gives how many. If the store is away, a message says so, and the loop goes on."""
    taken = 0
    while True:
        try:
            answer = step.command(config, folder=folder, skip_damaged=skip_damaged)
        except StoreError as error:
            print(f"loop: {error} It is tried again after the pause.", file=sys.stderr)  # noqa: T201 - it goes on
            return taken
        if answer.data["outcome"] in IDLE:
            return taken
        taken += 1
        print(redact("\n".join(answer.lines)), flush=True)  # noqa: T201 - each step speaks as it ends
