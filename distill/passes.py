"""Which images an epoch looks at, and in which order."""

import torch
from torch import Tensor

from distill.seeding import stream


def epoch_order(
    images: int, images_an_epoch: int | None, *, seed: int, epoch: int, generator: torch.Generator
) -> Tensor:
    """Positions of the images of one epoch, in the order of its batches: int64 (N,).

    Args:
        images: how many there are.
        images_an_epoch: None: all, in an order drawn from `generator`. Else so many: epochs follow one
            another through passes over all images, each in an order of its own, so that no image is seen a
            second time before all were seen once.
        seed: names the orders of those passes.
        epoch: 0-based.
        generator: of the epoch.
    """
    if images_an_epoch is None:
        return torch.randperm(images, generator=generator)
    start, end = epoch * images_an_epoch, (epoch + 1) * images_an_epoch
    first, last = start // images, (end - 1) // images
    passes = [
        torch.randperm(images, generator=stream(seed, "pass", number)) for number in range(first, last + 1)
    ]
    return torch.cat(passes)[start - first * images : end - first * images]
