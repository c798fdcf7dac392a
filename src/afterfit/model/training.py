"""Train a model as production will evaluate it: folds in time, out-of-fold calibration, then a fit on all rows."""

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
from afterfit.contract.masks import mask_of
from afterfit.data.reading import TableReading, kinds_of
from afterfit.data.splits import ordered_folds, shuffled_folds
from afterfit.drift.reference import Reference, clear_missing_marks, learn_reference
from afterfit.errors import SchemaError, SettingsError, TrainingError
from afterfit.model.builders import MatrixInfo, Task, build
from afterfit.model.calibration import Calibration, conformal_offsets, fit_calibration
from afterfit.model.scorer import Scorer, predict, raw_probabilities
from afterfit.performance.error_map import ErrorMap, learn_errormap
from afterfit.performance.evaluation import METRICS, evaluate, metric
from afterfit.performance.metrics import INTERVAL_LEVEL
from afterfit.performance.predictions import Predictions
from afterfit.texts.redaction import redact
from afterfit.use_case import UseCase

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Progress = Callable[[str], None]

SMALLEST_TABLE = 20


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A training table, prepared once: target encoded, kinds of columns fixed, rows that the contract refuses dropped.

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
    """One fold, encoded as learnt from its own training rows: nothing leaks into it from the validation rows."""

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
    """A model, and the performance that its folds lead one to expect.

    Attributes:
        scorer: fitted on all rows.
        metrics: each metric over the folds, from out-of-fold predictions calibrated by other folds.
        dummy: the same for the dummy, on the same folds.
        out_of_fold: out-of-fold predictions for `rows`, calibrated by other folds: they measure the model.
        rows: (m,) positions of these rows in the training data.
        out_of_fold_final: out-of-fold predictions for `rows` under the final calibration: of all that a training window
            has, the nearest to what the scorer will answer for new rows.
        last: how many of `rows`, at their end, belong to the last fold.
    """

    scorer: Scorer
    metrics: Mapping[str, CVScore]
    dummy: Mapping[str, CVScore]
    out_of_fold: Predictions
    rows: Rows
    out_of_fold_final: Predictions
    last: int = 0


def prepare(
    use_case: UseCase, frame: pd.DataFrame, y: npt.NDArray[Any], classes: tuple[Any, ...] | None
) -> TrainingData:
    """Prepare a training table: learn the contract, and drop and count the rows that it refuses.

    Args:
        use_case: which columns are features and how they are read.
        frame: n rows with the features (and the time column, sorted, where the use case has one).
        y: (n,) class indices or numbers.
        classes: the k labels, or None in regression.

    Raises:
        SettingsError: a metric is unknown, or for another kind of model.
        SchemaError: a feature of the settings is absent from the table.
        TrainingError: fewer than `SMALLEST_TABLE` rows are left.
    """
    _check_metrics(use_case, classes)
    features = frame[list(feature_columns(use_case, frame.columns))]
    contract = _contract(use_case, features)
    is_usable = ~contract.check_frame(features).bad
    times = frame[use_case.time].to_numpy() if use_case.time else None
    if is_usable.sum() < SMALLEST_TABLE:
        refused = "; ".join(f"{column}: {code}" for column, code in _error_codes(contract, features))
        raise TrainingError(
            f"Training needs at least {SMALLEST_TABLE} usable rows; of {len(frame)} rows {is_usable.sum()} are usable"
            + (f" (the others are refused for {refused})." if refused else ".")
        )
    return TrainingData(
        use_case,
        (features if is_usable.all() else features.loc[is_usable]).reset_index(drop=True),
        y[is_usable],
        classes,
        None if times is None else times[is_usable],
        contract,
        int((~is_usable).sum()),
    )


def _error_codes(contract: Contract, features: pd.DataFrame) -> list[tuple[str, str]]:
    issues = contract.check_frame(features).issues
    return list(dict.fromkeys((issue.column.name, issue.code) for issue in issues if issue.error))


def _check_metrics(use_case: UseCase, classes: tuple[Any, ...] | None) -> None:
    kind = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    for measure in map(metric, _metrics_of(use_case)):
        if kind not in measure.tasks:
            suitable = ", ".join(name for name, other in METRICS.items() if kind in other.tasks)
            raise SettingsError(f"The metric {measure.name} does not measure a {kind} model; these do: {suitable}.")


