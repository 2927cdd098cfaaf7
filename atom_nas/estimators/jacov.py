"""Jacobian covariance: how differently the outputs of a minibatch's images depend on their pixels.

score = - sum_i (log(v_i + k) + 1 / (v_i + k)), v the eigenvalues of the correlation matrix of the rows
d(sum of outputs)/d(image), k = 1e-5 (Mellor et al. 2020, first version of arXiv:2006.04647).
"""

from typing import Any

import torch
from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, untrained
from atom_nas.estimators.base import SearchData

_K = 1e-5


def measure(network: nn.Module, images: Tensor, labels: Tensor) -> float:  # noqa: ARG001
    """A constant network, whose Jacobian has no correlations, gives the lowest value that there is."""
    images = images.clone().requires_grad_(True)
    (jacobian,) = torch.autograd.grad(network(images).sum(), images)
    rows = jacobian.flatten(1).double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    # A row of zeros stays one: its correlations are zero, not undefined.
    rows = torch.nn.functional.normalize(rows, dim=1)
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0.0) + _K
    return float(-(values.log() + 1 / values).sum())


def estimator(data: SearchData, **options: Any) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return untrained("jacov", measure, data, options)
