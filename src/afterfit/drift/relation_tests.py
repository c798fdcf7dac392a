"""Tests of a window against the relations of its reference: columns that moved away from their prediction.

All statistics come from the sums of the two profiles. How rows vary and depend on each other in each direction was
measured when the layout was learnt.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from afterfit.drift import correlations
from afterfit.drift.binning import SCORE_STEPS
from afterfit.drift.correlations import LOCATION, SPREAD, Directions, Form
from afterfit.drift.design_effects import TimeDependence
from afterfit.drift.profile_spec import Moments, ProfileSpec
from afterfit.drift.profiles import Profile
from afterfit.drift.pvalues import mean_pvalues, skew_factor

Array = np.ndarray[Any, Any]

FEWEST_ROWS = 50.0
"""Relations are not tested in a window with fewer effective rows."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a score moved from its prediction by the other columns; `effect` in the unit of its kind of change."""

    score: int
    level: int
    kind: str
    statistic: float
    pvalue: float
    effect: float
    effective_rows: float


@dataclass(frozen=True, slots=True)
class Correlation:
    """How strongly a column is related to others, as a correlation: `before` in the reference, `now` in the window."""

    before: float
    now: float
    statistic: float
    pvalue: float
    effective_rows: float

    @property
    def effect(self) -> float:
        """Change of strength."""
        return self.now - self.before


class RelationTests:
    """The tests of one window against the directions of its reference."""

    def __init__(self, window: Profile, reference: Profile, spread: TimeDependence) -> None:
        self._layout: ProfileSpec = reference.layout
        self._dependence = spread
        self._rows = window.sums.rows
        self._reference_rows = reference.sums.rows
        self._directions: Directions = correlations.find_directions(reference.sums, reference.layout.scores)
        self.means, self._covariance = self._directions.standardise(window.sums)

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Positions of the columns that have relations here and in the layout."""
        return tuple(column for column in self._layout.related if column in self._directions.groups)

    @cached_property
    def _effective(self) -> float:
        """Effective rows of the reference; more for a window that is drawn from the same blocks of time.

        Such a window shares the chance deviations in the reference's relations; a window from another time does not.
        """
        design_effects = [
            float(self._dependence.design_effect(lags).max()) for lags in self._layout.dependence.looks if lags.size
        ]
        rows_here = self._reference_rows / float(np.median(design_effects)) if design_effects else 0.0
        return max(self._layout.dependence.effective, rows_here)

    @property
    def can_test(self) -> bool:
        """Whether the reference has enough effective rows to predict each column from the others."""
        return len(self.columns) > 1 and self._layout.dependence.effective > 3 * len(self._layout.scores)

    def shifts(self, blamed: Collection[int]) -> list[Shift]:
        """The shift of each score from its prediction; blamed columns are left out, and do not predict."""
        moments = self._layout.dependence.residual
        means = self._directions.replace_by_prediction(self.means, [c for c in self.columns if c in blamed])
        differences = self._directions.residual @ means
        design, freedom = self._design(moments)
        variance = moments.variance * self._dependence.rows * design * self._fit_inflation
        pvalues = mean_pvalues(differences, variance, self._skewness(moments, design), freedom)
        statistics = differences / np.sqrt(np.where(variance > 0, variance, np.inf))
        return [
            Shift(
                i,
                self._layout.scores[i].level,
                self._kind(i),
                float(statistics[i]),
                float(pvalues[i]),
                self._unit(i) * float(differences[i]),
                self._rows / float(design[i]),
            )
            for column in self.columns
            if column not in blamed
            for i in self._directions.groups[column].tolist()
            if self._rows / design[i] >= FEWEST_ROWS or self._layout.scores[i].level >= 0
        ]

    def _kind(self, score: int) -> str:
        level = self._layout.scores[score].level
        return {LOCATION: "location", SPREAD: "spread", 0: "missing"}.get(level, "share")

    def _unit(self, score: int) -> float:
        """One standard deviation of a score in the unit of its kind of change."""
        level, scale = self._layout.scores[score].level, float(self._directions.scales[score])
        return {LOCATION: 1.0, SPREAD: scale / SCORE_STEPS}.get(level, scale)

    @property
    def _fit_inflation(self) -> float:
        """Factor on the variance: the weights were fitted to the reference's rows and fit a window's less well."""
        rows, weights = self._effective, float(len(self._layout.scores))
        return (rows + weights) / max(rows - weights, 1.0)

    def _design(self, moments: Moments) -> tuple[Array, Array]:
        freedom = self._dependence.freedom(moments.lags, int(self._layout.dependence.effective))
        return self._dependence.design_effect(moments.lags), freedom

    def _skewness(self, moments: Moments, design: Array) -> Array:
        rows = np.full(len(design), float(max(self._rows, 1)))
        others = 1.0 / np.maximum(self._dependence.rows - 1.0 / rows, 1e-12)
        return moments.skewness * skew_factor(rows, others, design)

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of columns that are related in the reference."""
        return [
            pair
            for pair in self._layout.pairs
            if pair[0] in self._directions.groups and pair[1] in self._directions.groups
        ]

    def pair_correlations(self) -> dict[tuple[int, int], Correlation]:
        """Each pair's relation, before and now."""
        positions = [i for i, pair in enumerate(self._layout.pairs) if pair in set(self.pairs())]
        forms = {pair: self._directions.form_of_pair(*pair) for pair in self.pairs()}
        return self._correlations(forms, self._layout.dependence.pair_forms, positions)

    def column_correlations(self, blamed: Collection[int]) -> dict[int, Correlation]:
        """Each column's relation with all the others that are not blamed, before and now."""
        forms, positions = {}, []
        for i, column in enumerate(self._layout.related):
            left_out = [other for other in blamed if other != column]
            if column in self._directions.groups and set(self.columns) - {column, *left_out}:
                forms[column] = self._directions.form_with_others(column, left_out)
                positions.append(i)
        return self._correlations(forms, self._layout.dependence.column_forms, positions)

    def _correlations(
        self, forms: dict[Any, Form], moments: Moments, positions: Sequence[int]
    ) -> dict[Any, Correlation]:
        if not forms:
            return {}
        chosen = Moments(moments.variance[positions], moments.skewness[positions], moments.lags[:, positions])
        design, freedom = self._design(chosen)
        rows = self._rows / design
        reference_values = np.array([form.weighted_covariance(self._directions.correlation) for form in forms.values()])
        window_values = (
            np.array([form.weighted_covariance(self._covariance) for form in forms.values()])
            * rows
            / np.maximum(rows - 1.0, 1.0)
        )
        weight_counts = np.array([len(form.left) * len(form.right) for form in forms.values()])
        unbiased = np.maximum(reference_values - weight_counts / self._effective, 0.0)
        variance = chosen.variance * self._dependence.rows * design * self._fit_inflation
        pvalues = mean_pvalues(window_values - unbiased, variance, self._skewness(chosen, design), freedom)
        statistics = (window_values - unbiased) / np.sqrt(np.where(variance > 0, variance, np.inf))
        largest_values = np.array([min(len(form.left), len(form.right)) for form in forms.values()])
        strength_before = np.sqrt(np.maximum(reference_values, 1e-12) / largest_values)
        strength_now = strength_before * window_values / np.maximum(reference_values, 1e-12)
        return {
            key: Correlation(
                float(strength_before[i]),
                float(strength_now[i]),
                float(statistics[i]),
                float(pvalues[i]),
                float(rows[i]),
            )
            for i, key in enumerate(forms)
            if rows[i] >= FEWEST_ROWS
        }
