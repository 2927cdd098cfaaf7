"""SynFlow: how much signal reaches the output of the network with all weights made positive.

score = log sum_w w * dR/dw, R = sum of the outputs for an image of ones, all parameters replaced by their
absolute values and normalisation left out (Tanaka et al. 2020, arXiv:2006.05467; as a score of
architectures, Abdelfattah et al. 2021, arXiv:2101.08134). The logarithm, since the sum grows exponentially
with depth. Uses no image.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from atom_nas.estimators._untrained import Untrained, untrained
from atom_nas.estimators.base import SearchData

_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:  # noqa: ARG001
    """In float64, where it does not overflow; -708 (the log of the smallest number) if none passes."""
    network = _without_norms(network).double()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in parameters:
            parameter.abs_()
    signal = network(torch.ones_like(images[:1], dtype=torch.float64)).sum()
    found = torch.autograd.grad(signal, parameters, allow_unused=True)
    flow = sum((p * g).sum() for p, g in zip(parameters, found, strict=True) if g is not None)
    tiny = torch.finfo(torch.float64).smallest_normal
    return float(torch.as_tensor(flow).detach().clamp_min(tiny).log())


def _without_norms(network: nn.Module) -> nn.Module:
    if isinstance(network, _NORMS):
        return nn.Identity()
    for name, child in network.named_children():
        setattr(network, name, _without_norms(child))
    return network


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("synflow", measure, data, options)
