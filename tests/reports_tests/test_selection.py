"""Top slices, precision, recall, regret and top-k against brute force over every way to break ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from reports.correlation import spearman
from reports.selection import (
    best_among_top,
    curve_steps,
    expected_best,
    precision_and_recall,
    regret_curve,
    regret_of_pick,
    slots,
    top_members,
    top_spearman,
)


@pytest.mark.parametrize(
    ("n", "fraction", "expected"),
    [
        (48, 0.20, 10),
        (48, 0.05, 3),
        (10, 0.01, 1),
        (100, 0.07, 7),
        (720, 0.20, 144),
        (3, 1.0, 3),
        (15, 0.2, 3),
    ],
)
def test_slots_round_up_without_rounding_errors(n: int, fraction: float, expected: int) -> None:
    assert slots(n, fraction) == expected


def test_top_slice_takes_in_ties_with_the_last() -> None:
    y = [0.9, 0.8, 0.8, 0.8, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert np.flatnonzero(top_members(y, 0.2)).tolist() == [0, 1, 2, 3]


def test_top_spearman_is_spearman_of_the_slice() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    best = np.argsort(y)[-10:]
    assert top_spearman(x, y, 0.2) == spearman(x[np.sort(best)], y[np.sort(best)])
    assert top_spearman(x[:20], y[:20], 0.05).reason == "not enough data (n = 1)"
    assert top_spearman([], [], 0.2).reason == "not enough data (n = 0)"


def orders_of(x: list[int]) -> list[list[int]]:
    """Every order, best first, that sorts x with its ties broken in some way."""
    return [
        list(o)
        for o in itertools.permutations(range(len(x)))
        if all(x[a] >= x[b] for a, b in itertools.pairwise(o))
    ]


@pytest.mark.parametrize("seed", range(8))
def test_ties_are_averaged_over_every_way_to_break_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 3, 7).tolist(), rng.integers(0, 9, 7).astype(float)
    orders = orders_of(x)
    good = top_members(y, 0.2)
    for percent in (10, 20, 50):
        kept = precision_and_recall(x, y, percent)
        assert kept is not None
        hits = np.mean([good[order[: kept.kept]].sum() for order in orders])
        assert kept.precision == pytest.approx(hits / kept.kept)
        assert kept.recall == pytest.approx(hits / good.sum())
    for k in range(1, 8):
        assert best_among_top(x, y, k) == pytest.approx(np.mean([y[order[:k]].max() for order in orders]))
    pick = regret_of_pick(x, y)
    assert pick is not None
    assert pick.regret == pytest.approx(y.max() - np.mean([y[order[0]] for order in orders]))


@pytest.mark.parametrize("seed", range(6))
def test_the_regret_curve_is_the_mean_over_all_orders_and_all_subsets(seed: int) -> None:
    rng = np.random.default_rng([9, seed])
    x, y = rng.integers(0, 4, 6).tolist(), rng.integers(0, 9, 6).astype(float)
    curve = regret_curve([*x, 5], [*y, math.nan], range(1, 7))
    assert curve.k == [1, 2, 3, 4, 5, 6]
    for k, ruler, random in zip(curve.k, curve.ruler, curve.random, strict=True):
        lost = [y.max() - y[order[:k]].max() for order in orders_of(x)]
        assert ruler == pytest.approx(np.mean(lost))
        subsets = itertools.combinations(y, k)
        assert random == pytest.approx(np.mean([y.max() - max(chosen) for chosen in subsets]))
    assert (np.diff([curve.ruler, curve.random]) < 1e-12).all()
    assert (curve.ruler[-1], curve.random[-1]) == (0.0, 0.0)


def test_the_regret_curve_begins_at_the_pick_and_stands_in_the_table_of_what_is_kept() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=40), rng.normal(size=40)
    curve, pick = regret_curve(x, y, curve_steps(40).tolist()), regret_of_pick(x, y)
    assert pick is not None
    assert (curve.ruler[0], curve.random[0]) == pytest.approx((pick.regret, pick.random_regret))
    kept = precision_and_recall(x, y, 20)
    assert kept is not None
    assert (kept.regret, kept.random_regret) == pytest.approx((curve.ruler[7], curve.random[7]))


def test_a_ruler_that_is_the_reference_loses_nothing_and_one_reversed_all() -> None:
    y = np.arange(10.0)
    assert regret_curve(y, y, range(1, 11)).ruler == [0.0] * 10
    assert regret_curve(-y, y, range(1, 11)).ruler == [9.0 - i for i in range(10)]


@pytest.mark.parametrize("draws", range(1, 8))
def test_expected_best_equals_enumeration(draws: int) -> None:
    values = [0.3, 0.1, 0.9, 0.9, -2.0, 0.5, 0.4]
    brute = np.mean([max(chosen) for chosen in itertools.combinations(values, draws)])
    assert expected_best(values, draws) == pytest.approx(brute)


def test_expected_best_of_many_does_not_overflow() -> None:
    n = 15_625
    assert expected_best(np.arange(1, n + 1), 5_000) == pytest.approx(5_000 * (n + 1) / 5_001)


def test_precision_equals_recall_at_the_size_of_the_good_slice() -> None:
    rng = np.random.default_rng(5)
    kept = precision_and_recall(rng.normal(size=40), rng.normal(size=40), 20)
    assert kept is not None
    assert (kept.kept, kept.good) == (8, 8)
    assert kept.precision == kept.recall


def test_regret_against_a_random_pick() -> None:
    pick = regret_of_pick([3, 3, 1, math.nan], [0.5, 0.7, 0.9, 1.0])
    assert pick is not None
    assert (pick.best, pick.tied, pick.n) == (0.9, 2, 3)
    assert pick.picked == pytest.approx(0.6)
    assert pick.random_regret == pytest.approx(0.2)


def test_too_few_pairs_are_none() -> None:
    assert precision_and_recall([1, 2], [1, 2], 20) is None
    assert regret_of_pick([1, math.nan, 2], [1, 2, 3]) is None
