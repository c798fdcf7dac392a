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
from afterfit.mlflow_store import registry, tracking
from afterfit.mlflow_store.registry import Version
from afterfit.model import packaging
from afterfit.model.builders import BUILDERS, trusted_packages
from afterfit.model.bundle import Bundle, Manifest
from afterfit.model.packaging import PACKAGES, Table, finite, settings_digest
from afterfit.model.training import Trained, TrainingData, train
from afterfit.pages import figures
from afterfit.performance.evaluation import evaluate, metric
from afterfit.use_case import UseCase

IMPORTANCE_ROWS, IMPORTANCE_REPEATS = 3000, 3


@dataclass(frozen=True, slots=True)
class Result:
    """A trained model: from which table, by which builder, how good, and where it is now."""

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


def load_table(use_case: UseCase) -> Table:
    """Read a use case's window and make its training rows ready."""
    period = use_case.split
    ends = [w for w in (period.train, period.holdout) if w]
    start = min((w.start for w in ends if w.start), default=None) if all(w.start for w in ends) else None
    end = max((w.end for w in ends if w.end), default=None) if len(ends) == 2 and all(w.end for w in ends) else None
    window = data.load(use_case, start=start, end=end)
    rows, _ = data.split(use_case, window.frame)
    return packaging.table(use_case, window, rows)


def choose(use_case: UseCase, builder: str, params_from: str) -> tuple[str, dict[str, Any]]:
    """The builder and parameters to train: those of a search's run, else the use case's own for that builder."""
    if params_from:
        found = tracking.best_of(params_from)
        if builder and builder != found[0]:
            raise SettingsError(f"The run {params_from} found parameters of '{found[0]}', not of '{builder}'.")
        return found
    named = {candidate.builder: dict(candidate.params) for candidate in use_case.candidates}
    chosen = builder or use_case.candidates[0].builder
    if chosen not in named and chosen not in BUILDERS and "." not in chosen:
        raise SettingsError(f"There is no builder '{chosen}'. The use case names {', '.join(named)}.")
    return chosen, named.get(chosen, {})


def train_and_register(table: Table, builder: str, params: Mapping[str, Any], *, register: bool = True) -> Result:
    """Train inside the active run; log parameters, metrics, pictures and model; register it as a version."""
    use_case = table.problem.use_case
    with tqdm(total=use_case.split.folds + 1, desc=f"train {builder}", leave=False, disable=None) as bar:

        def progress(words: str) -> None:
            bar.set_postfix_str(words)
            bar.update()

        trained = train(table.problem, builder, params, progress)
    source = tracking.dataset(table.name, use_case.name, table.train, "training")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        bundle = packaging.bundled(table, (builder, params), trained, folder, datetime.now(timezone.utc))
        uri, model_id = tracking.log_bundle(folder, bundle, requirements(), params)
    result = Result(table, builder, params, trained, bundle, None)
    _log(result, source, model_id)
    card = figures.card(bundle)
    tracking.text(card, "model_card.md")
    tracking.note("\n".join(described(result)) + "\n\n" + card)
    if not register:
        return result
    tags = {
        "afterfit.builder": builder,
        "afterfit.trained_until": table.train.end or "",
        "afterfit.rows": str(table.train.rows),
    }
    return replace(
        result, version=registry.register(uri, use_case.name, bundle.digest, tags, f"{headline(result)}\n\n{card}")
    )


def headline(result: Result) -> str:
    """One line that tells a version from its neighbours."""
    name, spread = next(iter(result.trained.metrics.items()))
    return f"{result.builder}, {name} {spread.mean:.4f} ± {spread.sd:.4f} over folds, {result.table.train.rows:,} rows"


def _log(result: Result, source: Any, model_id: str) -> None:
    use_case, trained = result.use_case, result.trained
    tracking.params({"builder": result.builder, **result.params})
    settings = {"settings": settings_digest(use_case), "seed": use_case.seed, "folds": use_case.split.folds}
    tracking.params(settings, "use_case")
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
    tracking.figures(_pictures(result.table.problem, trained))


def _pictures(problem: TrainingData, trained: Trained) -> dict[str, Any]:
    y = problem.y[trained.rows]
    draw = figures.classification if problem.classes is not None else figures.regression
    sizes, spreads = importances(problem, trained)
    title = f"Permutation importance ({problem.use_case.primary_metric})"
    return {**draw(y, trained.out_of_fold), "importance": figures.bars(title, "loss when shuffled", sizes, spreads)}


def importances(problem: TrainingData, trained: Trained) -> tuple[dict[str, float], dict[str, float]]:
    """Permutation importance of each feature on a bounded sample: mean and sd of the primary metric's loss."""
    judged = metric(problem.use_case.primary_metric)
    rows = np.random.default_rng(problem.use_case.seed).permutation(len(problem.frame))[:IMPORTANCE_ROWS]
    scorer = trained.scorer
    matrix = scorer.encoder.encode_frame(problem.contract.check_frame(problem.frame.iloc[rows]))

    def quality(_: Any, shuffled: Any, y: Any) -> float:
        value = evaluate([judged.name], y, scorer.predict(np.asarray(shuffled)))[judged.name]
        return value if judged.greater_is_better else -value

    found = permutation_importance(
        scorer.estimator,
        matrix,
        problem.y[rows],
        scoring=quality,
        n_repeats=IMPORTANCE_REPEATS,
        random_state=problem.use_case.seed,
    )
    names = scorer.encoder.features
    means, sds = found.importances_mean.tolist(), found.importances_std.tolist()
    return dict(zip(names, means, strict=True)), dict(zip(names, sds, strict=True))


def manifest_of(table: Table, builder: str, params: Mapping[str, Any], trained: Trained) -> Manifest:
    """What is known of a version besides its estimator, as of now."""
    return packaging.manifest_of(table, builder, params, trained, datetime.now(timezone.utc))


def requirements() -> list[str]:
    """What a version needs to load elsewhere, pinned to what made it; its own code travels with it."""
    homes = packages_distributions()
    foreign = sorted({home for package in trusted_packages() for home in homes.get(package, ())})
    return [f"{name}=={installed(name)}" for name in (*PACKAGES, *foreign)]


def described(result: Result) -> list[str]:
    """The answer in a few readable lines."""
    table, trained, version = result.table, result.trained, result.version
    span = f" from {table.train.start} to {table.train.end}" if table.train.start else ""
    ordered = " ordered in time" if result.use_case.time else ""
    lines = [f"Trained {result.builder} on {table.train.rows:,} rows{span} of {table.name}."]
    lines += [f"Left out: {rows:,} rows ({reason})." for reason, rows in table.left_out.items()]
    lines += [
        f"  {name:<18} {spread.mean:8.4f} ± {spread.sd:.4f} over {len(spread.folds)} folds{ordered};"
        f" next window {spread.low:.4f} to {spread.high:.4f} (dummy {trained.dummy[name].mean:.4f})"
        for name, spread in trained.metrics.items()
    ]
    if version:
        lines.append(f"Registered as version {version.number} of {version.name}.")
    return lines


def summary(result: Result) -> dict[str, Any]:
    """The answer as data."""
    table, version = result.table, result.version
    return {
        "use_case": result.use_case.name,
        "builder": result.builder,
        "params": dict(result.params),
        "rows": table.train.rows,
        "left_out": dict(table.left_out),
        "sha256": table.train.sha256,
        "metrics": result.bundle.manifest.promise,
        "dummy": {name: finite(spread.mean) for name, spread in result.trained.dummy.items()},
        "digest": result.bundle.digest,
        "version": None if version is None else version.number,
    }
