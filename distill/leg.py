"""Trainings in parts: where one stops, and the file from which it goes on.

The file is safetensors, so that going on never unpickles anything.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from distill.files import write_bytes
from distill.training import TrainingRecord

_MOMENTUM = "momentum/"
_NETWORK = "network/"


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One part of a training.

    Attributes:
        until: how many epochs are done at its end.
        checkpoint: the file that it goes on from, if it is there, and that its end is kept in. A training is
            the same bits with or without it.
    """

    until: int
    checkpoint: Path


@dataclass(frozen=True)
class Kept:
    """What a checkpoint says of itself: the epochs done, and the wall and CPU seconds that they took."""

    epochs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def glance(checkpoint: Path) -> Kept:
    """What a checkpoint says of itself, without reading its tensors; nothing where there is none."""
    if not checkpoint.is_file():
        return Kept()
    try:
        with safe_open(checkpoint, framework="pt") as file:
            about = file.metadata()
            return Kept(len(json.loads(about["epoch_losses"])), *json.loads(about["spent"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return Kept()


class Part(Protocol):
    """Trains up to so many epochs, going on from what is done."""

    def __call__(self, until: int, after: TrainingRecord | None) -> TrainingRecord: ...


class Clock:
    """Wall and CPU seconds spent on a leg, with those that a checkpoint says were spent on it before.

    A checkpoint with less than the leg asks for is of an earlier leg, whose seconds were counted then; unless
    the leg is `of_all` of a training, which is then one that was cut off.
    """

    def __init__(self, leg: Leg, *, of_all: bool = False) -> None:
        before = glance(leg.checkpoint)
        before = before if of_all or before.epochs == leg.until else Kept()
        self._wall = before.seconds - time.perf_counter()
        self._cpu = before.cpu_seconds - time.process_time()

    def spent(self) -> tuple[float, float]:
        """So far."""
        return self._wall + time.perf_counter(), self._cpu + time.process_time()


def take_up(leg: Leg, network: nn.Module) -> TrainingRecord | None:
    """Put the network where an earlier leg left it; None, and the network as it is, where there is none.

    A file that is damaged, of another network or further than `leg.until` counts for nothing.
    """
    if not leg.checkpoint.is_file():
        return None
    try:
        with safe_open(leg.checkpoint, framework="pt") as file:
            losses = tuple(json.loads(file.metadata()["epoch_losses"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    state = {
        name.removeprefix(_NETWORK): tensor for name, tensor in tensors.items() if name.startswith(_NETWORK)
    }
    own = network.state_dict()
    whole = with_tied(state, own)
    momentum = {name: tensor for name, tensor in tensors.items() if name not in _named(_NETWORK, state)}
    fresh = _named(_MOMENTUM, dict(enumerate(network.parameters()))) if momentum else {}
    if len(losses) > leg.until or _shapes(whole) != _shapes(own) or _shapes(momentum) != _shapes(fresh):
        return None
    network.load_state_dict(whole)
    return TrainingRecord(losses, 0.0, tuple(momentum[name] for name in fresh))


def _named(prefix: str, tensors: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def keep(
    leg: Leg, network: nn.Module, record: TrainingRecord, spent: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Write what the next leg needs, and the wall and CPU seconds spent on it so far, for `glance`."""
    tensors = _named(_NETWORK, apart(network.state_dict())) | _named(
        _MOMENTUM, dict(enumerate(record.momentum))
    )
    leg.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"epoch_losses": json.dumps(record.epoch_losses), "spent": json.dumps(spent)}
    write_bytes(leg.checkpoint, serialize(whole, about))


def train_kept(
    part: Part, network: nn.Module, leg: Leg, clock: Clock, *, seconds: float, tell: Callable[[int], None]
) -> TrainingRecord:
    """A training of all epochs of a leg, kept on the way; where it is cut changes no bit.

    Args:
        part: trains the network up to so many epochs, from what the record says is done.
        network: as it is drawn, and in the end as it is trained.
        clock: of this leg, `of_all` of it.
        seconds: that may pass from one checkpoint to the next, an epoch at least.
        tell: called with the epochs done, first with those that were done before.
    """
    record, epochs = take_up(leg, network), 1
    while True:
        done = len(record.epoch_losses) if record else 0
        tell(done)
        if record and done >= leg.until:
            return record
        started = time.perf_counter()
        record = part(min(done + epochs, leg.until), record)
        keep(leg, network, record, clock.spent())
        epochs = max(1, int(epochs * seconds / (time.perf_counter() - started)))


def apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor of a state once, under the first of its names, and none that shares memory with another.

    Weights that are tied have several names. `with_tied` is the way back.
    """
    names = _first_names(state)
    seen: set[int] = set()
    found = {}
    for name in dict.fromkeys(names.values()):
        memory = state[name].untyped_storage().data_ptr()
        found[name] = state[name].clone() if memory in seen else state[name]
        seen.add(memory)
    return found


def with_tied(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `apart` made of a state, with all names that they have in `own`, a network's state."""
    names = _first_names(own)
    others = {name: saved[first] for name, first in names.items() if first in saved}
    return {**others, **saved}


def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Every name -> the first one that the same tensor has."""
    first: dict[object, str] = {}
    return {name: first.setdefault(_identity(name, tensor), name) for name, tensor in state.items()}


def _identity(name: str, tensor: Tensor) -> object:
    if not tensor.data_ptr():  # an empty one
        return name
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def trained_network(checkpoint: Path) -> dict[str, Tensor]:
    """The weights alone that a leg left behind, by their names in the network."""
    with safe_open(checkpoint, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(_NETWORK)]  # noqa: SIM118 - no mapping
        return {name.removeprefix(_NETWORK): file.get_tensor(name) for name in names}
