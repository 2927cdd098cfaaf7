"""Scores made into one ruler: against plain loops and scikit-learn, and that nothing leaks."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from reports import combining
from reports.combining import (
    FEWEST,
    FOLDS,
    STRENGTHS,
    choose_strength,
    mean_of_ranks,
    out_of_fold,
    predict,
    ridge,
    standard_ranks,
)

Floats = NDArray[np.float64]


def agreement(x: Floats, y: Floats) -> float:
    return float(scipy.stats.spearmanr(x, y).statistic)


def test_the_mean_of_ranks_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, size=(3, 30)).astype(float)  # many ties
    scores[1, 4] = scores[2, 9] = np.nan
    found, weighted = mean_of_ranks(list(scores)), mean_of_ranks(list(scores), [3, 1, 0.5])
    whole = [i for i in range(30) if i not in (4, 9)]
    for i in range(30):
        if i not in whole:
            assert np.isnan([found[i], weighted[i]]).all()
            continue
        ranks = [
            sum(row[j] < row[i] for j in whole) + (sum(row[j] == row[i] for j in whole) + 1) / 2
            for row in scores
        ]
        assert found[i] == pytest.approx(sum(ranks) / 3 / 28)
        assert weighted[i] == pytest.approx((3 * ranks[0] + ranks[1] + 0.5 * ranks[2]) / 4.5 / 28)


def test_fractions_of_weights_tie_what_whole_ones_tie() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        scores = list(rng.permuted(np.tile(np.arange(60.0), (4, 1)), axis=1))
        whole, parts = mean_of_ranks(scores, [3, 1, 1, 1]), mean_of_ranks(scores, [0.3, 0.1, 0.1, 0.1])
        assert len(set(whole)) == len(set(parts)) < 60
        assert parts == pytest.approx(whole)


def test_the_mean_of_equal_orders_is_that_order_and_of_opposite_ones_none() -> None:
    x = np.random.default_rng(1).normal(size=25)
    assert agreement(mean_of_ranks([x, np.exp(x)]), x) == pytest.approx(1.0)
    assert len(set(mean_of_ranks([x, -x]))) == 1


def test_ridge_is_scikit_learns_and_that_of_its_equation() -> None:
    rng = np.random.default_rng(2)
    features, targets = rng.normal(size=(40, 5)) + 3, rng.normal(size=40)
    coefficients, middle = ridge(features, targets, STRENGTHS)
    for column, strength in zip(coefficients.T, STRENGTHS, strict=True):
        assert column == pytest.approx(Ridge(alpha=40 * strength).fit(features, targets).coef_, rel=1e-8)
        centred = features - middle
        left = centred.T @ centred + 40 * strength * np.eye(5)
        assert left @ column == pytest.approx(centred.T @ (targets - targets.mean()))


def test_the_strength_is_chosen_as_a_loop_over_folds_does() -> None:
    rng = np.random.default_rng(3)
    chosen = set()
    for signal in (0.0, 0.5, 3.0):
        features = rng.normal(size=(37, 6))
        targets = signal * features[:, 0] + rng.normal(size=37)
        fold = rng.permutation(np.arange(37) % FOLDS)
        errors = []
        for strength in STRENGTHS:
            error = 0.0
            for k in range(FOLDS):
                kept = [i for i in range(37) if fold[i] != k]
                model = Ridge(alpha=len(kept) * strength).fit(features[kept], targets[kept])
                error += sum(
                    (model.predict(features[[i]])[0] - targets[i]) ** 2 for i in range(37) if fold[i] == k
                )
            errors.append(error)
        chosen.add(choose_strength(features, targets, fold))
        assert choose_strength(features, targets, fold) == STRENGTHS[int(np.argmin(errors))]
    assert len(chosen) > 1


def test_a_constant_score_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(3, 30)), rng.normal(size=30)
    found = out_of_fold(list(x), y, rng=np.random.default_rng(7))
    again = out_of_fold([*x, np.full(30, 5.0)], y, rng=np.random.default_rng(7))
    assert found == pytest.approx(again)


def test_monotone_changes_of_scores_and_reference_change_nothing() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(3, 30)), rng.normal(size=30)
    found = out_of_fold(list(x), y, rng=np.random.default_rng(7))
    again = out_of_fold([np.exp(x[0]), x[1] ** 3, 9 * x[2]], np.arctan(y), rng=np.random.default_rng(7))
    assert np.array_equal(found, again)


def test_no_prediction_depends_on_the_reference_of_its_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reference of one architecture, the places in its fold stay to the bit; others move."""
    monkeypatch.setattr(combining, "REPEATS", 1)
    rng = np.random.default_rng(6)
    known = rng.normal(size=30)
    scores = [known + rng.normal(size=30) for _ in range(3)]
    fold = np.random.default_rng(8).permutation(np.arange(30) % FOLDS)
    before = out_of_fold(scores, known, rng=np.random.default_rng(8))
    moved = 0
    for changed in range(30):
        for value in (-100.0, 0.0, 100.0):
            y = known.copy()
            y[changed] = value
            after = out_of_fold(scores, y, rng=np.random.default_rng(8))
            same = fold == fold[changed]
            assert np.array_equal(before[same], after[same])
            moved += not np.array_equal(before[~same], after[~same])
    assert moved > 30


