"""The file that a distillation goes on from.

It is safetensors, so that resuming never unpickles anything; since every random stream is named by seed and
iteration, its tensors are all the state there is.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Json, NonNegativeFloat, NonNegativeInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from distill.files import write_bytes
from distill.validation import first_problem

CHECKPOINT = "checkpoint.safetensors"
LARGEST = 1000.0
"""Of values in model space, where real images have a deviation of 1: beyond it a set has diverged."""


@dataclass
class State:
    """Everything a matching run carries from one iteration to the next.

    Attributes:
        iteration: how many are done.
        images, momentum: float32 (K*I, C, H, W).
        curve: logged points, each with `iteration`, `loss` and the parts of the loss.
    """

    iteration: int
    images: Tensor
    momentum: Tensor
    curve: list[dict[str, float]] = field(default_factory=list)


class About(BaseModel):
    """What a checkpoint says of itself.

    Attributes:
        identity: what the run is.
        wall_seconds, cpu_seconds: that it took up to here.
        preset: where its settings came from.
        environment: what it was made with; None in checkpoints of versions that did not note it.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    identity: Json[dict[str, Any]]
    iteration: NonNegativeInt
    curve: Json[list[dict[str, int | float]]]
    wall_seconds: NonNegativeFloat
    cpu_seconds: NonNegativeFloat
    preset: str | None = None
    environment: Json[dict[str, str]] | None = None


def largest(images: Tensor) -> float:
    """The largest value either way, NaN if one is none; 0 of no images."""
    return float(images.detach().abs().max()) if images.numel() else 0.0


def write(path: Path, state: State, about: dict[str, str]) -> bool:
    """Write a checkpoint, unless its images have diverged: there is no way on from those.

    Args:
        about: the entries of `About` as text, without those of the state.
    Returns:
        Whether it was written.
    """
    if not largest(state.images) <= LARGEST:
        return False
    tensors = {
        "images": state.images.detach().cpu().contiguous(),
        "momentum": state.momentum.cpu().contiguous(),
    }
    own = {"iteration": str(state.iteration), "curve": json.dumps(state.curve)}
    write_bytes(path, serialize(tensors, about | own))
    return True


def read(path: Path) -> tuple[State, About]:
    """A checkpoint; of a run that has only begun it holds no images.

    Raises:
        ValueError: it is no checkpoint of this program.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise OSError("not a regular file")
        with safe_open(path, framework="pt") as file:
            about = About.model_validate(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in ("images", "momentum")}
        state = State(about.iteration, tensors["images"], tensors["momentum"], about.curve)
        _require_whole(state)
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise ValueError(
            f"{path} is no checkpoint of this program ({reason}); remove it to start afresh"
        ) from None
    return state, about


def _require_whole(state: State) -> None:
    for name, tensor in (("images", state.images), ("momentum", state.momentum)):
        if tensor.dtype != torch.float32 or tensor.ndim != (4 if tensor.numel() else 1):
            raise ValueError(f"its {name} are {tensor.dtype} of shape {tuple(tensor.shape)}")
        if not math.isfinite(largest(tensor)):
            raise ValueError(f"its {name} hold what is no number")
    if largest(state.images) > LARGEST:
        raise ValueError(f"its images hold values up to {largest(state.images):.2g}")
    if state.momentum.shape != state.images.shape:
        raise ValueError(f"its momentum is of shape {tuple(state.momentum.shape)}, unlike its images")
    if any(not {"iteration", "loss"} <= point.keys() for point in state.curve):
        raise ValueError("its curve has a point without iteration or loss")
    counted = [point["iteration"] for point in state.curve]
    if counted != sorted(set(counted)) or any(not 0 < number <= state.iteration for number in counted):
        raise ValueError("its curve is of other iterations than its images")
