"""Gradient norm: how steep the loss is at initialisation.

score = sum over convolutions and linear layers of ||dL/dw||_2 (Abdelfattah et al. 2021, arXiv:2101.08134).
"""

from typing import Any

from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, gradients, untrained, weights_of
from atom_nas.estimators.base import SearchData


def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """L is the mean cross-entropy of the minibatch."""
    found = gradients(network, images, labels, weights_of(network))
    return float(sum(gradient.norm() for gradient in found))


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("grad_norm", measure, data, options)
