"""DataDAM: spatial attention and mean features (Sajedi et al. 2023, arXiv:2310.00093)."""

from dataclasses import dataclass

from torch import Tensor

from distill.matching import LossWeights
from distill.methods._matching import MatchingConfig, match
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config(MatchingConfig):
    """DataDAM's settings: L = loss_scale * (L_s + lambda_mmd * L_MMD).

    Attributes:
        loss_scale: 100 as in the authors' public code; with a fixed learning rate it sets the step.
        lambda_mmd: weight of the mean features; 0.01 in that code.
        spatial_power: p_s, at least 1, of the attention maps over pixels; 1 in that code.
    """

    loss_scale: float = 100.0
    lambda_mmd: float = 0.01
    spatial_power: float = 1.0

    @property
    def weights(self) -> LossWeights:
        """Of the parts of the loss."""
        return LossWeights(
            spatial=self.loss_scale,
            channel=0.0,
            mmd=self.loss_scale * self.lambda_mmd,
            spatial_power=self.spatial_power,
        )


def distill(problem: Problem, config: Config, session: Session) -> Tensor:
    """See `distill.methods.base.Method`."""
    return match(problem, config, session)
