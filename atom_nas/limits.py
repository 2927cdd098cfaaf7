"""Limits on what a network may cost: a space, or a list of architectures, cut down to those within."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from atom_nas.estimators.measure import network_costs
from atom_nas.settings import SearchSettings
from atom_nas.tables import ArchitectureList
from search_spaces.base import Counted, ImageShape, Space, some_architectures
from search_spaces.bounded import Bounded


def bounded(settings: SearchSettings, space: Space, image_shape: ImageShape, classes: int) -> Bounded | None:
    """The space cut down to networks within the limits; None where there are none.

    Raises:
        ValueError: none of the architectures that were looked at is within them.
    """
    if not settings.limits:
        return None

    def costs(architecture: Any) -> Mapping[str, float]:
        if isinstance(space, Counted):
            return space.costs(architecture, image_shape, classes)
        return _measured(space, architecture, image_shape, classes)

    found = Bounded(space, settings.limits, costs, built=not isinstance(space, Counted))
    _require_some(found, image_shape)
    return found


def listed_within(listed: ArchitectureList, space: Bounded, path: Path) -> ArchitectureList:
    """The list less what is beyond the limits.

    Raises:
        ValueError: nothing is left.
    """
    left = tuple(name for name in listed.architectures if space.excess(space.parse(name)) is None)
    if not left:
        count = len(listed.architectures)
        raise ValueError(
            f"none of the {count:,} architectures of {path} is within {_said(space)}: allow more"
        )
    beyond = len(listed.architectures) - len(left)
    return replace(listed, architectures=left, beyond=beyond)


def _measured(space: Space, architecture: Any, image_shape: ImageShape, classes: int) -> dict[str, float]:
    """As counted by one pass through the network. One that cannot be built is within all limits: that it
    cannot is told where it is to be trained."""
    with torch.random.fork_rng(devices=[]):
        try:
            return network_costs(space.build(architecture, image_shape, classes), image_shape)
        except Exception:  # noqa: BLE001 - the user's code may raise anything
            return {"parameters": 0.0, "flops": 0.0}


def _require_some(space: Bounded, image_shape: ImageShape) -> None:
    least = dict.fromkeys(space.limits, math.inf)
    tried = 0
    for architecture in some_architectures(space):
        if space.misfit(architecture, image_shape) is None:
            return
        tried += 1
        costs = space.costs(architecture)
        least = {what: min(most, costs[what]) for what, most in least.items()}
    smallest = " and ".join(f"{value:,.0f} {what}" for what, value in least.items())
    raise ValueError(
        f"none of the {tried:,} architectures of {space.name!r} looked at is within {_said(space)}: the "
        f"least of any is {smallest}"
    )


def _said(space: Bounded) -> str:
    return " and ".join(f"--max-{what} {most:,.0f}" for what, most in space.limits.items())
