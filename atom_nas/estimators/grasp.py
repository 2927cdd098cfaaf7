"""GraSP: how much removing single weights would change the flow of gradients.

score = - sum_w w * (H g)_w, g = dL/dw and H the Hessian, over convolutions and linear layers (Wang, Zhang
and Grosse 2020, arXiv:2002.07376; as a score of architectures, Abdelfattah et al. 2021, arXiv:2101.08134).
"""

from typing import Any

import torch
from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, gradients, untrained, weights_of
from atom_nas.estimators.base import SearchData


def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """L is the mean cross-entropy of the minibatch; the product H g is a second backward pass."""
    weights = weights_of(network)
    found = gradients(network, images, labels, weights, create_graph=True)
    product = sum((gradient * gradient.detach()).sum() for gradient in found)
    curved = torch.autograd.grad(torch.as_tensor(product), weights, allow_unused=True)
    pairs = zip(weights, curved, strict=True)
    return float(-sum((weight.detach() * part).sum() for weight, part in pairs if part is not None))


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("grasp", measure, data, options)
