"""The search: candidates of several builders in one Optuna study, pruned over folds, resumable from disk."""

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

from afterfit.errors import SettingsError, SourceError, TrainingError
from afterfit.model.training import Fold, TrainingData, fold_predictions, folds, metric_names, metric_values
from afterfit.performance.evaluation import metric
from afterfit.settings import Candidate, Range
from afterfit.use_case import UseCase

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, slots=True)
class Trial:
    """One finished or pruned trial: its builder, parameters and the mean of each metric over the folds that it ran."""

    number: int
    builder: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    pruned: bool
    seconds: float

    @property
    def name(self) -> str:
        """A readable run name."""
        parameters = ", ".join(f"{key}={_format_value(value)}" for key, value in list(self.params.items())[:3])
        return f"{self.number:03d} {self.builder}" + (f" ({parameters})" if parameters else "")


@dataclass(frozen=True, slots=True)
class Search:
    """The outcome of a search.

    Attributes:
        trials: every finished or pruned trial of the study, also those of earlier runs.
        best: the best finished one.
        study: Optuna's own record.
        resumed: how many of the trials are from earlier runs.
        failures: one sentence for each trial that failed because the estimator refused its parameters.
    """

    trials: tuple[Trial, ...]
    best: Trial
    study: optuna.Study
    resumed: int
    failures: tuple[str, ...] = ()


