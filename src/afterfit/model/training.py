"""Fit a model the way production will judge it: folds in time, out-of-fold calibration, then all rows."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from afterfit.contract.contract import Contract, Kind, learn
from afterfit.contract.encoder import Encoder, fit_encoder, mask_some
from afterfit.data.splits import ordered_folds, shuffled_folds
from afterfit.drift.reference import Reference, clear_missing_marks, learn_reference
from afterfit.errors import SchemaError, SettingsError, TrainingError
from afterfit.model.builders import MatrixInfo, Task, build
from afterfit.model.calibration import Calibration, conformal_offsets, fit_calibration
from afterfit.model.scorer import Scorer, predict, raw_probabilities
from afterfit.performance.error_map import ErrorMap, learn_errormap
from afterfit.performance.evaluation import METRICS, evaluate, metric
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Progress = Callable[[str], None]

SMALLEST_TABLE = 20


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A training table made ready once: target encoded, kinds fixed, rows that the contract refuses left out.

    Attributes:
        use_case: its settings.
        frame: (n rows) the feature columns.
        y: (n,) class indices, or numbers.
        classes: the k labels, or None in regression.
        times: (n,) sorted times, or None.
        contract: learnt from all n rows.
        refused: how many rows the contract refused.
    """

    use_case: UseCase
    frame: pd.DataFrame
    y: npt.NDArray[Any]
    classes: tuple[Any, ...] | None
    times: npt.NDArray[np.datetime64] | None
    contract: Contract
    refused: int

    @property
    def task(self) -> Task:
        """Classification or regression."""
        return self.use_case.task


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One fold, encoded by what its own training rows taught: nothing of the validation rows leaks into it."""

    train: Floats
    y_train: npt.NDArray[Any]
    valid: Floats
    y_valid: npt.NDArray[Any]
    rows: Rows
    layout: MatrixInfo


@dataclass(frozen=True, slots=True)
class CVScore:
    """One metric over folds: its mean, its standard deviation, and where the next window's value is expected.

    `low` and `high` are the 90 % prediction interval for one more fold: mean ± t · sd · √(1 + 1/k), with k - 1
    degrees of freedom, within the metric's bounds. It assumes that the coming window differs from the folds as they
    differ from each other.
    """

    mean: float
    sd: float
    low: float
    high: float
    folds: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float], bounds: tuple[float, float] = (-np.inf, np.inf)) -> "CVScore":
        """Summarise one value a fold; folds where the metric is not defined (nan) are left out."""
        known = [value for value in values if np.isfinite(value)]
        if len(known) < 2:
            mean = known[0] if known else float("nan")
            return cls(mean, float("nan"), float("nan"), float("nan"), tuple(values))
        mean, sd = float(np.mean(known)), float(np.std(known, ddof=1))
        reach = float(stats.t.ppf(0.95, len(known) - 1)) * sd * float(np.sqrt(1 + 1 / len(known)))
        return cls(mean, sd, max(mean - reach, bounds[0]), min(mean + reach, bounds[1]), tuple(values))


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model and what its folds promise.

    Attributes:
        scorer: fitted on all rows.
        metrics: each metric's spread over folds, from predictions that no fold had seen, calibrated by other folds.
        dummy: the same of the dummy, on the same folds.
        out_of_fold: predictions for `rows`, calibrated by other folds.
        rows: (m,) positions in the problem's rows of the out-of-fold predictions.
        unseen: the folds' predictions for `rows` under the final calibration: the nearest that a training window has
            to what the scorer will answer for new rows.
        last: how many of `rows`, at their end, are those of the last fold.
    """

    scorer: Scorer
    metrics: Mapping[str, CVScore]
    dummy: Mapping[str, CVScore]
    out_of_fold: Predictions
    rows: Rows
    unseen: Predictions
    last: int = 0


