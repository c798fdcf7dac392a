"""Compiled trees answer as the estimator does, or are not used."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor

from afterfit.model.calibration import Calibration, Curve
from afterfit.model.compiled import FEW, calibrated_row, compile_scorer, random_rows
from afterfit.model.quickscorer import Bitvectors, Tree, bitvectors
from afterfit.model.training import train
from made import BOOSTER, made_table, posed, use_case

TREES = {
    "hist_gradient_boosting": BOOSTER,
    "random_forest": {"n_estimators": 10, "n_jobs": 1},
    "sklearn.ensemble.ExtraTreesClassifier": {"n_estimators": 10},
    "sklearn.ensemble.GradientBoostingClassifier": {"n_estimators": 10},
}


def scorer(task, builder):
    """A scorer of two classes, three classes or numbers."""
    if task == "regression":
        case = use_case(task="regression")
        return train(posed(case, made_table()), builder.replace("Classifier", "Regressor"), TREES[builder]).scorer
    if task == "binary":
        return train(posed(use_case(), made_table()), builder, TREES[builder]).scorer
    frame = made_table().assign(late=lambda table: np.digitize(table["delay"], [8.0, 16.0]))
    problem = posed(use_case(time=None), frame, ("early", "fair", "late"))
    return train(problem, builder, TREES[builder]).scorer


def both(one, other):
    return (one.prediction, other.prediction) if one.probabilities is None else (one.probabilities, other.probabilities)


NAN_FREE = {"sklearn.ensemble.GradientBoostingClassifier"}  # it stands behind columns that are prepared for it


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("builder", [name for name in TREES if name not in NAN_FREE])
def test_trees_answer_rows_alone_and_together_as_the_estimator_does(task, builder):
    found = scorer(task, builder)
    compiled = compile_scorer(found, random_rows(found.encoder, 3))
    assert compiled is not None
    rows = random_rows(found.encoder, 300, seed=7)
    own, theirs = both(found.predict(rows), compiled.predict_compiled(rows))
    assert np.allclose(own, theirs, rtol=1e-9, atol=1e-9)
    alone = np.array([compiled.row(row) for row in rows.tolist()])
    assert np.allclose(own, alone[:, 0] if alone.shape[1] == 1 else alone, rtol=1e-9, atol=1e-9)
    if own.ndim == 1:
        assert np.allclose(found.predict(rows).lower, compiled.predict_compiled(rows).lower)


def test_many_rows_of_large_trees_go_to_the_estimator_itself():
    found = scorer("binary", "random_forest")
    compiled = compile_scorer(found, random_rows(found.encoder, 3))
    assert compiled.most == FEW
    rows = random_rows(found.encoder, FEW + 1)
    assert (compiled.predict(rows).probabilities == found.predict(rows).probabilities).all()


def test_many_rows_of_small_trees_are_looked_up_in_tables(trained):
    compiled = compile_scorer(trained.scorer, random_rows(trained.scorer.encoder, 3))
    tables = compiled.raw_rows.__self__
    assert isinstance(tables, Bitvectors)
    rows = random_rows(trained.scorer.encoder, tables.block + 7)
    assert np.allclose(compiled.predict(rows).probabilities, trained.scorer.predict(rows).probabilities, rtol=1e-9)


def test_a_model_that_is_no_ensemble_of_trees_is_not_compiled():
    linear = train(posed(use_case(), made_table()), "linear", {}).scorer
    assert compile_scorer(linear, random_rows(linear.encoder, 3)) is None


def test_trees_whose_answers_differ_are_not_used(trained, monkeypatch):
    examples = random_rows(trained.scorer.encoder, 3)
    assert compile_scorer(trained.scorer, examples) is not None
    monkeypatch.setattr("afterfit.model.compiled._logistic", lambda value: 0.5 + value / 1e4)
    assert compile_scorer(trained.scorer, examples) is None


def test_without_treelite_the_estimator_serves(trained, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "treelite", None)
    assert compile_scorer(trained.scorer, random_rows(trained.scorer.encoder, 3)) is None


def test_a_regression_with_a_link_of_its_own_is_compiled_with_it():
    case = use_case(task="regression")
    frame = made_table()
    frame["delay"] = np.exp(frame["delay"] / 20)
    found = train(posed(case, frame), "hist_gradient_boosting", {**BOOSTER, "loss": "poisson"}).scorer
    assert isinstance(found.estimator, HistGradientBoostingRegressor)
    compiled = compile_scorer(found, random_rows(found.encoder, 3))
    rows = random_rows(found.encoder, 100, seed=3)
    assert np.allclose(found.predict(rows).prediction, compiled.predict_compiled(rows).prediction, rtol=1e-9)


@st.composite
def trees(draw, features=3):
    """A random tree over numbers (features 0 and 1) and codes (feature 2) with up to 64 leaves."""
    left, right, tested, threshold, missing, codes, value = [], [], [], [], [], {}, []
    swapped, leaves = set(), draw(st.integers(1, 40))

    def grow(count):
        node = len(left)
        for column, start in ((left, -1), (right, -1), (tested, -1), (threshold, 0.0), (missing, 0)):
            column.append(start)
        value.append(draw(st.floats(-1, 1)))
        if count > 1:
            tested[node] = draw(st.integers(0, features - 1))
            threshold[node], missing[node] = draw(st.sampled_from([-1.5, -1.0, 0.0, 0.5, 2.0])), draw(st.integers(0, 1))
            if tested[node] == features - 1:
                codes[node] = np.array(draw(st.lists(st.integers(0, 5), max_size=3, unique=True)), dtype=np.uint32)
                swapped.update([node] if draw(st.booleans()) else [])
            here = draw(st.integers(1, count - 1))
            left[node] = grow(here)
            right[node] = grow(count - here)
        return node

    grow(leaves)
    ints = [np.array(column, dtype=np.int32) for column in (left, right, tested)]
    return Tree(*ints, np.array(threshold), np.array(missing), codes, frozenset(swapped), np.array(value), 0)


def walked(tree, row, *, inclusive):
    node = 0
    while tree.left[node] >= 0:
        x, at = row[tree.feature[node]], node
        if np.isnan(x):
            goes = bool(tree.default_left[at])
        elif at in tree.categories:
            goes = (x in tree.categories[at].tolist()) is not (at in tree.swapped)
        else:
            goes = x <= tree.threshold[at] if inclusive else x < tree.threshold[at]
        node = tree.left[at] if goes else tree.right[at]
    return tree.value[node]


numbers = st.one_of(st.sampled_from([-1.5, -1.0, 0.0, 0.5, 2.0, np.nan, np.inf, -np.inf]), st.floats(-3, 3))
codes = st.sampled_from([0.0, 1.0, 2.0, 5.0, 6.0, 1e30, np.nan])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(trees(), min_size=1, max_size=4), st.lists(st.tuples(numbers, numbers, codes), min_size=1), st.booleans()
)
def test_tables_of_bits_find_the_leaves_that_walking_finds(grown, rows, inclusive):
    some = [replace(tree, output=number % 2) for number, tree in enumerate(grown)]
    tables = bitvectors(some, [0.5, -0.5], inclusive=inclusive)
    expected = np.tile([0.5, -0.5], (len(rows), 1))
    for at, row in enumerate(rows):
        for tree in some:
            expected[at, tree.output] += walked(tree, row, inclusive=inclusive)
    assert np.allclose(tables.rows(np.array(rows)), expected, atol=1e-12)
    assert np.allclose([tables.row(row) for row in rows], expected, atol=1e-12)


def test_tables_of_pairs_and_blocks_of_rows_change_no_bit(trained, monkeypatch):
    rows = random_rows(trained.scorer.encoder, 500)
    whole = compile_scorer(trained.scorer, rows[:3]).raw_rows
    monkeypatch.setattr("afterfit.model.quickscorer.PAIRED", 0)
    monkeypatch.setattr("afterfit.model.quickscorer.BLOCK", 2**14)
    parts = compile_scorer(trained.scorer, rows[:3]).raw_rows
    assert len(parts.__self__._steps) == len(parts.__self__.features) > len(whole.__self__._steps)
    assert parts.__self__.block < len(rows)
    assert (parts(rows) == whole(rows)).all()
    assert (parts(rows) == whole(np.asfortranarray(rows))).all()


def test_trees_without_a_test_have_one_answer():
    leaf = np.array([-1], dtype=np.int32)
    one = Tree(leaf, leaf, leaf, np.zeros(1), leaf.astype(np.uint8), {}, frozenset(), np.array([2.5]), 0)
    tables = bitvectors([one, one], [1.0])
    assert tables.rows(np.zeros((3, 2))).tolist() == [[6.0]] * 3
    assert tables.row([0.0, 0.0]) == [6.0]


def test_large_trees_and_features_tested_in_two_ways_have_no_tables():
    at = np.arange(129, dtype=np.int32)
    inner = at < 64
    deep = Tree(
        np.where(inner, 2 * at + 1, -1),
        np.where(inner, 2 * at + 2, -1),
        np.zeros(129, dtype=np.int32),
        at / 1.0,
        np.zeros(129, dtype=np.uint8),
        {},
        frozenset(),
        at / 1.0,
        0,
    )
    assert bitvectors([deep], [0.0]) is None
    inner = at < 2
    small = replace(deep, left=np.where(inner, 2 * at + 1, -1), right=np.where(inner, 2 * at + 2, -1))
    small = replace(small, **{name: getattr(small, name)[:5] for name in ("left", "right", "feature", "threshold")})
    assert bitvectors([small], [0.0]) is not None
    assert bitvectors([replace(small, categories={0: np.array([1], dtype=np.uint32)})], [0.0]) is None


shares = st.floats(0, 1)
sorted_points = st.lists(shares, min_size=2, max_size=6).map(sorted)


@settings(deadline=None)
@given(sorted_points, sorted_points, shares, st.floats(0, 5), st.floats(-3, 3))
@example([0.0, 2.2e-311], [0.0, 1.0], 0.0, 0.0, 0.0)
def test_one_rows_calibration_is_that_of_many(x, y, raw, slope, intercept):
    size = min(len(x), len(y))
    curves = [Curve("isotonic", tuple(x[:size]), tuple(y[:size])), Curve("sigmoid", (slope,), (intercept,))]
    for curve in curves:
        binary = Calibration((curve,))
        assert calibrated_row(binary, [1 - raw, raw])[1] == pytest.approx(
            binary(np.array([[1 - raw, raw]]))[0, 1], abs=1e-12
        )
    several = Calibration((curves[0], curves[1], curves[1]))
    row = [raw, (1 - raw) / 2, (1 - raw) / 2]
    assert calibrated_row(several, row) == pytest.approx(several(np.array([row]))[0].tolist(), abs=1e-12)
