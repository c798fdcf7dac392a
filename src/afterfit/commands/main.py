"""The whole way: search, train, promote, answer real requests; and where it is asked for, live the next window."""

import json
from pathlib import Path
from typing import Any

from afterfit.commands import console, rehearsal
from afterfit.errors import SettingsError, StoreError
from afterfit.lifecycle import promotion
from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.smoke_test import SmokeTest, awkward_rows, try_server
from afterfit.lifecycle.training_run import described as trained_lines
from afterfit.lifecycle.training_run import load_table, train_and_register
from afterfit.lifecycle.tuning_run import bounded, tune
from afterfit.lifecycle.tuning_run import described as tuned_lines
from afterfit.mlflow_store import registry, tracking
from afterfit.use_case import UseCase, load_use_case

PREDICTIONS = "predictions"
"""The folder of the rehearsal's prediction log."""


def command(
    config: str, trials: int = 0, seconds: float = 0.0, studies: str = "studies", rehearse: str = "auto"
) -> CommandResult:
    """From raw rows to a served answer and on; see scripts/main.py for the options."""
    use_case = bounded(load_use_case(config), trials, seconds)
    rehearses = _rehearses(use_case, rehearse)
    lines: list[str] = []
    with tracking.run(use_case.name, "main", {"afterfit.use_case": use_case.name}) as active:
        table = load_table(use_case)
        with tracking.run(use_case.name, "tune"):
            found = tune(use_case, table, Path(studies))
        lines += tuned_lines(use_case, found)
        with tracking.run(use_case.name, f"train {found.best.builder}"):
            result = train_and_register(table, found.best.builder, found.best.params)
        lines += trained_lines(result)
        lines += _promoted(use_case, result.version.number if result.version else registry.LATEST)
        lines += served(use_case)
        if rehearses:
            lines += rehearsal.rehearsed(config, use_case, table, Path(PREDICTIONS))
        tracking.dataset(table.name, use_case.name, table.train, "training")
        tracking.metrics({name: spread.mean for name, spread in result.trained.metrics.items()})
        tracking.note("```\n" + "\n".join(lines) + "\n```")
    data = {"use_case": use_case.name, "run_id": active.info.run_id, "metrics": dict(result.bundle.manifest.expected)}
    champion = registry.holder(use_case.name, registry.PRODUCTION)
    return CommandResult(tuple(lines), {**data, "production": None if champion is None else champion.number})


def _rehearses(use_case: UseCase, asked: str) -> bool:
    """Whether to live the held-out window: where asked for, or by itself for a built-in table, which is nobody's."""
    wanted = use_case.source.builtin is not None if asked == "auto" else console.yes(asked)
    if wanted and not rehearsal.possible(use_case):
        if asked == "auto":
            return False
        raise SettingsError("--rehearse needs a time column, and split.holdout with start and end: there the rows are.")
    return wanted


def _promoted(use_case: UseCase, number: str) -> list[str]:
    lines: list[str] = []
    for target in (registry.STAGING, registry.PRODUCTION):
        answer = promotion.promoted(use_case, registry.version(use_case.name, number), target)
        lines += answer.lines
        if answer.exit_code:
            break
    return lines


def served(use_case: UseCase) -> list[str]:
    """What a really started `mlflow models serve` answers for the version in production, good rows and bad ones."""
    champion = registry.holder(use_case.name, registry.PRODUCTION)
    if champion is None:
        return ["Nothing is in production, so nothing can be served."]
    bundle = registry.load_bundle(champion)
    rows = awkward_rows(bundle)
    with tracking.store_errors():
        trial = try_server(f"models:/{use_case.name}@{registry.PRODUCTION}", [row for _, row in rows])
    if trial.status != 200:
        raise StoreError(f"mlflow models serve answered {trial.status}: {trial.body[:300]}")
    return _answered(use_case, champion.number, bundle.manifest.expected, [words for words, _ in rows], trial)


def _answered(use_case: UseCase, number: str, promise: Any, words: list[str], trial: SmokeTest) -> list[str]:
    primary = use_case.primary_metric
    spread = promise[primary]
    lines = [f"mlflow models serve was ready after {trial.seconds:.1f} s and answered:"]
    for what, answer in zip(words, json.loads(trial.body)["predictions"], strict=True):
        notes = ", ".join(f"{note['column']} {note['code']}" for note in answer["warnings"])
        lines.append(f"  {what}: {_shown(answer)}" + (f"  ({notes})" if notes else ""))
    worth = f"{primary} {spread['mean']:.4f} ± {spread['sd']:.4f} over folds"
    lines.append(f"In production: version {number} of {use_case.name}, {worth}.")
    return lines


def _shown(answer: dict[str, Any]) -> str:
    if answer["error"]:
        return f"error: {answer['error']['message']}"
    aside = {"prediction_id", "model_version", "warnings", "error"}
    numbers = {key: round(value, 4) if isinstance(value, float) else value for key, value in answer.items()}
    return ", ".join(f"{key} {value}" for key, value in numbers.items() if key not in aside)
