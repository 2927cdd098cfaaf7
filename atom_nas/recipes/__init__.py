"""Recipes: how a space's architectures are ranked unless the user says otherwise. One YAML file a space.

A file holds a one-line `summary` and `settings`: fields of `atom_nas.settings.SearchSettings`. Spaces
without a file of their own, users' ones among them, share one.
"""

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

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


def filled(values: Mapping[str, Any], said: Collection[str]) -> dict[str, Any]:
    """Settings with those of the space's recipe where the user said nothing; of a group of settings, entry by
    entry.

    Args:
        values: fields of `SearchSettings`; None stands for the default.
        said: the names of the fields that the user gave.
    """
    from atom_nas.settings import SearchSettings

    whole = dict(values)
    for name, own in settings(str(values.get("space") or SearchSettings.space)).items():
        given = {} if values.get(name) is None else values[name]
        if isinstance(own, Mapping) and isinstance(given, Mapping):
            whole[name] = {**own, **given}
        elif name not in said:
            whole[name] = own
    return whole


def with_recipe(**values: Any) -> "SearchSettings":
    """The settings of a search from fields by name, as the command has them: what is not given is as the
    space's recipe says.

    Raises:
        ValueError: a setting is unknown or wrong.
    """
    from atom_nas.config import construct
    from atom_nas.settings import SearchSettings

    return construct(SearchSettings, filled(values, values))


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
