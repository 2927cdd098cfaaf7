"""DC, dataset condensation by gradient matching (Zhao, Mopuri and Bilen 2021, arXiv:2006.05929)."""

from dataclasses import dataclass

from torch import Tensor

from distill.methods._bilevel import BilevelConfig
from distill.methods._gradients import condense
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = False


@dataclass(frozen=True, kw_only=True)
class Config(BilevelConfig):
    """DC's settings: the engine's. Images are not augmented; the paper starts from noise."""


def distill(problem: Problem, config: Config, session: Session) -> Tensor:
    """See `distill.methods.base.Method`."""
    return condense(problem, config, "none", session)