def prepare(
    use_case: UseCase, frame: pd.DataFrame, y: npt.NDArray[Any], classes: tuple[Any, ...] | None
) -> TrainingData:
    """Make a training table ready: learn the contract, and leave out and count the rows that it refuses.

    Args:
        use_case: which columns are features and how they are read.
        frame: n rows with the features (and the time column, sorted, where the use case has one).
        y: (n,) class indices or numbers.
        classes: the k labels, or None in regression.

    Raises:
        SettingsError: there is no such metric, or it is for another kind of model.
        SchemaError: a feature that the settings name is absent.
        TrainingError: fewer than `SMALLEST_TABLE` rows are left.
    """
    _check_metrics(use_case, classes)
    features = frame[list(feature_columns(use_case, frame.columns))]
    contract = _contract(use_case, features)
    keep = ~contract.check_frame(features).bad
    times = frame[use_case.time].to_numpy() if use_case.time else None
    if keep.sum() < SMALLEST_TABLE:
        refused = "; ".join(f"{column}: {code}" for column, code in _errors(contract, features))
        raise TrainingError(
            f"Training needs at least {SMALLEST_TABLE} usable rows; of {len(frame)} rows {keep.sum()} are usable"
            + (f" (the others are refused for {refused})." if refused else ".")
        )
    return TrainingData(
        use_case,
        (features if keep.all() else features.loc[keep]).reset_index(drop=True),
        y[keep],
        classes,
        None if times is None else times[keep],
        contract,
        int((~keep).sum()),
    )


def _errors(contract: Contract, features: pd.DataFrame) -> list[tuple[str, str]]:
    issues = contract.check_frame(features).issues
    return list(dict.fromkeys((issue.column.name, issue.code) for issue in issues if issue.error))


def _check_metrics(use_case: UseCase, classes: tuple[Any, ...] | None) -> None:
    kind = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    for one in map(metric, _metrics_of(use_case)):
        if kind not in one.tasks:
            fitting = ", ".join(name for name, other in METRICS.items() if kind in other.tasks)
            raise SettingsError(f"The metric {one.name} does not measure a {kind} model; these do: {fitting}.")


def feature_columns(use_case: UseCase, columns: Iterable[str]) -> tuple[str, ...]:
    """The feature columns of a table with these columns, in the settings' order, or in the table's.

    Raises:
        SchemaError: a column that the settings name is absent (the nearest one is named), or no feature is left.
    """
    present, named = list(columns), use_case.columns.features
    where, wanted = ("columns.features", named) if named else ("columns.ignore", use_case.columns.ignore)
    absent = [name for name in wanted if name not in present]
    if absent:
        lines = [f"'{name}' is absent{_nearest(name, present)}" for name in absent]
        raise SchemaError(f"The table lacks columns that {where} names: " + "; ".join(lines) + ".")
    aside = {use_case.target, use_case.time, *use_case.key, *use_case.columns.ignore}
    chosen = named or tuple(name for name in present if name not in aside)
    if not chosen:
        raise SchemaError(f"No feature is left: the table has the columns {present}, and all of them are set aside.")
    return chosen


def _nearest(name: str, present: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, present, n=1)
    return f" (is it '{near[0]}'?)" if near else ""


def _contract(use_case: UseCase, features: pd.DataFrame, kinds: Mapping[str, Kind] | None = None) -> Contract:
    settings = use_case.columns
    return learn(
        features,
        kinds=settings.kinds if kinds is None else kinds,
        required=settings.required,
        private=settings.private,
        marks=settings.missing_marks,
        on_invalid=settings.on_invalid,
    )


def folds(problem: TrainingData, count: int) -> list[Fold]:
    """Cut a problem into folds, each encoded by its own training rows.

    In time where the use case has a time column: each fold is trained on all that lies before it, as production
    will be. Shuffled (by class, where there are classes) otherwise.

    Raises:
        TrainingError: too few rows or times for so many folds, or a fold that lacks a class.
    """
    return [_fold(problem, train, valid) for train, valid in _cuts(problem, count)]


def _cuts(problem: TrainingData, count: int) -> list[tuple[Rows, Rows]]:
    """Positions of each fold's training and validation rows."""
    if problem.times is None:
        return shuffled_folds(problem.y, count, problem.use_case.seed, problem.task)
    return ordered_folds(problem.times, count, labels=problem.y if problem.classes is not None else None)


def _fold(problem: TrainingData, train: Rows, valid: Rows) -> Fold:
    contract = _known_from(problem, train)
    encoder, matrix = encode(problem, train, problem.use_case.seed, contract)
    checked = contract.check_frame(problem.frame.iloc[valid])
    return Fold(matrix, problem.y[train], encoder.encode_frame(checked), problem.y[valid], valid, layout(encoder))


def _known_from(problem: TrainingData, rows: Rows) -> Contract:
    """The contract as some rows alone would teach it; only the kinds of columns and formats of dates stay."""
    whole = problem.contract.columns
    learnt = _contract(problem.use_case, problem.frame.iloc[rows], {column.name: column.kind for column in whole})
    formats = {column.name: column.datetime_format for column in whole}
    return Contract(tuple(replace(column, datetime_format=formats[column.name]) for column in learnt.columns))


