"""How far scores agree with themselves when only the seed changes, and how far that lets anything agree with
them; pure functions of numbers.

Letters: n architectures, k seeds, s an (n, k) table of one score, a row an architecture, a column a seed.

    r   = mean over pairs of seeds of Spearman(s_i, s_j)    reliability of one seed
    r_k = k r / (1 + (k - 1) r)                             of the mean over k seeds (Spearman, Brown 1910)
    ceiling = sqrt(r_ref r_proxy)                           attenuation (Spearman 1904)

Both are exact for Pearson's r of scores with independent errors and close for ranks, as the tests simulate.
The ceiling bounds what is expected, not what luck may show; a reliability below 0 counts as 0.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.bootstrap import (
    RESAMPLES,
    Counts,
    Interval,
    percentile_interval,
    resampled,
    standard_ranks,
)
from reports.correlation import Statistic, why_undefined

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How far `seeds` seeds agree over n architectures: `single` for one of them, `mean` for their mean.

    Intervals are percentile bootstraps over architectures, None where too little is known.
    """

    seeds: int
    single: Statistic
    single_interval: Interval | None
    mean: Statistic
    mean_interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The largest Spearman that can be expected, over n architectures, from one seed of either side."""

    value: Statistic
    interval: Interval | None


def spearman_brown(r: float, seeds: float) -> float:
    """Reliability of the mean over `seeds` values of reliability r each; r below 0 counts as 0."""
    known = max(0.0, r)
    return seeds * known / (1 + (seeds - 1) * known)


def reliability(scores: ArrayLike, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> Reliability:
    """From an (n, k) table, k >= 2, NaN where missing; rows that miss a value are left out.

    Raises:
        ValueError: if there are fewer than two columns.
    """
    table = complete_rows(scores)
    n, k = table.shape
    if k < 2:
        raise ValueError(f"reliability needs at least two seeds of one score, got {k}")
    reason = _why_undefined(table)
    if reason:
        nothing = Statistic(value=None, n=n, reason=reason)
        return Reliability(seeds=k, single=nothing, single_interval=None, mean=nothing, mean_interval=None)
    r = float(_agreement(table, np.ones((1, n), dtype=np.int64))[0])
    values = resampled(lambda counts: _agreement(table, counts), np.arange(n), resamples, rng)
    interval = percentile_interval(values)
    mean = None
    if interval is not None:
        ends = (spearman_brown(interval.low, k), spearman_brown(interval.high, k))
        mean = Interval(low=ends[0], high=ends[1], confidence=interval.confidence)
    return Reliability(
        seeds=k,
        single=Statistic(value=r, n=n),
        single_interval=interval,
        mean=Statistic(value=spearman_brown(r, k), n=n),
        mean_interval=mean,
    )


def ceiling(
    reference: ArrayLike,
    proxy: ArrayLike | None = None,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Ceiling:
    """sqrt(r_ref r_proxy) on the rows complete in both tables; without a proxy r_proxy is 1: for any ruler.

    A table is (n, k) with k >= 2; both are resampled together. What it bounds is a correlation between one
    seed of the reference and one of the proxy.
    """
    first = np.asarray(reference, dtype=np.float64)
    second = np.empty((len(first), 0)) if proxy is None else np.asarray(proxy, dtype=np.float64)
    both = complete_rows(np.concatenate([first, second], axis=1))
    tables = [part for part in np.split(both, [first.shape[1]], axis=1) if part.shape[1]]
    n = len(both)
    reason = next((why for why in map(_why_undefined, tables) if why), None)
    if reason:
        return Ceiling(value=Statistic(value=None, n=n, reason=reason), interval=None)
    once = float(_ceilings(tables, np.ones((1, n), dtype=np.int64))[0])
    values = resampled(lambda counts: _ceilings(tables, counts), np.arange(n), resamples, rng)
    return Ceiling(value=Statistic(value=once, n=n), interval=percentile_interval(values))


def complete_rows(scores: ArrayLike) -> Floats:
    """The rows of a table all of whose values are finite."""
    table = np.asarray(scores, dtype=np.float64)
    return np.asarray(table[np.isfinite(table).all(axis=1)], dtype=np.float64)


def _ceilings(tables: list[Floats], counts: Counts) -> Floats:
    agreements = [np.maximum(0.0, _agreement(table, counts)) for table in tables]
    return np.asarray(np.sqrt(math.prod(agreements)), dtype=np.float64)


def _agreement(table: Floats, counts: Counts) -> Floats:
    """r of every resample: the mean Spearman over pairs of columns, (n, k), (B, n) -> (B,).

    From the square of the sum of unit vectors, k + 2 (sum over pairs of r): k rankings, not k^2 correlations.
    """
    k = table.shape[1]
    together = sum(standard_ranks(column, counts) for column in table.T)
    square = np.einsum("bn,bn,bn->b", counts, together, together)
    return np.asarray((square - k) / (k * (k - 1)), dtype=np.float64)


def _why_undefined(table: Floats) -> str | None:
    return next((why for why in itertools.starmap(why_undefined, itertools.pairwise(table.T)) if why), None)
