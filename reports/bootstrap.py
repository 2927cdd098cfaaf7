"""Bootstrap intervals of Spearman's rho, with the ranks recomputed inside every resample.

Letters: n pairs, B resamples. A resample is written as how often it holds each pair, an integer row of n
counts that sums to n; ranks within it then follow from cumulative sums, so nothing is sorted more than once.

Why percentiles and not BCa (Efron 1987): simulated on bivariate normal pairs (n = 10, 20, 30, 48, 100; rho_s
= 0, .4, .7, .9; 600 samples and 1,000 resamples each), both are equally wide and cover the true rho_s in 94%
to 99% of samples (nominal 95%; the simulation's own error is 0.9 points), BCa slightly closer to nominal on
average. The low end, on which verdicts rest, lies above the truth in 2.6% and 2.5% of samples at rho_s <= .4
(nominal 2.5%, worst cell 4.3%), and at rho_s >= .7 in 1.1% for percentiles and 2.4% for BCa: percentiles are
the more cautious there, and simpler. Below about 10 pairs neither holds its level (n = 6, rho_s = .9: 87%).

Where several architectures are one network by different names, their pairs are not independent: networks are
drawn then, each with all its names (Davison and Hinkley 1997, section 3.8), and n above is that of networks.
Simulated (10, 15, 30, 71 and 79 networks by 14, 30, 60, 100 and 100 names; rho_s = 0, .7, .9; 400 samples
and 500 resamples each) they hold the true rho_s in 93% to 98% of samples, those drawing names in 74% to 96%.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.correlation import number_networks, spearman, usable, usable_pairs, why_undefined

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

RESAMPLES = 2_000
"""The standard error of either end of a 95% interval is then 1.5% of the interval's width."""
CONFIDENCE = 0.95
HOLDS_FROM = 10
"""Pairs of different networks from which the intervals hold their level, see above."""
BLOCK_ENTRIES = 2_000_000
"""Resamples are handled in blocks of about this many counts (16 MB), so that 100,000 pairs fit in memory."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The central `confidence` share of the resampled values, from `low` to `high`."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Spearman of one ruler minus that of another on the same n pairs, with its paired interval.

    `p_value`: two-sided, of no difference, see `two_sided_p_value`. It and the interval are None below
    `HOLDS_FROM` networks.
    """

    value: float | None
    n: int
    interval: Interval | None
    reason: str | None = None
    p_value: float | None = None


def generator(name: str) -> np.random.Generator:
    """The random stream of one statistic: fixed, and independent of which others are computed."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def spearman_interval(
    x: ArrayLike,
    y: ArrayLike,
    *,
    rng: np.random.Generator,
    networks: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Percentile bootstrap interval of Spearman's rho over resampled pairs (Efron 1979).

    Resamples in which x or y is constant have no rho and are left out. None where rho itself is undefined,
    and below `HOLDS_FROM` networks.

    Args:
        x: the ruler's scores, (n,).
        y: the reference's, (n,).
        rng: draws the resamples.
        networks: (n,), equal for architectures that are one network; None where all differ.
        resamples: B.
        confidence: the share of them that the interval holds.
    """
    first, second = usable_pairs(x, y)
    if why_undefined(first, second):
        return None
    group = number_networks(networks, usable(x, y))
    values = resampled(lambda counts: weighted_spearman(first, second, counts), group, resamples, rng)
    return percentile_interval(values, confidence)


