"""Recipes: how a space's architectures are ranked unless the user says otherwise. One YAML file a space.

A file holds a one-line `summary` and `settings`: fields of `atom_nas.plan.SearchSettings`. A space without a
file has the defaults of `SearchSettings`.
"""

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The spaces that have a recipe."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def summary(space: str) -> str:
    """What a recipe is, in one line."""
    return str(_read(space)["summary"])


def settings(space: str) -> dict[str, Any]:
    """The settings that a space's recipe brings; none if it has no recipe."""
    return dict(_read(space)["settings"]) if space in names() else {}


def filled(space: str, values: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """Settings with those of the recipe where the user said nothing; of a group of settings, entry by entry.

    Args:
        values: fields of `SearchSettings`; None stands for the default.
        said: the names of the fields that the user gave.
    """
    whole = dict(values)
    for name, own in settings(space).items():
        if isinstance(own, Mapping):
            whole[name] = {**own, **(values.get(name) or {})}
        elif name not in said:
            whole[name] = own
    return whole


@cache
def _read(space: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((_FOLDER / f"{space}.yaml").read_text())
    return loaded
