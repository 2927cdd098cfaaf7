"""SNIP: how much the loss depends on the presence of single weights.

score = sum_w |w * dL/dw| over convolutions and linear layers (Lee et al. 2019, arXiv:1810.02340; as a score
of architectures, Abdelfattah et al. 2021, arXiv:2101.08134).
"""

from typing import Any

from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, gradients, untrained, weights_of
from atom_nas.estimators.base import SearchData


def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """L is the mean cross-entropy of the minibatch."""
    weights = weights_of(network)
    pairs = zip(weights, gradients(network, images, labels, weights), strict=True)
    return float(sum((weight.detach() * gradient).abs().sum() for weight, gradient in pairs))


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("snip", measure, data, options)
