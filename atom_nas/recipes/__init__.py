"""Recipes: how a space's architectures are ranked unless the user says otherwise. One YAML file a space.

A file holds a one-line `summary` and `settings`: fields of `atom_nas.settings.SearchSettings`, which takes
them where they are left out. What it says of `stopped_early` is told to those who stop trainings early.
Spaces without a file of their own, users' ones among them, share one.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from atom_nas.strategies import STOPPING

if TYPE_CHECKING:
    from atom_nas.settings import SearchSettings

_FOLDER = Path(__file__).parent
OTHERS = "others"
"""The recipe of spaces that have none of their own."""


def names() -> tuple[str, ...]:
    """The spaces that have a recipe of their own, and `OTHERS`."""
    return (*sorted(path.stem for path in _FOLDER.glob("*.yaml") if path.stem != OTHERS), OTHERS)


def summary(space: str) -> str:
    """What a recipe is, in one line."""
    return str(_read(space)["summary"])


def settings(space: str) -> dict[str, Any]:
    """The settings that a space's recipe brings."""
    own = _read(space if space in names() else OTHERS)["settings"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}


def warning(space: str, strategy: str) -> str | None:
    """Why a strategy does not suit a space, if that is known."""
    said = _read(space).get("stopped_early") if strategy in STOPPING and space in names() else None
    return None if said is None else str(said)


def followed(chosen: "SearchSettings") -> dict[str, Any]:
    """What a search has of its space's recipe: settings by name, of groups `group.name`."""
    found: dict[str, Any] = {}
    for name, own in settings(chosen.space).items():
        has = getattr(chosen, name)
        parts = own.items() if isinstance(own, Mapping) else ()
        found |= {f"{name}.{key}": value for key, value in parts if has.get(key) == value}
        found |= {name: own} if not parts and has == own else {}
    return found


@cache
def _read(space: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((_FOLDER / f"{space}.yaml").read_text())
    return loaded
