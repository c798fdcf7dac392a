"""Run policies over labelled history, and log what each of them would have done."""

import os
from collections.abc import Mapping
from datetime import datetime
from math import nan
from pathlib import Path
from threading import Lock
from typing import Any

import yaml
from pydantic import ValidationError
from tqdm import tqdm

from afterfit.data.windows import WindowLength, parse_time
from afterfit.errors import SettingsError
from afterfit.lifecycle.reading_on import as_before
from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.training_run import choose
from afterfit.loop import backtest, history, tasks
from afterfit.loop.backtest import BacktestPlan, PolicyRun, Ranking
from afterfit.loop.history import History, rows_of
from afterfit.loop.stepping import Recipe
from afterfit.loop.task_runner import TaskRunner
from afterfit.mlflow_store import tracking
from afterfit.pages.backtest import render
from afterfit.settings import Policy, TrainOn, presets
from afterfit.texts.decoding import decode
from afterfit.use_case import UseCase, yaml_fault

OWN = "own"
SECONDS = {
    "observe": "look",
    "compare_versions": "duel",
    "compare_in_hindsight": "versus",
    "gate_verdict": "judge",
}
"""Names of tasks in a backtest's answer, which programs read, where they differ from the task's own name."""


def chosen_policies(text: str, use_case: UseCase) -> dict[str, Policy]:
    """The policies by name: presets, the use case's own, or files.

    Raises:
        SettingsError: there is no such preset or file, one is named twice, or a file holds what no policy has.
    """
    policies: dict[str, Policy] = {}
    costs = {name: getattr(use_case.policy, name) for name in ("retraining_cost", "outcome_cost")}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, policy = _policy(word, use_case, costs)
        if name in policies:
            raise SettingsError(f"--policies names '{name}' twice.")
        policies[name] = policy
    if not policies:
        raise SettingsError(f"--policies is empty: give some of {', '.join(presets())}, own, or files.")
    return policies


def backtest_policies(
    use_case: UseCase,
    policies: Mapping[str, Policy],
    length: WindowLength,
    ends: tuple[str, str],
    *,
    folder: Path,
    processes: int = 0,
    page: Path | None = None,
) -> CommandResult:
    """Run policies over a use case's history, rank them, log the ranking and its page, in a run of its own.

    Args:
        use_case: its settings, with the label delay.
        policies: by name.
        length: of a window.
        ends: where the first window begins and the last one ends, as text; where empty, the end of training and the
            end of the rows.
        folder: for models and answers.
        processes: the most processes; 0 for one on each core.
        page: a file that gets the page too.
    """
    with tracking.run(use_case.name, "backtest", {"afterfit.use_case": use_case.name}) as active:
        ranking, trial, work = run_policies(use_case, policies, length, ends, folder, processes)
        window = _window_words(trial)
        rows = sum(int(entry.realised["rows"]) for entry in ranking.stories[0].entries)
        html = render(use_case, ranking, window, rows)
        lines = _report_lines(use_case, ranking, window)
        _log_ranking(use_case, ranking, html, lines)
    if page is not None:
        page.write_text(html, "utf-8")
    extra = {"window": window, "seconds": _seconds(work), "run_id": active.info.run_id}
    return CommandResult(tuple(lines), {**_summary(use_case, ranking), **extra})


def run_policies(  # noqa: PLR0917 - one call, above
    use_case: UseCase,
    policies: Mapping[str, Policy],
    length: WindowLength,
    ends: tuple[str, str],
    folder: Path,
    processes: int,
) -> tuple[Ranking, BacktestPlan, TaskRunner]:
    """Run the policies over the windows, and rank them."""
    last = parse_time(ends[1], "--end")
    work = TaskRunner(_read_history(use_case, last, folder), min(processes or os.cpu_count() or 1, len(policies)))
    tasks.give_back()  # the rows are with the processes now
    try:
        known = work.history
        first, over = _begin(use_case, known, ends[0]), last or history.after(known.times[-1])
        spans = history.spans(known, length, first, over)
        if not spans:
            raise SettingsError(f"There is no whole window from {first} to {over}: take shorter ones with --every.")
        recipe = Recipe(*choose(use_case, "", ""), 0, TrainOn(), use_case.policy.minimum_outcomes, spans[0].start)
        lock = Lock()
        with tqdm(total=len(spans) * len(policies), desc="backtest", leave=False, disable=None) as bar:

            def progress(name: str, window: str) -> None:
                with lock:
                    bar.set_postfix_str(f"{name} {window}")
                    bar.update()

            trial = BacktestPlan(tuple(spans), recipe, policies, progress)
            return backtest.ranked(backtest.run(trial, work), work), trial, work
    finally:
        work.close()


def _policy(word: str, use_case: UseCase, costs: Mapping[str, float]) -> tuple[str, Policy]:
    if word == OWN:
        return OWN, use_case.policy
    if word in presets():
        return word, Policy.model_validate({"preset": word, **costs})
    path = Path(word)
    if not path.is_file():
        raise SettingsError(f"--policies: '{word}' is neither a file nor one of {', '.join(presets())}, {OWN}.")
    try:
        content = yaml.safe_load(decode(path.read_bytes()))
        return path.stem, Policy.model_validate({**costs, **(content if isinstance(content, dict) else {"": content})})
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        message = "; ".join(_faults(error)) if isinstance(error, ValidationError) else yaml_fault(error)
        raise SettingsError(f"{path} holds no policy: {message}") from error


def _faults(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()]


