"""Train one model of a use case, log what a person needs to judge it, and register it as a version."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import packages_distributions
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.inspection import permutation_importance
from tqdm import tqdm

from afterfit import data
from afterfit.errors import SettingsError
from afterfit.lifecycle.reading_on import as_before
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import registry, tracking
from afterfit.mlflow_store.registry import Version
from afterfit.mlflow_store.tracking import LoggedModel
from afterfit.model import packaging
from afterfit.model.builders import BUILDERS, trusted_packages
from afterfit.model.bundle import Bundle
from afterfit.model.packaging import PACKAGES, Table, finite, settings_digest
from afterfit.model.training import CVScore, Trained, TrainingData, train
from afterfit.pages import figures, model_card
from afterfit.performance.evaluation import evaluate, metric
from afterfit.use_case import UseCase

IMPORTANCE_ROWS, IMPORTANCE_REPEATS = 3000, 3


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A trained model: its table, builder, parameters, metrics and bundle, and its version where it was registered."""

    table: Table
    builder: str
    params: Mapping[str, Any]
    trained: Trained
    bundle: Bundle
    version: Version | None

    @property
    def use_case(self) -> UseCase:
        """The use case it was trained for."""
        return self.table.problem.use_case


def train_version(use_case: UseCase, builder: str, params_from: str, *, register: bool) -> CommandResult:
    """Read a use case's table, train on it, log and register, in a run of its own.

    Args:
        use_case: its settings.
        builder: its name; where empty, the use case's first one.
        params_from: the run of a search that found the parameters; where empty, the use case's own are taken.
        register: whether to register the model as a version.
    """
    chosen, params = choose(use_case, builder, params_from)
    with tracking.run(use_case.name, f"train {chosen}", {"afterfit.use_case": use_case.name}) as active:
        result = train_and_register(load_table(use_case), chosen, params, register=register)
    return CommandResult(tuple(describe(result)), {**_summary(result), "run_id": active.info.run_id})


def load_table(use_case: UseCase) -> Table:
    """Read a use case's window and prepare its training rows."""
    use_case, split = as_before(use_case), use_case.split
    windows = [window for window in (split.train, split.holdout) if window]
    start = min((w.start for w in windows if w.start), default=None) if all(w.start for w in windows) else None
    both_end = len(windows) == 2 and all(w.end for w in windows)
    end = max((w.end for w in windows if w.end), default=None) if both_end else None
    loaded = data.load(use_case, start=start, end=end)
    rows, _ = data.split(use_case, loaded.frame)
    return packaging.table(use_case, loaded, rows)


def choose(use_case: UseCase, builder: str, params_from: str) -> tuple[str, dict[str, Any]]:
    """The builder and parameters to train: those of a search's run, else the use case's own for that builder."""
    if params_from:
        best = tracking.best_of(params_from)
        if builder and builder != best[0]:
            raise SettingsError(f"The run {params_from} found parameters of '{best[0]}', not of '{builder}'.")
        return best
    params_by_builder = {candidate.builder: dict(candidate.params) for candidate in use_case.candidates}
    chosen = builder or use_case.candidates[0].builder
    if chosen not in params_by_builder and chosen not in BUILDERS and "." not in chosen:
        raise SettingsError(f"There is no builder '{chosen}'. The use case names {', '.join(params_by_builder)}.")
    return chosen, params_by_builder.get(chosen, {})


def train_and_register(
    table: Table, builder: str, params: Mapping[str, Any], *, register: bool = True
) -> TrainingResult:
    """Train inside the active run, log the model, and register it unless `register` is false."""
    use_case = table.problem.use_case
    with tqdm(total=use_case.split.folds + 1, desc=f"train {builder}", leave=False, disable=None) as bar:

        def progress(words: str) -> None:
            bar.set_postfix_str(words)
            bar.update()

        trained = train(table.problem, builder, params, progress)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        bundle = packaging.write_bundle(table, (builder, params), trained, folder, datetime.now(timezone.utc))
        result = TrainingResult(table, builder, params, trained, bundle, None)
        if register:
            return replace(result, version=log_and_register(result, folder))
        _log(result, folder)
    return result


