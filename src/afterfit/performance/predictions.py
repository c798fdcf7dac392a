"""What a model answered: one small type for all code that measures, compares, saves or serves models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from afterfit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

FloatArray = npt.NDArray[np.float64]
Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What one model answered for n rows.

    Attributes:
        prediction: (n,) the class index 0..k-1 in classification, the number in regression.
        probabilities: (n, k) one column a class, or None in regression and for models that only name a class.
        lower: (n,) lower end of the 90 % interval of a regression, or None.
        upper: (n,) upper end of it, or None.
        classes: the k class labels in the order of the columns, or None in regression.
    """

    prediction: npt.NDArray[Any]
    probabilities: FloatArray | None = None
    lower: FloatArray | None = None
    upper: FloatArray | None = None
    classes: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.prediction)
        for name in ("probabilities", "lower", "upper"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise DataError(f"Predictions need one length; prediction has {n} rows and {name} has {len(values)}.")
        if self.probabilities is not None and (
            self.classes is None or len(self.classes) != self.probabilities.shape[1]
        ):
            raise DataError("Probabilities need one column a class, and `classes` to name them in that order.")

    def __len__(self) -> int:
        return len(self.prediction)

    @classmethod
    def of_probabilities(
        cls, probabilities: npt.ArrayLike, classes: tuple[Any, ...] | None = None, *, threshold: float = 0.5
    ) -> Predictions:
        """Predictions of a classifier.

        Args:
            probabilities: (n,) of the positive class, or (n, k).
            classes: the k labels; 0..k-1 where None.
            threshold: with two classes, the positive one is predicted from this probability on. With more classes
                the most probable one is predicted.
        """
        table = np.asarray(probabilities, dtype=np.float64)
        if table.ndim == 1:
            table = np.column_stack([1.0 - table, table])
        k = table.shape[1]
        binary = k == 2
        prediction = (table[:, 1] >= threshold).astype(np.intp) if binary else np.argmax(table, axis=1)
        return cls(prediction, table, classes=tuple(range(k)) if classes is None else tuple(classes))

    @classmethod
    def of_values(
        cls, prediction: npt.ArrayLike, lower: npt.ArrayLike | None = None, upper: npt.ArrayLike | None = None
    ) -> Predictions:
        """Predictions of a regression: (n,) numbers, with the ends of their 90 % intervals where there are any."""
        ends = [None if end is None else np.asarray(end, dtype=np.float64) for end in (lower, upper)]
        return cls(np.asarray(prediction, dtype=np.float64), None, ends[0], ends[1])

    @property
    def task(self) -> Task:
        """Which kind of model this is: with class labels a classifier, without them a regression."""
        if self.classes is None:
            return "regression"
        return "binary" if len(self.classes) == 2 else "multiclass"

    @property
    def probability(self) -> FloatArray:
        """(n,) probability of the positive (second) class; only with two classes."""
        if self.probabilities is None or self.probabilities.shape[1] != 2:
            raise DataError("A single probability needs a classifier with two classes that answers probabilities.")
        column: FloatArray = self.probabilities[:, 1]
        return column

    @property
    def confidence(self) -> FloatArray | None:
        """(n,) probability of the predicted class, or None where the model answers no probabilities."""
        if self.probabilities is None:
            return None
        chosen: FloatArray = self.probabilities[np.arange(len(self)), self.prediction.astype(np.intp)]
        return chosen

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """(n,) which rows have a usable answer: all its numbers are finite, the ends of an interval too.

        All code asks this one property. An answer that is not usable is an error in serving and scoring; evaluation
        and monitoring leave it out.
        """
        usable: npt.NDArray[np.bool_] = np.isfinite(self.prediction)
        if self.probabilities is not None:
            usable &= np.isfinite(self.probabilities).all(axis=1)
        for end in (self.lower, self.upper):
            if end is not None:
                usable &= np.isfinite(end)
        return usable

    @property
    def labels(self) -> npt.NDArray[Any]:
        """(n,) the predictions as the user knows them: class labels, or the numbers of a regression."""
        if self.classes is None:
            return self.prediction
        labels: npt.NDArray[Any] = np.asarray(self.classes)[self.prediction.astype(np.intp)]
        return labels

    def take(self, rows: npt.NDArray[Any]) -> Predictions:
        """The same predictions for some rows: a boolean mask (n,) or row numbers."""
        parts = [None if part is None else part[rows] for part in (self.probabilities, self.lower, self.upper)]
        return Predictions(self.prediction[rows], parts[0], parts[1], parts[2], self.classes)

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Concatenate one model's predictions for several parts of the rows, in order."""

        def concatenate(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else np.concatenate(values)

        ends = [concatenate(name) for name in ("probabilities", "lower", "upper")]
        return cls(concatenate("prediction"), ends[0], ends[1], ends[2], parts[0].classes)
