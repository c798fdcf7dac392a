"""Regions of the inputs in which out-of-fold errors are alike: a small tree, and what the errors are in each leaf."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.tree import DecisionTreeRegressor

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]

LEAVES = 16
SMALLEST = 100
LARGEST = 1e300
POINTS = 40
"""Numbers that stand for the errors of a region: means of equal parts of them, in order."""


@dataclass(frozen=True, slots=True)
class Regions:
    """A binary tree over m columns: each node's column, threshold and children; a leaf's column is -1.

    The columns are the encoder's and, last, the prediction. Missing values go left where `missing` says so.
    """

    column: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    missing: tuple[bool, ...]

    def __call__(self, matrix: Floats) -> Ids:
        """(n,) the node of the leaf in which each row of a matrix (n, m) lies."""
        column, threshold = np.array(self.column), np.array(self.threshold)
        left, right, missing = np.array(self.left), np.array(self.right), np.array(self.missing)
        node = np.zeros(len(matrix), dtype=np.intp)
        while (inner := np.flatnonzero(column[node] >= 0)).size:
            at = node[inner]
            values = matrix[inner, column[at]]
            goes_left = np.where(np.isnan(values), missing[at], values <= threshold[at])
            node[inner] = np.where(goes_left, left[at], right[at])
        return node

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {name: list(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Regions":
        """The inverse of `to_dict`."""
        return cls(**{name: tuple(saved[name]) for name in cls.__dataclass_fields__})


def cut(matrix: Floats, error: Floats) -> Regions:
    """Cut n rows into at most `LEAVES` regions in which errors are alike.

    Args:
        matrix: (n, m) as the tree will see rows.
        error: (n,) what is to be alike.
    """
    smallest = max(SMALLEST, len(error) // (2 * LEAVES))
    tree = DecisionTreeRegressor(max_leaf_nodes=LEAVES, min_samples_leaf=smallest, random_state=0)
    made = tree.fit(matrix, error).tree_
    leaf = made.children_left < 0
    return Regions(
        tuple(np.where(leaf, -1, made.feature).tolist()),
        tuple(np.clip(np.where(leaf, 0.0, made.threshold), -LARGEST, LARGEST).tolist()),  # infinite: missing or not
        tuple(np.where(leaf, 0, made.children_left).tolist()),
        tuple(np.where(leaf, 0, made.children_right).tolist()),
        tuple(made.missing_go_to_left.astype(bool).tolist()),
    )


def points_of(errors: Floats) -> tuple[float, ...]:
    """`POINTS` numbers with the mean and the spread of some errors, and nearly their distribution."""
    parts = [part.mean() for part in np.array_split(np.sort(errors), min(POINTS, len(errors)))]
    middle = np.interp(np.linspace(0, 1, POINTS), np.linspace(0, 1, len(parts)), parts)
    middle += errors.mean() - middle.mean()
    spread = middle.std()
    stretch = errors.std() / spread if spread > 0 else 1.0
    return tuple((errors.mean() + stretch * (middle - middle.mean())).tolist())