def search(
    problem: TrainingData,
    store: Path,
    study_name: str,
    report: Callable[[Trial], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Search:
    """Search the use case's candidates until `tuning.trials` or `tuning.seconds` is reached.

    Each builder's parameters from the settings are tried first; then a seeded TPE sampler (Bergstra et al. 2011)
    chooses. A trial is stopped after a fold where its mean so far is worse than the median of the earlier trials at
    that fold.

    The study is kept in `store`, and the search continues where it stopped. Trials of earlier runs count towards
    `tuning.trials`, not towards `tuning.seconds`. The sampler gets a new seed for each trial, so that an interrupted
    search tries the same parameters as an uninterrupted one. A trial whose parameters the estimator refuses fails, and
    the search goes on. Each run of the search tries at least one trial, however short the time.

    Args:
        problem: the training table.
        store: a file for the study; created where it is absent.
        study_name: names what is searched; another table or other settings need another name.
        report: called after each trial of this run.
        clock: seconds, for the limit in time.

    Raises:
        TrainingError: no trial could be finished.
        SettingsError: an unknown builder or parameter, or a primary metric that folds cannot measure.
        SourceError: the store cannot be read or written.
    """
    use_case = problem.use_case
    if metric(use_case.primary_metric).needs == "interval":
        raise SettingsError(
            f"metrics.primary is {use_case.primary_metric}, which needs intervals, and a search has none: it compares "
            "models before their intervals are learnt. Name another metric, such as mae."
        )
    # before the study is created: a table that cannot be cut into folds must leave none
    parts = folds(problem, use_case.tuning.folds)
    study = _open_study(problem, store, study_name)
    resumed = len(_counted_trials(study))
    started = clock()
    for number in range(resumed, use_case.tuning.trials):
        study.sampler = _sampler(use_case.seed, number)
        _enqueue(study, use_case.candidates)
        trial = _run_trial(study, problem, parts, clock)
        if trial is not None:
            report(trial)
        if clock() - started > use_case.tuning.seconds:
            break
    return _search_of(study, resumed)


def load_search(store: Path, study_name: str) -> Search:
    """Load a search that was finished before, from its study; nothing is searched.

    Raises:
        SourceError: the store cannot be read, or holds no such study.
        TrainingError: no trial of it was finished.
    """
    try:
        study = optuna.load_study(study_name=study_name, storage=JournalStorage(JournalFileBackend(str(store))))
    except OSError as error:
        raise SourceError(f"The study store '{store}' cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"'{store}' does not hold the study '{study_name}': delete it. ({error})") from error
    return _search_of(study, 0)


def importances(study: optuna.Study) -> dict[str, float]:
    """Importance of each dimension of the best builder's space, as shares of 1 (PED-ANOVA, Watanabe et al. 2023).

    From the finished trials of that builder; empty where there are fewer than 4, or all are equally good.
    """
    best = study.best_trial
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [trial for trial in complete if trial.params["builder"] == best.params["builder"]]
    if len(trials) < 4 or len({trial.value for trial in trials}) < 2:
        return {}
    varied = [name for name in best.params if len({trial.params.get(name) for trial in trials}) > 1]
    if not varied:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied))


def narrow_search(use_case: UseCase, builder: str, params: Mapping[str, Any], trials: int) -> UseCase | None:
    """The use case with a search around some parameters, in a third of each range; None without a search.

    Args:
        use_case: its candidates have the ranges.
        builder: which of them.
        params: the best ones so far; they are tried first.
        trials: of the search; 0 means no search.
    """
    candidate = next((candidate for candidate in use_case.candidates if candidate.builder == builder), None)
    if trials < 1 or candidate is None or not candidate.space:
        return None
    space = {name: _narrow_range(range_, params.get(name)) for name, range_ in candidate.space.items()}
    narrowed = candidate.model_copy(update={"params": {**candidate.params, **params}, "space": space})
    tuning = use_case.tuning.model_copy(update={"trials": trials})
    return use_case.model_copy(update={"candidates": (narrowed,), "tuning": tuning})


def _search_of(study: optuna.Study, resumed: int) -> Search:
    trials = tuple(_read_trial(trial) for trial in _completed_trials(study))
    failures = tuple(trial.user_attrs["failure"] for trial in _counted_trials(study) if "failure" in trial.user_attrs)
    if all(trial.pruned for trial in trials):
        last = f" The last one failed: {failures[-1]}" if failures else ""
        raise TrainingError(f"No trial of the search was finished: raise tuning.trials or tuning.seconds.{last}")
    return Search(trials, _read_trial(study.best_trial), study, resumed, failures)


def _narrow_range(space: Range, value: Any) -> Range:
    """A third of a range, around a value in it; the whole range for choices, or where the value is outside it."""
    low, high = space.low, space.high
    if low is None or high is None or not _contains(space, value):
        return space
    ends = np.log([low, high]) if space.log else np.array([low, high], dtype=float)
    middle, half_width = (np.log(value) if space.log else float(value)), (ends[1] - ends[0]) / 6
    narrow = np.clip([middle - half_width, middle + half_width], ends[0], ends[1])
    narrow = np.exp(narrow) if space.log else narrow
    is_integer = isinstance(low, int) and isinstance(high, int)
    bounds = (int(np.floor(narrow[0])), int(np.ceil(narrow[1]))) if is_integer else (float(narrow[0]), float(narrow[1]))
    return space.model_copy(update={"low": bounds[0], "high": bounds[1]})


def _open_study(problem: TrainingData, store: Path, name: str) -> optuna.Study:
    use_case = problem.use_case
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=name,
            storage=JournalStorage(JournalFileBackend(str(store))),
            direction="maximize" if metric(use_case.primary_metric).greater_is_better else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
            load_if_exists=True,
        )
    except OSError as error:
        raise SourceError(f"The study store '{store}' cannot be written: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"'{store}' is not the store of a study: delete it or name another. ({error})") from error
    return study


def _enqueue(study: optuna.Study, candidates: tuple[Candidate, ...]) -> None:
    """Enqueue the settings' parameters of the first builder for which they were not tried yet."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    known = [trial.system_attrs.get("fixed_params") for trial in [*_counted_trials(study), *waiting]]
    from_settings = [{"builder": candidate.builder, **_settings_params(candidate)} for candidate in candidates]
    untried = [params for params in from_settings if params not in known]
    if untried:
        study.enqueue_trial(untried[0])


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    trial_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=trial_seed, n_startup_trials=5)


def _settings_params(candidate: Candidate) -> dict[str, Any]:
    """The candidate's parameters from the settings that are in its search space, under the study's names."""
    params, space = candidate.params, candidate.space
    return {
        f"{candidate.builder}.{key}": params[key]
        for key in space
        if key in params and _contains(space[key], params[key])
    }


def _contains(space: Range, value: Any) -> bool:
    if space.choices:
        return any(value == choice and type(value) is type(choice) for choice in space.choices)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_integer = isinstance(space.low, int) and isinstance(space.high, int)
    return is_number and (space.low or 0) <= value <= (space.high or 0) and (not is_integer or value == int(value))


def _run_trial(
    study: optuna.Study, problem: TrainingData, parts: list[Fold], clock: Callable[[], float]
) -> Trial | None:
    """Run one trial; None where the estimator refused its parameters."""
    trial = study.ask()
    started = clock()
    try:
        builder, params = _suggest(trial, problem.use_case.candidates)
        trial.set_user_attr("builder", builder)
        trial.set_user_attr("params", params)
        scores = _run_folds(trial, builder, params, problem, parts)
    except TrainingError as error:
        trial.set_user_attr("failure", str(error))
        study.tell(trial, state=TrialState.FAIL)
        return None
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    trial.set_user_attr("metrics", {name: _mean_of_defined([score[name] for score in scores]) for name in scores[0]})
    trial.set_user_attr("seconds", clock() - started)
    if len(scores) < len(parts):
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, _mean_of_defined([score[problem.use_case.primary_metric] for score in scores]))
    return _read_trial(study.trials[trial.number])


def _mean_of_defined(values: list[float]) -> float:
    """The mean over the folds where the metric is defined; nan where there is none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _suggest(trial: optuna.Trial, candidates: tuple[Candidate, ...]) -> tuple[str, dict[str, Any]]:
    name = trial.suggest_categorical("builder", [candidate.builder for candidate in candidates])
    chosen = next(candidate for candidate in candidates if candidate.builder == name)
    suggested = {key: _suggest_value(trial, f"{name}.{key}", space) for key, space in chosen.space.items()}
    return name, {**chosen.params, **suggested}


def _suggest_value(trial: optuna.Trial, name: str, space: Range) -> Any:
    if space.choices:
        return trial.suggest_categorical(name, list(space.choices))
    low, high = space.low, space.high
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=space.log)
    return trial.suggest_float(name, float(low or 0.0), float(high or 0.0), log=space.log)


def _run_folds(
    trial: optuna.Trial, builder: str, params: Mapping[str, Any], problem: TrainingData, parts: list[Fold]
) -> list[dict[str, float]]:
    names, primary = metric_names(problem), problem.use_case.primary_metric
    scores: list[dict[str, float]] = []
    for step, fold in enumerate(parts):
        scores.append(metric_values(names, fold.y_valid, fold_predictions(builder, params, fold, problem)))
        value = _mean_of_defined([score[primary] for score in scores])
        if np.isnan(value):
            raise TrainingError(
                f"The metric {primary} is not defined on fold {step + 1}: use fewer folds or another one."
            )
        trial.report(value, step)
        if step + 1 < len(parts) and trial.should_prune():
            break
    return scores


def _completed_trials(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials that count: finished, pruned, or failed because of their parameters; not the interrupted ones."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in ended if trial.state != TrialState.FAIL or "failure" in trial.user_attrs]


def _read_trial(trial: FrozenTrial) -> Trial:
    attributes = trial.user_attrs
    return Trial(
        trial.number,
        attributes["builder"],
        attributes["params"],
        attributes["metrics"],
        trial.state == TrialState.PRUNED,
        attributes["seconds"],
    )


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
