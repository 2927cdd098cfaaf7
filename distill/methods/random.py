"""Real images drawn at random: the baseline that every synthetic set has to beat."""

from dataclasses import dataclass

from torch import Tensor

from distill.methods._pixels import random_positions
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config:
    """There is nothing to set."""


def distill(problem: Problem, config: Config, session: Session) -> Tensor:  # noqa: ARG001
    """See `distill.methods.base.Method`; the matching methods start from these very images."""
    return problem.prepare(random_positions(problem))
