"""What keeping the best-ranked architectures would keep: pure functions of numpy arrays.

Letters: n architectures, x the ruler's scores, y the reference scores; both oriented so that higher is
better. Ties in the ruler are never broken by position: every number is the exact expectation over all ways to
break them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.correlation import MIN_PAIRS, Statistic, spearman, usable, usable_pairs

Floats = NDArray[np.float64]

GOOD_FRACTION = 0.20
"""The architectures worth finding: the reference's best fifth, the same slice as the top-20% Spearman."""
KEPT_PERCENTS = (1, 5, 10, 20, 50)
CURVE_POINTS = 200
"""A top-k curve has every k up to here and a geometric selection beyond."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is left after keeping the ruler's best `kept` of n: see `precision_and_recall`, `regret_curve`."""

    percent: int
    kept: int
    good: int
    precision: float
    recall: float
    regret: float
    random_regret: float


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The architecture the ruler ranks first, seen by the reference.

    Attributes:
        best: best reference score of the n architectures.
        picked: reference score of the pick; the mean over `tied` picks where the ruler ties at the top.
        regret: best - picked, >= 0, in units of the reference score.
        random_regret: best - mean, what a pick at random would lose on average.
    """

    best: float
    picked: float
    tied: int
    n: int
    regret: float
    random_regret: float


@dataclass(frozen=True, kw_only=True)
class RegretCurve:
    """What the best of `k` architectures is expected to lose against the best of all, >= 0, in units of the
    reference score: for the ruler's first k and for k at random. See `regret_curve`."""

    k: list[int]
    ruler: list[float]
    random: list[float]


def slots(n: int, fraction: float) -> int:
    """How many of n a fraction stands for: rounded up, at least one (20% of 48 is 10, 1% of 48 is 1)."""
    return max(1, math.ceil(round(n * fraction, 9)))


def top_members(y: ArrayLike, fraction: float) -> NDArray[np.bool_]:
    """Which of finite y are in its top fraction: the best ceil(fraction n) and ties with the last."""
    values = np.asarray(y, dtype=np.float64)
    threshold = np.sort(values)[-slots(len(values), fraction)]
    members: NDArray[np.bool_] = values >= threshold
    return members


def top_networks(x: ArrayLike, y: ArrayLike, fraction: float, networks: ArrayLike) -> int:
    """How many different networks the pairs of `top_pairs` are; `networks`: (n,), equal for one network."""
    both = usable(x, y)
    if not both.any():
        return 0
    members = np.flatnonzero(both)[top_members(np.asarray(y, dtype=np.float64)[both], fraction)]
    return len(set(np.asarray(networks)[members]))


def top_pairs(x: ArrayLike, y: ArrayLike, fraction: float) -> tuple[Floats, Floats]:
    """The usable pairs that lie in the reference's top fraction (see `top_members`)."""
    first, second = usable_pairs(x, y)
    if not len(second):
        return first, second
    members = top_members(second, fraction)
    return first[members], second[members]


def top_spearman(x: ArrayLike, y: ArrayLike, fraction: float) -> Statistic:
    """Spearman's rho within the reference's top fraction; `n` is the size of that slice."""
    return spearman(*top_pairs(x, y, fraction))


def precision_and_recall(x: ArrayLike, y: ArrayLike, percent: int) -> Kept | None:
    """Keep the ruler's best k = ceil(percent% of n). Good = the reference's top 20% (`top_members`).

    precision@k = (good among the kept) / k; recall@k = (good among the kept) / (good among all n). Where the
    k-th place falls into a group tied in the ruler, the group counts by the share of it that fits. At 20% and
    without ties the two are equal. None below 3 usable pairs.
    """
    first, second = usable_pairs(x, y)
    if len(first) < MIN_PAIRS:
        return None
    good = top_members(second, GOOD_FRACTION)
    kept = slots(len(first), percent / 100)
    sure, tied, places = _cut(first, kept)
    hits = float(good[sure].sum() + places * good[tied].mean())
    total = int(good.sum())
    lost = regret_curve(first, second, [kept])
    return Kept(
        percent=percent,
        kept=kept,
        good=total,
        precision=hits / kept,
        recall=hits / total,
        regret=lost.ruler[0],
        random_regret=lost.random[0],
    )


def regret_curve(x: ArrayLike, y: ArrayLike, steps: Sequence[int]) -> RegretCurve:
    """Best reference score of all n minus the expected best of k, for each k of `steps`, 1 <= k <= n.

    Exact for both: over the ways to break the ruler's ties, and over all k-subsets of the n.
    """
    first, second = usable_pairs(x, y)
    best = float(second.max())
    return RegretCurve(
        k=[int(k) for k in steps],
        ruler=[max(0.0, best - best_among_top(first, second, int(k))) for k in steps],
        random=[max(0.0, best - expected_best(second, int(k))) for k in steps],
    )


def curve_steps(n: int) -> NDArray[np.int64]:
    """Every k up to `CURVE_POINTS`, beyond that a geometric selection up to n."""
    if n <= CURVE_POINTS:
        return np.arange(1, n + 1)
    beyond = np.geomspace(CURVE_POINTS, n, CURVE_POINTS)
    return np.unique(np.concatenate([np.arange(1, CURVE_POINTS), np.rint(beyond).astype(np.int64)]))


def regret_of_pick(x: ArrayLike, y: ArrayLike) -> Pick | None:
    """Best reference score minus that of the ruler's first; the mean over ties. None below 3 usable pairs."""
    first, second = usable_pairs(x, y)
    if len(first) < MIN_PAIRS:
        return None
    picks = second[first == first.max()]
    best, picked = float(second.max()), float(picks.mean())
    return Pick(
        best=best,
        picked=picked,
        tied=len(picks),
        n=len(second),
        regret=max(0.0, best - picked),
        random_regret=max(0.0, best - float(second.mean())),
    )


def best_among_top(x: ArrayLike, y: ArrayLike, kept: int) -> float:
    """Best reference score among the ruler's top `kept` ; expected over the ways to break ties."""
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    sure, tied, places = _cut(first, kept)
    floor = float(second[sure].max()) if sure.any() else -math.inf
    return expected_best(np.maximum(second[tied], floor), places)


def expected_best(values: ArrayLike, draws: int) -> float:
    """Exact mean of the largest of `draws` values drawn without replacement, 1 <= draws <= n.

    E = sum_i v_(i) C(i-1, draws-1) / C(n, draws) over the ascending v_(i): the hypergeometric chance that
    v_(i) is the largest drawn. The weights come from their ratio (i - draws) / (i - 1), from i = n downwards,
    so that no binomial coefficient overflows.
    """
    ascending = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ascending)
    places = np.arange(n, draws, -1)
    ratios = (places - draws) / (places - 1)
    weights = draws / n * np.concatenate([[1.0], np.cumprod(ratios)])
    return float(weights @ ascending[draws - 1 :][::-1])


def _cut(x: Floats, kept: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
    """Who is surely in the top `kept`, who is tied at its last place, and how many of those fit."""
    last = np.sort(x)[-kept]
    sure: NDArray[np.bool_] = x > last
    tied: NDArray[np.bool_] = x == last
    return sure, tied, kept - int(sure.sum())
