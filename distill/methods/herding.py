"""Herding: greedily keep the mean of the chosen images near the class mean (Welling 2009)."""

from dataclasses import dataclass

from torch import Tensor

from distill.methods._features import FeatureConfig, herd, select
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config(FeatureConfig):
    """Herding's settings are those of its feature space."""


def distill(problem: Problem, config: Config, session: Session) -> Tensor:
    """See `distill.methods.base.Method`."""
    return select(problem, config, session, herd)
