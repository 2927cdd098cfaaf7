"""Matching on a GPU: an iteration is one CUDA graph, and what is random in it is drawn ahead by threads.

The numbers drawn are those of the iterations that are run step by step. Launching some three hundred small
kernels, drawing a network and three synchronisations an iteration would otherwise take several times as long
as the GPU needs for its work.

Letters: K classes worked on, I synthetic and B real images a class, n synthetic ones that are matched, C
channels, H x W pixels, P parameters.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from distill.augment import as_tensors, augment_chosen, draw, parse_strategy
from distill.checkpoint import State
from distill.graphs import record
from distill.matching import LossWeights, MatchingLoss, Statistics
from distill.methods._pixels import choose, draw_batch, seen
from distill.methods._step import descend, joined
from distill.methods.base import Problem
from distill.networks import ConvNet, reinitialise
from distill.seeding import stream

if TYPE_CHECKING:
    from distill.methods._matching import MatchingConfig

AHEAD = 16
"""Iterations drawn before they are needed."""


@dataclass(frozen=True)
class Drawn:
    """All that is random in an iteration, in tensors of fixed shapes.

    Attributes:
        numbers: float32 (P + K*R + 1,): the network's parameters in their order, the rows of the classes'
            augmentations, the learning rate.
        integers: int64 (K*B + K + K*n,): the positions of the real images taken; the kinds of the
            augmentations (see `distill.augment.as_tensors`); the synthetic images matched, n a class, where
            these are not all of them, else n is 0.
        pixels: uint8 (K*B, C, H, W), the images themselves where not all of them lie on the GPU, else empty.
    """

    numbers: Tensor
    integers: Tensor
    pixels: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """All of them."""
        return self.numbers, self.integers, self.pixels


class Draws:
    """Draws iterations, on as many threads as it takes, before they are asked for.

    Args:
        problem, config: whose streams and sizes are drawn.
        network: whose parameters are drawn.
        resident: whether all real images lie on the device.
    """

    def __init__(
        self, problem: Problem, config: "MatchingConfig", network: nn.Module, *, resident: bool
    ) -> None:
        self._problem, self._config, self._resident = problem, config, resident
        self._network = network
        self._pools, self._names = problem.pools(), parse_strategy(config.augmentation)
        self._pinned = problem.device.type == "cuda"
        self._threads = ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 2) // 2)))
        self._mine = threading.local()
        self._ahead: deque[tuple[int, Future[Drawn]]] = deque()

    def take(self, iteration: int) -> Drawn:
        """What iteration `iteration` needs; the next ones are begun."""
        if not self._ahead or self._ahead[0][0] != iteration:
            self._ahead.clear()
        first = self._ahead[-1][0] + 1 if self._ahead else iteration
        for number in range(first, min(iteration + AHEAD, self._config.iterations)):
            self._ahead.append((number, self._threads.submit(self.draw, number)))
        return self._ahead.popleft()[1].result()

    def draw(self, iteration: int) -> Drawn:
        """The same, now."""
        problem, config = self._problem, self._config
        generators = [stream(problem.seed, "class", iteration, k) for k in problem.class_numbers]
        positions = [
            draw_batch(pool, config.batch_real, g) for pool, g in zip(self._pools, generators, strict=True)
        ]
        kinds, rows = as_tensors([draw(self._names, generator) for generator in generators], self._names)
        chosen = choose(generators, config.decoded(problem.ipc), config.matched(problem.ipc))
        integers = torch.cat([*positions, kinds, chosen])
        taken = integers[: 0 if self._resident else len(kinds) * config.batch_real]
        numbers = self._numbers(stream(problem.seed, "network", iteration), rows, config.rate(iteration))
        return Drawn(*map(self._pin, (numbers, integers, problem.real.images[taken])))

    def _numbers(self, generator: torch.Generator, rows: Tensor, rate: float) -> Tensor:
        """Parameters, rows and rate as one tensor, which the next call on the same thread overwrites."""
        mine = self._mine
        if not hasattr(mine, "network"):
            mine.network = deepcopy(self._network).cpu()
            sizes = [parameter.numel() for parameter in mine.network.parameters()]
            mine.flat = torch.empty(sum(sizes) + rows.numel() + 1)
            for parameter, part in zip(
                mine.network.parameters(), mine.flat.split([*sizes, rows.numel() + 1]), strict=False
            ):
                parameter.data = part.view(parameter.shape)
        reinitialise(mine.network, generator)
        mine.flat[-rows.numel() - 1 : -1] = rows.flatten()
        mine.flat[-1] = rate
        flat: Tensor = mine.flat
        return flat if self._pinned else flat.clone()

    def _pin(self, tensor: Tensor) -> Tensor:
        """A copy in memory that the GPU reads by itself."""
        return tensor.pin_memory() if self._pinned and tensor.numel() else tensor

    def close(self) -> None:
        """Let the threads end; what was drawn ahead is lost."""
        self._threads.shutdown(wait=True, cancel_futures=True)


class Replayed:
    """What `_Engine` of the matching methods does, on a GPU as one recorded graph.

    On a CPU the same is computed without recording, which the tests compare.

    Args:
        problem, config, weights: as everywhere; `config.compile` is decided.
        statistics: augmented images and number of classes to what is matched, by `network`.
        network: on the device.
        pixels: all real images if they lie on the device, else None.
    """

    def __init__(
        self,
        problem: Problem,
        config: "MatchingConfig",
        weights: LossWeights,
        *,
        network: ConvNet,
        statistics: Callable[[Tensor, int], Statistics],
        pixels: Tensor | None,
    ) -> None:
        self._problem, self._config, self._weights = problem, config, weights
        self._network, self._statistics = network, statistics
        self._groups = config.class_groups(problem)
        self._names = parse_strategy(config.augmentation)
        self._preprocessing = problem.preprocessing.to(problem.device)
        self._pixels = pixels
        self._draws = Draws(problem, config, network, resident=pixels is not None)
        self._view = torch.compile(self._seen, dynamic=False) if config.compile else self._seen
        self._inputs: Drawn | None = None
        self._state: State | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss: MatchingLoss | None = None

    def descend(self, state: State) -> MatchingLoss:
        """One iteration, in place; the loss is valid until the next one."""
        drawn = self._draws.take(state.iteration)
        if self._state is not state:
            self._state, self._graph = state, None
            self._inputs = Drawn(*(torch.empty_like(t, device=self._problem.device) for t in drawn.tensors))
        assert self._inputs is not None
        for place, tensor in zip(self._inputs.tensors, drawn.tensors, strict=True):
            place.copy_(tensor, non_blocking=True)
        if self._problem.device.type != "cuda":
            return self._step(state, self._inputs)
        if self._graph is None:
            self._graph = self._record(state, self._inputs)
        assert self._loss is not None
        self._graph.replay()
        return self._loss

    def close(self) -> None:
        """Let the threads end, and the device's memory go, which cycles would keep for a while."""
        self._draws.close()
        self._graph = self._inputs = self._state = self._loss = None

    def _record(self, state: State, inputs: Drawn) -> torch.cuda.CUDAGraph:
        def step() -> None:
            self._loss = self._step(state, inputs)

        with torch.backends.cudnn.flags(
            enabled=True, benchmark=True, allow_tf32=torch.backends.cudnn.allow_tf32
        ):
            return record(step, [state.images, state.momentum], self._problem.device, "matching")

    def _step(self, state: State, inputs: Drawn) -> MatchingLoss:
        parameters = list(self._network.parameters())
        sizes = [parameter.numel() for parameter in parameters]
        *parts, rest = inputs.numbers.split([*sizes, len(inputs.numbers) - sum(sizes)])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view(parameter.shape))
        return joined([self._group(state, inputs, group, rest) for group in self._groups])

    def _group(self, state: State, inputs: Drawn, group: slice, rest: Tensor) -> MatchingLoss:
        config, ipc, classes = self._config, self._problem.ipc, len(self._problem.class_numbers)
        positions, kinds, chosen = inputs.integers.tensor_split(
            [classes * config.batch_real, classes * (config.batch_real + 1)]
        )
        kinds, rows = kinds[group], rest[:-1].view(classes, -1)[group]
        taken = slice(group.start * config.batch_real, group.stop * config.batch_real)
        pixels = inputs.pixels[taken] if self._pixels is None else self._pixels[positions[taken]]
        matched, before = config.matched(ipc), group.start * config.decoded(ipc)
        chosen = chosen[group.start * matched : group.stop * matched] - before
        with torch.no_grad():
            target = self._view(self._preprocessing(pixels), kinds, rows)
        return descend(
            state,
            slice(group.start * ipc, group.stop * ipc),
            target,
            lambda images: self._view(seen(images, config.factor, chosen), kinds, rows),
            weights=self._weights,
            rate=rest[-1],
            momentum=config.momentum,
        )

    def _seen(self, images: Tensor, kinds: Tensor, rows: Tensor) -> Statistics:
        """Images of some classes as the network sees them."""
        augmented = augment_chosen(images, kinds, rows, self._names)
        return self._statistics(augmented.contiguous(memory_format=torch.channels_last), len(kinds))