def spearman_difference(
    x: ArrayLike,
    baseline: ArrayLike,
    y: ArrayLike,
    *,
    rng: np.random.Generator,
    networks: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference:
    """rho(x, y) - rho(baseline, y) on the pairs usable in all three; both rulers see the same resamples.

    Pairing removes the luck of the drawn architectures that both rulers share, so the interval is narrower
    than one made of two separate intervals. `networks`: see `spearman_interval`.
    """
    columns = np.stack([np.asarray(values, dtype=np.float64) for values in (x, baseline, y)])
    kept = usable(*columns)
    first, second, reference = columns[:, kept]
    reason = why_undefined(first, reference) or why_undefined(second, reference)
    if reason:
        return Difference(value=None, n=len(reference), interval=None, reason=reason)
    group = number_networks(networks, kept)
    values = resampled(
        lambda c: weighted_spearman(first, reference, c) - weighted_spearman(second, reference, c),
        group,
        resamples,
        rng,
    )
    rhos = spearman(first, reference).value, spearman(second, reference).value
    assert rhos[0] is not None
    assert rhos[1] is not None
    return Difference(
        value=rhos[0] - rhos[1],
        n=len(reference),
        interval=percentile_interval(values, confidence),
        p_value=two_sided_p_value(values),
    )


def two_sided_p_value(differences: Floats) -> float | None:
    """p = 2 min(#{d <= 0} + 1, #{d >= 0} + 1) / (B + 1), at most 1, over the B resampled differences d.

    The p that goes with the percentile interval (Efron and Tibshirani 1993, section 15.4): below 5% where the
    95% interval leaves out 0. It is never 0, the sample itself counts as one more resample. None for B = 0.
    """
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return None
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))


def resampled(
    statistic: Callable[[Counts], Floats], group: Counts, resamples: int, rng: np.random.Generator
) -> Floats:
    """A statistic of every resample, (B,); none below `HOLDS_FROM` networks, where no interval would hold.

    Args:
        statistic: (b, n) counts -> (b,).
        group, resamples, rng: see `resample_blocks`.
    """
    if group.max() + 1 < HOLDS_FROM:
        return np.empty(0)
    return np.concatenate([statistic(counts) for counts in resample_blocks(group, resamples, rng)])


def percentile_interval(values: Floats, confidence: float = CONFIDENCE) -> Interval | None:
    """The central share of the resampled values that are defined; None where none is."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(low=float(low), high=float(high), confidence=confidence)


def resample_blocks(group: Counts, resamples: int, rng: np.random.Generator) -> Iterator[Counts]:
    """How often each of n pairs occurs when m networks are drawn with replacement, each with all its pairs.

    (n,) numbers of their networks, 0 to m - 1 -> (B, n), as `resample_counts` where m = n; in blocks of
    bounded memory, and how they are cut does not change what is drawn.
    """
    size = max(1, BLOCK_ENTRIES // len(group))
    for start in range(0, resamples, size):
        yield resample_counts(int(group.max()) + 1, min(size, resamples - start), rng)[:, group]


def resample_counts(n: int, resamples: int, rng: np.random.Generator) -> Counts:
    """How often each of n pairs occurs when n are drawn with replacement: (B, n), rows sum to n."""
    drawn = rng.integers(0, n, size=(resamples, n))
    drawn += n * np.arange(resamples)[:, None]  # one bin for every pair of every resample
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)


def weighted_spearman(x: Floats, y: Floats, counts: Counts) -> Floats:
    """Spearman's rho of every resample: (n,), (n,), (B, n) -> (B,); NaN where a resample is constant."""
    rho = np.einsum("bn,bn,bn->b", counts, standard_ranks(x, counts), standard_ranks(y, counts))
    return np.asarray(np.clip(rho, -1.0, 1.0), dtype=np.float64)


def standard_ranks(values: Floats, counts: Counts) -> Floats:
    """Ranks in every resample with mean 0 and sum of squares 1: (n,), (B, n) -> (B, n); NaN where constant.

    Sums of their products, each as often as it was drawn, are Spearman's rho.
    """
    size = counts.sum(axis=1, keepdims=True)
    ranks = weighted_ranks(values, counts) - (size + 1) / 2
    spread = np.sqrt(np.einsum("bn,bn,bn->b", counts, ranks, ranks))[:, None]
    unit = np.divide(ranks, spread, out=np.full(ranks.shape, np.nan), where=spread > 0)
    return np.asarray(unit, dtype=np.float64)


def weighted_ranks(values: Floats, counts: Counts) -> Floats:
    """Average rank of each value within every resample: (n,), (B, n) -> (B, n)."""
    _, group, members = np.unique(values, return_inverse=True, return_counts=True)
    by_value = np.take(counts, np.argsort(group, kind="stable"), axis=1)
    sizes = np.add.reduceat(by_value, np.cumsum(members) - members, axis=1)
    middle = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return np.take(middle, group, axis=1)
