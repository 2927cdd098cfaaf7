"""Correlations against scipy, under ties, at every scale, and where none exists."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.correlation import (
    average_ranks,
    count_tied,
    kendall_tau_b,
    pearson,
    spearman,
    spearman_p_value,
    usable_pairs,
)

tied_pairs = st.integers(3, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-3, 3), min_size=n, max_size=n) for _ in range(2)])
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tied_pairs)
def test_all_three_equal_scipy_under_ties(pair: tuple[list[int], list[int]]) -> None:
    x, y = pair
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert spearman(x, y).value is None
        return
    assert spearman(x, y).value == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    assert kendall_tau_b(x, y).value == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12)
    assert pearson(x, y).value == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    np.testing.assert_array_equal(average_ranks(x), scipy.stats.rankdata(x))


@pytest.mark.parametrize("n", [1_000, 20_000])
def test_kendall_equals_scipy_on_long_lists(n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=n)
    y = np.round(x + rng.normal(size=n), 1)
    assert kendall_tau_b(x, y).value == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_scale_does_not_matter(scale: float) -> None:
    x, y = np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert pearson(x * scale, y).value == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert spearman(x * scale, y).value == pytest.approx(scipy.stats.spearmanr(x, y).statistic)


def test_perfect_orders_give_exactly_one() -> None:
    x = np.random.default_rng(0).normal(size=50)
    for statistic in (spearman, kendall_tau_b):
        assert statistic(x, np.exp(x)).value == 1.0
        assert statistic(x, -x).value == -1.0


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "not enough data (n = 0)"),
        ([1, 2], [1, 2], "not enough data (n = 2)"),
        ([1, 2, math.nan, math.inf], [1, 2, 3, 4], "not enough data (n = 2)"),
        ([5, 5, 5], [1, 2, 3], "all scores are equal"),
        ([1, 2, 3], [7, 7, 7], "all reference scores are equal"),
    ],
)
def test_what_cannot_be_computed_says_why(x: list[float], y: list[float], reason: str) -> None:
    for statistic in (pearson, spearman, kendall_tau_b):
        result = statistic(x, y)
        assert (result.value, result.reason) == (None, reason)
    assert spearman_p_value(x, y, rng=np.random.default_rng(0)) is None


def test_missing_pairs_are_dropped_not_ranked() -> None:
    x, y = [1.0, math.nan, 2.0, 3.0, 9.0], [1.0, 5.0, 3.0, 2.0, math.nan]
    assert [a.tolist() for a in usable_pairs(x, y)] == [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]
    assert spearman(x, y) == spearman([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        usable_pairs([1, 2], [1, 2, 3])


def test_ties_are_counted() -> None:
    assert count_tied([1, 1, 2, 3, 3, 3]) == 5
    assert count_tied([1, 2, 3]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_p_value_of_few_pairs_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 5, 6), rng.normal(size=6)
    observed = abs(scipy.stats.spearmanr(x, y).statistic)
    orders = [abs(scipy.stats.spearmanr(order, y).statistic) for order in itertools.permutations(x)]
    p = spearman_p_value(x, y, rng=rng)
    assert p is not None
    assert p.method == "exact"
    assert p.value == pytest.approx(np.mean(np.array(orders) >= observed - 1e-12))


def test_p_values_of_more_pairs_agree_with_scipy() -> None:
    rng = np.random.default_rng(3)
    for n, method, tolerance in ((20, "monte-carlo", 0.02), (60, "t-approximation", 1e-12)):
        x = rng.normal(size=n)
        y = 0.3 * x + rng.normal(size=n)
        p = spearman_p_value(x, y, rng=np.random.default_rng(0))
        assert p is not None
        assert p.method == method
        assert p.value == pytest.approx(scipy.stats.spearmanr(x, y).pvalue, abs=tolerance)
        assert p == spearman_p_value(x, y, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("n", "method"), [(8, "exact"), (9, "monte-carlo"), (29, "monte-carlo"), (30, "t-approximation")]
)
def test_which_way_a_p_value_is_found_follows_from_the_pairs(n: int, method: str) -> None:
    y = np.random.default_rng(0).permutation(n)
    found = spearman_p_value(np.arange(n), y, rng=np.random.default_rng(0))
    assert found is not None
    assert found.method == method


def test_a_sampled_p_value_is_never_zero() -> None:
    x = np.arange(20.0)
    found = spearman_p_value(x, x, rng=np.random.default_rng(0))
    assert found is not None
    assert found.value == pytest.approx(1 / 10_000)


def test_there_is_no_p_value_of_two_networks_or_of_equal_means() -> None:
    rng = np.random.default_rng(0)
    assert spearman_p_value([1, 1, 2, 2], [1, 2, 3, 4], rng=rng, networks=[0, 0, 1, 1]) is None
    equal = [1, 3, 2, 2, 3, 1]  # of the pairs of names
    assert spearman_p_value([1, 2, 3, 4, 5, 6], equal, rng=rng, networks=[0, 0, 1, 1, 2, 2]) is None
