"""Look at windows of the prediction log or of a table, and record each in MLflow."""

from datetime import datetime, timezone
from pathlib import Path

from afterfit.data import files, windows
from afterfit.errors import SettingsError
from afterfit.lifecycle.monitoring import (
    action_words,
    after_training,
    as_data,
    described,
    monitored,
    page_of,
    period_of,
    refreshed,
)
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import registry, tracking
from afterfit.use_case import load_use_case

NO_TIME = (
    "{} names no time column, so that there are no windows of time: all rows are one window, each look takes the place "
    "of the one before, no series is drawn, and neither late outcomes nor the dependence of rows on time are accounted "
    "for. Name a time column to have them."
)


def command(  # noqa: PLR0917 - the options of the command line, given by name
    config: str,
    version: str = registry.PRODUCTION,
    data: str = "",
    start: str = "",
    end: str = "",
    every: str = "",
    refresh: int = 0,
    page: str = "",
) -> CommandResult:
    """Look at windows; see scripts/monitor.py for the options."""
    use_case = load_use_case(config)
    place = files.writable(Path(page)) if page else None
    if refresh < 0 or (refresh and (start or end or every)):
        raise SettingsError(
            "--refresh is a number of windows that were recorded; it goes without --start, --end and --every."
        )
    target = registry.version(use_case.name, version)
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    notes = [] if use_case.time else [NO_TIME.format(use_case.name)]
    with tracking.joined(f"monitor {use_case.name} {target.number}"):
        if refresh:
            looked = refreshed(use_case, data, refresh, now)
        else:
            bundle = registry.load_bundle(target)
            period = period_of(use_case, every, windows.parse_time(start, "--start"), windows.parse_time(end, "--end"))
            notes += after_training(use_case, bundle, data, period)
            looked = monitored(use_case, bundle, data, period, now)
            notes += [f"{period.untimed:,} rows have no time in '{period.time}'."] if period.untimed else []
    lines = [line for one in looked for line in described(use_case, one.seen, short=len(looked) > 1)]
    told = [*lines, *notes, action_words(use_case, looked[-1].action)]
    if place is not None:
        place.write_text(page_of(use_case, looked[-1], notes), "utf-8")
    return CommandResult(
        tuple(told), {"use_case": use_case.name, "windows": [as_data(one) for one in looked], "notes": notes}
    )
