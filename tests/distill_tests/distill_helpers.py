"""Small problems for tests of methods."""

import itertools
from collections.abc import Callable

import torch

from distill.data import Split
from distill.methods.base import Problem
from distill.preprocessing import fit_preprocessing
from distill.seeding import stream

CPU = torch.device("cpu")


def stops_at(look: int) -> Callable[[], bool]:
    """What asks to stop when it is looked at for that time, counted from 1, and not before or after."""
    looks = itertools.count(1)
    return lambda: next(looks) == look


def blobs(counts: list[int], side: int = 8, channels: int = 1, seed: int = 0) -> Split:
    """Noisy images, each class about a pattern of its own: uint8 (N, channels, side, side)."""
    generator = stream(seed, "blobs")
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    patterns = torch.rand(len(counts), channels, side, side, generator=generator)
    noise = torch.rand(len(labels), channels, side, side, generator=generator)
    pixels = (255 * (0.6 * patterns[labels] + 0.4 * noise)).to(torch.uint8)
    return Split(pixels, labels)


def problem(
    counts: tuple[int, ...] = (12, 12, 12),
    *,
    ipc: int = 2,
    seed: int = 0,
    subset: tuple[int, ...] | None = None,
    side: int = 8,
) -> Problem:
    """A classification problem of small blobs."""
    real = blobs(list(counts), side)
    return Problem(
        real=real,
        classes=tuple(f"class-{k}" for k in range(len(counts))),
        preprocessing=fit_preprocessing(real.images, zca=False),
        ipc=ipc,
        seed=seed,
        device=CPU,
        subset=subset,
    )
