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
    """The use case with other limits of the search where they are given (0: the file's own)."""
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
        found = tune(use_case, load_table(use_case), studies)
    data = {**_summary(use_case, found), "run_id": active.info.run_id}
    return CommandResult(tuple(described(use_case, found)), data)


def log_search(use_case: UseCase, found: Search, name: str) -> str:
    """A search that is over as a run of its own, nested where one is active, with its trials below; gives its id."""
    with tracking.run(use_case.name, name, {"afterfit.use_case": use_case.name}) as active:
        for trial in found.trials:
            _log_trial(use_case, trial)
        _log(use_case, found)
    return str(active.info.run_id)


def tune(use_case: UseCase, table: Table, studies: Path) -> Search:
    """Search inside the active run; finished trials are kept whatever happens."""
    tracking.dataset(table.name, use_case.name, table.train, "training")
    name = f"{use_case.name}-{table.train.sha256[:12]}-{settings_digest(_what_is_searched(use_case))}"
    store = files.check_writable(studies / f"{name}.journal")
    with tqdm(total=use_case.tuning.trials, desc="tune", leave=False, disable=None) as bar:

        def report_trial(trial: Trial) -> None:
            _log_trial(use_case, trial)
            bar.update(trial.number + 1 - bar.n)
            bar.set_postfix_str(f"{trial.builder} {trial.metrics[use_case.primary_metric]:.4f}")

        found = search(table.problem, store, name, report_trial)
    _log(use_case, found)
    return found


def _what_is_searched(use_case: UseCase) -> UseCase:
    """The settings that make two searches the same one: its limits do not."""
    return use_case.model_copy(update={"tuning": use_case.tuning.model_copy(update={"trials": 1, "seconds": 1.0})})


def _log_trial(use_case: UseCase, trial: Trial) -> None:
    """One trial as a nested run with the same metrics' names as a training run."""
    with tracking.run(use_case.name, trial.name, {"afterfit.pruned": str(trial.pruned).lower()}):
        tracking.params({"builder": trial.builder, **trial.params})
        tracking.metrics({**trial.metrics, "seconds": trial.seconds})


def _log(use_case: UseCase, found: Search) -> None:
    best = found.best
    tracking.tags({tracking.BEST: json.dumps({"builder": best.builder, "params": dict(best.params)})})
    tracking.params({"builder": best.builder, **best.params}, "best")
    tracking.metrics(best.metrics)
    tracking.note("\n".join(described(use_case, found)))
    primary = use_case.primary_metric
    values = [(trial.number, trial.metrics[primary], trial.pruned) for trial in found.trials]
    pictures = {"history": figures.history(values, primary, greater_is_better=metric(primary).greater_is_better)}
    weights = importances(found.study)
    if weights:
        pictures["search_importance"] = figures.bars("What mattered in the search", "importance", weights)
    tracking.figures(pictures)


def described(use_case: UseCase, found: Search) -> list[str]:
    """The answer in a few readable lines."""
    best, primary = found.best, use_case.primary_metric
    pruned = sum(trial.pruned for trial in found.trials)
    again = f", {found.resumed} of them from an earlier sitting" if found.resumed else ""
    shown = ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in best.params.items()
    )
    return [
        f"Searched {len(found.trials)} trials ({pruned} stopped early{again}).",
        f"Best: {best.builder} with {primary} {best.metrics[primary]:.4f} ({shown}).",
    ]


def _summary(use_case: UseCase, found: Search) -> dict[str, Any]:
    """The answer as data."""
    return {
        "use_case": use_case.name,
        "trials": len(found.trials),
        "resumed": found.resumed,
        "pruned": sum(trial.pruned for trial in found.trials),
        "best": {"builder": found.best.builder, "params": dict(found.best.params), "metrics": dict(found.best.metrics)},
    }
