"""Training on a GPU as CUDA graphs: what a small network costs there is the launching of its kernels.

A whole step (batch, augmentation, forward, backward, SGD) of one batch size is recorded once and replayed,
and nothing waits for the GPU within an epoch. The numbers are those of the eager loop, but for rounding.

Letters: N images, B of them a step, S steps an epoch, R parameters of an augmentation.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.augment import as_tensors, augment_chosen, draw, parse_strategy
from distill.preprocessing import Preprocessing
from distill.process import is_want_of_memory

if TYPE_CHECKING:
    from distill.training import TrainingConfig

FEWEST_STEPS = 50
"""Recording costs about as much as ten steps."""
_WARM_UPS = 3
_failed = False
_KNOWN = ("torch", "torchvision", "nni", "distill", "search_spaces")
PROMISE = "cuda_graphs"
"""A module class of the user's own that is true of promises that its `forward` can be recorded."""


class UnrecordableError(Exception):
    """Why something cannot be recorded here; all is as it was before."""


class Steps(Protocol):
    """What trains a network by SGD, in place."""

    @property
    def momentum(self) -> tuple[Tensor, ...]:
        """Of every parameter, in their order; () without momentum, or before the first step."""
        ...

    def epoch(self, order: Tensor, generator: torch.Generator, rates: Sequence[float]) -> Tensor:
        """The sum of the images' losses in one epoch.

        Args:
            order: int64 (N,), on the CPU: which images, see `distill.passes`.
            generator: of the augmentation.
            rates: the learning rate of each of the S steps.
        """
        ...


@dataclass(frozen=True)
class Material:
    """What a training is made of.

    Attributes:
        network: (N, C, H, W) to logits, on the device, in training mode.
        images, labels, preprocessing: as `distill.training.train` takes them, on the device.
        images_an_epoch: None: all.
        momentum: to go on with; () begins.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    preprocessing: Preprocessing | None
    config: "TrainingConfig"
    momentum: Sequence[Tensor]
    images_an_epoch: int | None = None

    @property
    def epoch_images(self) -> int:
        """How many images an epoch looks at."""
        return self.images_an_epoch or len(self.images)

    @property
    def epoch_steps(self) -> int:
        """How many steps that takes."""
        return -(-self.epoch_images // self.config.batch_size)


class RecordedSteps:
    """Steps as CUDA graphs, one a batch size.

    Raises:
        UnrecordableError: a step cannot be recorded; the network is as it was.
    """

    def __init__(self, material: Material) -> None:
        self._of = material
        self._names = parse_strategy(material.config.augmentation)
        self._all = list(material.network.parameters())
        self._parameters = [p for p in self._all if p.requires_grad]
        self._momentum = [torch.zeros_like(parameter) for parameter in self._parameters]
        if material.momentum:
            trained = [m for m, p in zip(material.momentum, self._all, strict=True) if p.requires_grad]
            for mine, given in zip(self._momentum, trained, strict=True):
                mine.copy_(given)
        self._total = torch.zeros((), device=material.images.device)
        self._recorded = {size: self._record(size) for size in self._sizes()}

    @property
    def momentum(self) -> tuple[Tensor, ...]:
        """See `Steps`."""
        if not self._of.config.momentum:
            return ()
        of_trained = iter(self._momentum)
        return tuple(next(of_trained) if p.requires_grad else torch.zeros_like(p) for p in self._all)

    def _sizes(self) -> set[int]:
        """Of the batches of an epoch."""
        whole, rest = divmod(self._of.epoch_images, self._of.config.batch_size)
        return {size for size in (self._of.config.batch_size if whole else 0, rest) if size}

    def epoch(self, order: Tensor, generator: torch.Generator, rates: Sequence[float]) -> Tensor:
        """See `Steps`."""
        sizes = [len(batch) for batch in order.split(self._of.config.batch_size)]
        drawn = [self._drawn(size, generator) for size in sizes]
        numbers = [
            torch.cat([rows.flatten(), torch.tensor([rate])])
            for (_, rows), rate in zip(drawn, rates, strict=True)
        ]
        # All that the epoch needs goes to the GPU at once.
        device = self._of.images.device
        places = _sent(torch.stack([order, torch.cat([kinds for kinds, _ in drawn])]), device).split(
            sizes, dim=1
        )
        values = _sent(torch.cat(numbers), device).split([len(each) for each in numbers])
        self._total.zero_()
        for size, place, value in zip(sizes, places, values, strict=True):
            self._recorded[size](place, value)
        return self._total.clone()

    def _drawn(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One transform for a batch, with parameters for each image: kinds (B,), rows (B, R)."""
        kinds, rows = as_tensors([draw(self._names, generator, rows=size)], self._names)
        return kinds.expand(size), rows.expand(size, -1)

    def _record(self, size: int) -> Callable[[Tensor, Tensor], None]:
        """A step on `size` images as a graph."""
        device = self._of.images.device
        _, rows = self._drawn(size, torch.Generator())
        places = torch.zeros(2, size, dtype=torch.int64, device=device)
        values = torch.zeros(rows.numel() + 1, device=device)
        changed = [*self._parameters, *self._of.network.buffers(), *self._momentum, self._total]
        graph = record(lambda: self._step(places, values), changed, device, "training")

        def replay(place: Tensor, value: Tensor) -> None:
            places.copy_(place)
            values.copy_(value)
            graph.replay()

        return replay

    def _step(self, places: Tensor, values: Tensor) -> None:
        """One step.

        Args:
            places: int64 (2, B), images and kinds of their transforms.
            values: float32 (B * R + 1,), rows of the transforms, then the learning rate.
        """
        of = self._of
        images, labels = of.images[places[0]], of.labels[places[0]]
        if of.preprocessing:
            images = of.preprocessing(images)
        images = augment_chosen(images, places[1], values[:-1].view(len(images), -1), self._names)
        # Cached casts of the weights would be recorded as they are now.
        half = of.config.precision == "bfloat16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half, cache_enabled=False):
            logits = of.network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        self._total.add_(loss.detach() * len(images))
        self._descend(gradients, values[-1])

    @torch.no_grad()
    def _descend(self, gradients: Sequence[Tensor | None], rate: Tensor) -> None:
        """SGD as torch's, which leaves alone what has no gradient; the learning rate is on the device."""
        used = [number for number, gradient in enumerate(gradients) if gradient is not None]
        parameters = [self._parameters[number] for number in used]
        momentum = [self._momentum[number] for number in used]
        given = [gradients[number] for number in used]
        decay, kept = self._of.config.weight_decay, self._of.config.momentum
        torch._foreach_mul_(momentum, kept)
        torch._foreach_add_(momentum, torch._foreach_add(given, parameters, alpha=decay))  # type: ignore[arg-type]
        torch._foreach_sub_(parameters, torch._foreach_mul(momentum, rate))  # type: ignore[arg-type]


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for it."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def broken() -> bool:
    """Whether a recording failed in this process: what torch keeps of it would spoil others, and memory."""
    return _failed


