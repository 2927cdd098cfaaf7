"""The engine shared by the methods that match gradients: they differ in their augmentation only.

Every iteration draws one random network. A pixel step moves the synthetic images of every class towards those
whose gradients of the network's weights are the real images' (see `distill.gradient_matching`); between two
pixel steps the network is trained on the synthetic set. That training sees all classes, so classes are not
independent of one another. The streams are named by (seed, iteration) for the network and by (seed,
iteration, step, class) for batch and augmentation; between iterations pixels and momentum are all the state.

Real images and the network's training are differentiated once and so run on the fused kernels where there are
any; the gradients of synthetic images are differentiated again, and run on torch's own operations.

Letters: K classes, I synthetic images and B real images a class, C channels, H x W pixels.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from distill.acceleration import Auto
from distill.augment import Augmentation, draw, parse_strategy
from distill.formation import decode
from distill.gradient_matching import class_gradients, gradient_distance, matched_weights, weight_gradients
from distill.methods._pixels import PixelConfig, RealImages, augmented, iterate, move, require_finite
from distill.methods.base import Problem
from distill.networks import reinitialise
from distill.precision import autocast
from distill.seeding import derive_seed, stream
from distill.session import Session, State
from distill.training import TrainingConfig, accelerated, train

Config = TypeVar("Config", bound="GradientConfig")

_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Images a class: pixel steps a network, and epochs between two of them, in the authors' public code."""
_TOGETHER = {"cpu": 16, "cuda": 256}
"""Synthetic images whose gradients are taken together: what a CPU's caches hold, what keeps a GPU busy."""


@dataclass(frozen=True, kw_only=True)
class GradientConfig(PixelConfig):
    """Settings that the methods share. An iteration is one network with all its steps; 1,000 in the papers.

    Attributes:
        pixel_steps: steps on the pixels a network. `auto` takes the authors' number for the images per class
            (1 at 1, 10 at 10, 50 at 50), or for the next smaller number of images that they have one for.
        network_epochs: passes over the synthetic set that train the network between two pixel steps. `auto`
            takes the authors' number (50 at 10 images per class, 10 at 50); 0 leaves the network untrained.
        network_learning_rate: of SGD on the network, without momentum and weight decay.
        network_batch: synthetic images a step of that training; a smaller set is one batch.
    """

    learning_rate: float = 0.1
    batch_real: int = 256
    pixel_steps: int | Auto = "auto"
    network_epochs: int | Auto = "auto"
    network_learning_rate: float = 0.01
    network_batch: int = 256
    positive: ClassVar[tuple[str, ...]] = (*PixelConfig.positive, "network_learning_rate", "network_batch")

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("pixel_steps", 1), ("network_epochs", 0)):
            value = getattr(self, field)
            if value != "auto" and not (isinstance(value, int) and value >= least):
                raise ValueError(f"{field} must be auto or a whole number of at least {least}, not {value!r}")

    def require_runnable(self, problem: Problem) -> None:
        """Refuse settings that cannot work for this problem on this machine, before anything is done.

        Raises:
            ValueError: if only some classes are to be worked on, the images are too small for the depth, or
                the precision cannot be had here.
        """
        if problem.subset is not None:
            raise ValueError(
                "matching gradients needs all classes at once, since the network is trained on all of them; "
                "leave out subset, or use a method whose classes are independent (atom, datadam, dm)"
            )
        super().require_runnable(problem)

    def suited(self: Config, problem: Problem) -> tuple[Config, str]:
        """The same with the number of steps decided for the problem, and why nothing is compiled.

        Raises:
            ValueError: see `require_runnable`.
        """
        self.require_runnable(problem)
        steps, epochs = _LOOPS[max(ipc for ipc in _LOOPS if ipc <= problem.ipc)]
        config = replace(
            self,
            pixel_steps=steps if self.pixel_steps == "auto" else self.pixel_steps,
            network_epochs=epochs if self.network_epochs == "auto" else self.network_epochs,
        )
        return config, "gradients of gradients run on torch's own operations"


def condense(problem: Problem, config: GradientConfig, augmentation: str, session: Session) -> Tensor:
    """Minimise the distance between gradients over the synthetic pixels.

    Args:
        augmentation: see `distill.augment.parse_strategy`.
    Returns:
        float32 (K*I, C, H, W) in model space, on the CPU.
    Raises:
        ValueError: see `GradientConfig.require_runnable`; or if the loss stops being finite, saying at which
            iteration and where.
    """
    config, _ = config.suited(problem)
    engine = _Engine(problem, config, augmentation, session)
    every = max(1, session.log_every // engine.steps)
    return iterate(problem, config, session, engine.descend, engine.point, every=every)


class _Engine:
    """What stays the same from iteration to iteration."""

    def __init__(self, problem: Problem, config: GradientConfig, augmentation: str, session: Session) -> None:
        assert config.pixel_steps != "auto"
        assert config.network_epochs != "auto"
        self.steps = config.pixel_steps
        self._epochs = config.network_epochs
        self._problem, self._config, self._augmentation = problem, config, augmentation
        self._session = session
        self._real = RealImages(problem)
        self._labels = torch.arange(len(problem.classes), device=problem.device)
        network = config.network(problem)
        self._network, self._weights = network, matched_weights(network)
        self._once = accelerated(network, problem.device)

    def descend(self, state: State) -> Tensor:
        """One iteration, in place: the mean over its pixel steps of each class's distance, (K,)."""
        reinitialise(self._network, stream(self._problem.seed, "network", state.iteration))
        total = torch.zeros(len(self._problem.classes), device=self._problem.device)
        # An iteration of many steps may take minutes, and its network is in no checkpoint.
        start = replace(state, images=state.images.clone(), momentum=state.momentum.clone())
        for step in range(self.steps):
            if step:
                self._session.within(start)
                self._train(state, step)
            total += self._pixel_step(state, step)
        return total / self.steps

    def point(self, iteration: int, distances: Tensor) -> dict[str, float]:
        """The loss as logged: the sum over classes of their distances."""
        return {"iteration": iteration, "loss": require_finite(distances, iteration, self._problem)}

    def _pixel_step(self, state: State, step: int) -> Tensor:
        """A step of SGD with momentum on all pixels, in place; the classes' distances before it, (K,)."""
        self._network.requires_grad_(False)
        each = self._config.decoded(self._problem)
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

    def _train(self, state: State, step: int) -> None:
        """Train the network on the synthetic images as it sees them."""
        if not self._epochs:
            return
        config, problem = self._config, self._problem
        self._network.requires_grad_(True)
        training = TrainingConfig(
            epochs=self._epochs,
            batch_size=config.network_batch,
            learning_rate=config.network_learning_rate,
            momentum=0.0,
            weight_decay=0.0,
            schedule="constant",
            augmentation=self._augmentation,
            precision=config.precision,
        )
        seed = derive_seed(problem.seed, "network", state.iteration, step)
        images = decode(state.images, config.factor)
        labels = self._labels.repeat_interleave(config.decoded(problem))
        try:
            train(self._network, images, labels, config=training, seed=seed, device=problem.device)
        except FloatingPointError as error:
            raise ValueError(
                f"{error} of the network of iteration {state.iteration + 1}; a smaller learning_rate or "
                "network_learning_rate helps"
            ) from None
