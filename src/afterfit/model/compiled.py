"""Tree ensembles compiled with treelite: one row in microseconds, and used only if equal to the estimator's answer.

scikit-learn prepares every call for thousands of rows. For a single row that costs a hundred times as much as its
trees. treelite (Cho, Li 2018) reads the trees. Small trees become tables of bits (`quickscorer`); others are walked by
treelite's own library. Both give raw outputs; link, calibration and interval are applied here as the scorer applies
them.
"""

import ctypes
import math
import sys
import warnings
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn import ensemble
from sklearn.base import is_classifier

from afterfit.contract.encoder import Encoder
from afterfit.model.calibration import Calibration, Curve
from afterfit.model.quickscorer import Bitvectors, Tree, bitvectors
from afterfit.model.scorer import Scorer
from afterfit.performance.predictions import Predictions

Floats = npt.NDArray[np.float64]
Link = Literal["logistic", "softmax", "given"]
HISTOGRAM = (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor)
BOOSTED = (*HISTOGRAM, ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor)
BAGGED = (
    ensemble.RandomForestClassifier,
    ensemble.RandomForestRegressor,
    ensemble.ExtraTreesClassifier,
    ensemble.ExtraTreesRegressor,
)
CLOSE = 1e-9
"""How far a compiled answer may lie from the estimator's own, relative to its size where that is above 1."""
FEW = 256
"""Most rows of a call that treelite answers; with more rows the estimator itself is faster."""
NO_LIMIT = sys.maxsize
PROBES = 2_000
"""Random rows on which the compiled trees must agree with the estimator."""
HEAD = ("average_tree_output", "base_scores", "class_id", "leaf_vector_shape", "postprocessor")
NUMBER, CATEGORY, AT_OR_BELOW = 1, 2, 3
"""treelite's codes for kinds of nodes, and for how a node compares."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A scorer whose trees were compiled; safe to call from several threads.

    Attributes:
        scorer: what was compiled.
        raw_rows: (n, p) rows to (n, outputs) of the trees.
        raw_row: the same for one row as a list.
        link: how the outputs become probabilities.
        single: values are rounded to single precision (float32) first, as scikit-learn's forests do.
        most: rows of a call up to which the compiled trees answer; with more rows the estimator itself is faster.
    """

    scorer: Scorer
    raw_rows: Callable[[Floats], Floats]
    raw_row: Callable[[Sequence[float]], list[float]]
    link: Link
    single: bool
    most: int = FEW

    def predict(self, matrix: Floats) -> Predictions:
        """Predictions for an encoded matrix (n, p), equal to the scorer's to `CLOSE`."""
        if len(matrix) > self.most:
            return self.scorer.predict(matrix)
        return self.predict_compiled(matrix)

    def predict_compiled(self, matrix: Floats) -> Predictions:
        """The same, whatever the number of rows."""
        classes, calibration, offsets = self.scorer.classes, self.scorer.calibration, self.scorer.offsets
        rows = np.asarray(matrix, dtype=np.float64)
        raw = self.raw_rows(rows.astype(np.float32).astype(np.float64) if self.single else rows)
        if classes is None:
            values = raw[:, 0]
            ends = (None, None) if offsets is None else (values + offsets[0], values + offsets[1])
            return Predictions.of_values(values, *ends)
        shares = _apply_link(raw, self.link)
        return Predictions.of_probabilities(shares if calibration is None else calibration(shares), classes)

    def row(self, values: Sequence[float]) -> list[float]:
        """One encoded row (p,) without numpy: k calibrated probabilities, or the number (without its interval)."""
        raw = self.raw_row([_as_float32(value) for value in values] if self.single else values)
        if self.scorer.classes is None:
            return raw
        calibration = self.scorer.calibration
        shares = _apply_link_row(raw, self.link)
        return shares if calibration is None else calibrated_row(calibration, shares)


def compile_scorer(scorer: Scorer, examples: Floats) -> Compiled | None:
    """Compile a scorer's trees, and compare their answers with the scorer's on examples and on random rows.

    Args:
        scorer: the fitted scorer.
        examples: (n, p) encoded rows, such as the bundle's examples.

    Returns:
        None where the estimator is not an ensemble of trees that treelite supports, treelite is not installed, or any
        answer differs by more than `CLOSE`.
    """
    estimator = scorer.estimator
    if not isinstance(estimator, (*BOOSTED, *BAGGED)) or not _knows_all_classes(scorer):
        return None
    try:
        import treelite  # noqa: PLC0415 - serving works without it

        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # of its own casts
            model = treelite.sklearn.import_model(estimator)
        compiled = _compile_model(scorer, model)
    except (ImportError, AttributeError, NotImplementedError, ValueError, TypeError, RuntimeError):
        return None  # treelite raises any of these for a model that it does not support
    probes = np.vstack([examples, random_rows(scorer.encoder, PROBES)])
    return compiled if _agrees(compiled, probes) else None