def feature_columns(use_case: UseCase, columns: Iterable[str]) -> tuple[str, ...]:
    """The feature columns of a table with these columns, in the settings' order, or in the table's.

    Raises:
        SchemaError: a column of the settings is absent (the message names the nearest one), or no feature is left.
    """
    present, listed = list(columns), use_case.columns.features
    setting, expected = ("columns.features", listed) if listed else ("columns.ignore", use_case.columns.ignore)
    absent = [name for name in expected if name not in present]
    if absent:
        lines = [f"'{name}' is absent{_nearest(name, present)}" for name in absent]
        raise SchemaError(f"The table lacks columns that {setting} names: " + "; ".join(lines) + ".")
    excluded = {use_case.target, use_case.time, *use_case.key, *use_case.columns.ignore}
    chosen = listed or tuple(name for name in present if name not in excluded)
    if not chosen:
        raise SchemaError(f"No feature is left: the table has the columns {present}, and all of them are set aside.")
    return chosen


def _nearest(name: str, present: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, present, n=1)
    return f" (is it '{near[0]}'?)" if near else ""


def _contract(use_case: UseCase, features: pd.DataFrame, kinds: Mapping[str, Kind] | None = None) -> Contract:
    settings = kinds_of(use_case, map(str, features.columns))
    return learn(
        features,
        kinds=settings.kinds if kinds is None else kinds,
        formats=settings.formats,
        required=settings.required,
        private=settings.private,
        mask=mask_of(use_case.name) if settings.private else "",
        marks=settings.missing_marks,
        on_invalid=settings.on_invalid,
    )


def folds(problem: TrainingData, count: int) -> list[Fold]:
    """Cut a problem into folds, each encoded by its own training rows.

    With a time column the folds follow time: each fold is trained on all rows before it, as in production. Without one
    they are shuffled (by class, where there are classes).

    Raises:
        TrainingError: too few rows or times for so many folds, or a fold without one of the classes.
    """
    return [_encode_fold(problem, train, valid) for train, valid in _cuts(problem, count)]


def _cuts(problem: TrainingData, count: int) -> list[tuple[Rows, Rows]]:
    """Positions of each fold's training and validation rows."""
    if problem.times is None:
        return shuffled_folds(problem.y, count, problem.use_case.seed, problem.task)
    return ordered_folds(problem.times, count, labels=problem.y if problem.classes is not None else None)


def _encode_fold(problem: TrainingData, train: Rows, valid: Rows) -> Fold:
    contract = _contract_of(problem, train)
    encoder, matrix = encode(problem, train, problem.use_case.seed, contract)
    checked = contract.check_frame(problem.frame.iloc[valid])
    return Fold(matrix, problem.y[train], encoder.encode_frame(checked), problem.y[valid], valid, layout(encoder))


def _contract_of(problem: TrainingData, rows: Rows) -> Contract:
    """The contract as learnt from some rows alone; only kinds of columns and formats of dates come from all rows."""
    whole = problem.contract.columns
    learnt = _contract(problem.use_case, problem.frame.iloc[rows], {column.name: column.kind for column in whole})
    formats = {column.name: column.datetime_format for column in whole}
    return Contract(tuple(replace(column, datetime_format=formats[column.name]) for column in learnt.columns))


def encode(problem: TrainingData, rows: Rows, seed: int, contract: Contract | None = None) -> tuple[Encoder, Floats]:
    """Fit the encoder on some rows and encode them; some values are masked, so that "other" and "missing" occur.

    In a small table a category gets a code of its own from a twentieth of the rows on (and at least 2 rows), even
    where `columns.min_category_rows` is larger: otherwise no category in a table of 60 rows would get one.

    Args:
        problem: the training table.
        rows: (m,) positions of the rows to learn from.
        seed: of the masking.
        contract: checks the rows; the one of `problem` where None.
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

    It may fit in several threads, but answers in one: threads sum a forest's votes in varying order, and the same row
    would then not always get the same answer to the bit.

    Raises:
        SettingsError: the builder does not exist, or has no such parameter.
        TrainingError: the estimator refused the parameters' values or the data.
    """
    estimator = build(name, form, use_case.task, params, use_case.seed)
    try:
        fitted = estimator.fit(matrix, y)
        return fitted.set_params(**{key: 1 for key in fitted.get_params() if key.split("__")[-1] == "n_jobs"})
    except (ValueError, TypeError, FloatingPointError) as error:
        message = " ".join(redact(str(error)).split())
        raise TrainingError(f"The builder '{name}' could not be fitted with {dict(params)}: {message}") from error


