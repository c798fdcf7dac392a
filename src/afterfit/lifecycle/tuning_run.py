"""Search for the best builder and parameters of a use case; each trial is a run below the search's."""

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from afterfit.data import files
from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.training_run import load_table
from afterfit.mlflow_store import tracking
from afterfit.model.packaging import Table, settings_digest
from afterfit.model.tuning import Search, Trial, importances, search
from afterfit.pages import figures
from afterfit.performance.evaluation import metric
from afterfit.use_case import UseCase


def bounded(use_case: UseCase, trials: int, seconds: float) -> UseCase:
    """The use case with other limits of the search, where they are given (0: as the settings say)."""
    for option, value in (("--trials", trials), ("--seconds", seconds)):
        if not value >= 0:  # nan is not either
            raise SettingsError(f"{option} must be 0 (as the settings say) or more, not {value}.")
    changes = {key: value for key, value in (("trials", trials), ("seconds", seconds)) if value}
    return use_case.model_copy(update={"tuning": use_case.tuning.model_copy(update=changes)})


def search_parameters(use_case: UseCase, studies: Path) -> CommandResult:
    """Read a use case's table and search on it, in a run of its own.

    Args:
        use_case: its settings, with the limits of the search.
        studies: the folder that keeps the studies.
    """
    with tracking.run(use_case.name, "tune", {"afterfit.use_case": use_case.name}) as active:
        result = tune(use_case, load_table(use_case), studies)
    data = {**_summary(use_case, result), "run_id": active.info.run_id}
    return CommandResult(tuple(describe(use_case, result)), data)


def log_search(use_case: UseCase, result: Search, name: str) -> str:
    """Log a finished search as a run with a nested run for each trial; gives the run's id.

    The run is itself nested where a run is active.
    """
    with tracking.run(use_case.name, name, {"afterfit.use_case": use_case.name}) as active:
        for trial in result.trials:
            _log_trial(use_case, trial)
        _log(use_case, result)
    return str(active.info.run_id)


def tune(use_case: UseCase, table: Table, studies: Path) -> Search:
    """Search inside the active run. Finished trials are kept, even if the search is interrupted."""
    tracking.dataset(table.name, use_case.name, table.train, "training")
    name = f"{use_case.name}-{table.train.sha256[:12]}-{settings_digest(_without_limits(use_case))}"
    store = files.check_writable(studies / f"{name}.journal")
    with tqdm(total=use_case.tuning.trials, desc="tune", leave=False, disable=None) as bar:

        def report_trial(trial: Trial) -> None:
            _log_trial(use_case, trial)
            bar.update(trial.number + 1 - bar.n)
            bar.set_postfix_str(f"{trial.builder} {trial.metrics[use_case.primary_metric]:.4f}")

        result = search(table.problem, store, name, report_trial)
    _log(use_case, result)
    return result


def describe(use_case: UseCase, result: Search) -> list[str]:
    """The result in a few readable lines."""
    best, primary = result.best, use_case.primary_metric
    pruned = sum(trial.pruned for trial in result.trials)
    resumed = f", {result.resumed} of them from an earlier sitting" if result.resumed else ""
    params = ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in best.params.items()
    )
    return [
        f"Searched {len(result.trials)} trials ({pruned} stopped early{resumed}).",
        f"Best: {best.builder} with {primary} {best.metrics[primary]:.4f} ({params}).",
    ]


def _without_limits(use_case: UseCase) -> UseCase:
    """The settings with fixed limits: two searches that differ by their limits only are the same search."""
    return use_case.model_copy(update={"tuning": use_case.tuning.model_copy(update={"trials": 1, "seconds": 1.0})})


def _log_trial(use_case: UseCase, trial: Trial) -> None:
    """Log one trial as a nested run; its metrics have the same names as a training run's."""
    with tracking.run(use_case.name, trial.name, {"afterfit.pruned": str(trial.pruned).lower()}):
        tracking.params({"builder": trial.builder, **trial.params})
        tracking.metrics({**trial.metrics, "seconds": trial.seconds})


def _log(use_case: UseCase, result: Search) -> None:
    best = result.best
    tracking.tags({tracking.BEST: json.dumps({"builder": best.builder, "params": dict(best.params)})})
    tracking.params({"builder": best.builder, **best.params}, "best")
    tracking.metrics(best.metrics)
    tracking.note("\n".join(describe(use_case, result)))
    primary = use_case.primary_metric
    values = [(trial.number, trial.metrics[primary], trial.pruned) for trial in result.trials]
    pictures = {"history": figures.history(values, primary, greater_is_better=metric(primary).greater_is_better)}
    weights = importances(result.study)
    if weights:
        pictures["search_importance"] = figures.bars("What mattered in the search", "importance", weights)
    tracking.figures(pictures)


def _summary(use_case: UseCase, result: Search) -> dict[str, Any]:
    """The result as data."""
    return {
        "use_case": use_case.name,
        "trials": len(result.trials),
        "resumed": result.resumed,
        "pruned": sum(trial.pruned for trial in result.trials),
        "best": {
            "builder": result.best.builder,
            "params": dict(result.best.params),
            "metrics": dict(result.best.metrics),
        },
    }
