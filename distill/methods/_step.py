"""One step on the pixels of some classes, given what their real images look like to the network."""

from collections.abc import Callable

import torch
from torch import Tensor

from distill.checkpoint import State
from distill.matching import LossWeights, MatchingLoss, Statistics, matching_loss
from distill.methods._pixels import move


def descend(
    state: State,
    rows: slice,
    target: Statistics,
    view: Callable[[Tensor], Statistics],
    *,
    weights: LossWeights,
    rate: float | Tensor,
    momentum: float,
) -> MatchingLoss:
    """The loss at the current pixels, without its graph; then a step of SGD with momentum, in place.

    Args:
        rows: of the classes' images in the state.
        view: synthetic images to the statistics that are to become those of `target`.
        rate: the learning rate; a tensor without dimensions where the step is recorded.
    """
    # A copy: where in memory a part of a tensor begins depends on what stands before it.
    images = state.images[rows].clone().requires_grad_(True)
    loss = matching_loss(target, view(images), weights=weights)
    (gradient,) = torch.autograd.grad(loss.total, images)
    move(state, rows, gradient, rate=rate, momentum=momentum)
    return MatchingLoss(loss.spatial.detach(), loss.channel.detach(), loss.mmd.detach())


def joined(losses: list[MatchingLoss]) -> MatchingLoss:
    """The losses of groups as one of all their classes."""
    parts = [(loss.spatial, loss.channel, loss.mmd) for loss in losses]
    return MatchingLoss(*(torch.cat(part) for part in zip(*parts, strict=True)))
