"""The matching losses: pure functions of feature maps; no model, data or I/O.

Letters: K classes, B images a class, N = K*B images, C channels, H x W map, D statistics.
Images of one class stand together: image n belongs to class n // B.

L = spatial * L_s + channel * L_c + mmd * L_MMD, one form for the whole family: DM is L_MMD alone
(Zhao and Bilen 2023, arXiv:2110.04181), DataDAM adds L_s (Sajedi et al. 2023, arXiv:2310.00093), ATOM
adds L_c as well (Khaki et al. 2024, arXiv:2405.01373).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """How much each part counts; a part of weight zero is neither computed nor added.

    Attributes:
        spatial, channel, mmd: weights of L_s, L_c and L_MMD, finite and not negative.
        spatial_power, channel_power: p_s and p_c, the powers inside the attention sums, finite, at least 1.
    Raises:
        ValueError: on other weights or powers, or if all weights are zero.
    """

    spatial: float
    channel: float
    mmd: float
    spatial_power: float = 1.0
    channel_power: float = 1.0

    def __post_init__(self) -> None:
        weights = (self.spatial, self.channel, self.mmd)
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ValueError(
                "loss weights must be finite and not negative, and at least one must be positive, not "
                f"{self.spatial:g} of spatial attention, {self.channel:g} of channel attention and "
                f"{self.mmd:g} of mean features"
            )
        if not all(1 <= power < math.inf for power in (self.spatial_power, self.channel_power)):
            raise ValueError(
                f"attention powers must be finite and at least 1, not {self.spatial_power} and "
                f"{self.channel_power}: below 1 the gradient is infinite wherever a unit is dead"
            )


@dataclass(frozen=True)
class MatchingLoss:
    """The weighted parts, each a non-negative (K,) vector, one value a class."""

    spatial: Tensor
    channel: Tensor
    mmd: Tensor

    @property
    def per_class(self) -> Tensor:
        """(K,)."""
        return self.spatial + self.channel + self.mmd

    @property
    def total(self) -> Tensor:
        """The scalar that is minimised: the sum over classes."""
        return self.per_class.sum()


def spatial_sums(features: Tensor, power: float) -> Tensor:
    """sum_c |f_chw|^power: (N, C, H, W) -> (N, H*W).

    Needs power >= 1: below 1 the gradient is NaN wherever a unit is dead (f = 0).
    """
    return _powered(features, power).sum(dim=1).flatten(1)


def channel_sums(features: Tensor, power: float) -> Tensor:
    """sum_hw |f_chw|^power: (N, C, H, W) -> (N, C). Needs power >= 1, as `spatial_sums`."""
    return _powered(features, power).sum(dim=(2, 3))


def _powered(features: Tensor, power: float) -> Tensor:
    magnitudes = features.abs()
    return magnitudes if power == 1 else magnitudes.pow(power)


def class_means(statistics: Tensor, classes: int) -> Tensor:
    """Mean over the images of each class: (K*B, D) -> (K, D)."""
    return statistics.view(classes, -1, statistics.shape[1]).mean(dim=1)


@dataclass(frozen=True)
class Sums:
    """What is read off the features of N images.

    Attributes:
        spatial: one (N, H_l*W_l) a layer below the last, none where L_s is not used.
        channel: one (N, C_l) a layer below the last, none where L_c is not used.
        embedding: (N, D), the flattened last feature.
    """

    spatial: Sequence[Tensor]
    channel: Sequence[Tensor]
    embedding: Tensor


@dataclass(frozen=True)
class Statistics:
    """Class means of what is matched.

    Attributes:
        spatial: one (K, H_l*W_l) a layer below the last.
        channel: one (K, C_l) a layer below the last.
        embedding: (K, D), or None when L_MMD is not used.
    """

    spatial: Sequence[Tensor]
    channel: Sequence[Tensor]
    embedding: Tensor | None


def statistics(
    maps: Sequence[Tensor], embedding: Tensor, *, classes: int, weights: LossWeights
) -> Statistics:
    """Reduce the features of one batch to the class means that `weights` asks for.

    Args:
        maps: L feature maps (N, C_l, H_l, W_l); the last is left out, since the embedding stands for it.
        embedding: (N, D), the flattened last feature.
        classes: K; N must be a multiple of it.
    Raises:
        ValueError: if N is not a multiple of `classes`.
    """
    lower = [features.float() for features in maps[:-1]]
    sums = Sums(
        spatial=[spatial_sums(f, weights.spatial_power) for f in lower] if weights.spatial else [],
        channel=[channel_sums(f, weights.channel_power) for f in lower] if weights.channel else [],
        embedding=embedding.float(),
    )
    return reduce_sums(sums, classes=classes, weights=weights)


def reduce_sums(sums: Sums, *, classes: int, weights: LossWeights) -> Statistics:
    """Attention is the sums of each image at unit L2 norm; it is averaged over the images of each class.

    Raises:
        ValueError: if N is not a multiple of `classes`.
    """
    count = len(sums.embedding)
    if count % classes:
        raise ValueError(f"{count} images do not divide into {classes} classes of equal size")
    return Statistics(
        spatial=[class_means(F.normalize(layer, dim=1), classes) for layer in sums.spatial],
        channel=[class_means(F.normalize(layer, dim=1), classes) for layer in sums.channel],
        embedding=class_means(sums.embedding, classes) if weights.mmd else None,
    )


def matching_loss(real: Statistics, synthetic: Statistics, *, weights: LossWeights) -> MatchingLoss:
    """Sum over layers of || mean_n a(real) - mean_n a(synthetic) ||^2 for each attention, plus MMD.

    Args:
        real: a constant target.
        synthetic: of the same network, layers and classes; differentiable.
        weights: as given to `statistics`.
    Returns:
        The weighted parts per class, differentiable in `synthetic` only.
    Raises:
        ValueError: if the number of layers or a statistic's shape differs.
    """
    spatial = _distances(real.spatial, synthetic.spatial)
    channel = _distances(real.channel, synthetic.channel)
    embedding = _distances(_listed(real.embedding), _listed(synthetic.embedding))
    parts = [(weights.spatial, spatial), (weights.channel, channel), (weights.mmd, embedding)]
    present = next(distance for _, distance in parts if distance is not None)
    spatial_loss, channel_loss, mmd_loss = (
        present.new_zeros(present.shape) if distance is None else weight * distance
        for weight, distance in parts
    )
    return MatchingLoss(spatial_loss, channel_loss, mmd_loss)


def _listed(embedding: Tensor | None) -> list[Tensor]:
    return [] if embedding is None else [embedding]


def _distances(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor | None:
    """Sum over layers of squared distances: pairs of (K, D_l) -> (K,); None where there is no layer."""
    if len(real) != len(synthetic):
        raise ValueError(f"real statistics have {len(real)} layers, synthetic ones {len(synthetic)}")
    total = None
    for target, source in zip(real, synthetic, strict=True):
        if target.shape != source.shape:
            raise ValueError(f"real statistics are {tuple(target.shape)}, synthetic {tuple(source.shape)}")
        distance = (target.detach() - source).square().sum(dim=1)
        total = distance if total is None else total + distance
    return total
