"""Tree ensembles compiled with treelite: one row in microseconds, equal to the estimator's own answer or not used.

scikit-learn prepares every call for thousands of rows, which costs a single row a hundred times its trees. treelite
(Cho, Li 2018) reads the trees; small ones become tables of bits (`bitvectors`), others are walked by its own library.
What both give is raw: the link to probabilities, the calibration and the interval are applied here as the scorer
applies them.
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
"""Rows that trees are walked for one after the other."""
ANY = sys.maxsize
PROBES = 2_000
HEAD = ("average_tree_output", "base_scores", "class_id", "leaf_vector_shape", "postprocessor")
NUMBER, CATEGORY, AT_OR_BELOW = 1, 2, 3
"""treelite's marks of nodes and of how they test."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A scorer whose trees were compiled; safe to call from several threads.

    Attributes:
        scorer: what was compiled.
        raw_rows: (n, p) rows to (n, outputs) of the trees.
        raw_row: the same for one row as a list.
        link: what makes probabilities of the outputs.
        single: rows are cut to float32 first, as scikit-learn's forests cut them.
        most: rows of a call; of more the estimator's own loops are the faster ones.
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
        shares = _linked(raw, self.link)
        return Predictions.of_probabilities(shares if calibration is None else calibration(shares), classes)

    def row(self, values: Sequence[float]) -> list[float]:
        """One encoded row (p,) without numpy: k calibrated probabilities, or the number (without its interval)."""
        raw = self.raw_row([_single(value) for value in values] if self.single else values)
        if self.scorer.classes is None:
            return raw
        calibration = self.scorer.calibration
        shares = _linked_row(raw, self.link)
        return shares if calibration is None else calibrated_row(calibration, shares)


def compile_scorer(scorer: Scorer, examples: Floats) -> Compiled | None:
    """Compile a scorer's trees, and hold them against the scorer on examples and on random rows.

    Args:
        scorer: the fitted scorer.
        examples: (n, p) encoded rows, such as the bundle's examples.

    Returns:
        None where the estimator is no ensemble of trees that treelite knows, treelite is not installed, or any answer
        differs by more than `CLOSE`.
    """
    estimator = scorer.estimator
    if not isinstance(estimator, (*BOOSTED, *BAGGED)) or not _knows_all_classes(scorer):
        return None
    try:
        import treelite  # noqa: PLC0415 - serving works without it

        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # of its own casts
            model = treelite.sklearn.import_model(estimator)
        compiled = _compiled(scorer, model)
    except (ImportError, AttributeError, NotImplementedError, ValueError, TypeError, RuntimeError):
        return None  # treelite raises what it likes for a model that it does not know
    probes = np.vstack([examples, random_rows(scorer.encoder, PROBES)])
    return compiled if _agrees(compiled, probes) else None


def _knows_all_classes(scorer: Scorer) -> bool:
    return scorer.classes is None or len(scorer.estimator.classes_) == len(scorer.classes)


def _compiled(scorer: Scorer, model: Any) -> Compiled:
    estimator, link = scorer.estimator, "given"
    if isinstance(estimator, BOOSTED) and is_classifier(estimator):
        link = "logistic" if len(estimator.classes_) == 2 else "softmax"
    single = not isinstance(estimator, HISTOGRAM)
    tables = _tables(model, raw=link != "given")
    if tables is not None:
        return Compiled(scorer, tables.rows, tables.row, link, single, ANY)  # type: ignore[arg-type]
    rows, row = _caller(model, raw=link != "given")
    return Compiled(scorer, rows, row, link, single)  # type: ignore[arg-type]


def _tables(model: Any, *, raw: bool) -> Bitvectors | None:
    """The trees as tables of bits, where they are small and each leaf adds one number to one output."""
    head = {name: model.get_header_accessor().get_field(name) for name in HEAD}
    averaged = bool(head["average_tree_output"][0])
    plain = raw or head["postprocessor"] == "identity"
    if not plain or head["leaf_vector_shape"].tolist() != [1, 1] or (averaged and len(head["base_scores"]) > 1):
        return None
    share = 1.0 / int(model.num_tree) if averaged else 1.0
    outputs = head["class_id"].tolist()
    trees = [_tree(model.get_tree_accessor(k), output, share) for k, output in enumerate(outputs)]
    if any(tree is None for tree in trees):
        return None
    return bitvectors([tree for tree in trees if tree is not None], head["base_scores"].tolist())


def _tree(model: Any, output: int, share: float) -> Tree | None:
    """One of the model's trees; None where a test is none of "at or below" and "among these categories"."""
    get = model.get_field
    kinds, ends = get("node_type"), get("category_list_end")
    starts, listed, swapped = get("category_list_begin"), get("category_list"), get("category_list_right_child")
    if (get("cmp")[kinds == NUMBER] != AT_OR_BELOW).any():
        return None
    categories = {at: listed[starts[at] : ends[at]] for at in np.flatnonzero(kinds == CATEGORY).tolist()}
    return Tree(
        get("cleft"),
        get("cright"),
        get("split_index"),
        get("threshold"),
        get("default_left"),
        categories,
        frozenset(at for at in categories if swapped[at]),
        get("leaf_value") * share,
        output,
    )