def left_one_out(scores: list[Floats], y: Floats, rng: np.random.Generator) -> Floats:
    """The obvious way, which leaks: predictions of as many fits are pooled as they are."""
    features, count = standard_ranks(np.stack(scores)), len(y)
    others = [np.arange(count) != i for i in range(count)]
    return np.array([predict(features[o], y[o], features[~o], rng=rng)[0] for o in others])


@pytest.mark.slow
def test_scores_that_say_nothing_agree_with_nothing() -> None:
    """Mean out-of-fold Spearman over 240 samples: 0 within 3.5 standard errors of .21 / sqrt(240), .05.

    Leaving one out is centred at -.10, and what is fitted is far above 0: the band tells both apart.
    """
    found, fitted, pooled = [], [], []
    for seed in range(240):
        rng = np.random.default_rng([9, seed])
        scores, y = list(rng.normal(size=(6, 48))), rng.normal(size=48)
        found.append(agreement(out_of_fold(scores, y, rng=rng), y))
        if seed < 60:
            features = standard_ranks(np.stack(scores))
            fitted.append(agreement(predict(features, y, features, rng=rng), y))
            pooled.append(agreement(left_one_out(scores, y, rng), y))
    assert abs(np.mean(found)) < 0.05
    assert np.mean(fitted) > 0.2
    assert np.mean(pooled) < -0.05


def test_scores_that_say_something_come_close_to_their_best_combination() -> None:
    """Over 8 samples of 200: within .03 of the combination that made the reference, above any one score."""
    found, best, single = [], [], []
    for seed in range(8):
        rng = np.random.default_rng([10, seed])
        scores = rng.normal(size=(5, 200))
        truth = 2 * scores[0] + scores[1] - scores[2]  # the other two say nothing
        y = truth + 1.5 * rng.normal(size=200)
        found.append(agreement(out_of_fold(list(scores), y, rng=rng), y))
        best.append(agreement(truth, y))
        single.append(max(abs(agreement(score, y)) for score in scores))
    assert np.mean(best) - 0.03 < np.mean(found) < np.mean(best) + 0.01
    assert np.mean(found) > np.mean(single) + 0.05


def test_what_is_missing_is_left_out() -> None:
    rng = np.random.default_rng(11)
    y = rng.normal(size=30)
    scores = [y + rng.normal(size=30) for _ in range(2)]
    y[3], scores[1][7] = np.nan, np.inf
    found = out_of_fold(scores, y, rng=np.random.default_rng(0))
    assert np.isnan(found).nonzero()[0].tolist() == [3, 7]
    kept = np.isfinite(found)
    alone = out_of_fold([score[kept] for score in scores], y[kept], rng=np.random.default_rng(0))
    assert np.array_equal(found[kept], alone)
    assert (alone > 0).all()
    assert (alone < 1).all()


def test_too_few_are_refused() -> None:
    x = np.arange(float(FEWEST))
    assert agreement(out_of_fold([x, x], x, rng=np.random.default_rng(0)), x) > 0.95
    with pytest.raises(ValueError, match=f"a fit takes {FEWEST} networks .* not {FEWEST - 1}"):
        out_of_fold([x[1:], x[1:]], x[1:], rng=np.random.default_rng(0))
