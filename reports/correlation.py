"""How well two lists of scores agree: pure functions of numpy arrays; no files, no global randomness.

Letters: n architectures, x the ruler's scores, y the reference scores; both oriented so that higher is
better. A statistic that cannot be computed is a `Statistic` without a value and with the reason why, never
NaN.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MIN_PAIRS = 3
"""Two points always lie on a line: below three pairs every coefficient is +-1 or undefined."""
EXACT_UP_TO = 8
"""All 8! = 40,320 orders are tried in milliseconds; from 9 pairs on a sample of orders is as good."""
T_APPROXIMATION_FROM = 30
"""From about 30 pairs on, Student's t agrees with the permutation distribution to the digits shown."""
MONTE_CARLO_PERMUTATIONS = 9_999
"""With the observed order as one more, p is a multiple of 1 / 10,000 (Phipson and Smyth 2010)."""


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One number with the n it rests on; `value` is None exactly when `reason` says why there is none."""

    value: float | None
    n: int
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class PValue:
    """A two-sided p-value of Spearman's rho; method is 'exact', 'monte-carlo' or 't-approximation'."""

    value: float
    method: str


def usable_pairs(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """The pairs of which both members are finite numbers, in the given order: two arrays of one length.

    Raises:
        ValueError: if x and y are not flat lists of one length.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"scores to compare need one flat length, got shapes {first.shape} and {second.shape}"
        )
    both = usable(first, second)
    return first[both], second[both]


def usable(*columns: ArrayLike) -> NDArray[np.bool_]:
    """Which rows are finite numbers in all columns of one length."""
    finite = np.isfinite(np.stack([np.asarray(column, dtype=np.float64) for column in columns]))
    return np.asarray(finite.all(axis=0))


def number_networks(networks: ArrayLike | None, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number, from 0 in order of appearance, of each kept architecture's network; (m,) for m kept.

    Args:
        networks: (n,), equal for names of one network; None: each is a network of its own.
        kept: (n,), which count.
    """
    count = int(kept.sum())
    if networks is None:
        return np.arange(count)
    _, first, group = np.unique(np.asarray(networks)[kept], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group].astype(np.int64)


def count_networks(networks: ArrayLike | None, kept: NDArray[np.bool_]) -> int:
    """How many different networks the kept architectures are, see `number_networks`."""
    return len(np.unique(number_networks(networks, kept)))


def network_means(values: ArrayLike, group: NDArray[np.int64]) -> Floats:
    """The mean over the names of each network: (n,) and their numbers from 0, (n,) -> (m,)."""
    sums = np.bincount(group, weights=np.asarray(values, dtype=np.float64))
    return np.asarray(sums / np.bincount(group), dtype=np.float64)


def why_undefined(x: Floats, y: Floats) -> str | None:
    """Why no correlation exists between finite x and y, in a few words; None where one exists."""
    if len(x) < MIN_PAIRS:
        return f"not enough data (n = {len(x)})"
    if x.min() == x.max():
        return "all scores are equal"
    if y.min() == y.max():
        return "all reference scores are equal"
    return None


def average_ranks(values: ArrayLike) -> Floats:
    """Ranks 1..n from the smallest up; equal values share the mean of the ranks they take together."""
    _, group, sizes = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return np.asarray((last - (sizes - 1) / 2)[group], dtype=np.float64)


def count_tied(values: ArrayLike) -> int:
    """How many values share their value with at least one other."""
    _, sizes = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    return int(sizes[sizes > 1].sum())


def pearson(x: ArrayLike, y: ArrayLike) -> Statistic:
    """r = sum (x - mx)(y - my) / sqrt(sum (x - mx)^2 sum (y - my)^2) over the usable pairs (Pearson 1895)."""
    first, second = usable_pairs(x, y)
    reason = why_undefined(first, second)
    value = None if reason else _cosine(_centred(first), _centred(second))
    return Statistic(value=value, n=len(first), reason=reason)


def spearman(x: ArrayLike, y: ArrayLike) -> Statistic:
    """rho = Pearson's r of the average ranks (Spearman 1904): exact under any number of ties."""
    first, second = usable_pairs(x, y)
    reason = why_undefined(first, second)
    value = None if reason else _spearman(first, second)
    return Statistic(value=value, n=len(first), reason=reason)


def kendall_tau_b(x: ArrayLike, y: ArrayLike) -> Statistic:
    """tau_b = (C - D) / sqrt((P - T_x)(P - T_y)) with P = n(n-1)/2, in O(n log n) (Knight 1966).

    C and D count the concordant and discordant pairs, T_x and T_y the pairs tied in x and in y. Sorting by
    (x, y) makes every discordant pair an inversion of y; the rest follows from P = C + D + T_x + T_y - T_xy.
    """
    first, second = usable_pairs(x, y)
    reason = why_undefined(first, second)
    value = None if reason else _tau_b(first, second)
    return Statistic(value=value, n=len(first), reason=reason)


def spearman_p_value(
    x: ArrayLike, y: ArrayLike, *, rng: np.random.Generator, networks: ArrayLike | None = None
) -> PValue | None:
    """Two-sided probability of an |rho| at least this large if order and reference were unrelated.

    Up to 8 pairs all n! orders are tried; up to 29, 9,999 drawn from `rng` (the observed one counts as one
    more); from 30 on t = rho sqrt((n - 2) / (1 - rho^2)) is compared with Student's t with n - 2 degrees of
    freedom. None where rho is undefined. Names of one of the `networks` are one pair, of their means.
    """
    first, second = usable_pairs(x, y)
    if why_undefined(first, second):
        return None
    if networks is not None:
        group = number_networks(networks, usable(x, y))
        first, second = network_means(first, group), network_means(second, group)
        if why_undefined(first, second):
            return None
    if len(first) >= T_APPROXIMATION_FROM:
        return PValue(value=_t_p_value(_spearman(first, second), len(first)), method="t-approximation")
    ranks, reference = _centred(average_ranks(first)), _centred(average_ranks(second))
    if len(first) <= EXACT_UP_TO:
        orders = np.array(list(itertools.permutations(ranks)))
        return PValue(value=float(np.mean(_as_extreme(orders, ranks, reference))), method="exact")
    orders = rng.permuted(np.broadcast_to(ranks, (MONTE_CARLO_PERMUTATIONS, len(ranks))), axis=1)
    hits = int(np.sum(_as_extreme(orders, ranks, reference)))
    return PValue(value=(hits + 1) / (MONTE_CARLO_PERMUTATIONS + 1), method="monte-carlo")


def _as_extreme(orders: Floats, ranks: Floats, reference: Floats) -> NDArray[np.bool_]:
    """Which rows of `orders` agree with the reference at least as much, in size, as `ranks` does."""
    rounding = 1e-12 * len(ranks)
    extreme: NDArray[np.bool_] = np.abs(orders @ reference) >= abs(float(ranks @ reference)) - rounding
    return extreme


def _t_p_value(rho: float, n: int) -> float:
    from scipy.special import stdtr  # here, so that everything else in this file needs numpy alone

    if abs(rho) >= 1:
        return 0.0
    return float(2 * stdtr(n - 2, -abs(rho) * math.sqrt((n - 2) / (1 - rho * rho))))


def _spearman(x: Floats, y: Floats) -> float:
    return _cosine(_centred(average_ranks(x)), _centred(average_ranks(y)))


def _centred(values: Floats) -> Floats:
    """values minus their mean, scaled to at most 1 in size, so that squares neither overflow nor vanish."""
    scaled = values / np.abs(values).max()
    deviations = scaled - scaled.mean()
    return np.asarray(deviations / np.abs(deviations).max(), dtype=np.float64)


def _cosine(a: Floats, b: Floats) -> float:
    return float(np.clip((a @ b) / math.sqrt(float(a @ a) * float(b @ b)), -1.0, 1.0))


def _tau_b(x: Floats, y: Floats) -> float:
    order = np.lexsort((y, x))
    _, y_ranks = np.unique(y, return_inverse=True)
    pairs = len(x) * (len(x) - 1) // 2
    tied_x, tied_y = _tied_pairs(x), _tied_pairs(y)
    tied_both = _tied_pairs(np.stack([x, y], axis=1))
    discordant = _inversions(y_ranks[order].tolist())
    concordant = pairs - tied_x - tied_y + tied_both - discordant
    return (concordant - discordant) / (math.sqrt(pairs - tied_x) * math.sqrt(pairs - tied_y))


def _tied_pairs(values: Floats) -> int:
    """Pairs of equal entries (rows, where `values` is a matrix)."""
    _, sizes = np.unique(values, axis=0, return_counts=True)
    return int((sizes * (sizes - 1) // 2).sum())


def _inversions(ranks: list[int]) -> int:
    """Pairs i < j with ranks[i] > ranks[j], counted with a Fenwick tree over the ranks 0..n-1."""
    tree = [0] * (len(ranks) + 1)
    inversions = 0
    for seen, rank in enumerate(ranks):
        inversions += seen - _prefix_sum(tree, rank + 1)
        position = rank + 1
        while position < len(tree):
            tree[position] += 1
            position += position & -position
    return inversions


def _prefix_sum(tree: list[int], position: int) -> int:
    total = 0
    while position > 0:
        total += tree[position]
        position -= position & -position
    return total
