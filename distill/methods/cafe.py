"""CAFE, condensation by aligning features (Wang et al. 2022, arXiv:2203.01531).

Every block's output is aligned, on networks that are trained on the synthetic set between two steps on the
pixels, and the means of the synthetic features are made to classify the real images. The paper decides how
long both loops go on by the accuracy on a part of the images; here their lengths are settings, DC's unless
others are given.

Letters: K classes, I synthetic images and B real images a class, C channels, H x W pixels, D_l numbers a
feature of layer l.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.alignment import alignment_loss, discrimination_loss
from distill.augment import Augmentation, draw, parse_strategy
from distill.checkpoint import State
from distill.formation import decode
from distill.matching import class_means
from distill.methods._bilevel import BilevelConfig, alternate
from distill.methods._pixels import RealImages, augmented, move
from distill.methods.base import Problem
from distill.networks import ConvNet
from distill.precision import autocast
from distill.seeding import stream
from distill.session import Session

INDEPENDENT_CLASSES = False
_TOGETHER = 64
"""Synthetic images whose features are computed together: enough to keep a processor busy."""


@dataclass(frozen=True, kw_only=True)
class Config(BilevelConfig):
    """CAFE's settings: L = L_f + beta * L_d.

    Attributes:
        beta: weight of the discrimination loss L_d; 0 leaves it out.
        augmentation: `dsa`, `none`, or transforms joined by `_` (color, crop, cutout, flip, scale, rotate);
            the same for a class's real and synthetic images, and for each image that the network is trained
            on with parameters of its own.
    """

    beta: float = 1.0
    augmentation: str = "dsa"
    eager: ClassVar[str] = "features of all layers are read off torch's own operations"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1e30:
            raise ValueError(f"beta must not be negative, and finite, not {self.beta}")
        parse_strategy(self.augmentation)


def distill(problem: Problem, config: Config, session: Session) -> Tensor:
    """See `distill.methods.base.Method`."""
    return alternate(problem, config, config.augmentation, session, _AlignmentStep)


class _AlignmentStep:
    """What stays the same from step to step."""

    def __init__(self, problem: Problem, config: Config, network: ConvNet) -> None:
        self._problem, self._config, self._network = problem, config, network
        self._real = RealImages(problem)
        self._names = parse_strategy(config.augmentation)
        each = max(1, _TOGETHER // config.decoded(problem.ipc))
        numbers = problem.class_numbers
        self._groups = [numbers[first : first + each] for first in range(0, len(numbers), each)]

    def __call__(self, state: State, step: int) -> Tensor:
        """See `distill.methods._bilevel.PixelStep`.

        Images of a few classes are held at a time. L_d, which needs the means of all classes, comes to the
        pixels of one as its gradient by that class's mean.
        """
        problem, config = self._problem, self._config
        generators = [stream(problem.seed, "class", state.iteration, step, k) for k in problem.class_numbers]
        batches = [self._real.batch([k], [g], config.batch_real) for k, g in enumerate(generators)]
        augmentations = [draw(self._names, generator) for generator in generators]
        with torch.no_grad():
            target, features = self._targets(batches, augmentations)
            centres = torch.cat([self._means(state.images, k, augmentations)[-1] for k in self._groups])
        centres.requires_grad_(True)
        apart = config.beta * discrimination_loss(features, centres)
        (pull,) = torch.autograd.grad(apart.sum(), centres)
        losses = [
            self._move(state, numbers, augmentations, [layer[list(numbers)] for layer in target], pull)
            for numbers in self._groups
        ]
        return torch.cat(losses) + apart.detach()

    def _targets(
        self, batches: Sequence[Tensor], augmentations: Sequence[Augmentation]
    ) -> tuple[list[Tensor], Tensor]:
        """Of the real images the class means, (K, D_l) a layer, and the last features, (K*B, D)."""
        means, last = [], []
        for batch, augmentation in zip(batches, augmentations, strict=True):
            layers = self._features(augmented(batch, [augmentation]))
            means.append([class_means(layer, 1) for layer in layers])
            last.append(layers[-1])
        return [torch.cat(layer) for layer in zip(*means, strict=True)], torch.cat(last)

    def _move(
        self,
        state: State,
        numbers: Sequence[int],
        augmentations: Sequence[Augmentation],
        target: Sequence[Tensor],
        pull: Tensor,
    ) -> Tensor:
        """The pixel step of a few neighbouring classes; their L_f before it."""
        ipc, config = self._problem.ipc, self._config
        rows = slice(numbers[0] * ipc, (numbers[-1] + 1) * ipc)
        images = state.images.detach().requires_grad_(True)
        means = self._means(images, numbers, augmentations)
        aligned = alignment_loss(target, means)
        total = aligned.sum() + (pull[list(numbers)] * means[-1]).sum()
        (gradient,) = torch.autograd.grad(total, images)
        move(state, rows, gradient[rows], rate=config.learning_rate, momentum=config.momentum)
        return aligned.detach()

    def _means(
        self, images: Tensor, numbers: Sequence[int], augmentations: Sequence[Augmentation]
    ) -> list[Tensor]:
        """Of the synthetic images of a few neighbouring classes the means, (k, D_l) a layer."""
        ipc = self._problem.ipc
        own = images[numbers[0] * ipc : (numbers[-1] + 1) * ipc]
        view = augmented(decode(own, self._config.factor), [augmentations[k] for k in numbers])
        return [class_means(layer, len(numbers)) for layer in self._features(view)]

    def _features(self, images: Tensor) -> list[Tensor]:
        """f_l, the pooled output of every block, flattened: float32 (N, D_l) a layer."""
        with autocast(self._problem.device, self._config.precision):
            maps, embedding = self._network.features(images)
        lower = [F.avg_pool2d(features.float(), 2).flatten(1) for features in maps[:-1]]
        return [*lower, embedding.float()]