def random_rows(encoder: Encoder, count: int, seed: int = 0) -> Floats:
    """Random rows (count, p) as an encoder can give them: trained ranges and beyond, every code, missing values."""
    rng = np.random.default_rng(seed)
    columns = {column.name: column for column in encoder.contract.columns}
    matrix = np.empty((count, len(encoder.parts)))
    for position, part in enumerate(encoder.parts):
        column = columns[part.column]
        if part.part == "code":
            matrix[:, position] = rng.integers(0, len(part.categories) + 1, count)
        elif part.part == "value":
            low, high = column.low or 0.0, column.high or 0.0
            width = max(high - low, 1.0)
            matrix[:, position] = rng.uniform(low - width / 10, high + width / 10, count)
            if column.kind != "number":
                matrix[:, position] = np.round(matrix[:, position])
            matrix[::97, position] = 1e30
        else:
            matrix[:, position] = rng.uniform(0, {"hour": 24, "weekday": 7}.get(part.part, 366), count)
    matrix[rng.random(matrix.shape) < 0.1] = math.nan
    return matrix


def calibrated_row(calibration: Calibration, shares: list[float]) -> list[float]:
    """One row's class probabilities (k,), calibrated as `Calibration` does it."""
    curves = calibration.curves
    if len(curves) == 1:
        positive = _apply_curve_row(curves[0], shares[1])
        return [1.0 - positive, positive]
    mapped = [_apply_curve_row(curve, share) for curve, share in zip(curves, shares, strict=True)]
    total = sum(mapped)
    return [value / total for value in mapped] if total > 0 else shares


def _knows_all_classes(scorer: Scorer) -> bool:
    return scorer.classes is None or len(scorer.estimator.classes_) == len(scorer.classes)


def _compile_model(scorer: Scorer, model: Any) -> Compiled:
    estimator, link = scorer.estimator, "given"
    if isinstance(estimator, BOOSTED) and is_classifier(estimator):
        link = "logistic" if len(estimator.classes_) == 2 else "softmax"
    single = not isinstance(estimator, HISTOGRAM)
    tables = _bitvector_tables(model, raw=link != "given")
    if tables is not None:
        return Compiled(scorer, tables.rows, tables.row, link, single, NO_LIMIT)  # type: ignore[arg-type]
    rows, row = _treelite_functions(model, raw=link != "given")
    return Compiled(scorer, rows, row, link, single)  # type: ignore[arg-type]


def _bitvector_tables(model: Any, *, raw: bool) -> Bitvectors | None:
    """The trees as tables of bits; None unless they are small and each leaf adds one number to one output."""
    head = {name: model.get_header_accessor().get_field(name) for name in HEAD}
    averaged = bool(head["average_tree_output"][0])
    identity_link = raw or head["postprocessor"] == "identity"
    if not identity_link or head["leaf_vector_shape"].tolist() != [1, 1] or (averaged and len(head["base_scores"]) > 1):
        return None
    share = 1.0 / int(model.num_tree) if averaged else 1.0
    outputs = head["class_id"].tolist()
    trees = [_read_tree(model.get_tree_accessor(k), output, share) for k, output in enumerate(outputs)]
    if any(tree is None for tree in trees):
        return None
    return bitvectors([tree for tree in trees if tree is not None], head["base_scores"].tolist())


def _read_tree(model: Any, output: int, share: float) -> Tree | None:
    """One of the model's trees; None where a test is neither "at or below" nor "one of these categories"."""
    field = model.get_field
    kinds, list_ends = field("node_type"), field("category_list_end")
    list_starts, listed, swapped = (
        field("category_list_begin"),
        field("category_list"),
        field("category_list_right_child"),
    )
    if (field("cmp")[kinds == NUMBER] != AT_OR_BELOW).any():
        return None
    categories = {
        node: listed[list_starts[node] : list_ends[node]] for node in np.flatnonzero(kinds == CATEGORY).tolist()
    }
    return Tree(
        field("cleft"),
        field("cright"),
        field("split_index"),
        field("threshold"),
        field("default_left"),
        categories,
        frozenset(node for node in categories if swapped[node]),
        field("leaf_value") * share,
        output,
    )


