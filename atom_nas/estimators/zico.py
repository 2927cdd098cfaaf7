"""ZiCo: how steep the loss is, against how much that varies from image to image.

score = sum over layers of log( sum_w mean_b |g_w| / std_b g_w ), g_w = dL/dw of each of some parts b of the
minibatch, over the weights whose deviation is not zero (Li et al. 2023, arXiv:2301.11300).
"""

from typing import Any

import torch
from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, gradients, untrained, weights_of
from atom_nas.estimators.base import SearchData

PARTS = 2
"""The paper uses two minibatches."""


def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """L is the mean cross-entropy of a part; layers whose gradients do not vary count nothing."""
    weights = weights_of(network)
    parts = zip(images.chunk(PARTS), labels.chunk(PARTS), strict=True)
    found = [gradients(network, *part, weights) for part in parts]
    total = 0.0
    for layer in zip(*found, strict=True):
        stacked = torch.stack(layer).double()
        deviation = stacked.std(dim=0, correction=0)
        varies = deviation != 0  # NaN too: it shall be seen
        if bool(varies.any()):
            ratio = stacked.abs().mean(dim=0)[varies] / deviation[varies]
            total += float(ratio.sum().log())
    return total


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("zico", measure, data, options)
