"""Look at windows of the prediction log or of a table, and record each in MLflow."""

from pathlib import Path

from afterfit.commands import console
from afterfit.data import files
from afterfit.data.windows import parse_time
from afterfit.errors import SettingsError
from afterfit.lifecycle.monitoring import monitor_version, period_of
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import registry
from afterfit.use_case import load_use_case


def command(  # noqa: PLR0917 - the options of the command line, given by name
    config: str,
    version: str = registry.PRODUCTION,
    data: str = "",
    start: str = "",
    end: str = "",
    every: str = "",
    refresh: int = 0,
    page: str = "",
    skip_damaged: str = "false",
) -> CommandResult:
    """Look at windows; see scripts/monitor.py for the options."""
    use_case = load_use_case(config)
    place = files.check_writable(Path(page)) if page else None
    if refresh < 0 or (refresh and (start or end or every)):
        raise SettingsError(
            "--refresh is a number of windows that were recorded; it goes without --start, --end and --every."
        )
    period = period_of(use_case, every, parse_time(start, "--start"), parse_time(end, "--end"))
    return console.leaving_out(
        skip_damaged, lambda: monitor_version(use_case, version, data, period, refresh=refresh, page=place)
    )