def encode(problem: TrainingData, rows: Rows, seed: int, contract: Contract | None = None) -> tuple[Encoder, Floats]:
    """Fit the encoder on some rows and encode them, some values masked so that "other" and "missing" mean something.

    In a small table a category needs no more than a twentieth of the rows to keep a code of its own (and at least
    2), whatever `columns.min_category_rows` says: else no category of 60 rows would ever have one.

    Args:
        problem: the training table.
        rows: (m,) positions of the rows to learn from.
        seed: of the masking.
        contract: checks the rows; the problem's own where None.
    """
    settings = problem.use_case.columns
    contract = problem.contract if contract is None else contract
    checked = contract.check_frame(problem.frame.iloc[rows])
    encoder = fit_encoder(
        contract,
        checked,
        max_categories=settings.max_categories,
        min_category_rows=min(settings.min_category_rows, max(2, len(rows) // 20)),
    )
    return encoder, mask_some(encoder.encode_frame(checked), encoder, np.random.default_rng(seed))


def layout(encoder: Encoder) -> MatrixInfo:
    """What a model builder must know of an encoder's matrix."""
    return MatrixInfo(encoder.sizes)


def fit(
    name: str, params: Mapping[str, Any], matrix: Floats, y: npt.NDArray[Any], *, form: MatrixInfo, use_case: UseCase
) -> Any:
    """Build and fit one estimator on an encoded matrix.

    It may fit in several threads and answers in one: threads add up a forest's votes in any order, and then the same
    row would not get the same answer to the bit.

    Raises:
        SettingsError: no such builder, or no such parameter of it.
        TrainingError: the estimator refused the parameters' values or the data.
    """
    estimator = build(name, form, use_case.task, params, use_case.seed)
    try:
        fitted = estimator.fit(matrix, y)
        return fitted.set_params(**{key: 1 for key in fitted.get_params() if key.split("__")[-1] == "n_jobs"})
    except (ValueError, TypeError, FloatingPointError) as error:
        said = " ".join(str(error).split())
        raise TrainingError(f"The builder '{name}' could not be fitted with {dict(params)}: {said}") from error


def fold_predictions(name: str, params: Mapping[str, Any], fold: Fold, problem: TrainingData) -> Predictions:
    """Fit on one fold's training rows and predict its validation rows, not calibrated."""
    estimator = fit(name, params, fold.train, fold.y_train, form=fold.layout, use_case=problem.use_case)
    return predict(estimator, fold.valid, problem.classes)


def metric_names(problem: TrainingData) -> list[str]:
    """The primary metric and those beside it, each once."""
    return _metrics_of(problem.use_case)


def _metrics_of(use_case: UseCase) -> list[str]:
    return list(dict.fromkeys([use_case.primary_metric, *use_case.metrics.also]))


def measured(names: Sequence[str], y: npt.NDArray[Any], answer: Predictions) -> dict[str, float]:
    """Each metric's value; nan for one that needs an interval where there is none (the first fold, the dummy)."""
    bare = answer.lower is None or answer.upper is None
    able = [name for name in names if not (bare and metric(name).needs == "interval")]
    found = evaluate(able, y, answer)
    return {name: found.get(name, float("nan")) for name in names}


def train(problem: TrainingData, name: str, params: Mapping[str, Any], progress: Progress = lambda _: None) -> Trained:
    """Train one builder with one set of parameters.

    The folds' predictions give the metrics, the calibration and the interval; the final fit uses all rows. A fold's
    metrics use a calibration learnt from the other folds; where time orders them from the earlier ones, so that the
    first fold is measured as it is.

    Args:
        problem: the training table, made ready by `prepare`.
        name: the builder.
        params: its parameters.
        progress: called with a few words before each fit.
    """
    cuts = _cuts(problem, problem.use_case.split.folds)
    raw, base = [], []
    for number, cut in enumerate(cuts, start=1):
        progress(f"fold {number} of {len(cuts)}")
        fold = _fold(problem, *cut)  # one at a time: together their matrices are three times the table
        raw.append(fold_predictions(name, params, fold, problem))
        base.append(fold_predictions("dummy", {}, fold, problem))
        del fold
    truth = [problem.y[valid] for _, valid in cuts]
    calibrated = _calibrated_by_others(raw, truth, problem)
    progress("all rows")
    scorer = _final(problem, name, params, raw, truth)
    names = metric_names(problem)
    return Trained(
        scorer,
        _spreads(names, truth, calibrated),
        _spreads(names, truth, base),
        Predictions.joined(calibrated),
        np.concatenate([valid for _, valid in cuts]),
        Predictions.joined([_apply(answer, scorer.calibration, scorer.offsets) for answer in raw]),
        len(cuts[-1][1]),
    )


def reference(problem: TrainingData, trained: Trained) -> Reference:
    """Profiles of the training rows, of the answers that no fold had seen, and of the outcomes.

    Where a column is private, no category is named in them.
    """
    use_case, classes = problem.use_case, problem.classes
    outcomes = problem.y if classes is None else np.asarray(classes, dtype=object)[problem.y]
    return learn_reference(
        clear_missing_marks(problem.frame, use_case.columns.missing_marks),
        kinds={column.name: column.kind for column in problem.contract.columns},
        time=None if use_case.time is None or problem.times is None else (use_case.time, problem.times),
        outcomes=(use_case.target, outcomes),
        predictions=trained.unseen,
        rows=trained.rows,
        hidden=bool(use_case.columns.private),
    )


def errormap(problem: TrainingData, trained: Trained) -> ErrorMap | None:
    """What the folds' models showed on rows that they were not fitted on, in order of time where there is one."""
    order = np.argsort(trained.rows, kind="stable") if problem.times is not None else np.arange(len(trained.rows))
    rows, scorer = trained.rows[order], trained.scorer
    return learn_errormap(
        scorer.encoder.encode_frame(scorer.contract.check_frame(problem.frame.iloc[rows])),
        problem.y[rows],
        trained.unseen.take(order),
        None if problem.times is None else problem.times[rows],
        scorer.baseline,
        problem.use_case.split.folds,
    )


def _spreads(
    names: Sequence[str], truth: Sequence[npt.NDArray[Any]], answers: Sequence[Predictions]
) -> dict[str, CVScore]:
    by_fold = [measured(names, y, answer) for y, answer in zip(truth, answers, strict=True)]
    return {name: CVScore.of([scores[name] for scores in by_fold], metric(name).bounds) for name in names}


def _final(
    problem: TrainingData,
    name: str,
    params: Mapping[str, Any],
    raw: Sequence[Predictions],
    truth: Sequence[npt.NDArray[Any]],
) -> Scorer:
    encoder, matrix = encode(problem, np.arange(len(problem.frame)), problem.use_case.seed)
    form = layout(encoder)
    estimator = fit(name, params, matrix, problem.y, form=form, use_case=problem.use_case)
    plain = fit("dummy", {}, matrix[:, :1], problem.y, form=form, use_case=problem.use_case)
    calibration, offsets = _learn_calibration(raw, truth, problem)
    if problem.classes is None:
        baseline = (float(plain.predict(matrix[:1, :1])[0]),)
    else:
        baseline = tuple(raw_probabilities(plain, matrix[:1, :1], len(problem.classes))[0].tolist())
    return Scorer(problem.contract, encoder, estimator, problem.classes, calibration, offsets, baseline)


def _learn_calibration(
    raw: Sequence[Predictions], truth: Sequence[npt.NDArray[Any]], problem: TrainingData
) -> tuple[Calibration | None, tuple[float, float] | None]:
    """What the given folds teach: calibration for classes, interval offsets for numbers."""
    if not raw:
        return None, None
    y = np.concatenate(truth)
    if problem.classes is None:
        return None, conformal_offsets(y, np.concatenate([answer.prediction for answer in raw]))
    return fit_calibration(np.concatenate([_table(answer) for answer in raw]), y), None


def _calibrated_by_others(
    raw: Sequence[Predictions], truth: Sequence[npt.NDArray[Any]], problem: TrainingData
) -> list[Predictions]:
    """Each fold's predictions under what the other folds teach; under the earlier ones only, where time orders them."""
    answers = []
    for k, answer in enumerate(raw):
        others = [j for j in range(len(raw)) if (j < k if problem.times is not None else j != k)]
        calibration, offsets = _learn_calibration([raw[j] for j in others], [truth[j] for j in others], problem)
        answers.append(_apply(answer, calibration, offsets))
    return answers


def _apply(answer: Predictions, calibration: Calibration | None, offsets: tuple[float, float] | None) -> Predictions:
    if offsets is not None:
        return Predictions.of_values(answer.prediction, answer.prediction + offsets[0], answer.prediction + offsets[1])
    return answer if calibration is None else Predictions.of_probabilities(calibration(_table(answer)), answer.classes)


def _table(answer: Predictions) -> Floats:
    return np.asarray(answer.probabilities)
