"""Real images drawn at random: the baseline that every synthetic set has to beat."""

from dataclasses import dataclass

from torch import Tensor

from distill.formation import LARGEST_FACTOR, encode, require_factor
from distill.methods._pixels import random_positions
from distill.methods.base import MethodConfig, Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """How the images are kept.

    Attributes:
        factor: shrink factor x factor images into each stored one, as matching methods do with
            multi-formation; the baseline of sets that have a factor.
    """

    factor: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.factor <= LARGEST_FACTOR:
            raise ValueError(f"factor must lie in 1..{LARGEST_FACTOR}, not {self.factor}")

    @property
    def across(self) -> int:
        """See `distill.methods.base.MethodConfig`."""
        return self.factor


def distill(problem: Problem, config: Config, session: Session) -> Tensor:  # noqa: ARG001
    """See `distill.methods.base.Method`; the matching methods start from these very images.

    Raises:
        ValueError: if the factor does not cut the images into equal ones.
    """
    require_factor(config.factor, *problem.image_shape[1:])
    return encode(problem.prepare(random_positions(problem, config.factor**2)), config.factor)
