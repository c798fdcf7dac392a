"""The search: candidates of several builders compete in one Optuna study, pruned over folds, resumable from disk."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from afterfit.errors import SourceError, TrainingError
from afterfit.metrics import evaluate, metric
from afterfit.training import Fold, Problem, fold_predictions, folds, metric_names
from afterfit.usecase import Candidate, Range

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, slots=True)
class Trial:
    """One finished or pruned trial: its builder, parameters and the mean of each metric over the folds it saw."""

    number: int
    builder: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    pruned: bool
    seconds: float

    @property
    def name(self) -> str:
        """A readable run name."""
        shown = ", ".join(f"{key}={_short(value)}" for key, value in list(self.params.items())[:3])
        return f"{self.number:03d} {self.builder}" + (f" ({shown})" if shown else "")


@dataclass(frozen=True, slots=True)
class Search:
    """The outcome of a search: every trial of the study (those of earlier sittings too), and the best."""

    trials: tuple[Trial, ...]
    best: Trial
    study: optuna.Study
    resumed: int


def search(
    problem: Problem,
    store: Path,
    study_name: str,
    report: Callable[[Trial], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Search:
    """Search the use case's candidates until `tuning.trials` or `tuning.seconds` is reached.

    Each builder's own parameters are tried first; then a seeded TPE sampler (Bergstra et al. 2011) chooses. A trial
    is stopped after a fold where its mean so far is worse than the median of the earlier trials at that fold. The
    study lies in `store` and goes on where it stopped; trials of earlier sittings count.

    Args:
        problem: the training table.
        store: a file for the study; made where it is absent.
        study_name: names what is searched; another table or other settings need another name.
        report: called after each trial of this sitting.
        clock: seconds, for the limit in time.

    Raises:
        TrainingError: no trial could be finished.
        SourceError: the store cannot be written.
    """
    use_case = problem.use_case
    parts = folds(problem, use_case.tuning.folds)  # first: a table without folds must leave no study
    study = _study(problem, store, study_name)
    resumed = len(_done(study))
    started = clock()
    for _ in range(resumed, use_case.tuning.trials):
        report(_run(study, problem, parts, clock))
        if clock() - started > use_case.tuning.seconds:
            break
    trials = tuple(_read(trial) for trial in _done(study))
    if not any(not trial.pruned for trial in trials):
        raise TrainingError("No trial of the search was finished: raise tuning.trials or tuning.seconds.")
    return Search(trials, _read(study.best_trial), study, resumed)


def _study(problem: Problem, store: Path, name: str) -> optuna.Study:
    use_case = problem.use_case
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(store))
    except OSError as error:
        raise SourceError(f"The study store '{store}' cannot be written: {error.strerror}.") from error
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(backend),
        direction="maximize" if metric(use_case.primary_metric).greater_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=use_case.seed, n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        load_if_exists=True,
    )
    if not study.trials:
        for candidate in use_case.candidates:
            study.enqueue_trial({"builder": candidate.builder, **_defaults(candidate)})
    return study


def _defaults(candidate: Candidate) -> dict[str, Any]:
    """The candidate's own parameters that lie inside its search space, under the study's names."""
    return {f"{candidate.builder}.{key}": candidate.params[key] for key in candidate.space if key in candidate.params}


def _run(study: optuna.Study, problem: Problem, parts: list[Fold], clock: Callable[[], float]) -> Trial:
    trial = study.ask()
    started = clock()
    try:
        builder, params = _suggest(trial, problem.use_case.candidates)
        trial.set_user_attr("builder", builder)
        trial.set_user_attr("params", params)
        scores = _over_folds(trial, builder, params, problem, parts)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    trial.set_user_attr("metrics", {name: float(np.mean([score[name] for score in scores])) for name in scores[0]})
    trial.set_user_attr("seconds", clock() - started)
    if len(scores) < len(parts):
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, float(np.mean([score[problem.use_case.primary_metric] for score in scores])))
    return _read(study.trials[trial.number])


def _suggest(trial: optuna.Trial, candidates: tuple[Candidate, ...]) -> tuple[str, dict[str, Any]]:
    name = trial.suggest_categorical("builder", [candidate.builder for candidate in candidates])
    chosen = next(candidate for candidate in candidates if candidate.builder == name)
    found = {key: _value(trial, f"{name}.{key}", space) for key, space in chosen.space.items()}
    return name, {**chosen.params, **found}


def _value(trial: optuna.Trial, name: str, space: Range) -> Any:
    if space.choices:
        return trial.suggest_categorical(name, list(space.choices))
    low, high = space.low, space.high
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=space.log)
    return trial.suggest_float(name, float(low or 0.0), float(high or 0.0), log=space.log)


def _over_folds(
    trial: optuna.Trial, builder: str, params: Mapping[str, Any], problem: Problem, parts: list[Fold]
) -> list[dict[str, float]]:
    names, primary = metric_names(problem), problem.use_case.primary_metric
    scores: list[dict[str, float]] = []
    for step, fold in enumerate(parts):
        scores.append(evaluate(names, fold.y_valid, fold_predictions(builder, params, fold, problem)))
        trial.report(float(np.mean([score[primary] for score in scores])), step)
        if step + 1 < len(parts) and trial.should_prune():
            break
    return scores


def _done(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _read(trial: FrozenTrial) -> Trial:
    told = trial.user_attrs
    return Trial(
        trial.number,
        told["builder"],
        told["params"],
        told["metrics"],
        trial.state == TrialState.PRUNED,
        told["seconds"],
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each dimension of the search mattered (Optuna's default evaluator); empty for fewer than 4 trials.

    Dimensions of one builder only are compared where at least 4 trials used them.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    shared = [name for name in complete[0].distributions if all(name in trial.distributions for trial in complete)]
    return dict(optuna.importance.get_param_importances(study, params=shared)) if shared else {}
