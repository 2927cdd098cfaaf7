"""The engine shared by the matching methods: they differ in their loss weights only.

Every iteration draws one random network, and for each class one batch of real images and one
augmentation; the pixels descend the matching loss. The streams are named by (seed, iteration) for the
network and by (seed, iteration, class) for batch and augmentation, so classes are independent of one
another given the seed, and nothing but pixels and momentum has to be saved.

Letters: K classes worked on, I synthetic images and B real images a class, C channels, H x W pixels, f the
factor of multi-formation.
"""

import math
import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal, TypeVar, get_args

import torch
from torch import Tensor

from distill.acceleration import Auto, Work, decide
from distill.attention import AttentionSums, runs_fused
from distill.augment import Augmentation, draw, parse_strategy
from distill.checkpoint import State
from distill.graphs import UnrecordableError
from distill.matching import LossWeights, MatchingLoss, Statistics, reduce_sums, statistics
from distill.methods._pixels import PixelConfig, RealImages, augmented, choose, iterate, require_finite, seen
from distill.methods._replayed import Replayed
from distill.methods._step import descend, joined
from distill.methods.base import Problem
from distill.networks import reinitialise
from distill.precision import autocast, require
from distill.seeding import stream
from distill.session import Session

Schedule = Literal["constant", "cosine"]
Config = TypeVar("Config", bound="MatchingConfig")

GROUP_BYTES = 512 * 2**20
"""Size of the first feature map of the classes that are computed together, real and synthetic images; on a
GPU a thirty-second of its memory if that is more."""


