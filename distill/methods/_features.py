"""The feature space in which coresets are selected: a ConvNet trained briefly on the real images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.attention import runs_fused
from distill.methods.base import MethodConfig, Problem
from distill.networks import WIDEST, ConvNet, convnet, fitting_depth
from distill.seeding import derive_seed, stream
from distill.session import Session
from distill.training import TrainingConfig, train

_BATCH = 500
_TRAINING = "training the network in whose features images are chosen, epochs"

Choose = Callable[[Tensor, int], Tensor]
"""(embeddings (N, D), count up to N) to int64 rows (count,), in the order of choice."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(MethodConfig):
    """The network that gives the features.

    Attributes:
        feature_epochs: passes over the real images; 0 takes an untrained network.
        width: channels of each block.
    """

    feature_epochs: int = 5
    width: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feature_epochs < 0 or self.width < 1:
            raise ValueError("feature_epochs must not be negative and width must be positive")
        if self.width > WIDEST:
            raise ValueError(f"width must be at most {WIDEST}, not {self.width}")

    @property
    def uses_all_classes(self) -> bool:
        """See `distill.methods.base.MethodConfig`."""
        return self.feature_epochs > 0

    def kernels(self, device: torch.device) -> str:
        """See `distill.methods.base.MethodConfig`."""
        return "fused" if runs_fused(self.width, device) else "eager"


def select(problem: Problem, config: FeatureConfig, session: Session, choose: Choose) -> Tensor:
    """The real images that `choose` picks among each class's embeddings.

    Returns:
        float32 (K*I, C, H, W) in model space, on the CPU.
    """
    return problem.prepare(selected_positions(problem, config, session, choose))


def selected_positions(
    problem: Problem, config: FeatureConfig, session: Session, choose: Choose, each: int = 1
) -> Tensor:
    """I*each positions of each class, in the order in which `choose` picks them: int64 (K*I*each,).

    Without repeats, as long as the class has that many.
    """
    count = problem.ipc * each
    chosen = []
    for pool, features in zip(problem.pools(), embed(problem, config, session), strict=True):
        picked = pool[choose(features, min(count, len(pool)))]
        chosen.append(picked.repeat(-(-count // len(picked)))[:count])
    return torch.cat(chosen)


def embed(problem: Problem, config: FeatureConfig, session: Session) -> list[Tensor]:
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
        _train(network, problem, config, session)
    return [_embed_class(network.eval(), problem, pool) for pool in problem.pools()]


def _train(network: ConvNet, problem: Problem, config: FeatureConfig, session: Session) -> None:
    try:
        train(
            network,
            problem.real.images,
            problem.real.labels,
            config=TrainingConfig(epochs=config.feature_epochs, augmentation="none"),
            seed=derive_seed(problem.seed, "features"),
            device=problem.device,
            preprocessing=problem.preprocessing,
            on_epoch=lambda done: session.preparing(_TRAINING, done, config.feature_epochs),
        )
    except FloatingPointError as error:
        raise ValueError(
            f"{error} of the network whose features choose images; feature_epochs=0 leaves it untrained"
        ) from None


@torch.no_grad()
def _embed_class(network: ConvNet, problem: Problem, positions: Tensor) -> Tensor:
    preprocessing = problem.preprocessing.to(problem.device)
    batches = (problem.real.images[batch].to(problem.device) for batch in positions.split(_BATCH))
    return torch.cat([network.features(preprocessing(batch))[1].cpu() for batch in batches])


def herd(features: Tensor, count: int) -> Tensor:
    """The first `count` herded rows of (N, D), int64 (count,), in the order of choice.

    Row i + 1 is the unchosen x that minimises || mean - (x + sum of the i chosen) / (i + 1) ||.
    """
    mean, total = features.mean(dim=0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool)
    chosen = []
    for size in range(1, count + 1):
        distances = (mean - (features + total) / size).square().sum(dim=1)
        pick = int(distances.masked_fill(~free, float("inf")).argmin())
        chosen.append(pick)
        free[pick] = False
        total = total + features[pick]
    return torch.tensor(chosen)


def greedy_centers(features: Tensor, count: int) -> Tensor:
    """`count` rows of (N, D) that cover the others, int64 (count,), in the order of choice.

    The first is the row nearest the mean; each next one has the largest distance to its nearest chosen
    row, which is within a factor 2 of the best covering radius (Gonzalez 1985).
    """
    first = int((features - features.mean(dim=0)).square().sum(dim=1).argmin())
    chosen = [first]
    nearest = (features - features[first]).square().sum(dim=1)
    while len(chosen) < count:
        # Chosen rows are at distance 0; with duplicates others are too, so exclude them by name.
        candidates = nearest.index_fill(0, torch.tensor(chosen), -1.0)
        chosen.append(int(candidates.argmax()))
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).square().sum(dim=1))
    return torch.tensor(chosen)


CORESETS: dict[str, Choose] = {"herding": herd, "kcenter": greedy_centers}
