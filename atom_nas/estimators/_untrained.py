"""What the training-free estimators share: one minibatch, one number, a network that is left as it was."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atom_nas.estimators.base import (
    SCORING_VERSION,
    SearchData,
    configure,
    fingerprint,
    preprocessing_fingerprint,
)
from distill.leg import Leg
from distill.seeding import stream
from distill.validation import require_types

Measure = Callable[[nn.Module, Tensor, Tensor], float]
"""network on the device, images (N, C, H, W) in model space, labels int64 (N,) -> the score."""
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Hardswish, nn.ELU)
WEIGHTED = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True, kw_only=True)
class UntrainedConfig:
    """What the measure looks at.

    Attributes:
        images: `synthetic` takes the minibatch from the synthetic set, `real` from the training images.
        batch_size: of that minibatch, with equal shares per class; of all images where there are fewer. Where
            there are more classes than that, one image of as many of them, chosen at random.
        subset_seed: of its draw.
    """

    images: Literal["synthetic", "real"] = "synthetic"
    batch_size: int = 64
    subset_seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, not {self.batch_size}")


class Untrained:
    """Scores a freshly initialised network by a measure of it and one minibatch.

    Args:
        name: of the estimator, and of its score.
        measure: the measure.
        data: where the minibatch is drawn from.
        config: how.
        version: of the measure, from 1 on: scores by an earlier one are forgotten where a run goes on.
    """

    def __init__(
        self, name: str, measure: Measure, data: SearchData, config: UntrainedConfig, version: int = 1
    ) -> None:
        self.name = name
        self.config = config
        self._version = {"measure": version} if version > 1 else {}
        self._measure = measure
        real = config.images == "real"
        labels = data.fit.labels if real else data.synthetic_labels
        drawn = in_turns(labels, data.classes, config)
        self._images = data.preprocessing(data.fit.images[drawn]) if real else data.synthetic_images[drawn]
        self._labels = labels[drawn]
        self._preprocessing = preprocessing_fingerprint(data.preprocessing)

    def settings(self) -> dict[str, Any]:
        """The config, and a digest of the minibatch."""
        return {
            "estimator": self.name,
            "version": SCORING_VERSION,
            **asdict(self.config),
            "fingerprint": fingerprint(self._images, self._labels),
            "preprocessing": self._preprocessing,
            **self._version,
        }

    def score(
        self,
        network: nn.Module,
        *,
        seed: int,  # noqa: ARG002 - the network's initial weights are all that is random
        device: torch.device,
        leg: Leg | None = None,  # noqa: ARG002
    ) -> dict[str, float]:
        """The measure, on a copy of the network.

        Raises:
            FloatingPointError: it is not finite.
        """
        fresh = copy.deepcopy(network).to(device).train()
        value = self._measure(fresh, self._images.to(device), self._labels.to(device))
        if value != value or abs(value) == float("inf"):
            raise FloatingPointError(f"{self.name} is {value}")
        return {self.name: value}


def untrained(
    name: str, measure: Measure, data: SearchData, options: dict[str, Any], version: int = 1
) -> Untrained:
    """The estimator with an `UntrainedConfig` of the given options."""
    return Untrained(name, measure, data, configure(UntrainedConfig, name, options), version)


def in_turns(labels: Tensor, classes: int, config: UntrainedConfig) -> Tensor:
    """Positions of a random minibatch, one image of each class in turn, or of some if they are too many:
    int64, at most `batch_size`."""
    generator = stream(config.subset_seed, "minibatch")
    shuffled = torch.randperm(len(labels), generator=generator)
    pools = [shuffled[labels[shuffled] == k].tolist() for k in range(classes)]
    if classes > config.batch_size:
        pools = [pools[k] for k in torch.randperm(classes, generator=generator).tolist()]
    turns = zip_longest(*pools)
    order = [position for turn in turns for position in turn if position is not None]
    return torch.tensor(order[: config.batch_size])


def weights_of(network: nn.Module) -> list[Tensor]:
    """The weights, not biases, of convolutions and linear layers."""
    return [module.weight for module in network.modules() if isinstance(module, WEIGHTED)]


def gradients(
    network: nn.Module, images: Tensor, labels: Tensor, parameters: list[Tensor], **options: Any
) -> tuple[Tensor, ...]:
    """Of the mean cross-entropy; zeros for what it does not depend on."""
    loss = F.cross_entropy(network(images), labels)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, **options)
    return tuple(torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))


@contextmanager
def watched_activations(network: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Within, each forward pass adds (input, output) of every activation, in order.

    Raises:
        ValueError: the network has none that is known.
    """
    layers = [module for module in network.modules() if isinstance(module, ACTIVATIONS)]
    if not layers:
        raise ValueError("the network has no activation layer to look at")
    seen: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))

    for layer in layers:
        if hasattr(layer, "inplace"):
            layer.inplace = False
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
