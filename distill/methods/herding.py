"""Herding: greedily keep the mean of the chosen images near the class mean (Welling 2009)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods._features import FeatureConfig, select
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config(FeatureConfig):
    """Herding's settings are those of its feature space."""


def herd(features: Tensor, count: int) -> Tensor:
    """The first `count` herded rows of (N, D), int64 (count,), in the order of choice.

    Row i + 1 is the unchosen x that minimises || mean - (x + sum of the i chosen) / (i + 1) ||.
    """
    mean, total = features.mean(dim=0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool)
    chosen = []
    for size in range(1, count + 1):
        distances = (mean - (features + total) / size).square().sum(dim=1)
        pick = int(distances.masked_fill(~free, float("inf")).argmin())
        chosen.append(pick)
        free[pick] = False
        total = total + features[pick]
    return torch.tensor(chosen)


def distill(problem: Problem, config: Config, session: Session) -> Tensor:  # noqa: ARG001
    """See `distill.methods.base.Method`."""
    return select(problem, config, herd)