def fold_predictions(name: str, params: Mapping[str, Any], fold: Fold, problem: TrainingData) -> Predictions:
    """Fit on one fold's training rows and predict its validation rows, not calibrated."""
    estimator = fit(name, params, fold.train, fold.y_train, form=fold.layout, use_case=problem.use_case)
    return predict(estimator, fold.valid, problem.classes)


def _with_training_interval(answer: Predictions, y: npt.NDArray[np.float64]) -> Predictions:
    """The dummy's answers with the interval that ignores the features: the middle 90 % of the training targets."""
    tail = (1.0 - INTERVAL_LEVEL) / 2.0
    lower, upper = np.quantile(y, [tail, 1.0 - tail])
    n = len(answer.prediction)
    return Predictions.of_values(answer.prediction, np.full(n, lower), np.full(n, upper))


def metric_names(problem: TrainingData) -> list[str]:
    """The primary metric and the further ones, each once."""
    return _metrics_of(problem.use_case)


def _metrics_of(use_case: UseCase) -> list[str]:
    return list(dict.fromkeys([use_case.primary_metric, *use_case.metrics.also]))


def metric_values(names: Sequence[str], y: npt.NDArray[Any], answer: Predictions) -> dict[str, float]:
    """Each metric's value; nan for one that needs an interval where there is none (the first fold)."""
    has_no_interval = answer.lower is None or answer.upper is None
    measurable = [name for name in names if not (has_no_interval and metric(name).needs == "interval")]
    values = evaluate(measurable, y, answer)
    return {name: values.get(name, float("nan")) for name in names}


def train(problem: TrainingData, name: str, params: Mapping[str, Any], progress: Progress = lambda _: None) -> Trained:
    """Train one builder with one set of parameters.

    The folds' predictions give the metrics, the calibration and the interval; the final fit uses all rows. For its
    metrics, a fold is calibrated by the other folds; with a time column by the earlier ones only, so the first fold is
    measured without calibration.

    Args:
        problem: the training table, from `prepare`.
        name: the builder.
        params: its parameters.
        progress: called with a short text before each fit.
    """
    cuts = _cuts(problem, problem.use_case.split.folds)
    raw, dummy = [], []
    for number, cut in enumerate(cuts, start=1):
        progress(f"fold {number} of {len(cuts)}")
        # one at a time: the matrices of all folds together are three times as large as the table
        fold = _encode_fold(problem, *cut)
        raw.append(fold_predictions(name, params, fold, problem))
        dummy.append(fold_predictions("dummy", {}, fold, problem))
        del fold
    truth = [problem.y[valid] for _, valid in cuts]
    calibrated = _calibrated_by_others(raw, truth, problem)
    dummy = [
        _with_training_interval(answer, problem.y[fitted]) if other.lower is not None else answer
        for answer, other, (fitted, _) in zip(dummy, calibrated, cuts, strict=True)
    ]
    progress("all rows")
    scorer = _fit_final(problem, name, params, raw, truth)
    names = metric_names(problem)
    return Trained(
        scorer,
        _cv_scores(names, truth, calibrated),
        _cv_scores(names, truth, dummy),
        Predictions.joined(calibrated),
        np.concatenate([valid for _, valid in cuts]),
        Predictions.joined([_recalibrate(answer, scorer.calibration, scorer.offsets) for answer in raw]),
        len(cuts[-1][1]),
    )


