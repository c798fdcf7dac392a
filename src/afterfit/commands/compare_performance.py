"""Compare two versions on the same rows of a window; nothing is decided or recorded."""

from afterfit.commands import console
from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.version_comparison import SHADOW, compare_held_out, compare_shadow
from afterfit.use_case import load_use_case


def command(  # noqa: PLR0917 - the options of the command line, by name
    config: str,
    candidate: str = "latest",
    champion: str = "production",
    start: str = "",
    end: str = "",
    data: str = "",
    skip_damaged: str = "false",
) -> CommandResult:
    """Compare; see scripts/compare_performance.py for the options."""
    if data not in {"", SHADOW}:
        raise SettingsError(f"--data must be empty or '{SHADOW}', and came as '{data}'.")
    compare = compare_held_out if not data else compare_shadow
    use_case = load_use_case(config)
    return console.leaving_out(skip_damaged, lambda: compare(use_case, (candidate, champion), (start, end)))