def _treelite_functions(
    model: Any, *, raw: bool
) -> tuple[Callable[[Floats], Floats], Callable[[Sequence[float]], list[float]]]:
    """Functions for many rows and for one row that call treelite's C function.

    treelite's Python wrapper costs more time than a single row's trees.
    """
    from treelite.core import _LIB, _check_call  # noqa: PLC0415 - as above
    from treelite.gtil.gtil import GTILConfig  # noqa: PLC0415 - as above

    if model.input_type != "float64" or model.output_type != "float64":
        raise TypeError(f"Trees over float64 are expected; got {model.input_type} and {model.output_type}.")
    config = GTILConfig(predict_type="raw" if raw else "default", nthread=1)
    width = int(model.num_feature)
    outputs = _count_outputs(model)
    input_type, output_type = ctypes.c_double * width, ctypes.c_double * outputs
    call, one_row = _LIB.TreeliteGTILPredict, ctypes.c_uint64(1)

    def row(values: Sequence[float]) -> list[float]:
        result = output_type()
        _check_call(call(model.handle, input_type(*values), b"float64", one_row, result, config.handle))
        return list(result)

    def rows(matrix: Floats) -> Floats:
        if matrix.shape[1] != width:
            raise ValueError(f"Rows of {width} features are expected; got {matrix.shape[1]}.")
        matrix = np.ascontiguousarray(matrix)
        result = np.zeros((len(matrix), outputs))
        pointer = ctypes.POINTER(ctypes.c_double)
        data, out = matrix.ctypes.data_as(pointer), result.ctypes.data_as(pointer)
        if len(matrix):
            _check_call(call(model.handle, data, b"float64", ctypes.c_uint64(len(matrix)), out, config.handle))
        return result

    return rows, row


def _count_outputs(model: Any) -> int:
    import treelite  # noqa: PLC0415 - as above

    return int(treelite.gtil.predict(model, np.zeros((1, int(model.num_feature))), nthread=1).size)


def _agrees(compiled: Compiled, rows: Floats) -> bool:
    expected, answered = compiled.scorer.predict(rows), compiled.predict_compiled(rows)
    row_by_row = np.array([compiled.row(row) for row in rows[:100].tolist()])
    if expected.probabilities is None or answered.probabilities is None:
        return _close(expected.prediction, answered.prediction) and _close(expected.prediction[:100, None], row_by_row)
    return _close(expected.probabilities, answered.probabilities) and _close(expected.probabilities[:100], row_by_row)


def _close(expected: Floats, answered: Floats) -> bool:
    return bool((np.abs(expected - answered) <= CLOSE * np.maximum(1.0, np.abs(expected))).all())


def _apply_link(raw: Floats, link: Link) -> Floats:
    if link == "logistic":
        positive = 1.0 / (1.0 + np.exp(-np.clip(raw[:, 0], -700.0, 700.0)))
        return np.column_stack([1.0 - positive, positive])
    if link == "softmax":
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        shares: Floats = powers / powers.sum(axis=1, keepdims=True)
        return shares
    return raw


def _apply_link_row(raw: list[float], link: Link) -> list[float]:
    if link == "logistic":
        positive = _logistic(raw[0])
        return [1.0 - positive, positive]
    if link == "softmax":
        largest = max(raw)
        powers = [math.exp(value - largest) for value in raw]
        total = sum(powers)
        return [power / total for power in powers]
    return raw


def _apply_curve_row(curve: Curve, raw: float) -> float:
    x, y = curve.x, curve.y
    if curve.method == "sigmoid":
        bounded = min(max(raw, 1e-9), 1 - 1e-9)
        return _logistic(x[0] * math.log(bounded / (1 - bounded)) + y[0])
    position = bisect_right(x, raw) - 1
    if position < 0:
        return y[0]
    if position >= len(x) - 1:
        return y[-1]
    if x[position] == raw:  # as np.interp has it: a slope between two points that nearly are one is infinite
        return y[position]
    slope = (y[position + 1] - y[position]) / (x[position + 1] - x[position])
    return slope * (raw - x[position]) + y[position]


def _logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(value, -700.0), 700.0)))


def _as_float32(value: float) -> float:
    return ctypes.c_float(value).value
