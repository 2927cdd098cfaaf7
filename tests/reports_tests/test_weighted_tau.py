"""Weighted Kendall tau against scipy and a plain double loop, and how often its intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from reports.bootstrap import resample_counts
from reports.weighted_tau import resampled_tau, weighted_tau, weighted_tau_interval


def correlated(n: int, rho_s: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    r = 2 * math.sin(math.pi * rho_s / 6)
    x = rng.normal(size=n)
    return x, r * x + math.sqrt(1 - r * r) * rng.normal(size=n)


def double_loop(x: np.ndarray, y: np.ndarray) -> float:
    """The convention as stated: ranks by y from the best, ties in it by x; weights 1/(r+1) + 1/(s+1)."""
    order = sorted(range(len(x)), key=lambda i: (-y[i], -x[i]))
    rank = {i: place for place, i in enumerate(order)}
    weighed = [
        (1 / (rank[i] + 1) + 1 / (rank[j] + 1), np.sign(x[i] - x[j]), np.sign(y[i] - y[j]))
        for i in range(len(x))
        for j in range(i)
    ]
    found = sum(w * a * b for w, a, b in weighed)
    return float(found / math.sqrt(sum(w for w, a, _ in weighed if a) * sum(w for w, _, b in weighed if b)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("values", [3, 1000])
def test_it_is_scipys_and_the_stated_convention(seed: int, values: int) -> None:
    rng = np.random.default_rng([seed, values])
    x, y = rng.integers(0, values, (2, 12)).astype(float)
    found = weighted_tau(x, y).value
    assert found == pytest.approx(scipy.stats.weightedtau(y, x, rank=None).statistic, abs=1e-12)
    assert found == pytest.approx(double_loop(x, y), abs=1e-12)


def test_every_resample_is_scipys_on_the_repeated_pairs() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, 20).astype(float), rng.integers(0, 30, 20).astype(float)
    counts = resample_counts(20, 40, rng)
    for row, value in zip(counts, resampled_tau(x, y, counts), strict=True):
        expected = scipy.stats.weightedtau(np.repeat(y, row), np.repeat(x, row), rank=None).statistic
        assert value == pytest.approx(expected, abs=1e-12)


def test_a_mistake_at_the_top_costs_more_than_one_at_the_bottom() -> None:
    y = np.arange(20.0)
    top, bottom = y.copy(), y.copy()
    top[[18, 19]] = top[[19, 18]]
    bottom[[0, 1]] = bottom[[1, 0]]
    lost = [1 - (weighted_tau(x, y).value or 0.0) for x in (top, bottom)]
    assert lost[0] > 10 * lost[1] > 0
    assert scipy.stats.kendalltau(top, y).statistic == scipy.stats.kendalltau(bottom, y).statistic


@pytest.mark.parametrize("rho_s", [0.0, 0.5, 0.8])
def test_coverage_is_close_to_nominal(rho_s: float) -> None:
    # 250 simulations around the 94% that weighted_tau.py states: +- 3 sqrt(.94 .06 / 250).
    rng = np.random.default_rng(int(10 * rho_s))
    truth = np.mean([weighted_tau(*correlated(30, rho_s, rng)).value for _ in range(4_000)])
    intervals = [
        weighted_tau_interval(*correlated(30, rho_s, rng), rng=rng, resamples=400) for _ in range(250)
    ]
    held = [interval.low <= truth <= interval.high for interval in intervals if interval is not None]
    assert len(held) == 250
    assert 0.895 <= np.mean(held) <= 0.985


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = correlated(50, 0.5, np.random.default_rng(1))
    counts = resample_counts(50, 30, np.random.default_rng(2))
    whole = resampled_tau(x, y, counts)
    monkeypatch.setattr("reports.weighted_tau.BLOCK_ROWS", 7)
    assert resampled_tau(x, y, counts) == pytest.approx(whole, abs=1e-12)


def test_both_ways_to_compute_it_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 9, (2, 40)).astype(float)
    counts = resample_counts(40, 30, rng)
    signs = resampled_tau(x, y, counts)
    monkeypatch.setattr("reports.weighted_tau.SIGNS_UP_TO", 39)
    assert resampled_tau(x, y, counts) == pytest.approx(signs, abs=1e-12)


def test_many_architectures_take_fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def count(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
        made.append(len(counts))
        return np.linspace(0, 1, len(counts))

    monkeypatch.setattr("reports.weighted_tau.resampled_tau", count)
    for n in (100, 2_000, 100_000):
        made.clear()
        weighted_tau_interval(np.arange(n), np.arange(n), rng=np.random.default_rng(0))
        assert sum(made) == {100: 2_000, 2_000: 500, 100_000: 100}[n]


def test_without_a_coefficient_there_is_the_reason() -> None:
    rng = np.random.default_rng(0)
    assert weighted_tau([1, 2], [1, 2]).reason == "not enough data (n = 2)"
    assert weighted_tau([1, 1, 1], [1, 2, 3]).reason == "all scores are equal"
    assert weighted_tau_interval([1, 1, 1], [1, 2, 3], rng=rng) is None
    assert weighted_tau([1, 2, 3, np.nan], [1, 2, 3, 0]).value == 1.0
    assert weighted_tau_interval([1, 2, 3], [1, 2, 3], rng=rng) is None