def reference(problem: TrainingData, trained: Trained) -> Reference | None:
    """Profiles of the training rows without private columns, the out-of-fold predictions and the outcomes.

    None where every column is private.
    """
    use_case, classes = problem.use_case, problem.classes
    shown = [column for column in problem.contract.columns if not column.private]
    if not shown:
        return None
    outcomes = problem.y if classes is None else np.asarray(classes, dtype=object)[problem.y]
    rows = TableReading({column.name: column for column in shown}).typed(problem.frame[[c.name for c in shown]])
    return learn_reference(
        clear_missing_marks(rows, use_case.columns.missing_marks),
        kinds={column.name: column.kind for column in shown},
        time=None if use_case.time is None or problem.times is None else (use_case.time, problem.times),
        outcomes=(use_case.target, outcomes),
        predictions=trained.out_of_fold_final,
        rows=trained.rows,
        hidden=False,
    )


def errormap(problem: TrainingData, trained: Trained) -> ErrorMap | None:
    """The error map of the out-of-fold predictions, in order of time where there is a time column."""
    order = np.argsort(trained.rows, kind="stable") if problem.times is not None else np.arange(len(trained.rows))
    rows, scorer = trained.rows[order], trained.scorer
    return learn_errormap(
        scorer.encoder.encode_frame(scorer.contract.check_frame(problem.frame.iloc[rows])),
        problem.y[rows],
        trained.out_of_fold_final.take(order),
        None if problem.times is None else problem.times[rows],
        scorer.baseline,
        problem.use_case.split.folds,
    )


def _cv_scores(
    names: Sequence[str], truth: Sequence[npt.NDArray[Any]], answers: Sequence[Predictions]
) -> dict[str, CVScore]:
    by_fold = [metric_values(names, y, answer) for y, answer in zip(truth, answers, strict=True)]
    return {name: CVScore.of([scores[name] for scores in by_fold], metric(name).bounds) for name in names}


def _fit_final(
    problem: TrainingData,
    name: str,
    params: Mapping[str, Any],
    raw: Sequence[Predictions],
    truth: Sequence[npt.NDArray[Any]],
) -> Scorer:
    encoder, matrix = encode(problem, np.arange(len(problem.frame)), problem.use_case.seed)
    encoder = encoder.without_rare_private()
    form = layout(encoder)
    estimator = fit(name, params, matrix, problem.y, form=form, use_case=problem.use_case)
    dummy = fit("dummy", {}, matrix[:, :1], problem.y, form=form, use_case=problem.use_case)
    calibration, offsets = _learn_calibration(raw, truth, problem)
    if problem.classes is None:
        baseline = (float(dummy.predict(matrix[:1, :1])[0]),)
    else:
        baseline = tuple(raw_probabilities(dummy, matrix[:1, :1], len(problem.classes))[0].tolist())
    return Scorer(encoder.contract, encoder, estimator, problem.classes, calibration, offsets, baseline)


def _learn_calibration(
    raw: Sequence[Predictions], truth: Sequence[npt.NDArray[Any]], problem: TrainingData
) -> tuple[Calibration | None, tuple[float, float] | None]:
    """What is learnt from some folds: calibration for classes, interval offsets for numbers."""
    if not raw:
        return None, None
    y = np.concatenate(truth)
    if problem.classes is None:
        return None, conformal_offsets(y, np.concatenate([answer.prediction for answer in raw]))
    return fit_calibration(np.concatenate([_probability_table(answer) for answer in raw]), y), None


def _calibrated_by_others(
    raw: Sequence[Predictions], truth: Sequence[npt.NDArray[Any]], problem: TrainingData
) -> list[Predictions]:
    """Each fold's predictions, calibrated by the other folds; with a time column by the earlier folds only."""
    answers = []
    for k, answer in enumerate(raw):
        others = [j for j in range(len(raw)) if (j < k if problem.times is not None else j != k)]
        calibration, offsets = _learn_calibration([raw[j] for j in others], [truth[j] for j in others], problem)
        answers.append(_recalibrate(answer, calibration, offsets))
    return answers


def _recalibrate(
    answer: Predictions, calibration: Calibration | None, offsets: tuple[float, float] | None
) -> Predictions:
    if offsets is not None:
        return Predictions.of_values(answer.prediction, answer.prediction + offsets[0], answer.prediction + offsets[1])
    return (
        answer
        if calibration is None
        else Predictions.of_probabilities(calibration(_probability_table(answer)), answer.classes)
    )


def _probability_table(answer: Predictions) -> Floats:
    return np.asarray(answer.probabilities)
