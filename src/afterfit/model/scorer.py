"""A fitted estimator with its contract, encoder and calibration: rows in, predictions out, without HTTP or MLflow."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.checks import Checked
from afterfit.contract.contract import Contract
from afterfit.contract.encoder import Encoder
from afterfit.model.calibration import Calibration
from afterfit.performance.predictions import Predictions

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scorer:
    """Turns rows into predictions.

    Attributes:
        contract: what a row must look like.
        encoder: checked rows to the estimator's matrix.
        estimator: a fitted scikit-learn estimator.
        classes: the k class labels in the order of the probabilities; None in regression.
        calibration: raw to calibrated probabilities, or None where there was too little to learn it from.
        offsets: (low, high) of the 90 % interval around a regression's prediction, or None.
        baseline: the dummy's answer: k class shares, or one number.
    """

    contract: Contract
    encoder: Encoder
    estimator: Any
    classes: tuple[Any, ...] | None
    calibration: Calibration | None
    offsets: tuple[float, float] | None
    baseline: tuple[float, ...]

    def score(self, frame: pd.DataFrame) -> tuple[Checked, Predictions]:
        """Check and predict all rows of a frame; predictions of rows with an error are arbitrary (see the errors)."""
        checked = self.contract.check_frame(frame)
        return checked, self.predict(self.encoder.encode_frame(checked))

    def predict(self, matrix: Floats) -> Predictions:
        """Predictions for an encoded matrix (n, p), calibrated, with intervals."""
        return predict(self.estimator, matrix, self.classes, self.calibration, self.offsets)

    def constant(self, rows: int) -> Predictions:
        """The dummy's predictions for a number of rows."""
        if self.classes is None:
            return Predictions.of_values(np.full(rows, self.baseline[0]))
        return Predictions.of_probabilities(np.tile(np.asarray(self.baseline), (rows, 1)), self.classes)


def predict(
    estimator: Any,
    matrix: Floats,
    classes: tuple[Any, ...] | None,
    calibration: Calibration | None = None,
    offsets: tuple[float, float] | None = None,
) -> Predictions:
    """Predictions of a fitted estimator for a matrix (n, p); an empty matrix gives empty predictions."""
    if classes is None:
        values = np.asarray(estimator.predict(matrix), dtype=float) if len(matrix) else np.empty(0)
        with np.errstate(over="ignore"):  # rows with an infinite end get an error where they are answered
            ends = (None, None) if offsets is None else (values + offsets[0], values + offsets[1])
        return Predictions.of_values(values, *ends)
    raw = raw_probabilities(estimator, matrix, len(classes))
    return Predictions.of_probabilities(raw if calibration is None else calibration(raw), classes)


def raw_probabilities(estimator: Any, matrix: Floats, k: int) -> Floats:
    """Class probabilities (n, k) before calibration; a class that the estimator never saw has probability 0.

    An estimator without `predict_proba` answers its `decision_function` through a logistic curve (two classes), or
    1 for the predicted class: the calibration that follows makes probabilities of both.
    """
    if len(matrix) == 0:
        return np.empty((0, k))
    columns = np.asarray(estimator.classes_, dtype=int)
    if hasattr(estimator, "predict_proba"):
        probabilities = np.asarray(estimator.predict_proba(matrix), dtype=float)
    elif hasattr(estimator, "decision_function") and len(columns) == 2:
        positive = 1 / (1 + np.exp(-np.clip(estimator.decision_function(matrix), -50, 50)))
        probabilities = np.column_stack([1 - positive, positive])
    else:
        probabilities = (np.asarray(estimator.predict(matrix))[:, None] == columns).astype(float)
    if len(columns) == k:
        return probabilities
    full = np.zeros((len(matrix), k))
    full[:, columns] = probabilities
    return full
