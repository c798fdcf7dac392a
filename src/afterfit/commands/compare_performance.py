"""Compare two versions, or a version with an alias, on the same rows of a window; nothing is decided or recorded."""

from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.version_comparison import SHADOW, command_for, from_shadow
from afterfit.use_case import load_use_case


def command(  # noqa: PLR0917 - the options of the command line, by name
    config: str,
    candidate: str = "latest",
    champion: str = "production",
    start: str = "",
    end: str = "",
    data: str = "",
) -> CommandResult:
    """Compare; see scripts/compare_performance.py for the options."""
    if data not in {"", SHADOW}:
        raise SettingsError(f"--data must be empty or '{SHADOW}', and came as '{data}'.")
    look = command_for if not data else from_shadow
    return look(load_use_case(config), (candidate, champion), (start, end))
