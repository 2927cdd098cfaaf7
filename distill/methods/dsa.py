"""DSA, gradient matching under siamese augmentation (Zhao and Bilen 2021, arXiv:2102.08259)."""

from dataclasses import dataclass

from torch import Tensor

from distill.augment import parse_strategy
from distill.methods._bilevel import BilevelConfig
from distill.methods._gradients import condense
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = False


@dataclass(frozen=True, kw_only=True)
class Config(BilevelConfig):
    """DSA's settings: DC's, and the augmentation.

    Attributes:
        augmentation: `dsa`, `none`, or transforms joined by `_` (color, crop, cutout, flip, scale, rotate);
            the same for a class's real and synthetic images, and for each image that the network is trained
            on with parameters of its own.
    """

    augmentation: str = "dsa"

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_strategy(self.augmentation)


def distill(problem: Problem, config: Config, session: Session) -> Tensor:
    """See `distill.methods.base.Method`."""
    return condense(problem, config, config.augmentation, session)
