"""The loop shared by the methods that train the network on the synthetic set between two steps on the pixels.

Every iteration draws one random network. A pixel step moves the synthetic images of every class; between two
pixel steps the network is trained on the synthetic set. That training sees all classes, so classes are not
independent of one another. The streams are named by (seed, iteration) for the network and by (seed,
iteration, step, class) for batch and augmentation; between iterations pixels and momentum are all the state.

Letters: K classes, I synthetic images a class, C channels, H x W pixels.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from distill.acceleration import Auto
from distill.checkpoint import State
from distill.formation import decode
from distill.methods._pixels import PixelConfig, iterate, require_finite
from distill.methods.base import Problem
from distill.networks import ConvNet, reinitialise
from distill.seeding import derive_seed, stream
from distill.session import Session
from distill.training import TrainingConfig, train

Config = TypeVar("Config", bound="BilevelConfig")
Contra = TypeVar("Contra", bound="BilevelConfig", contravariant=True)

_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Images a class: pixel steps a network, and epochs between two of them, in the public code of DC and DSA."""
_SLOWER = 3.2
"""A pass of torch's own operations than one of kernels; measured on a CPU by `dc` at 10 images a class."""


@dataclass(frozen=True, kw_only=True)
class BilevelConfig(PixelConfig):
    """Settings that the methods share. An iteration is one network with all its steps; 1,000 in the papers.

    Attributes:
        pixel_steps: steps on the pixels a network. `auto` takes DC's number for the images per class (1 at 1,
            10 at 10, 50 at 50), or for the next smaller number of images that it has one for.
        network_epochs: passes over the synthetic set that train the network between two pixel steps. `auto`
            takes DC's number (50 at 10 images per class, 10 at 50); 0 leaves the network untrained.
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
    eager: ClassVar[str] = "gradients of gradients run on torch's own operations"

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
                the machine lacks the precision.
        """
        if problem.subset is not None:
            raise ValueError(
                "this method needs all classes at once, since the network is trained on all of them; "
                "leave out subset, or use a method whose classes are independent (atom, datadam, dm)"
            )
        super().require_runnable(problem)

    def suited(self: Config, problem: Problem) -> tuple[Config, tuple[str, ...]]:
        """The same with the number of steps decided for the problem, and why nothing is compiled.

        Raises:
            ValueError: see `require_runnable`.
        """
        self.require_runnable(problem)
        steps, epochs = self._loops(problem.ipc)
        config = replace(self, pixel_steps=steps, network_epochs=epochs)
        return config, self.not_compiled(problem.device, self.eager)

    def _loops(self, ipc: int) -> tuple[int, int]:
        """Pixel steps a network, and epochs between two of them."""
        steps, epochs = _LOOPS[max(known for known in _LOOPS if known <= ipc)]
        return (
            steps if self.pixel_steps == "auto" else self.pixel_steps,
            epochs if self.network_epochs == "auto" else self.network_epochs,
        )

    def passes(self, ipc: int) -> float:
        """Of all images with gradients of gradients in a pixel step, of synthetic ones in the training."""
        (steps, epochs), synthetic = self._loops(ipc), self.decoded(ipc)
        return steps * _SLOWER * (3 * self.batch_real + 6 * synthetic) + (steps - 1) * epochs * 3 * synthetic


class PixelStep(Protocol):
    """What a method does between two trainings of the network."""

    def __call__(self, state: State, step: int) -> Tensor:
        """A step of SGD with momentum on all pixels, in place; the classes' losses before it, (K,)."""
        ...


class MakesStep(Protocol[Contra]):
    """Makes a method's pixel step for one run."""

    def __call__(self, problem: Problem, config: Contra, network: ConvNet) -> PixelStep: ...


def alternate(
    problem: Problem, config: Config, augmentation: str, session: Session, make_step: MakesStep[Config]
) -> Tensor:
    """Minimise a loss over the synthetic pixels, on networks that are trained on them meanwhile.

    Args:
        augmentation: of the network's training, see `distill.augment.parse_strategy`.
        make_step: the method's own step.
    Returns:
        float32 (K*I, C, H, W) in model space, on the CPU.
    Raises:
        ValueError: see `BilevelConfig.require_runnable`; or if the loss stops being finite, saying at which
            iteration and where.
    """
    config, _ = config.suited(problem)
    network = config.network(problem)
    engine = _Engine(problem, config, augmentation, session, network, make_step(problem, config, network))
    every = max(1, session.log_every // engine.steps)
    return iterate(problem, config, session, engine.descend, engine.point, every=every)


class _Engine:
    """What stays the same from iteration to iteration."""

    def __init__(
        self,
        problem: Problem,
        config: BilevelConfig,
        augmentation: str,
        session: Session,
        network: ConvNet,
        pixel_step: PixelStep,
    ) -> None:
        assert config.pixel_steps != "auto"
        assert config.network_epochs != "auto"
        self.steps = config.pixel_steps
        self._epochs = config.network_epochs
        self._problem, self._config, self._augmentation = problem, config, augmentation
        self._session, self._network, self._pixel_step = session, network, pixel_step
        self._labels = torch.arange(len(problem.classes), device=problem.device)

    def descend(self, state: State) -> Tensor:
        """One iteration, in place: the mean over its pixel steps of each class's loss, (K,)."""
        reinitialise(self._network, stream(self._problem.seed, "network", state.iteration))
        total = torch.zeros(len(self._problem.classes), device=self._problem.device)
        # An iteration of many steps may take minutes, and its network is in no checkpoint.
        start = replace(state, images=state.images.clone(), momentum=state.momentum.clone())
        for step in range(self.steps):
            if step:
                self._session.within(start)
                self._train(state, step)
            self._network.requires_grad_(False)
            total += self._pixel_step(state, step)
        return total / self.steps

    def point(self, iteration: int, losses: Tensor) -> dict[str, float]:
        """The loss as logged: the sum over classes."""
        return {"iteration": iteration, "loss": require_finite(losses, iteration, self._problem)}

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
        labels = self._labels.repeat_interleave(config.decoded(problem.ipc))
        try:
            train(self._network, images, labels, config=training, seed=seed, device=problem.device)
        except FloatingPointError as error:
            raise ValueError(
                f"{error} of the network of iteration {state.iteration + 1}; a smaller learning_rate or "
                "network_learning_rate helps"
            ) from None
