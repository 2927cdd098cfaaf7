"""Noise ceilings against closed forms and against simulated seeds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from reports.reliability import ceiling, reliability, spearman_brown


def seeds(quality: np.ndarray, noise: float, k: int, rng: np.random.Generator) -> np.ndarray:
    """k seeds of a score: the architecture's quality plus the noise of each training."""
    return quality[:, None] + noise * rng.normal(size=(len(quality), k))


def rho(x: np.ndarray, y: np.ndarray) -> float:
    return float(scipy.stats.spearmanr(x, y).statistic)


def test_two_seeds_agree_as_spearman_says_and_more_on_average() -> None:
    rng = np.random.default_rng(0)
    table = seeds(rng.normal(size=30), 0.8, 3, rng)
    first = reliability(table[:, :2], rng=rng, resamples=50)
    assert first.single.value == pytest.approx(rho(table[:, 0], table[:, 1]))
    pairs = [rho(table[:, a], table[:, b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    every = reliability(table, rng=rng, resamples=50)
    assert (every.seeds, every.single.n) == (3, 30)
    assert every.single.value == pytest.approx(np.mean(pairs))
    assert every.mean.value == pytest.approx(3 * np.mean(pairs) / (1 + 2 * np.mean(pairs)))


def test_spearman_brown_in_closed_form() -> None:
    """Variance 1 of the truth and s^2 of the noise: r = 1 / (1 + s^2), and 1 / (1 + s^2 / k) for the mean."""
    for noise in (0.3, 1.0, 2.0):
        for k in (1, 2, 5):
            assert spearman_brown(1 / (1 + noise**2), k) == pytest.approx(1 / (1 + noise**2 / k))
    assert spearman_brown(-0.4, 3) == 0.0


@pytest.mark.parametrize("noise", [0.4, 1.0])
def test_the_mean_over_seeds_agrees_as_spearman_brown_predicts(noise: float) -> None:
    rng = np.random.default_rng(1)
    quality = rng.normal(size=20_000)
    found = reliability(seeds(quality, noise, 4, rng), rng=rng, resamples=20)
    means = [seeds(quality, noise, 4, rng).mean(axis=1) for _ in range(2)]
    assert found.mean.value == pytest.approx(rho(*means), abs=0.015)


@pytest.mark.parametrize(("reference", "proxy"), [(0.4, 0.4), (0.4, 1.0), (1.0, 1.0)])
def test_a_ruler_that_errs_by_noise_alone_reaches_the_ceiling(reference: float, proxy: float) -> None:
    rng = np.random.default_rng(2)
    quality = rng.normal(size=20_000)
    r, p = seeds(quality, reference, 2, rng), seeds(quality, proxy, 2, rng)
    highest = ceiling(r, p, rng=rng, resamples=20).value.value
    assert highest == pytest.approx(rho(r[:, 0], p[:, 0]), abs=0.015)
    perfect = ceiling(r, rng=rng, resamples=20).value.value
    assert perfect == pytest.approx(rho(r[:, 0], quality), abs=0.015)
    biased = p[:, 0] + rng.normal(size=20_000)  # systematically wrong: below the ceiling
    assert rho(r[:, 0], biased) < (highest or 0.0) - 0.05


def test_coverage_of_reliability_and_ceiling() -> None:
    # 250 simulations put a coverage of .95 within .95 +- 3 sqrt(.95 .05 / 250) = .909 to .991.
    rng = np.random.default_rng(3)
    large = rng.normal(size=50_000)
    many = seeds(large, 0.5, 2, rng), seeds(large, 0.8, 2, rng)
    agreements = [rho(table[:, 0], table[:, 1]) for table in many]
    truth = agreements[0], float(np.sqrt(agreements[0] * agreements[1]))
    held = []
    for _ in range(250):
        quality = rng.normal(size=40)
        r, p = seeds(quality, 0.5, 2, rng), seeds(quality, 0.8, 2, rng)
        found = (
            reliability(r, rng=rng, resamples=400).single_interval,
            ceiling(r, p, rng=rng, resamples=400).interval,
        )
        held.append([i is not None and i.low <= true <= i.high for i, true in zip(found, truth, strict=True)])
    covered = np.mean(held, axis=0)
    assert ((covered >= 0.909) & (covered <= 0.991)).all(), covered


def test_rows_that_miss_a_seed_are_left_out() -> None:
    rng = np.random.default_rng(4)
    table = seeds(rng.normal(size=20), 0.5, 2, rng)
    gaps = np.vstack([table, [[np.nan, 1.0], [2.0, np.nan]]])
    whole, found = (reliability(t, rng=np.random.default_rng(0), resamples=99) for t in (table, gaps))
    assert found == whole
    assert ceiling(table, gaps[2:], rng=rng, resamples=9).value.n == 18


def test_what_cannot_be_known_has_a_reason() -> None:
    rng = np.random.default_rng(5)
    assert reliability([[1, 2], [2, 3]], rng=rng).single.reason == "not enough data (n = 2)"
    flat = [[1, 1], [1, 2], [1, 3], [1, 4]]
    assert reliability(flat, rng=rng).mean.reason == "all scores are equal"
    assert ceiling(flat, rng=rng).interval is None
    with pytest.raises(ValueError, match="at least two seeds of one score, got 1"):
        reliability([[1], [2], [3]], rng=rng)


def test_seeds_that_disagree_leave_no_room() -> None:
    table = np.column_stack([np.arange(20), np.arange(20)[::-1]])
    found = reliability(table, rng=np.random.default_rng(6), resamples=99)
    assert (found.single.value, found.mean.value) == (-1.0, 0.0)
    assert ceiling(table, rng=np.random.default_rng(6), resamples=99).value.value == 0.0
