"""NASWOT: how differently the images of a minibatch switch the network's units.

score = log det K, K_ij = sum over units of [code_i = code_j], where a unit's code of an image is whether
its input is positive (Mellor et al. 2021, "Neural architecture search without training", arXiv:2006.04647).
Units on which the output does not depend are not counted, as in the authors' code: they are no part of the
function that the network is, and by them isomorphic cells would have different scores.
"""

from typing import Any

import torch
from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, untrained, watched_activations
from atom_nas.estimators.base import SearchData

VERSION = 2
"""The first counted all units."""


def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:  # noqa: ARG001
    """Over all activation layers that the output depends on.

    Raises:
        ValueError: the network has none.
    """
    with watched_activations(network) as seen:
        # Of the images, so that what depends on them alone has a history, too.
        steps = _history(network(images.clone().requires_grad_()))
    counted = [inputs.detach() for inputs, output in seen if output.grad_fn in steps]
    if not counted:
        raise ValueError("the network's output depends on no activation layer")
    kernel = images.new_zeros((len(images), len(images)), dtype=torch.float64)
    for inputs in counted:
        if not bool(inputs.isfinite().all()):
            return float("nan")
        code = (inputs.flatten(1) > 0).double()
        kernel += code @ code.T + (1 - code) @ (1 - code).T
    # Two images with one code make it singular; the logarithm of the smallest number then stands for zero.
    values = torch.linalg.eigvalsh(kernel).clamp_min(torch.finfo(torch.float64).eps)
    return float(values.log().sum())


def _history(result: Tensor) -> set[Any]:
    """Every step of autograd's graph by which a tensor was computed."""
    found: set[Any] = set()
    left = [result.grad_fn]
    while left:
        step = left.pop()
        if step is not None and step not in found:
            found.add(step)
            left += [earlier for earlier, _ in step.next_functions]
    return found


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("naswot", measure, data, options, VERSION)
