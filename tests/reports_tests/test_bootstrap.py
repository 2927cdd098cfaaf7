"""The bootstrap: its fast ranks against a plain loop, and how often its intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from reports.bootstrap import (
    resample_counts,
    spearman_difference,
    spearman_interval,
    weighted_ranks,
    weighted_spearman,
)


def correlated(n: int, rho_s: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bivariate normal pairs whose Spearman is rho_s: r = 2 sin(pi rho_s / 6)."""
    r = 2 * math.sin(math.pi * rho_s / 6)
    x = rng.normal(size=n)
    return x, r * x + math.sqrt(1 - r * r) * rng.normal(size=n)


def test_every_resample_equals_scipy_on_the_repeated_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 15).astype(float), rng.normal(size=15)
    counts = resample_counts(15, 50, rng)
    assert (counts.sum(axis=1) == 15).all()
    fast = weighted_spearman(x, y, counts)
    for row, value in zip(counts, fast, strict=True):
        a, b = np.repeat(x, row), np.repeat(y, row)
        assert value == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)
        drawn = row > 0
        expected = dict(zip(a, scipy.stats.rankdata(a), strict=True))
        assert weighted_ranks(x, row[None])[0][drawn].tolist() == [expected[v] for v in x[drawn]]


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("rho_s", [0.0, 0.7])
def test_coverage_is_close_to_nominal(n: int, rho_s: float) -> None:
    # 400 simulations put a coverage of .95 within .95 +- 3 sqrt(.95 .05 / 400) = .917 to .983.
    rng = np.random.default_rng([n, int(10 * rho_s)])
    intervals = [spearman_interval(*correlated(n, rho_s, rng), rng=rng, resamples=500) for _ in range(400)]
    held = [interval.low <= rho_s <= interval.high for interval in intervals if interval is not None]
    assert len(held) == 400
    assert 0.917 <= np.mean(held) <= 0.983


def test_coverage_of_the_paired_difference() -> None:
    # Both rulers are the reference plus noise of the same size, so the true difference is 0.
    rng = np.random.default_rng(8)
    held = []
    for _ in range(300):
        y = rng.normal(size=40)
        x, baseline = y + rng.normal(size=40), y + rng.normal(size=40)
        difference = spearman_difference(x, baseline, y, rng=rng, resamples=500)
        assert difference.interval is not None
        held.append(difference.interval.low <= 0 <= difference.interval.high)
    assert 0.90 <= np.mean(held) <= 0.985


def test_the_difference_of_a_ruler_to_itself_is_zero() -> None:
    x, y = correlated(20, 0.5, np.random.default_rng(4))
    difference = spearman_difference(x, x, y, rng=np.random.default_rng(0), resamples=50)
    assert difference.interval is not None
    assert (difference.value, difference.interval.low, difference.interval.high) == (0, 0, 0)


def test_blocks_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = correlated(40, 0.5, np.random.default_rng(1))
    whole = spearman_interval(x, y, rng=np.random.default_rng(2), resamples=200)
    monkeypatch.setattr("reports.bootstrap.BLOCK_ENTRIES", 400)
    assert spearman_interval(x, y, rng=np.random.default_rng(2), resamples=200) == whole


def test_no_interval_without_a_coefficient() -> None:
    rng = np.random.default_rng(0)
    assert spearman_interval([1, 2], [1, 2], rng=rng) is None
    assert spearman_interval([1, 1, 1, 1], [1, 2, 3, 4], rng=rng) is None
    difference = spearman_difference([1, 2, 3], [4, 4, 4], [1, 2, 3], rng=rng)
    assert (difference.value, difference.reason) == (None, "all scores are equal")


def test_intervals_begin_where_they_hold() -> None:
    rng = np.random.default_rng(0)
    x, y = correlated(10, 0.5, rng)
    assert spearman_interval(x[:9], y[:9], rng=rng) is None
    assert spearman_difference(x[:9], -x[:9], y[:9], rng=rng).interval is None
    interval = spearman_interval(x, y, rng=rng)
    assert interval is not None
    assert -1 <= interval.low < interval.high <= 1
    # Ten pairs of which nine are tied: many resamples are constant, and left out.
    tied = spearman_interval([0] * 9 + [1], range(10), rng=rng)
    assert tied is not None
    assert -1 <= tied.low <= tied.high <= 1
