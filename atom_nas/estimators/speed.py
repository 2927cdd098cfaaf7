"""Training speed as a ruler: what the losses of a training's epochs say; pure functions.

Letters: E epochs, l_t the mean training loss of epoch t = 1..E. Ref: Ru et al. 2021, "Speedy performance
estimation for neural architecture search", arXiv:2006.04492 (TSE, TSE-E, TSE-EMA). TSE
itself and the last epoch's loss are properties of `distill.training.TrainingRecord`.
"""

import math
from collections.abc import Sequence

EMA_DECAY = 0.9
"""Of TSE-EMA, an epoch: weights of about the last ten. Closer to 1 it is the plain sum again."""
TAIL = 0.1
_SMALLEST = 1e-30
"""A loss of 0, which float32 can reach, has no logarithm."""


def speed_scores(losses: Sequence[float]) -> dict[str, float]:
    """All that are here by the names that `reports.scores` knows; the decay rate from two epochs on."""
    scores = {
        "tail_training_loss": tail_loss(losses),
        "ema_training_loss": ema_loss(losses),
    }
    return scores | ({"training_loss_decay": decay_rate(losses)} if len(losses) > 1 else {})


def tail_loss(losses: Sequence[float]) -> float:
    """TSE-E: the sum of l_t over the last tenth of the epochs, rounded up."""
    return sum(losses[-math.ceil(round(TAIL * len(losses), 9)) :])


def ema_loss(losses: Sequence[float]) -> float:
    """TSE-EMA: the sum over t of gamma^(E - t) l_t, gamma = `EMA_DECAY`."""
    total = 0.0
    for loss in losses:
        total = EMA_DECAY * total + loss
    return total


def decay_rate(losses: Sequence[float]) -> float:
    """Minus the slope of log l_t over t by least squares: how fast the loss falls, an epoch. Needs E >= 2.

    -sum_t (t - mean t) log l_t / sum_t (t - mean t)^2
    """
    middle = (len(losses) - 1) / 2
    logs = [math.log(max(loss, _SMALLEST)) for loss in losses]
    falling = sum((middle - epoch) * log for epoch, log in enumerate(logs))
    return falling / sum((epoch - middle) ** 2 for epoch in range(len(losses)))