def log_and_register(
    result: TrainingResult, folder: Path, *, why: str = "", tags: Mapping[str, str] | None = None
) -> Version:
    """Log a trained model into the active run, and register it as a version.

    Args:
        result: the model, with its training table and the metrics of its folds.
        folder: its bundle.
        why: what it was trained for, in a few words for its description; empty where a person asked for it.
        tags: of the version, beside those that each version has.
    """
    model = _log(result, folder, why)
    train_rows = result.table.train
    known = registry.registration_tags(model.files, result.builder, train_rows.rows, train_rows.end)
    description = f"{_headline(result)}{f', {why}' if why else ''}\n\n{model_card.render(result.bundle)}"
    return registry.register(
        model.uri, result.use_case.name, result.bundle.digest, {**known, **(tags or {})}, description
    )


def requirements() -> list[str]:
    """The packages that a version needs elsewhere, pinned as they are here; its own code travels with it."""
    trusted = trusted_packages()
    homes = packages_distributions() if trusted else {}  # it looks at every file of every installed package
    foreign = sorted({home for package in trusted for home in homes.get(package, ())})
    return [f"{name}=={installed(name)}" for name in (*PACKAGES, *foreign)]


def describe(result: TrainingResult) -> list[str]:
    """The result in a few readable lines."""
    table, trained, version = result.table, result.trained, result.version
    span = f" from {table.train.start} to {table.train.end}" if table.train.start else ""
    ordered = " ordered in time" if result.use_case.time else ""
    lines = [f"Trained {result.builder} on {table.train.rows:,} rows{span} of {table.name}."]
    lines += [f"Left out: {rows:,} rows ({reason})." for reason, rows in table.left_out.items()]
    lines += [_measured(name, spread, trained.dummy[name], ordered) for name, spread in trained.metrics.items()]
    lines += _not_above_dummy(trained)
    if version:
        lines.append(f"Registered as version {version.number} of {version.name}.")
    return lines


def _measured(name: str, spread: CVScore, dummy: CVScore, ordered: str) -> str:
    """One metric over the folds, beside the dummy's; of what is not defined nothing is said."""
    if not np.isfinite(spread.mean):
        return f"  {name:<18} is not defined in any of {len(spread.folds)} folds{ordered}"
    deviation = f" ± {spread.sd:.4f}" if np.isfinite(spread.sd) else ""
    window = f"; next window {spread.low:.4f} to {spread.high:.4f}" if np.isfinite(spread.sd) else ""
    beside = f" (dummy {dummy.mean:.4f})" if np.isfinite(dummy.mean) else ""
    return f"  {name:<18} {spread.mean:8.4f}{deviation} over {len(spread.folds)} folds{ordered}{window}{beside}"


def _not_above_dummy(trained: Trained) -> list[str]:
    """A clear line where the metric that decides, the first one, is no better than the dummy's."""
    name, spread = next(iter(trained.metrics.items()))
    dummy = trained.dummy[name].mean
    if not (np.isfinite(spread.mean) and np.isfinite(dummy)) or metric(name).improvement(dummy, spread.mean) > 0:
        return []
    relation = "the same as" if spread.mean == dummy else "worse than"
    said = (
        f"Over the folds {name} is {relation} that of the dummy, which ignores the features ({spread.mean:.4f} against "
        f"{dummy:.4f}): this model has learnt nothing that helps. Look at the features, and at columns left out."
    )
    return [said]


