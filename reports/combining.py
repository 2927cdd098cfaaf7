"""Several scores made into one ruler: pure functions of numpy arrays.

Letters: n architectures, p scores, K folds, R repeats; all scores oriented so that higher is better.

Why predictions become places within their fold: a prediction for an architecture comes from a fit without it,
and fits without a good architecture predict a little lower than fits without a bad one. Pooled as they are,
predictions by scores that say nothing would so correlate negatively with the reference (Parker, Guenter and
Bedo 2007): simulated with p = 6 and n = 48, -.10 by leaving one out and -.11 by repeated folds. Within a fold
all predictions are of one fit, and their order there owes nothing to the references held out. Places are
averaged over repeats, in each of which an architecture meets others (in the spirit of Montoya Perez et al.
2019, tournaments of left-out pairs).

Folds are of networks: architectures that are one network by different names have the same scores and nearly
the same reference, so that a fit which saw one would know the others. With folds of names, scores that say
nothing seemed to agree with the reference at .13 to .23 (71 networks of 100 names, simulated).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.correlation import average_ranks, number_networks, usable

Floats = NDArray[np.float64]

FOLDS = 5
REPEATS = 10
FEWEST = 20
"""Different networks that a fit takes: folds of 4 then."""
STRENGTHS = np.logspace(2, -3, 11)
"""Of the ridge, a training architecture, from strong to weak; of equal ones the strongest is taken."""


def mean_of_ranks(scores: Sequence[ArrayLike], weights: Sequence[float] | None = None) -> Floats:
    """Mean over p lists of each architecture's rank, as a share of n in (0, 1]; NaN where one is missing.

    Ranks are among the architectures that have all p scores; ties share their average rank. `weights`: of the
    p lists, above 0; None where all weigh the same.
    """
    table = np.stack([np.asarray(column, dtype=np.float64) for column in scores])
    whole = np.isfinite(table).all(axis=0)
    places = np.full(table.shape[1], np.nan)
    ranks = np.stack([average_ranks(column[whole]) for column in table])
    # Rounded, so that what ties by integer weights ties by fractions as well.
    mean = np.average(ranks, axis=0, weights=weights).round(9)
    places[whole] = mean / max(1, int(whole.sum()))
    return places


def out_of_fold(
    scores: Sequence[ArrayLike],
    reference: ArrayLike,
    *,
    rng: np.random.Generator,
    networks: ArrayLike | None = None,
) -> Floats:
    """What a ridge regression of the reference's ranks on those of the scores predicts of left-out ones.

    Every fold is predicted by a fit to the others, whose strength was chosen by folds of those; neither sees
    the references held out. Returned is the mean over repeats of an architecture's place in its fold, in
    (0, 1); NaN where a score or the reference is missing. Scores are ranked among all, which uses no
    reference.

    Args:
        scores: p lists of n.
        reference: (n,).
        rng: cuts the folds.
        networks: (n,), equal for architectures that are one network, which share a fold; None where all
            differ.
    Raises:
        ValueError: fewer than `FEWEST` networks have all scores and a reference.
    """
    table = np.stack([np.asarray(column, dtype=np.float64) for column in (*scores, reference)])
    whole = usable(*table)
    group = number_networks(networks, whole)
    count = len(np.unique(group))
    if count < FEWEST:
        raise ValueError(f"a fit takes {FEWEST} networks with every score and a reference, not {count}")
    features, known = standard_ranks(table[:-1, whole]), table[-1, whole]
    places = np.zeros(len(group))
    for _ in range(REPEATS):
        fold = _folds(group, rng)
        for k in range(FOLDS):
            held = fold == k
            predicted = predict(features[~held], known[~held], features[held], rng=rng, group=group[~held])
            places[held] += (average_ranks(predicted) - 0.5) / held.sum()
    result = np.full(table.shape[1], np.nan)
    result[whole] = places / REPEATS
    return result


def standard_ranks(columns: Floats) -> Floats:
    """(p, n) to (n, p): the ranks in every row, with mean 0 and variance 1; zeros where all are equal."""
    ranks = np.stack([average_ranks(column) for column in columns], axis=1)
    deviations = ranks - ranks.mean(axis=0)
    spread = deviations.std(axis=0)
    return np.asarray(deviations / np.where(spread > 0, spread, 1.0), dtype=np.float64)


def predict(
    features: Floats,
    reference: Floats,
    others: Floats,
    *,
    rng: np.random.Generator,
    group: NDArray[np.int64] | None = None,
) -> Floats:
    """Fit to (n, p) and (n,), predict (m, p): (m,); on the scale of the ranks of `reference` over n.

    `group`: (n,), the numbers of their networks; None where all differ. Rounded, so that architectures with
    the same scores get the same prediction.
    """
    targets = average_ranks(reference) / len(reference)
    fold = _folds(np.arange(len(targets)) if group is None else group, rng)
    strength = choose_strength(features, targets, fold)
    coefficients, middle = ridge(features, targets, np.array([strength]))
    predicted = targets.mean() + (others - middle) @ coefficients[:, 0]
    return np.asarray(predicted.round(12), dtype=np.float64)


def choose_strength(features: Floats, targets: Floats, fold: NDArray[np.int64]) -> float:
    """The one of `STRENGTHS` whose fits without a fold predict it with the smallest squared error."""
    errors = np.zeros(len(STRENGTHS))
    for k in range(FOLDS):
        held = fold == k
        coefficients, middle = ridge(features[~held], targets[~held], STRENGTHS)
        predicted = targets[~held].mean() + (features[held] - middle) @ coefficients
        errors += ((predicted - targets[held][:, None]) ** 2).sum(axis=0)
    return float(STRENGTHS[np.argmin(errors)])


def ridge(features: Floats, targets: Floats, strengths: Floats) -> tuple[Floats, Floats]:
    """The coefficients (p, L) for each of L strengths s, and the means (p,) taken off the features first.

    b = (A'A + n s I)^-1 A'(y - mean y) with A the (n, p) features less their means.
    """
    middle = features.mean(axis=0)
    centred = features - middle
    values, vectors = np.linalg.eigh(centred.T @ centred)
    turned = vectors.T @ (centred.T @ (targets - targets.mean()))
    shrunk = turned[:, None] / (np.maximum(values, 0.0)[:, None] + len(targets) * strengths)
    return vectors @ shrunk, middle


def _folds(group: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Which of K folds each of n is in, by its network, at random; networks a fold differ by at most one."""
    distinct, number = np.unique(group, return_inverse=True)
    return rng.permutation(np.arange(len(distinct)) % FOLDS)[number]
