"""Fisher: how much the loss depends on the presence of single channels.

score = sum over channels of 1/2 * mean over images of (sum over pixels of a * dL/da)^2, a the activated
maps (Theis et al. 2018, arXiv:1801.05787; as a score of architectures, Turner et al. 2020,
arXiv:1906.04113).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atom_nas.estimators._untrained import Untrained, untrained, watched_activations
from atom_nas.estimators.base import SearchData


def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """L is the mean cross-entropy of the minibatch.

    Raises:
        ValueError: the network has no activation layer.
    """
    with watched_activations(network) as seen:
        loss = F.cross_entropy(network(images), labels)
    outputs = [output for _, output in seen]
    found = torch.autograd.grad(loss, outputs, allow_unused=True)
    total = 0.0
    for output, gradient in zip(outputs, found, strict=True):
        if gradient is not None:
            products = (output * gradient).flatten(2).sum(dim=2) if output.dim() > 2 else output * gradient
            total += float(products.detach().square().mean(dim=0).sum() / 2)
    return total


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("fisher", measure, data, options)
