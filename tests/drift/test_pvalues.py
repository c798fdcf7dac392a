import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from afterfit.drift.pvalues import RARE, mean_pvalues, share_pvalues


def one(function, *values):
    return float(function(*(np.array([float(value)]) for value in values))[0])


def shares(*values):
    *counts, design, freedom = (np.array([float(value)]) for value in values)
    return float(share_pvalues(*counts, design=design, freedom=freedom)[0])


@given(z=st.floats(-8, 8))
def test_without_skewness_and_with_many_rows_a_mean_is_tested_by_the_normal_distribution(z):
    assert one(mean_pvalues, z, 1, 0, 1e9) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-4)


@pytest.mark.parametrize("shape", [4.0, 30.0, 400.0])
def test_a_skewed_mean_is_tested_by_its_own_tail(shape):
    z = np.linspace(2, 6, 9)
    exact = stats.gamma.sf(shape + z * np.sqrt(shape), shape)
    many = np.full_like(z, 1e9)
    found = mean_pvalues(z, np.ones_like(z), np.full_like(z, 2 / np.sqrt(shape)), many)
    assert found / 2 == pytest.approx(exact, rel=0.02)


def test_the_short_tail_of_a_skewed_mean_is_never_shorter_than_normal():
    assert one(mean_pvalues, -4, 1, 3, 1e9) >= 2 * stats.norm.sf(4) * (1 - 1e-6)


def test_few_degrees_of_freedom_make_evidence_weaker():
    assert one(mean_pvalues, 5, 1, 0, 5) == pytest.approx(2 * stats.t.sf(5, 5), rel=1e-3)


def test_a_score_that_never_varied_and_now_does_is_certain_and_one_that_still_does_not_is_no_evidence():
    assert one(mean_pvalues, 0.1, 0, 0, 100) == 0.0
    assert one(mean_pvalues, 0, 0, 0, 100) == 1.0


@given(count=st.integers(0, 40), rows=st.integers(50, 2_000))
def test_rare_shares_are_tested_by_the_binomial_distribution(count, rows):
    pvalue = shares(count, rows, 3, 50_000, 1, 1e9)
    upper = stats.binom.sf(count - 1, count + 3, rows / (rows + 50_000))
    lower = stats.binom.cdf(count, count + 3, rows / (rows + 50_000))
    if (count + 3) / (rows + 50_000) < RARE:
        assert pvalue == pytest.approx(min(1.0, 2 * min(upper, lower)), rel=1e-6, abs=1e-12)


@given(count=st.integers(0, 500), other=st.integers(0, 5_000))
def test_a_share_and_its_complement_have_the_same_evidence(count, other):
    one_way = shares(count, 500, other, 5_000, 1, 1e9)
    assert shares(500 - count, 500, 5_000 - other, 5_000, 1, 1e9) == pytest.approx(one_way, rel=1e-6, abs=1e-9)


def test_rows_that_depend_on_each_other_are_weaker_evidence():
    values = [shares(60, 2_000, 500, 50_000, design, 1e9) for design in (1, 2, 10)]
    assert values == sorted(values)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("rows", [50, 500])
def test_p_values_of_equal_shares_are_not_too_small(share, rows):
    rng = np.random.default_rng(0)
    count, other = rng.binomial(rows, share, 40_000), rng.binomial(20_000, share, 40_000)
    size = np.ones(40_000)
    pvalues = share_pvalues(count, rows * size, other, 20_000 * size, design=size, freedom=1e9 * size)
    for level in (0.05, 0.01, 0.001):
        assert np.mean(pvalues <= level) <= level * 1.25 + 4 * np.sqrt(level / 40_000)
