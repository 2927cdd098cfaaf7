"""ATOM: spatial attention, channel attention and mean features (Khaki et al. 2024, arXiv:2405.01373)."""

from dataclasses import dataclass

from torch import Tensor

from distill.matching import LossWeights
from distill.methods._matching import MatchingConfig, match
from distill.methods.base import Problem
from distill.session import Session

INDEPENDENT_CLASSES = True


@dataclass(frozen=True, kw_only=True)
class Config(MatchingConfig):
    """ATOM's settings: L = loss_scale * (lambda_spatial * L_s + lambda_channel * L_c + lambda_mmd * L_MMD).

    Attributes:
        loss_scale: 100 as in DataDAM's public code; with a fixed learning rate it sets the step.
        lambda_spatial: weight of spatial attention; 1 in the paper.
        lambda_channel: weight of channel attention.
        lambda_mmd: weight of the mean features.
        spatial_power: p_s, at least 1: how strongly an attention map over pixels follows its largest values.
        channel_power: p_c, at least 1: the same over channels.
    """

    loss_scale: float = 100.0
    lambda_spatial: float = 1.0
    lambda_channel: float = 1.0
    lambda_mmd: float = 0.01
    spatial_power: float = 1.0
    channel_power: float = 1.0

    @property
    def weights(self) -> LossWeights:
        """Of the parts of the loss."""
        return LossWeights(
            spatial=self.loss_scale * self.lambda_spatial,
            channel=self.loss_scale * self.lambda_channel,
            mmd=self.loss_scale * self.lambda_mmd,
            spatial_power=self.spatial_power,
            channel_power=self.channel_power,
        )


def distill(problem: Problem, config: Config, session: Session) -> Tensor:
    """See `distill.methods.base.Method`."""
    return match(problem, config, session)