def _log(result: TrainingResult, folder: Path, why: str = "") -> LoggedModel:
    """Log data, model, parameters, metrics, pictures and card into the active run; gives the logged model."""
    table = result.table
    source = tracking.dataset(table.name, result.use_case.name, table.train, "training")
    model = tracking.log_bundle(folder, result.bundle, requirements(), result.params)
    _log_params(result)
    _log_metrics(result, source, model.model_id)
    tracking.figures(_pictures(table.problem, result.trained))
    card = model_card.render(result.bundle)
    tracking.text(card, "model_card.md")
    lines = [f"{why[:1].upper()}{why[1:]}."] if why else []
    tracking.note("\n".join([*lines, *describe(result)]) + "\n\n" + card)
    return model


def _headline(result: TrainingResult) -> str:
    """One line that distinguishes a version from the others."""
    name, spread = next(iter(result.trained.metrics.items()))
    return f"{result.builder}, {name} {spread.mean:.4f} ± {spread.sd:.4f} over folds, {result.table.train.rows:,} rows"


def _log_params(result: TrainingResult) -> None:
    use_case = result.use_case
    tracking.params({"builder": result.builder, **result.params})
    settings = {"settings": settings_digest(use_case), "seed": use_case.seed, "folds": use_case.split.folds}
    tracking.params(settings, "use_case")


def _log_metrics(result: TrainingResult, source: Any, model_id: str) -> None:
    trained = result.trained
    values: dict[str, float] = {}
    for name, spread in trained.metrics.items():
        values |= {name: spread.mean, f"{name}_sd": spread.sd, f"{name}_low": spread.low, f"{name}_high": spread.high}
        values[f"dummy_{name}"] = trained.dummy[name].mean
    values |= {f"left_out_{reason.replace(' ', '_')}": float(rows) for reason, rows in result.table.left_out.items()}
    # the primary metric first: the interface's compare page opens with it
    tracking.metrics(values, model_id=model_id, dataset=source)
    for name, spread in trained.metrics.items():
        for fold, value in enumerate(spread.folds, start=1):
            tracking.metrics({f"fold_{name}": value}, step=fold)


def _pictures(problem: TrainingData, trained: Trained) -> dict[str, Any]:
    y = problem.y[trained.rows]
    draw = figures.classification if problem.classes is not None else figures.regression
    sizes, spreads = _importances(problem, trained)
    title = f"Permutation importance ({problem.use_case.primary_metric})"
    return {**draw(y, trained.out_of_fold), "importance": figures.bars(title, "loss when shuffled", sizes, spreads)}


def _importances(problem: TrainingData, trained: Trained) -> tuple[dict[str, float], dict[str, float]]:
    """Permutation importance of each feature on a bounded sample: mean and sd of the primary metric's loss."""
    primary = metric(problem.use_case.primary_metric)
    rows = np.random.default_rng(problem.use_case.seed).permutation(len(problem.frame))[:IMPORTANCE_ROWS]
    scorer = trained.scorer
    matrix = scorer.encoder.encode_frame(scorer.contract.check_frame(problem.frame.iloc[rows]))

    def quality(_: Any, shuffled: Any, y: Any) -> float:
        value = evaluate([primary.name], y, scorer.predict(np.asarray(shuffled)))[primary.name]
        return value if primary.greater_is_better else -value

    importance = permutation_importance(
        scorer.estimator,
        matrix,
        problem.y[rows],
        scoring=quality,
        n_repeats=IMPORTANCE_REPEATS,
        random_state=problem.use_case.seed,
    )
    names = scorer.encoder.features
    means, sds = importance.importances_mean.tolist(), importance.importances_std.tolist()
    return dict(zip(names, means, strict=True)), dict(zip(names, sds, strict=True))


def _summary(result: TrainingResult) -> dict[str, Any]:
    """The result as data."""
    table, version = result.table, result.version
    return {
        "use_case": result.use_case.name,
        "builder": result.builder,
        "params": dict(result.params),
        "rows": table.train.rows,
        "left_out": dict(table.left_out),
        "sha256": table.train.sha256,
        "metrics": result.bundle.manifest.expected,
        "dummy": {name: finite(spread.mean) for name, spread in result.trained.dummy.items()},
        "digest": result.bundle.digest,
        "version": None if version is None else version.number,
    }
