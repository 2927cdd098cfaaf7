"""DM, distribution matching: mean features alone (Zhao and Bilen 2023, arXiv:2110.04181)."""

from dataclasses import dataclass

from torch import Tensor

from distill.methods._matching import MatchingConfig, match
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config(MatchingConfig):
    """DM's settings: L = L_MMD, the weights that all have by default. The paper's `batch_real` is 256."""


def distill(problem: Problem, config: Config, session: Session) -> Tensor:
    """See `distill.methods.base.Method`."""
    return match(problem, config, session)
