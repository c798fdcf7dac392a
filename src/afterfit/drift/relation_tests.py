"""A window against the relations of its reference: columns that moved away from what the others say.

All statistics come from the two profiles' sums; what rows do in each direction was measured when the layout was learnt.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from afterfit.drift import correlations
from afterfit.drift import pvalues as evidence
from afterfit.drift.binning import STEPS
from afterfit.drift.correlations import LOCATION, SPREAD, Directions, Form
from afterfit.drift.design_effects import TimeDependence
from afterfit.drift.profile_spec import Moments, ProfileSpec
from afterfit.drift.profiles import Profile

Array = np.ndarray[Any, Any]

FEWEST_ROWS = 50.0
"""Effective rows of a window below which relations are not looked at."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A score that moved away from what the other columns say of it; `effect` in the unit of its kind of change."""

    score: int
    level: int
    kind: str
    statistic: float
    pvalue: float
    effect: float
    effective_rows: float


@dataclass(frozen=True, slots=True)
class Correlation:
    """How strongly a column hangs together with others: as a correlation, before and now."""

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
    """A window against the directions of its reference."""

    def __init__(self, window: Profile, reference: Profile, spread: TimeDependence) -> None:
        self._layout: ProfileSpec = reference.layout
        self._spread = spread
        self._rows = window.sums.rows
        self._reference_rows = reference.sums.rows
        self._found: Directions = correlations.directions(reference.sums, reference.layout.scores)
        self.means, self._covariance = self._found.standard(window.sums)

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Positions of the columns that have relations here and in the layout."""
        return tuple(column for column in self._layout.related if column in self._found.groups)

    @cached_property
    def _effective(self) -> float:
        """Independent rows of the reference; all of them for a window that is drawn from the same blocks of time.

        Such a window shares what is accidental in the reference's relations, one from another time does not.
        """
        designs = [float(self._spread.design_effect(lags).max()) for lags in self._layout.dependence.looks if lags.size]
        here = self._reference_rows / float(np.median(designs)) if designs else 0.0
        return max(self._layout.dependence.effective, here)

    @property
    def able(self) -> bool:
        """Whether the reference was worth enough rows to tell how each column follows from the others."""
        return len(self.columns) > 1 and self._layout.dependence.effective > 3 * len(self._layout.scores)

    def shifts(self, blamed: Collection[int]) -> list[Shift]:
        """Scores of all columns that are not blamed, against what the others say; the blamed say nothing."""
        moments = self._layout.dependence.residual
        explained = self._found.explained(self.means, [c for c in self.columns if c in blamed])
        moved = self._found.residual @ explained
        design, freedom = self._design(moments)
        variance = moments.variance * self._spread.rows * design * self._roughness
        pvalues = evidence.of_means(moved, variance, self._skewness(moments, design), freedom)
        statistics = moved / np.sqrt(np.where(variance > 0, variance, np.inf))
        return [
            Shift(
                i,
                self._layout.scores[i].level,
                self._kind(i),
                float(statistics[i]),
                float(pvalues[i]),
                self._unit(i) * float(moved[i]),
                self._rows / float(design[i]),
            )
            for column in self.columns
            if column not in blamed
            for i in self._found.groups[column].tolist()
            if self._rows / design[i] >= FEWEST_ROWS or self._layout.scores[i].level >= 0
        ]

    def _kind(self, score: int) -> str:
        level = self._layout.scores[score].level
        return {LOCATION: "location", SPREAD: "spread", 0: "missing"}.get(level, "share")

    def _unit(self, score: int) -> float:
        """What one standard deviation of a score is, in the unit of its kind of change."""
        level, scale = self._layout.scores[score].level, float(self._found.scales[score])
        return {LOCATION: 1.0, SPREAD: scale / STEPS}.get(level, scale)

    @property
    def _roughness(self) -> float:
        """The weights were fitted: the reference's rows lie nearer to them than a window's do."""
        rows, weights = self._effective, float(len(self._layout.scores))
        return (rows + weights) / max(rows - weights, 1.0)

    def _design(self, moments: Moments) -> tuple[Array, Array]:
        freedom = self._spread.freedom(moments.lags, int(self._layout.dependence.effective))
        return self._spread.design_effect(moments.lags), freedom

    def _skewness(self, moments: Moments, design: Array) -> Array:
        rows = np.full(len(design), float(max(self._rows, 1)))
        others = 1.0 / np.maximum(self._spread.rows - 1.0 / rows, 1e-12)
        return moments.skewness * evidence.skew_factor(rows, others, design)

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of columns that hang together in the reference."""
        return [p for p in self._layout.pairs if p[0] in self._found.groups and p[1] in self._found.groups]

    def pair_bonds(self) -> dict[tuple[int, int], Correlation]:
        """Each pair's relation, before and now."""
        places = [i for i, pair in enumerate(self._layout.pairs) if pair in set(self.pairs())]
        forms = {pair: self._found.pair(*pair) for pair in self.pairs()}
        return self._bonds(forms, self._layout.dependence.pair_forms, places)

    def column_bonds(self, blamed: Collection[int]) -> dict[int, Correlation]:
        """Each column's relation with all the others that are not blamed, before and now."""
        forms, places = {}, []
        for i, column in enumerate(self._layout.related):
            left_out = [c for c in blamed if c != column]
            if column in self._found.groups and set(self.columns) - {column, *left_out}:
                forms[column] = self._found.with_others(column, left_out)
                places.append(i)
        return self._bonds(forms, self._layout.dependence.column_forms, places)

    def _bonds(self, forms: dict[Any, Form], moments: Moments, places: Sequence[int]) -> dict[Any, Correlation]:
        if not forms:
            return {}
        chosen = Moments(moments.variance[places], moments.skewness[places], moments.lags[:, places])
        design, freedom = self._design(chosen)
        rows = self._rows / design
        before = np.array([form.of(self._found.correlation) for form in forms.values()])
        now = np.array([form.of(self._covariance) for form in forms.values()]) * rows / np.maximum(rows - 1.0, 1.0)
        sizes = np.array([len(form.left) * len(form.right) for form in forms.values()])
        fitted = np.maximum(before - sizes / self._effective, 0.0)
        variance = chosen.variance * self._spread.rows * design * self._roughness
        pvalues = evidence.of_means(now - fitted, variance, self._skewness(chosen, design), freedom)
        statistics = (now - fitted) / np.sqrt(np.where(variance > 0, variance, np.inf))
        most = np.array([min(len(form.left), len(form.right)) for form in forms.values()])
        strong = np.sqrt(np.maximum(before, 1e-12) / most)
        left = strong * now / np.maximum(before, 1e-12)
        return {
            key: Correlation(float(strong[i]), float(left[i]), float(statistics[i]), float(pvalues[i]), float(rows[i]))
            for i, key in enumerate(forms)
            if rows[i] >= FEWEST_ROWS
        }
