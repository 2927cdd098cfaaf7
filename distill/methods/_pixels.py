"""What methods that move the pixels of synthetic images share: their start, and the loop over iterations.

Letters: K classes worked on, I images per class, C channels, H x W pixels.
"""

import math
from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from distill.methods.base import Problem
from distill.seeding import stream
from distill.session import Session, State

Loss = TypeVar("Loss")


class Iterations(Protocol):
    """What `iterate` has to know of a configuration."""

    @property
    def iterations(self) -> int:
        """How many there are in all."""

    @property
    def initialization(self) -> Literal["real", "noise"]:
        """What the images start from."""


def iterate(
    problem: Problem,
    config: Iterations,
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
        ValueError: if the images are not finite in the end; and what `point` raises.
    """
    state = session.restore() or initial_state(problem, config.initialization)
    state.images, state.momentum = (t.to(problem.device) for t in (state.images, state.momentum))
    while state.iteration < config.iterations:
        loss = descend(state)
        state.iteration += 1
        if state.iteration % every == 0 or state.iteration == config.iterations:
            state.curve.append(point(state.iteration, loss))
        session.after(state, config.iterations)
    images = state.images.detach().cpu()
    if not bool(torch.isfinite(images).all()):
        raise ValueError(
            f"the images are not finite after iteration {state.iteration}; a smaller learning_rate helps"
        )
    return images


def initial_state(problem: Problem, initialization: Literal["real", "noise"]) -> State:
    if initialization == "noise":
        generators = [stream(problem.seed, "noise", k) for k in problem.class_numbers]
        shape = (problem.ipc, *problem.image_shape)
        images = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    else:
        images = problem.prepare(random_positions(problem))
    return State(0, images, torch.zeros_like(images))


def random_positions(problem: Problem) -> Tensor:
    """I positions of each class, drawn at random without repeats: int64 (K*I,)."""
    drawn = [
        pool[torch.randperm(len(pool), generator=stream(problem.seed, "initial", k))[: problem.ipc]]
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
            f"the loss is not finite at iteration {iteration} (class {problem.classes[bad[0]]}); "
            "a smaller learning_rate helps"
        )
    return float(values.sum())
