"""NASWOT: how differently the images of a minibatch switch the network's units.

score = log det K, K_ij = sum over units of [code_i = code_j], where a unit's code of an image is whether
its input is positive (Mellor et al. 2021, "Neural architecture search without training", arXiv:2006.04647).
"""

from typing import Any

import torch
from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, untrained, watched_activations
from atom_nas.estimators.base import SearchData


@torch.no_grad()
def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:  # noqa: ARG001
    """Over all activation layers.

    Raises:
        ValueError: the network has none.
    """
    with watched_activations(network) as seen:
        network(images)
    kernel = images.new_zeros((len(images), len(images)), dtype=torch.float64)
    for inputs, _ in seen:
        if not bool(inputs.isfinite().all()):
            return float("nan")
        code = (inputs.flatten(1) > 0).double()
        kernel += code @ code.T + (1 - code) @ (1 - code).T
    # Two images with one code make it singular; the logarithm of the smallest number then stands for zero.
    values = torch.linalg.eigvalsh(kernel).clamp_min(torch.finfo(torch.float64).eps)
    return float(values.log().sum())


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("naswot", measure, data, options)
