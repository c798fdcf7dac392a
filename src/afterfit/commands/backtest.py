"""Try policies on a use case's own history, rank them, and recommend one; every policy is a nested run."""

from pathlib import Path

from afterfit.data import files
from afterfit.lifecycle.backtesting import chosen_policies, logged, summarised, told, tried
from afterfit.lifecycle.result import CommandResult
from afterfit.loop.history import delayed, window_length
from afterfit.mlflow_store import tracking
from afterfit.pages.backtest import page as drawn
from afterfit.use_case import load_use_case


def command(  # noqa: PLR0917 - the options of the command line, given by name
    config: str,
    policies: str = "never,calendar,on-drift,on-performance,cautious",
    start: str = "",
    end: str = "",
    every: str = "",
    delay: str = "",
    processes: int = 0,
    folder: str = "backtests",
    page: str = "",
) -> CommandResult:
    """Try policies on history; see scripts/backtest.py for the options."""
    use_case = delayed(load_use_case(config), delay)
    chosen = chosen_policies(policies, use_case)
    length = window_length(every, use_case)
    place = files.writable(Path(page)) if page else None
    with tracking.run(use_case.name, "backtest", {"afterfit.use_case": use_case.name}) as active:
        ranking, trial, work = tried(use_case, chosen, length, (start, end), Path(folder), processes)
        ends = [f"{end:%Y-%m-%d %H:%M}".removesuffix(" 00:00") for end in (trial.spans[0].start, trial.spans[-1].end)]
        window = f"{ends[0]} to {ends[1]}, {len(trial.spans)} windows"
        rows = sum(int(entry.realised["rows"]) for entry in ranking.stories[0].entries)
        html = drawn(use_case, ranking, window, rows)
        lines = told(use_case, ranking, window)
        logged(use_case, ranking, html, lines)
    if place is not None:
        place.write_text(html, "utf-8")
    summary = summarised(use_case, ranking)
    seconds = {name: round(taken, 2) for name, taken in work.seconds.items()}
    return CommandResult(tuple(lines), {**summary, "window": window, "seconds": seconds, "run_id": active.info.run_id})
