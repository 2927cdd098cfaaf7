"""What methods that move the pixels of synthetic images share: settings, start, loop, real batches, step.

Letters: K classes worked on, I synthetic images and B real images a class, C channels, H x W pixels, f the
factor of multi-formation.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar, get_args

import torch
from torch import Tensor

from distill.attention import runs_fused, why_not_fused
from distill.augment import Augmentation, augment_classes
from distill.checkpoint import LARGEST, State, largest
from distill.formation import LARGEST_FACTOR, decode, encode, require_factor
from distill.methods._features import CORESETS, FeatureConfig, selected_positions
from distill.methods.base import MethodConfig, Problem
from distill.networks import WIDEST, ConvNet, convnet, convnet_operations, fitting_depth
from distill.precision import PRECISIONS, Precision, require, settle
from distill.seeding import stream
from distill.session import Session

_SMALLER = "a smaller learning_rate helps, from the start (--overwrite)"
Initialization = Literal["real", "herding", "kcenter", "noise"]
Loss = TypeVar("Loss")
Self = TypeVar("Self", bound="PixelConfig")


@dataclass(frozen=True, kw_only=True)
class PixelConfig(MethodConfig, ABC):
    """Settings that all of them have.

    Attributes:
        iterations: networks drawn.
        learning_rate, momentum: of SGD on the pixels.
        batch_real: real images a class and step; a class with fewer repeats some.
        initialization: `real` starts from real images drawn at random, `herding` and `kcenter` from those
            that the methods of these names choose by their default settings, `noise` from a standard normal.
        factor: multi-formation: each stored image holds factor x factor smaller ones, which are enlarged to
            the full size before a network sees them (Kim et al. 2022, arXiv:2205.14959). It must divide
            height and width; 1 is none. All starts but `noise` then take as many real images, shrunk.
        depth: blocks of the ConvNet; 0 chooses the field's depth for the image size.
        width: channels of each block.
        precision: of the network's convolutions; bfloat16 may be faster on GPUs and processors that have it
            (on a CPU not for atom, datadam and dm), on others `atom-nas distill` falls back to float32 and
            says so.
    """

    iterations: int = 1000
    learning_rate: float = 1.0
    momentum: float = 0.5
    batch_real: int = 64
    initialization: Initialization = "real"
    factor: int = 1
    depth: int = 0
    width: int = 128
    precision: Precision = "float32"
    positive: ClassVar[tuple[str, ...]] = ("iterations", "learning_rate", "batch_real", "width")
    shallowest: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in self.positive:
            if not 0 < getattr(self, field) <= 1e30:
                raise ValueError(f"{field} must be positive and at most 1e30, not {getattr(self, field)}")
        if self.width > WIDEST:
            raise ValueError(f"width must be at most {WIDEST}, not {self.width}")
        if self.initialization not in get_args(Initialization):
            allowed = ", ".join(get_args(Initialization))
            raise ValueError(f"initialization must be one of {allowed}, not {self.initialization!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {self.momentum}")
        if not 1 <= self.factor <= LARGEST_FACTOR:
            raise ValueError(f"factor must lie in 1..{LARGEST_FACTOR}, not {self.factor}")
        if self.depth != 0 and self.depth < self.shallowest:
            raise ValueError(
                f"depth must be 0 (chosen for you) or at least {self.shallowest}, not {self.depth}"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")

    def require_runnable(self, problem: Problem) -> None:
        """Refuse settings that cannot work for this problem on this machine, before anything is done.

        Raises:
            ValueError: if the factor does not cut the images into equal ones, they are too small for the
                depth, or the machine lacks the precision.
        """
        require_factor(self.factor, *problem.image_shape[1:])
        with torch.device("meta"):  # The network itself knows what it cannot take; this allocates nothing.
            ConvNet(problem.image_shape, len(problem.classes), self.blocks(problem.image_shape), self.width)
        require(self.precision, problem.device)

    @property
    def steps(self) -> int:
        """See `distill.methods.base.MethodConfig`."""
        return self.iterations

    @property
    def across(self) -> int:
        """See `distill.methods.base.MethodConfig`."""
        return self.factor

    @property
    def uses_all_classes(self) -> bool:
        """See `distill.methods.base.MethodConfig`."""
        return self.initialization in CORESETS

    def settled(self: Self, device: torch.device) -> tuple[Self, str | None]:
        """See `distill.methods.base.MethodConfig`."""
        precision, lacking = settle(self.precision, device)
        return replace(self, precision=precision), lacking

    def kernels(self, device: torch.device) -> str:
        """See `distill.methods.base.MethodConfig`."""
        return "fused" if runs_fused(self.width, device) else "eager"

    def not_compiled(self, device: torch.device, reason: str) -> tuple[str, ...]:
        """What to say of how iterations compute, where they are not compiled, for this reason."""
        if self.kernels(device) == "fused":
            return ("computing with fused kernels",)
        said = f"not compiled: {reason}"
        if device.type != "cpu":
            return (said,)
        return said, f"without fused kernels, so slower: {why_not_fused(self.width, device)}"

    def blocks(self, image_shape: tuple[int, int, int]) -> int:
        """The depth, chosen for the image size if it is 0."""
        return self.depth or fitting_depth(image_shape)

    @abstractmethod
    def passes(self, ipc: int) -> float:
        """Of images through the network, a class and iteration, in the time of as many forward ones."""

    def operations(self, ipc: int, classes: int, image_shape: tuple[int, int, int]) -> float:
        """Of the convolutions of an iteration, in the time of as many in forward passes."""
        an_image = convnet_operations(image_shape, self.blocks(image_shape), self.width)
        return classes * self.passes(ipc) * an_image

    def decoded(self, ipc: int) -> int:
        """Images a class that networks see: I*f^2."""
        return ipc * self.factor**2

    def network(self, problem: Problem) -> ConvNet:
        """The ConvNet on the problem's device, whose weights every iteration draws anew."""
        generator = stream(problem.seed, "network")
        shape, classes, depth = problem.image_shape, len(problem.classes), self.blocks(problem.image_shape)
        network = convnet(shape, classes, depth=depth, width=self.width, generator=generator)
        network.to(problem.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network


def iterate(
    problem: Problem,
    config: PixelConfig,
    session: Session,
    descend: Callable[[State], Loss],
    point: Callable[[int, Loss], dict[str, float]],
    *,
    every: int,
) -> Tensor:
    """Go on from the session's state, or from the start, to the last iteration.

    Args:
        descend: one iteration, in place.
        point: what is logged of an iteration's loss, at `every`-th ones and the last.
    Returns:
        float32 (K*I, C, H, W) in model space, on the CPU.
    Raises:
        ValueError: if the images diverge, the checkpoint does not fit the problem; and what `point` raises.
    """
    state = session.restore()
    if state is None:
        state = initial_state(problem, config.initialization, config.factor, session)
    else:
        _require_fitting(state, problem, config.iterations)
    state.images, state.momentum = (t.to(problem.device) for t in (state.images, state.momentum))
    while state.iteration < config.iterations:
        loss = descend(state)
        state.iteration += 1
        if state.iteration % every == 0 or state.iteration == config.iterations:
            state.curve.append(point(state.iteration, loss))
            _require_sane(state)
        session.after(state, config.iterations)
    return state.images.detach().cpu()


def _require_fitting(state: State, problem: Problem, iterations: int) -> None:
    """Refuse what a checkpoint of this run cannot hold, whoever wrote it there."""
    shape = (len(problem.labels), *problem.image_shape)
    found = {tuple(state.images.shape), tuple(state.momentum.shape)}
    if found != {shape} or not 0 <= state.iteration <= iterations:
        raise ValueError(
            f"the checkpoint is damaged: of shape {sorted(found)} after {state.iteration} iterations, where "
            f"{shape} and at most {iterations} belong; start afresh with --overwrite"
        )


def _require_sane(state: State) -> None:
    """Refuse images that are no numbers or far from any image, which norms keep out of the loss."""
    found = largest(state.images)
    if not found <= LARGEST:  # a number that is none too
        raise ValueError(
            f"the images have diverged at iteration {state.iteration}: values are up to {found:.2g}, where "
            f"those of real images are about 1; {_SMALLER}"
        )


def initial_state(
    problem: Problem, initialization: Initialization, factor: int = 1, session: Session | None = None
) -> State:
    """Where the pixels start; the session is told of long work on the way."""
    if initialization == "noise":
        generators = [stream(problem.seed, "noise", k) for k in problem.class_numbers]
        shape = (problem.ipc, *problem.image_shape)
        images = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    else:
        each = factor**2
        if initialization in CORESETS:
            choose = CORESETS[initialization]
            positions = selected_positions(problem, FeatureConfig(), session or Session(), choose, each)
        else:
            positions = random_positions(problem, each)
        images = encode(problem.prepare(positions), factor)
    return State(0, images, torch.zeros_like(images))


def random_positions(problem: Problem, each: int = 1) -> Tensor:
    """I*each positions of each class, drawn at random: int64 (K*I*each,).

    Without repeats, as long as the class has that many.
    """
    drawn = [
        draw_batch(pool, problem.ipc * each, stream(problem.seed, "initial", k))
        for k, pool in zip(problem.class_numbers, problem.pools(), strict=True)
    ]
    return torch.cat(drawn)


def require_finite(per_class: Tensor, iteration: int, problem: Problem) -> float:
    """The sum of the classes' losses (K,).

    Raises:
        ValueError: if one of them is not finite, naming the class.
    """
    values = per_class.detach().cpu()
    bad = [
        k for k, value in zip(problem.class_numbers, values.tolist(), strict=True) if not math.isfinite(value)
    ]
    if bad:
        raise ValueError(
            f"the loss is not finite at iteration {iteration} (class {problem.classes[bad[0]]}); {_SMALLER}"
        )
    return float(values.sum())


class RealImages:
    """The real images of the classes worked on, from which batches are drawn.

    The stored pixels lie on a GPU if they take no more than a quarter of what is free there.
    """

    def __init__(self, problem: Problem) -> None:
        self._device = problem.device
        self._preprocessing = problem.preprocessing.to(problem.device)
        self._pixels = problem.real.images
        self._pools = problem.pools()
        if problem.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(problem.device)
            if self._pixels.nbytes <= free // 4:
                self._pixels = self._pixels.to(problem.device)

    @property
    def resident(self) -> Tensor | None:
        """All stored pixels, uint8 (N, C, H, W), if they lie on the device."""
        return self._pixels if self._pixels.device == self._device else None

    def batch(self, places: Sequence[int], generators: Sequence[torch.Generator], size: int) -> Tensor:
        """`size` images of each of some classes, in model space: (len * size, C, H, W) on the device.

        Args:
            places: of the classes among those worked on.
            generators: one a class.
        """
        chosen = [draw_batch(self._pools[k], size, g) for k, g in zip(places, generators, strict=True)]
        pixels = self._pixels[torch.cat(chosen).to(self._pixels.device)]
        return self._preprocessing(pixels.to(self._device))


def draw_batch(pool: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """`size` random members of `pool`, without repeats as long as it has that many.

    A smaller class goes round again, so that every class fills a batch of the same size and what one
    class draws does not depend on the others.
    """
    rounds = [torch.randperm(len(pool), generator=generator) for _ in range(-(-size // len(pool)))]
    return pool[torch.cat(rounds)[:size]]


def choose(generators: Sequence[torch.Generator], count: int, size: int) -> Tensor:
    """`size` of the `count` images that networks may see of each class: int64 (K * size,).

    Empty, and nothing is drawn, where that is all of them.

    Args:
        generators: one a class; the images of all of them are counted through.
    """
    if size == count:
        return torch.empty(0, dtype=torch.int64)
    pools = torch.arange(len(generators) * count).split(count)
    return torch.cat([draw_batch(pool, size, g) for pool, g in zip(pools, generators, strict=True)])


def seen(images: Tensor, factor: int, chosen: Tensor) -> Tensor:
    """What networks see of stored images, (N, C, H, W): all that they hold, or what `choose` chose of it."""
    decoded = decode(images, factor)
    return decoded.index_select(0, chosen.to(decoded.device)) if len(chosen) else decoded


def augmented(images: Tensor, augmentations: list[Augmentation]) -> Tensor:
    """Each class's images through its own transform: (K*n, C, H, W) to the same."""
    return augment_classes(images, augmentations).contiguous(memory_format=torch.channels_last)


def move(state: State, rows: slice, gradient: Tensor, *, rate: float | Tensor, momentum: float) -> None:
    """SGD with momentum on some of the images, in place; a `rate` on the device can change in a recording."""
    moved = state.momentum[rows].mul_(momentum).add_(gradient)
    if isinstance(rate, Tensor):
        state.images[rows].sub_(moved * rate)
    else:
        state.images[rows].sub_(moved, alpha=rate)
