"""What the gate measures beside the comparison: damaged columns, constant answers, and how far equal models differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.gate.inputs import HeldOut
from afterfit.model.bundle import Bundle
from afterfit.model.scorer import Scorer, predict
from afterfit.model.training import TrainingData, encode, fit, layout
from afterfit.performance.metrics import Metric
from afterfit.performance.predictions import Predictions

NEVER_SEEN = "(never seen before)"
REFITS = 5


@dataclass(frozen=True, slots=True)
class Fall:
    """What one damage to the rows costs, in the metric: positive is worse.

    Attributes:
        column: the damaged column.
        change: "missing", or "with its most common category unknown".
        candidate: by how much the candidate's metric gets worse.
        champion: by how much the champion's gets worse; None without a champion.
    """

    column: str
    change: str
    candidate: float
    champion: float | None

    @property
    def excess(self) -> float:
        """How much deeper the candidate falls than the champion."""
        return self.candidate - (self.champion or 0.0)


def falls(
    candidate: Scorer, champion: Scorer | None, frame: pd.DataFrame, y: npt.NDArray[Any], metric: Metric
) -> tuple[Fall, ...]:
    """How much each scorer loses where one column is missing, and where its most common category is unknown.

    Columns that a contract requires are left out: rows without them are refused, not answered badly.

    Args:
        candidate: of the version that is to be promoted.
        champion: of the version in production; None where there is none.
        frame: (n rows) as the source gives them.
        y: (n,) outcomes.
        metric: losses are measured by it, in its unit.
    """
    scorers = [scorer for scorer in (candidate, champion) if scorer is not None]
    intact = [_metric_value(scorer, frame, y, metric) for scorer in scorers]
    results = []
    for column, change, damaged in _damaged(candidate, frame):
        damaged_values = [_metric_value(scorer, damaged, y, metric) for scorer in scorers]
        lost = [
            float(metric.improvement(damaged_value, intact_value))
            for intact_value, damaged_value in zip(intact, damaged_values, strict=True)
        ]
        if all(np.isfinite(lost)):
            results.append(Fall(column, change, lost[0], lost[1] if champion is not None else None))
    return tuple(results)


def constant(predictions: Predictions) -> bool:
    """Whether every row got the same answer."""
    answers = predictions.prediction if predictions.probabilities is None else predictions.probabilities
    return len(answers) > 1 and bool(np.all(answers == answers[0]))


def equal_models_spread(bundle: Bundle, problem: TrainingData, rows: HeldOut, metric: Metric) -> float:
    """How far two equal models differ: the largest difference among the recipe's fits with other seeds.

    Five fits on the same training rows differ by their seeds only. They are judged on the same held-out rows, with the
    calibration of the bundle. A recipe without randomness gives 0.

    Args:
        bundle: the champion's, with its recipe.
        problem: its prepared training rows.
        rows: rows to judge on.
        metric: the differences are in its unit.
    """
    values, scorer = [], bundle.scorer
    builder, params = bundle.manifest.builder, bundle.manifest.params
    for seed in range(1, REFITS + 1):
        use_case = problem.use_case.model_copy(update={"seed": problem.use_case.seed + seed})
        encoder, matrix = encode(problem, np.arange(len(problem.frame)), use_case.seed)
        estimator = fit(builder, params, matrix, problem.y, form=layout(encoder), use_case=use_case)
        judged_matrix = encoder.encode_frame(problem.contract.check_frame(rows.frame))
        answers = predict(estimator, judged_matrix, problem.classes, scorer.calibration, scorer.offsets)
        values.append(metric(rows.y, answers))
    return float(max(abs(value - other_value) for value, other_value in combinations(values, 2)))


def _damaged(scorer: Scorer, frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for column in scorer.contract.columns:
        if column.required or column.name not in frame.columns:
            continue
        yield column.name, "missing", frame.assign(**{column.name: None})
        if column.kind == "category":
            values = frame[column.name].astype(object)
            counts = values.value_counts()
            if len(counts):
                common = (values == counts.index[0]).to_numpy()
                yield (
                    column.name,
                    "with its most common category unknown",
                    frame.assign(**{column.name: values.mask(common, NEVER_SEEN)}),
                )


def _metric_value(scorer: Scorer, frame: pd.DataFrame, y: npt.NDArray[Any], metric: Metric) -> float:
    checked, predictions = scorer.score(frame)
    keep = ~checked.bad & predictions.finite
    return metric(y[keep], predictions.take(keep)) if keep.any() else float("nan")
