"""The feature space in which coresets are selected: a ConvNet trained briefly on the real images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.base import Problem
from distill.networks import ConvNet, convnet, fitting_depth
from distill.seeding import derive_seed, stream
from distill.training import TrainingConfig, train

_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """The network that gives the features.

    Attributes:
        feature_epochs: passes over the real images; 0 takes an untrained network.
        width: channels of each block.
    """

    feature_epochs: int = 5
    width: int = 128

    def __post_init__(self) -> None:
        if self.feature_epochs < 0 or self.width < 1:
            raise ValueError("feature_epochs must not be negative and width must be positive")

    @property
    def uses_all_classes(self) -> bool:
        """Whether images of all classes are needed, also where only some classes are worked on."""
        return self.feature_epochs > 0


def select(problem: Problem, config: FeatureConfig, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The real images that `choose` picks among each class's embeddings.

    Args:
        choose: (embeddings (N, D), count) to int64 rows (count,).
    Returns:
        float32 (K*I, C, H, W) in model space, on the CPU.
    """
    chosen = [
        pool[choose(features, problem.ipc)]
        for pool, features in zip(problem.pools(), embed(problem, config), strict=True)
    ]
    return problem.prepare(torch.cat(chosen))


def embed(problem: Problem, config: FeatureConfig) -> list[Tensor]:
    """Embeddings of the real images, class by class: K tensors float32 (N_k, D) on the CPU."""
    network = convnet(
        problem.image_shape,
        len(problem.classes),
        depth=fitting_depth(problem.image_shape),
        width=config.width,
        generator=stream(problem.seed, "features"),
    )
    network.to(problem.device)
    if config.feature_epochs:
        train(
            network,
            problem.real.images,
            problem.real.labels,
            config=TrainingConfig(epochs=config.feature_epochs, augmentation="none"),
            seed=derive_seed(problem.seed, "features"),
            device=problem.device,
            preprocessing=problem.preprocessing,
        )
    return [_embed_class(network.eval(), problem, pool) for pool in problem.pools()]


@torch.no_grad()
def _embed_class(network: ConvNet, problem: Problem, positions: Tensor) -> Tensor:
    preprocessing = problem.preprocessing.to(problem.device)
    batches = (problem.real.images[batch].to(problem.device) for batch in positions.split(_BATCH))
    return torch.cat([network.features(preprocessing(batch))[1].cpu() for batch in batches])
