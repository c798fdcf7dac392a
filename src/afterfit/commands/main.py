"""The whole way: search, train, promote, answer real requests; and on demand, rehearse the window after training."""

import json
from pathlib import Path
from typing import Any

from afterfit.commands import console, rehearsal
from afterfit.errors import SettingsError, StoreError
from afterfit.lifecycle import promotion
from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.smoke_test import SmokeTest, awkward_rows, try_server
from afterfit.lifecycle.training_run import describe as trained_lines
from afterfit.lifecycle.training_run import load_table, train_and_register
from afterfit.lifecycle.tuning_run import bounded, tune
from afterfit.lifecycle.tuning_run import describe as tuned_lines
from afterfit.mlflow_store import registry, tracking
from afterfit.texts.redaction import redact
from afterfit.use_case import UseCase, load_use_case

PREDICTIONS = "predictions"
"""The folder of the rehearsal's prediction log."""


def command(
    config: str, trials: int = 0, seconds: float = 0.0, studies: str = "studies", rehearse: str = "auto"
) -> CommandResult:
    """From raw rows to a served answer and on; see scripts/main.py for the options."""
    use_case = bounded(load_use_case(config), trials, seconds)
    will_rehearse = _will_rehearse(use_case, rehearse)
    lines: list[str] = []
    with tracking.run(use_case.name, "main", {"afterfit.use_case": use_case.name}) as active:
        table = load_table(use_case)
        with tracking.run(use_case.name, "tune"):
            search = tune(use_case, table, Path(studies))
        lines += tuned_lines(use_case, search)
        with tracking.run(use_case.name, f"train {search.best.builder}"):
            result = train_and_register(table, search.best.builder, search.best.params)
        lines += trained_lines(result)
        lines += _promote(use_case, result.version.number if result.version else registry.LATEST)
        lines += serve_and_ask(use_case)
        if will_rehearse:
            lines += rehearsal.rehearse(config, use_case, table, Path(PREDICTIONS))
        tracking.dataset(table.name, use_case.name, table.train, "training")
        tracking.metrics({name: spread.mean for name, spread in result.trained.metrics.items()})
        tracking.note("```\n" + "\n".join(lines) + "\n```")
    data = {"use_case": use_case.name, "run_id": active.info.run_id, "metrics": dict(result.bundle.manifest.expected)}
    champion = registry.holder(use_case.name, registry.PRODUCTION)
    return CommandResult(tuple(lines), {**data, "production": None if champion is None else champion.number})


def serve_and_ask(use_case: UseCase) -> list[str]:
    """Start a real `mlflow models serve` of the version in production, and ask it good and bad rows."""
    champion = registry.holder(use_case.name, registry.PRODUCTION)
    if champion is None:
        return ["Nothing is in production, so nothing can be served."]
    bundle = registry.load_bundle(champion)
    rows = awkward_rows(bundle)
    with tracking.store_errors():
        test = try_server(f"models:/{use_case.name}@{registry.PRODUCTION}", [row for _, row in rows])
    if test.status != 200:
        raise StoreError(f"mlflow models serve answered {test.status}: {redact(test.body)[:300]}")
    return _answer_lines(use_case, champion.number, bundle.manifest.expected, [words for words, _ in rows], test)


def _will_rehearse(use_case: UseCase, option: str) -> bool:
    """Whether to rehearse the held-out window: if the option says so; with "auto", for the built-in tables."""
    wanted = use_case.source.builtin is not None if option == "auto" else console.yes(option)
    if wanted and not rehearsal.possible(use_case):
        if option == "auto":
            return False
        raise SettingsError("--rehearse needs a time column, and split.holdout with start and end: there the rows are.")
    return wanted


def _promote(use_case: UseCase, number: str) -> list[str]:
    lines: list[str] = []
    for target in (registry.STAGING, registry.PRODUCTION):
        answer = promotion.promote_version(use_case, registry.version(use_case.name, number), target)
        lines += answer.lines
        if answer.exit_code:
            break
    return lines


def _answer_lines(use_case: UseCase, number: str, promise: Any, words: list[str], test: SmokeTest) -> list[str]:
    primary = use_case.primary_metric
    spread = promise[primary]
    lines = [f"mlflow models serve was ready after {test.seconds:.1f} s and answered:"]
    for what, answer in zip(words, json.loads(test.body)["predictions"], strict=True):
        notes = ", ".join(f"{note['column']} {note['code']}" for note in answer["warnings"])
        lines.append(f"  {what}: {_answer_words(answer)}" + (f"  ({notes})" if notes else ""))
    worth = f"{primary} {spread['mean']:.4f} ± {spread['sd']:.4f} over folds"
    lines.append(f"In production: version {number} of {use_case.name}, {worth}.")
    return lines


def _answer_words(answer: dict[str, Any]) -> str:
    if answer["error"]:
        return f"error: {answer['error']['message']}"
    aside = {"prediction_id", "model_version", "warnings", "error"}
    numbers = {key: round(value, 4) if isinstance(value, float) else value for key, value in answer.items()}
    return ", ".join(f"{key} {value}" for key, value in numbers.items() if key not in aside)