def _window_words(trial: BacktestPlan) -> str:
    ends = [f"{end:%Y-%m-%d %H:%M}".removesuffix(" 00:00") for end in (trial.spans[0].start, trial.spans[-1].end)]
    return f"{ends[0]} to {ends[1]}, {len(trial.spans)} windows"


def _read_history(use_case: UseCase, last: datetime | None, folder: Path) -> History:
    use_case = as_before(use_case)
    return History.of(use_case, rows_of(use_case, last), folder / use_case.name)


def _begin(use_case: UseCase, known: History, start: str) -> datetime:
    """Where the first window begins: where the option says, else where training ends.

    Raises:
        SettingsError: nothing says it.
    """
    begin = parse_time(start, "--start")
    period = use_case.split.train
    if begin is None and period is not None:
        begin = period.end
    if begin is None:
        span = f"{use_case.time} goes from {known.times[0]} to {known.times[-1]}"
        raise SettingsError(f"Say where the first training ends and the windows begin: --start ({span}).")
    return begin


def _seconds(work: TaskRunner) -> dict[str, float]:
    """The seconds that each kind of task took, for the answer."""
    return {SECONDS.get(name, name): round(taken, 2) for name, taken in work.seconds.items()}


def _report_lines(use_case: UseCase, ranking: Ranking, window: str) -> list[str]:
    """The ranking in a few readable lines."""
    name = use_case.primary_metric
    lines = [f"{len(ranking.stories)} policies on {use_case.name}, {window}."]
    for story in ranking.stories:
        lag = ranking.against_best[story.name]
        shown = "{:+,.0f} ({:+,.0f} to {:+,.0f})" if story.money is not None else "{:+.4f} ({:+.4f} to {:+.4f})"
        against = "best" if story is ranking.stories[0] else shown.format(lag.value, lag.low, lag.high)
        worth = "" if story.money is None else f"  {story.money:,.0f} net"
        lines.append(
            f"  {story.name:<15} {name} {story.mean(name):.4f}{worth}  {against:<30} {story.retrainings} trained,"
            f" {story.count('promoted', 'on trial')} promoted ({story.count('on trial')} TRIAL),"
            f" {story.count('refused', 'held')} not,"
            f" {story.count('rolled back')} rolled back; alarms {story.alarms[0]} true, {story.alarms[1]} false"
        )
    return [*lines, f"Recommended: {ranking.recommended}. {ranking.reason}"]


def _log_ranking(use_case: UseCase, ranking: Ranking, html: str, lines: list[str]) -> None:
    """Log a nested run with its series for each policy; ranking and page go to the parent run."""
    for story in ranking.stories:
        with tracking.run(use_case.name, f"backtest {story.name}", {"afterfit.policy": story.name}):
            tracking.params(story.policy.model_dump(mode="json"), "policy")
            tracking.metrics(_totals(use_case, story))
            tracking.histories([_metrics_at(use_case, story, number) for number in range(len(story.entries))])
            tracking.table(_windows(use_case, story), "windows.json")
    tracking.tags({"afterfit.recommended": ranking.recommended})
    tracking.note("```\n" + "\n".join(lines) + "\n```")
    tracking.text(html, "backtest.html")


def _totals(use_case: UseCase, story: PolicyRun) -> dict[str, float]:
    name = use_case.primary_metric
    alarms = story.alarms
    totals = {
        f"mean_{name}": story.mean(name),
        "retrainings": float(story.retrainings),
        "promotions": float(story.count("promoted", "on trial")),
        "refusals": float(story.count("refused", "held")),
        "rollbacks": float(story.count("rolled back")),
        "alarms_true": float(alarms[0]),
        "alarms_false": float(alarms[1]),
        "training_seconds": story.seconds,
        "outcomes_used": float(story.outcomes),
    }
    return totals if story.money is None else {**totals, "net_value": story.money}


def _metrics_at(use_case: UseCase, story: PolicyRun, number: int) -> dict[str, float]:
    entry, name = story.entries[number], use_case.primary_metric
    best = entry.best_estimate(name)
    realised = {f"realised_{key}": value for key, value in entry.realised.items() if key != "rows"}
    value = nan if best is None or best.value is None else best.value
    return {**realised, f"believed_{name}": value, "version": float(entry.version)}


def _windows(use_case: UseCase, story: PolicyRun) -> list[dict[str, Any]]:
    return [_window(use_case, story, number) for number in range(len(story.entries))]


def _window(use_case: UseCase, story: PolicyRun, number: int) -> dict[str, Any]:
    entry, name = story.entries[number], use_case.primary_metric
    best = entry.best_estimate(name)
    return {
        "window": entry.turn.span.name,
        "version": entry.version,
        "realised": entry.realised.get(name),
        "believed": None if best is None else best.value,
        "action": entry.turn.action.kind,
        "outcome": entry.done.outcome,
        "verdict": "" if entry.done.verdict is None else entry.done.verdict.decision,
        "reason": entry.turn.action.reason,
        "alarms": [cause.key for cause in entry.turn.action.causes],
        "fell": entry.fell,
    }


def _summary(use_case: UseCase, ranking: Ranking) -> dict[str, Any]:
    """The answer as data."""
    stories = [
        {
            "policy": story.name,
            **_totals(use_case, story),
            "against_best": {key: getattr(ranking.against_best[story.name], key) for key in ("value", "low", "high")},
            "windows": _windows(use_case, story),
        }
        for story in ranking.stories
    ]
    return {
        "use_case": use_case.name,
        "metric": use_case.primary_metric,
        "recommended": ranking.recommended,
        "reason": ranking.reason,
        "policies": stories,
    }
