"""k-center: greedily add the image farthest from those chosen (Sener and Savarese 2018, arXiv:1708.00489)."""

from dataclasses import dataclass

from torch import Tensor

from distill.methods._features import FeatureConfig, greedy_centers, select
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config(FeatureConfig):
    """k-center's settings are those of its feature space."""


def distill(problem: Problem, config: Config, session: Session) -> Tensor:
    """See `distill.methods.base.Method`."""
    return select(problem, config, session, greedy_centers)
