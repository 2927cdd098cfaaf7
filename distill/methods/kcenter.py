"""k-center: greedily add the image farthest from those chosen (Sener and Savarese 2018, arXiv:1708.00489)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods._features import FeatureConfig, select
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config(FeatureConfig):
    """k-center's settings are those of its feature space."""


def greedy_centers(features: Tensor, count: int) -> Tensor:
    """`count` rows of (N, D) that cover the others, int64 (count,), in the order of choice.

    The first is the row nearest the mean; each next one has the largest distance to its nearest chosen
    row, which is within a factor 2 of the best covering radius (Gonzalez 1985).
    """
    first = int((features - features.mean(dim=0)).square().sum(dim=1).argmin())
    chosen = [first]
    nearest = (features - features[first]).square().sum(dim=1)
    while len(chosen) < count:
        # Chosen rows are at distance 0; with duplicates others are too, so exclude them by name.
        candidates = nearest.index_fill(0, torch.tensor(chosen), -1.0)
        chosen.append(int(candidates.argmax()))
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).square().sum(dim=1))
    return torch.tensor(chosen)


def distill(problem: Problem, config: Config, session: Session) -> Tensor:  # noqa: ARG001
    """See `distill.methods.base.Method`."""
    return select(problem, config, greedy_centers)
