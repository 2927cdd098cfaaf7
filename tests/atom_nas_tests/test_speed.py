"""Scores read off the losses of a training, against loops, scipy and closed forms."""

import math

import numpy as np
import pytest
import scipy.stats

from atom_nas.estimators.speed import EMA_DECAY, decay_rate, ema_loss, speed_scores, tail_loss

LOSSES = [2.3, 1.9, 2.0, 1.4, 1.1, 0.9, 0.95, 0.7, 0.4, 0.35, 0.3, 0.33]


@pytest.mark.parametrize(
    ("epochs", "last"), [(1, 1), (9, 1), (10, 1), (11, 2), (30, 3), (70, 7), (100, 10), (101, 11)]
)
def test_the_tail_is_a_tenth_rounded_up(epochs: int, last: int) -> None:
    losses = [float(2**-epoch) for epoch in range(epochs)]
    assert tail_loss(losses) == sum(losses[-last:])


def test_the_weighted_sum_is_that_of_its_equation() -> None:
    count = len(LOSSES)
    expected = sum(EMA_DECAY ** (count - t) * loss for t, loss in enumerate(LOSSES, start=1))
    assert ema_loss(LOSSES) == pytest.approx(expected, rel=1e-12)
    assert ema_loss([1.0] * 400) == pytest.approx(1 / (1 - EMA_DECAY))
    assert ema_loss(LOSSES[:1]) == LOSSES[0]


def test_the_decay_rate_is_minus_scipys_slope() -> None:
    for losses in (LOSSES, LOSSES[:2], LOSSES[3:10]):
        slope = scipy.stats.linregress(np.arange(1, len(losses) + 1), np.log(losses)).slope
        assert decay_rate(losses) == pytest.approx(-slope, rel=1e-10)


def test_the_decay_rate_of_a_decay_is_its_rate() -> None:
    assert decay_rate([3.0 * math.exp(-0.07 * t) for t in range(25)]) == pytest.approx(0.07)
    assert decay_rate([1.7] * 9) == 0.0
    assert decay_rate([1.0, 2.0]) == pytest.approx(-math.log(2))
    assert math.isfinite(decay_rate([1.0, 0.0, 0.0]))


def test_one_epoch_has_no_rate() -> None:
    assert speed_scores([0.8]) == {"tail_training_loss": 0.8, "ema_training_loss": 0.8}
    assert set(speed_scores([0.8, 0.7])) == {"tail_training_loss", "ema_training_loss", "training_loss_decay"}
