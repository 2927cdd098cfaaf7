"""Where the time of a training step goes: in which kernel, and besides."""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch

from atom_nas.bench import ways
from atom_nas.bench.turns import Finished, Turns
from atom_nas.bench.ways import Scale
from distill import kernels, process

UNMEASURED = 3
OTHER = "all else (torch)"
NAMES = {
    "winograd_forward": "convolutions, forward and images' gradients",
    "winograd_gradient": "convolutions, filters' gradients",
    "winograd_filters": "convolutions, filters' points",
    "patches_forward": "convolution of the picture, forward",
    "patches_gradient": "convolution of the picture, filters' gradient",
    "bias_gradient": "biases' gradients",
    "own_forward": "norm, activation, pooling, forward",
    "own_backward": "norm, activation, pooling, backward",
    "tail_forward": "activation, pooling, forward",
    "tail_backward": "activation, pooling, backward",
    "tail_statistics": "norm, statistics",
}


def step_profile(architecture: str, scale: Scale, steps: int) -> dict[str, float]:
    """Mean seconds of a training step on one thread of a CPU by part, in a process of its own.

    The parts are kernels by name, and `OTHER`; {} where there are no kernels.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_profile, architecture, scale, steps).result()


def _profile(architecture: str, scale: Scale, steps: int) -> dict[str, float]:
    if kernels.why_unavailable():
        return {}
    process.claim()
    torch.set_num_threads(1)
    with kernels.timed() as seconds:
        watched = _Watched(steps, seconds)
        with suppress(Finished):
            ways.train(watched, architecture, torch.device("cpu"), scale, "float32")
    parts = {name: spent / steps for name, spent in seconds.most_common()}
    return {**parts, OTHER: watched.total / steps - sum(parts.values())}


class _Watched(Turns):
    """Some turns at once; what came before the measured ones is forgotten."""

    def __init__(self, steps: int, seconds: Any) -> None:
        self._left, self._steps, self._seconds = UNMEASURED + steps, steps, seconds
        self.total = self._began = 0.0

    def wait(self) -> None:
        if self._left == self._steps:
            self._seconds.clear()
            self._began = perf_counter()
        if self._left == 0:
            self.total = perf_counter() - self._began
            raise Finished
        self._left -= 1


def table(parts: Mapping[str, float], images: int) -> tuple[list[str], list[list[str]]]:
    """Milliseconds an image and shares, the largest part first."""
    total = sum(parts.values())
    ranked = sorted(parts.items(), key=lambda part: -part[1])
    rows = [[NAMES.get(name, name), f"{1e3 * s / images:.3f} ms", f"{s / total:.0%}"] for name, s in ranked]
    return ["", "time", "share"], rows