def _caller(model: Any, *, raw: bool) -> tuple[Callable[[Floats], Floats], Callable[[Sequence[float]], list[float]]]:
    """The library's C function itself: its Python wrapper costs more than a single row's trees."""
    from treelite.core import _LIB, _check_call  # noqa: PLC0415 - as above
    from treelite.gtil.gtil import GTILConfig  # noqa: PLC0415 - as above

    if model.input_type != "float64" or model.output_type != "float64":
        raise TypeError(f"Trees over float64 are expected; got {model.input_type} and {model.output_type}.")
    config = GTILConfig(predict_type="raw" if raw else "default", nthread=1)
    width = int(model.num_feature)
    outputs = _outputs(model)
    kind, answer = ctypes.c_double * width, ctypes.c_double * outputs
    call, one = _LIB.TreeliteGTILPredict, ctypes.c_uint64(1)

    def row(values: Sequence[float]) -> list[float]:
        found = answer()
        _check_call(call(model.handle, kind(*values), b"float64", one, found, config.handle))
        return list(found)

    def rows(matrix: Floats) -> Floats:
        if matrix.shape[1] != width:
            raise ValueError(f"Rows of {width} features are expected; got {matrix.shape[1]}.")
        matrix = np.ascontiguousarray(matrix)
        found = np.zeros((len(matrix), outputs))
        pointer = ctypes.POINTER(ctypes.c_double)
        data, out = matrix.ctypes.data_as(pointer), found.ctypes.data_as(pointer)
        if len(matrix):
            _check_call(call(model.handle, data, b"float64", ctypes.c_uint64(len(matrix)), out, config.handle))
        return found

    return rows, row


def _outputs(model: Any) -> int:
    import treelite  # noqa: PLC0415 - as above

    return int(treelite.gtil.predict(model, np.zeros((1, int(model.num_feature))), nthread=1).size)


def random_rows(encoder: Encoder, count: int, seed: int = 0) -> Floats:
    """Rows (count, p) as an encoder can make them: trained ranges and beyond, every code, missing values."""
    rng = np.random.default_rng(seed)
    columns = {column.name: column for column in encoder.contract.columns}
    matrix = np.empty((count, len(encoder.parts)))
    for at, part in enumerate(encoder.parts):
        column = columns[part.column]
        if part.part == "code":
            matrix[:, at] = rng.integers(0, len(part.categories) + 1, count)
        elif part.part == "value":
            low, high = column.low or 0.0, column.high or 0.0
            wide = max(high - low, 1.0)
            matrix[:, at] = rng.uniform(low - wide / 10, high + wide / 10, count)
            if column.kind != "number":
                matrix[:, at] = np.round(matrix[:, at])
            matrix[::97, at] = 1e30
        else:
            matrix[:, at] = rng.uniform(0, {"hour": 24, "weekday": 7}.get(part.part, 366), count)
    matrix[rng.random(matrix.shape) < 0.1] = math.nan
    return matrix


def _agrees(compiled: Compiled, rows: Floats) -> bool:
    own, found = compiled.scorer.predict(rows), compiled.predict_compiled(rows)
    alone = np.array([compiled.row(row) for row in rows[:100].tolist()])
    if own.probabilities is None or found.probabilities is None:
        return _close(own.prediction, found.prediction) and _close(own.prediction[:100, None], alone)
    return _close(own.probabilities, found.probabilities) and _close(own.probabilities[:100], alone)


def _close(one: Floats, other: Floats) -> bool:
    return bool((np.abs(one - other) <= CLOSE * np.maximum(1.0, np.abs(one))).all())


def _linked(raw: Floats, link: Link) -> Floats:
    if link == "logistic":
        positive = 1.0 / (1.0 + np.exp(-np.clip(raw[:, 0], -700.0, 700.0)))
        return np.column_stack([1.0 - positive, positive])
    if link == "softmax":
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        shares: Floats = powers / powers.sum(axis=1, keepdims=True)
        return shares
    return raw


def _linked_row(raw: list[float], link: Link) -> list[float]:
    if link == "logistic":
        positive = _logistic(raw[0])
        return [1.0 - positive, positive]
    if link == "softmax":
        most = max(raw)
        powers = [math.exp(value - most) for value in raw]
        total = sum(powers)
        return [power / total for power in powers]
    return raw


def calibrated_row(calibration: Calibration, shares: list[float]) -> list[float]:
    """One row's class probabilities (k,), calibrated as `Calibration` does it."""
    curves = calibration.curves
    if len(curves) == 1:
        positive = _curved(curves[0], shares[1])
        return [1.0 - positive, positive]
    mapped = [_curved(curve, share) for curve, share in zip(curves, shares, strict=True)]
    total = sum(mapped)
    return [value / total for value in mapped] if total > 0 else shares


def _curved(curve: Curve, raw: float) -> float:
    x, y = curve.x, curve.y
    if curve.method == "sigmoid":
        bounded = min(max(raw, 1e-9), 1 - 1e-9)
        return _logistic(x[0] * math.log(bounded / (1 - bounded)) + y[0])
    at = bisect_right(x, raw) - 1
    if at < 0:
        return y[0]
    if at >= len(x) - 1:
        return y[-1]
    return (y[at + 1] - y[at]) / (x[at + 1] - x[at]) * (raw - x[at]) + y[at]


def _logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(value, -700.0), 700.0)))


def _single(value: float) -> float:
    return ctypes.c_float(value).value
