"""The step shared by the methods that match gradients: they differ in their augmentation only.

It moves the synthetic images of every class towards those whose gradients of the network's weights are the
real images' (see `distill.gradient_matching`), in the loop of `distill.methods._bilevel`.

Real images and the network's training are differentiated once and so run on the fused kernels where there are
any; the gradients of synthetic images are differentiated again, and run on torch's own operations.

Letters: K classes, I synthetic images and B real images a class, C channels, H x W pixels.
"""

from functools import partial

import torch
from torch import Tensor

from distill.augment import Augmentation, draw, parse_strategy
from distill.checkpoint import State
from distill.formation import decode
from distill.gradient_matching import class_gradients, gradient_distance, matched_weights, weight_gradients
from distill.methods._bilevel import BilevelConfig, alternate
from distill.methods._pixels import RealImages, augmented, move
from distill.methods.base import Problem
from distill.networks import ConvNet
from distill.precision import autocast
from distill.seeding import stream
from distill.session import Session
from distill.training import accelerated

_TOGETHER = {"cpu": 16, "cuda": 256}
"""Synthetic images whose gradients are taken together: what a CPU's caches hold, what keeps a GPU busy."""


def condense(problem: Problem, config: BilevelConfig, augmentation: str, session: Session) -> Tensor:
    """Minimise the distance between gradients over the synthetic pixels.

    Args:
        augmentation: see `distill.augment.parse_strategy`.
    Returns:
        float32 (K*I, C, H, W) in model space, on the CPU.
    Raises:
        ValueError: see `distill.methods._bilevel.alternate`.
    """
    step = partial(_GradientStep, augmentation=augmentation)
    return alternate(problem, config, augmentation, session, step)


class _GradientStep:
    """What stays the same from step to step."""

    def __init__(
        self, problem: Problem, config: BilevelConfig, network: ConvNet, *, augmentation: str
    ) -> None:
        self._problem, self._config, self._augmentation = problem, config, augmentation
        self._real = RealImages(problem)
        self._labels = torch.arange(len(problem.classes), device=problem.device)
        self._network, self._weights = network, matched_weights(network)
        self._once = accelerated(network, problem.device)

    def __call__(self, state: State, step: int) -> Tensor:
        """See `distill.methods._bilevel.PixelStep`."""
        each = self._config.decoded(self._problem.ipc)
        together = max(1, _TOGETHER[self._problem.device.type] // each)
        numbers = self._problem.class_numbers
        parts = [numbers[first : first + together] for first in range(0, len(numbers), together)]
        return torch.cat([self._move(state, step, part) for part in parts])

    def _move(self, state: State, step: int, numbers: tuple[int, ...]) -> Tensor:
        """The pixel step of a few neighbouring classes."""
        problem, config = self._problem, self._config
        generators = [stream(problem.seed, "class", state.iteration, step, k) for k in numbers]
        real = self._real.batch(numbers, generators, config.batch_real)
        names = parse_strategy(self._augmentation)
        augmentations = [draw(names, generator) for generator in generators]

        target = self._real_gradients(numbers, real, augmentations)
        rows = slice(numbers[0] * problem.ipc, (numbers[-1] + 1) * problem.ipc)
        images = state.images[rows].detach().requires_grad_(True)
        with autocast(problem.device, config.precision):
            seen = augmented(decode(images, config.factor), augmentations)
            source = class_gradients(self._network, seen, self._labels[list(numbers)])
        distances = gradient_distance(target, source)
        (gradient,) = torch.autograd.grad(distances.sum(), images)

        move(state, rows, gradient, rate=config.learning_rate, momentum=config.momentum)
        return distances.detach()

    def _real_gradients(
        self, numbers: tuple[int, ...], real: Tensor, augmentations: list[Augmentation]
    ) -> list[Tensor]:
        """(K, O, P) a layer, of the real images of a few classes."""
        for weight in self._weights:
            weight.requires_grad_(True)
        gradients = []
        batches = real.split(self._config.batch_real)
        for k, batch, augmentation in zip(numbers, batches, augmentations, strict=True):
            images = augmented(batch, [augmentation])
            with autocast(self._problem.device, self._config.precision):
                gradients.append(weight_gradients(self._once, images, k, self._weights))
        self._network.requires_grad_(False)
        return [torch.cat(layer) for layer in zip(*gradients, strict=True)]
