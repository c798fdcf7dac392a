"""Compare a table, whole or by windows, with a version's training rows, another table, or a saved profile."""

from pathlib import Path

from afterfit.commands import console
from afterfit.data import files, windows
from afterfit.data.windows import WindowLength, WindowSplitter
from afterfit.errors import SettingsError
from afterfit.lifecycle.drift_comparison import compare_windows
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import registry
from afterfit.use_case import load_use_case


def command(  # noqa: PLR0917 - the options of the command line, given by name
    config: str,
    reference: str = registry.PRODUCTION,
    data: str = "",
    start: str = "",
    end: str = "",
    every: str = "",
    time: str = "",
    rate: float = 0.01,
    page: str = "",
    save: str = "",
    skip_damaged: str = "false",
) -> CommandResult:
    """Compare windows with a reference; see scripts/compare_drift.py for the options."""
    use_case = load_use_case(config) if config else None
    if use_case is None and not data:
        raise SettingsError("Without --config there is no source: name the table with --data.")
    places = [files.check_writable(Path(path)) if path else None for path in (page, save)]
    period = WindowSplitter(
        WindowLength.parse(every),
        time or (use_case.time if use_case else None),
        windows.parse_time(start, "--start"),
        windows.parse_time(end, "--end"),
        marks=frozenset(use_case.columns.missing_marks) if use_case else frozenset(),
    )
    if not 0.0 < rate < 1.0:
        raise SettingsError(f"--rate must lie between 0 and 1, and came as {rate}.")
    return console.leaving_out(
        skip_damaged,
        lambda: compare_windows(use_case, reference, data, period, rate, page=places[0], save=places[1]),
    )