@dataclass(frozen=True, kw_only=True)
class MatchingConfig(PixelConfig):
    """Settings that the matching methods share. An iteration is one step; the papers take 20,000.

    Attributes:
        schedule: `constant` as in the papers, or `cosine`: the learning rate falls to zero over the
            iterations, which averages the noise of the random networks out of the pixels.
        augmentation: `dsa`, `none`, or transforms joined by `_` (color, crop, cutout, flip, scale, rotate);
            the same for real and synthetic images.
        compile: fuse network and statistics with torch.compile; `auto` does so where there are no fused
            kernels of our own (on a GPU, or at a width that is no multiple of 16) and the run is long enough.
        classes_at_once: classes computed together; fewer take less memory. 0 takes as many as keep the first
            feature map of their images within 512 MiB in float32. It changes rounding only; deterministic
            runs take one class at a time.
        batch_synthetic: synthetic images a class that are matched, drawn at random in every iteration; 0
            matches all, as do numbers larger than theirs. Of use with a `factor`, which makes many of them
            (Kim et al. 2022, arXiv:2205.14959).
    """

    schedule: Schedule = "constant"
    augmentation: str = "dsa"
    compile: bool | Auto = "auto"
    classes_at_once: int = 0
    batch_synthetic: int = 0
    shallowest: ClassVar[int] = 2  # attention is matched below the last block

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule not in get_args(Schedule):
            allowed = " or ".join(get_args(Schedule))
            raise ValueError(f"schedule must be {allowed}, not {self.schedule!r}")
        if self.classes_at_once < 0:
            raise ValueError(f"classes_at_once must be 0 (chosen) or positive, not {self.classes_at_once}")
        if self.batch_synthetic < 0:
            raise ValueError(f"batch_synthetic must be 0 (all) or positive, not {self.batch_synthetic}")
        parse_strategy(self.augmentation)
        _ = self.weights  # Building them checks them, before any image is read.

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * iteration / self.iterations)) / 2

    @property
    def weights(self) -> LossWeights:
        """Of the parts of the loss: those of L_MMD alone, unless a method has more parts."""
        return LossWeights(spatial=0.0, channel=0.0, mmd=1.0)

    def kernels(self, device: torch.device) -> str:
        """See `distill.methods.base.MethodConfig`; asked once `compile` is decided."""
        return "compiled" if self.compile is True else super().kernels(device)

    def suited(self: Config, problem: Problem) -> tuple[Config, tuple[str, ...]]:
        """The same with `compile` decided for problem and machine, and why.

        It depends on all classes, also where only some are worked on: every shard decides alike.

        Raises:
            ValueError: see `require_runnable`; or if compiling is asked for and cannot be done.
        """
        self.require_runnable(problem)
        compiled, reason = self._compiled(problem)
        config = replace(self, compile=compiled)
        return config, (f"compiled: {reason}",) if compiled else config.not_compiled(problem.device, reason)

    def _compiled(self, problem: Problem) -> tuple[bool, str]:
        """Whether network and statistics are compiled, and in a few words why."""
        if problem.deterministic and self.compile is True:
            raise ValueError("compile=true and deterministic exclude one another; leave one of them out")
        if self.compile == "auto" and runs_fused(self.width, problem.device):
            return False, "fused kernels need no compiling"
        if problem.deterministic:
            return False, "deterministic runs are not"
        operations = self.operations(problem.ipc, len(problem.classes), problem.image_shape)
        work = Work(iterations=self.iterations, operations=self.iterations * operations)
        return decide(self.compile, work, problem.device)

    def passes(self, ipc: int) -> float:
        """Of real images forwards, of synthetic ones backwards too, which costs two forward passes."""
        return self.batch_real + 3 * self.matched(ipc)

    def matched(self, ipc: int) -> int:
        """Synthetic images a class that an iteration matches, enlarged ones if there is a factor."""
        decoded = self.decoded(ipc)
        return min(self.batch_synthetic or decoded, decoded)

    def class_groups(self, problem: Problem) -> list[slice]:
        """The classes worked on, in nearly equal groups that are computed together."""
        height, width = problem.image_shape[1:]
        map_bytes = 4 * self.width * height * width * (self.batch_real + self.matched(problem.ipc))
        fitting = max(1, _group_bytes(problem.device) // map_bytes)
        most = 1 if problem.deterministic else self.classes_at_once or fitting
        classes = len(problem.class_numbers)
        count = -(-classes // most)
        bounds = [classes * number // count for number in range(count + 1)]
        return [slice(*pair) for pair in pairwise(bounds)]


def _group_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return GROUP_BYTES
    return max(GROUP_BYTES, int(torch.cuda.get_device_properties(device).total_memory) // 32)


def match(problem: Problem, config: MatchingConfig, session: Session) -> Tensor:
    """Minimise the matching loss over the synthetic pixels.

    Returns:
        float32 (K*I, C, H, W) in model space, on the CPU.
    Raises:
        ValueError: if the loss stops being finite, saying at which iteration and for which class, or if
            this machine cannot run `config.precision`.
    """
    config, _ = config.suited(problem)
    engine = _Engine(problem, config)
    with closing(engine):
        return iterate(problem, config, session, engine.descend, engine.point, every=session.log_every)


class _Engine:
    """What stays the same from iteration to iteration."""

    def __init__(self, problem: Problem, config: MatchingConfig) -> None:
        require(config.precision, problem.device)
        self._problem, self._config, self._weights = problem, config, config.weights
        self._real = RealImages(problem)
        self._groups = config.class_groups(problem)
        self._network = config.network(problem).requires_grad_(False)
        self._reduce = self._statistics
        self._replayed: Replayed | None = None
        self._sums: AttentionSums | None = None
        if problem.device.type == "cuda" and not problem.deterministic:
            self._replay()
        elif config.compile:
            self._compile()
        elif runs_fused(config.width, problem.device):
            self._sums = AttentionSums(self._network, config.weights, config.precision)
            self._reduce = self._fused_statistics

    def descend(self, state: State) -> MatchingLoss:
        """One iteration: the loss at the current pixels, then a step of SGD with momentum, in place."""
        if self._replayed:
            try:
                return self._replayed.descend(state)
            except UnrecordableError as error:
                warnings.warn(f"distilling without a CUDA graph: {error}", stacklevel=2)
                self.close()
                if self._config.compile:
                    self._compile()
        reinitialise(self._network, stream(self._problem.seed, "network", state.iteration))
        return joined([self._descend(state, group) for group in self._groups])

    def _compile(self) -> None:
        # Compiled forms of earlier runs count against a limit, after which torch silently stays eager.
        torch.compiler.reset()
        self._reduce = torch.compile(self._statistics, dynamic=False)

    def _descend(self, state: State, group: slice) -> MatchingLoss:
        """The same for the classes of one group."""
        problem, config = self._problem, self._config
        numbers = problem.class_numbers[group]
        generators = [stream(problem.seed, "class", state.iteration, k) for k in numbers]
        real = self._real.batch(range(group.start, group.stop), generators, config.batch_real)
        names = parse_strategy(config.augmentation)
        augmentations = [draw(names, generator) for generator in generators]
        chosen = choose(generators, config.decoded(problem.ipc), config.matched(problem.ipc))

        with torch.no_grad():
            target = self._reduce(augmented(real, augmentations), len(numbers))
        rows = slice(group.start * problem.ipc, group.stop * problem.ipc)
        return descend(
            state,
            rows,
            target,
            lambda images: self._reduce(
                self._augmented_synthetic(images, chosen, augmentations), len(numbers)
            ),
            weights=self._weights,
            rate=config.rate(state.iteration),
            momentum=config.momentum,
        )

    def close(self) -> None:
        """Let go of what the iterations held."""
        if self._replayed:
            self._replayed.close()
        self._replayed = None

    def _replay(self) -> None:
        if self._config.compile:
            torch.compiler.reset()  # see `_compile`
        self._replayed = Replayed(
            self._problem,
            self._config,
            self._weights,
            network=self._network,
            statistics=self._statistics,
            pixels=self._real.resident,
        )

    def point(self, iteration: int, loss: MatchingLoss) -> dict[str, float]:
        """The loss and its parts, as logged."""
        total = require_finite(loss.per_class, iteration, self._problem)
        parts = {"spatial": loss.spatial, "channel": loss.channel, "mmd": loss.mmd}
        sums = {name: float(part.detach().sum()) for name, part in parts.items()}
        return {"iteration": iteration, "loss": total, **sums}

    def _augmented_synthetic(
        self, images: Tensor, chosen: Tensor, augmentations: list[Augmentation]
    ) -> Tensor:
        """What networks see, as `augmented`; deterministic runs on a GPU go by the CPU.

        There the gradients of enlarging and of sampling from a grid are summed in whatever order the threads
        come.
        """
        factor = self._config.factor
        if not self._problem.deterministic or images.device.type == "cpu":
            return augmented(seen(images, factor, chosen), augmentations)
        by_cpu = augmented(seen(images.cpu(), factor, chosen), augmentations)
        return by_cpu.to(images.device, memory_format=torch.channels_last)

    def _statistics(self, images: Tensor, classes: int) -> Statistics:
        with autocast(self._problem.device, self._config.precision):
            maps, embedding = self._network.features(images)
        return statistics(maps, embedding, classes=classes, weights=self._weights)

    def _fused_statistics(self, images: Tensor, classes: int) -> Statistics:
        assert self._sums is not None
        return reduce_sums(self._sums(images), classes=classes, weights=self._weights)