@functools.cache
def _side(device: torch.device, purpose: str) -> torch.cuda.Stream:  # noqa: ARG001
    """Where steps are recorded: cuBLAS keeps some MiB for every stream that it has seen."""
    return torch.cuda.Stream(device)


def record(
    step: Callable[[], None], changed: Sequence[Tensor], device: torch.device, purpose: str
) -> torch.cuda.CUDAGraph:
    """A step as a graph, which reads and writes where it does now.

    It is run some times before, on another stream, as torch asks: libraries choose and load their kernels.

    Args:
        changed: what the step changes; put back, as torch's random state is.
        purpose: graphs of one are never replayed at once.
    Raises:
        UnrecordableError: it cannot be recorded.
        RuntimeError: there is too little memory.
    """
    global _failed
    capturing = False
    before, random = [tensor.detach().clone() for tensor in changed], torch.cuda.get_rng_state(device)
    graph, side, current = torch.cuda.CUDAGraph(), _side(device, purpose), torch.cuda.current_stream(device)
    try:
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                step()
        current.wait_stream(side)
        # What is captured is what runs on the stream's device: torch would take one of the current device's.
        # Threads that pin memory for later steps would spoil a capture that looks at all of them.
        captured = torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local")
        capturing = True
        with torch.cuda.device(device), captured:
            step()
    except RuntimeError as error:
        _failed = _failed or capturing
        if is_want_of_memory(error):
            raise
        raise UnrecordableError(str(error).strip().partition("\n")[0]) from None
    finally:
        # A capture that fails leaves its stream the current one, which puts its own device before.
        with torch.cuda.device(device):
            torch.cuda.set_stream(current)
        with torch.no_grad():
            for tensor, old in zip(changed, before, strict=True):
                tensor.copy_(old)
        torch.cuda.set_rng_state(random, device)
    return graph


def recorded(material: Material, steps: int) -> RecordedSteps | None:
    """Steps as CUDA graphs where there is a GPU and the training is long enough, else None.

    Warns, once a process, where they cannot be recorded.
    """
    if material.images.device.type != "cuda" or steps < FEWEST_STEPS or broken():
        return None
    if stranger := _stranger(material.network):
        warnings.warn(
            f"training without CUDA graphs: a graph would keep what {stranger} decides in Python, or draws "
            f"there, in its first step; a class that does neither says {PROMISE} = True",
            stacklevel=2,
        )
        return None
    try:
        return RecordedSteps(material)
    except UnrecordableError as error:
        warnings.warn(f"training without CUDA graphs: {error}", stacklevel=2)
        return None


def _stranger(network: nn.Module) -> str | None:
    """The name of a module class that is neither of a library whose layers are known nor promises."""
    for kind in {type(module): None for module in network.modules()}:
        if kind.__module__.partition(".")[0] not in _KNOWN and not getattr(kind, PROMISE, False):
            return kind.__name__
    return None
