from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterfit.data.splits import ordered_folds, shuffled_folds
from afterfit.errors import TrainingError

TIMES = st.lists(st.integers(0, 40), min_size=12, max_size=200)


@given(TIMES, st.integers(2, 6))
def test_folds_in_time_never_learn_from_what_comes_after_nor_split_one_time(times, k):
    times = np.array(times)
    if len(np.unique(times)) < k + 1:
        with pytest.raises(TrainingError, match=f"at least {k + 1} distinct times"):
            ordered_folds(times, k)
        return
    folds = ordered_folds(times, k)
    assert len(folds) == k
    for train, judge in folds:
        assert len(train)
        assert len(judge)
        assert times[train].max() < times[judge].min()
    for (before, judged), (train, _) in pairwise(folds):
        assert sorted([*before, *judged]) == train.tolist()
    assert sorted([*folds[-1][0], *folds[-1][1]]) == list(range(len(times)))


def test_folds_in_time_have_about_the_same_number_of_rows():
    times = np.random.default_rng(0).integers(0, 1000, 60_000)
    sizes = [len(judge) for _, judge in ordered_folds(times, 5)]
    assert max(sizes) < 1.03 * min(sizes)


def test_a_fold_with_one_class_is_named_with_its_time_range_and_what_to_do():
    times = pd.date_range("2024-01-01", periods=60).to_numpy()
    labels = np.array([0, 1] * 20 + [0] * 20)
    with pytest.raises(
        TrainingError, match=r"Fold 2 of 2 \(2024-02-10 00:00:00 to 2024-02-29 00:00:00\) would judge on one"
    ):
        ordered_folds(times, 2, labels=labels)
    with pytest.raises(TrainingError, match=r"Fold 1 of 2 .* without a row of the class 0: use fewer folds"):
        ordered_folds(times, 2, labels=labels[::-1] + (np.arange(60) < 20))


@given(st.lists(st.integers(0, 2), min_size=30, max_size=120), st.integers(2, 5), st.integers(0, 99))
def test_shuffled_folds_cover_every_row_once_with_the_same_share_of_each_class(labels, k, seed):
    y = np.array([*labels, *[0, 1, 2] * 5])
    folds = shuffled_folds(y, k, seed, "classification")
    assert sorted(row for _, judge in folds for row in judge) == list(range(len(y)))
    for train, judge in folds:
        assert not set(train) & set(judge)
        for label in (0, 1, 2):
            assert abs((y[judge] == label).sum() - (y == label).sum() / k) < 2
    again = shuffled_folds(y, k, seed, "classification")
    assert all((a[1] == b[1]).all() for a, b in zip(folds, again, strict=True))


def test_a_class_with_one_row_cannot_be_both_learnt_and_judged():
    with pytest.raises(TrainingError, match="without a row of the class 7"):
        shuffled_folds(np.array([0, 1] * 10 + [7]), 3, 0, "classification")
    with pytest.raises(TrainingError, match="at least 5 rows, and there are 3"):
        shuffled_folds(np.arange(3.0), 5, 0, "regression")


def test_folds_of_a_regression_differ_by_at_most_one_row():
    sizes = [len(judge) for _, judge in shuffled_folds(np.random.default_rng(0).normal(size=101), 5, 0, "regression")]
    assert sorted(sizes) == [20, 20, 20, 20, 21]
