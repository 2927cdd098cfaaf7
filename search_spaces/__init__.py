"""What can be sampled and built: one file a search space, an architecture is a plain frozen value."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from search_spaces.base import choose

if TYPE_CHECKING:
    from search_spaces.base import ImageShape, Space

SPACES: dict[str, str] = {
    "convnet": "the 720 ConvNets of the dataset-distillation papers: width, depth, norm, activation, pooling",
    "nasbench201": "the 15,625 cells of NAS-Bench-201 (NATS-Bench topology), in the benchmark's skeleton",
}


def load(name: str, /, *, image_shape: ImageShape = (3, 32, 32), classes: int = 10, **options: Any) -> Space:
    """The search space called `name`; only now is its module, and torch with it, imported.

    Args:
        name: a key of `SPACES`, `hub:` with a key of `search_spaces.hub.HUB`, or a user's model space by
            FILE.py:CLASS or module:CLASS, whose file is then run.
        image_shape, classes: (C, H, W) and number of classes that model spaces are made for, as their choices
            may depend on them; the others fit whatever they are asked to.
        options: keyword arguments of the `space` function of the module `search_spaces.<name>`, or of the
            model space's constructor.
    Raises:
        ValueError: unknown name or option, a value the space does not allow, or a model space that fails.
    """
    if ":" in name:
        module = import_module(f"search_spaces.{'hub' if name.startswith('hub:') else 'own'}")
        foreign: Space = module.load(name, options, image_shape, classes)
        return foreign
    module = import_module(f"search_spaces.{_registered(name)}")
    allowed = inspect.signature(module.space).parameters
    for option in options:
        choose(f"option of the search space {name!r}", option, allowed)
    loaded: Space = module.space(**options)
    return loaded


def _registered(name: str) -> str:
    try:
        return choose("search space", name, SPACES)
    except ValueError as error:
        if name.endswith(".py"):
            raise ValueError(f"{name} may define several spaces: name one by {name}:CLASS") from None
        if name in import_module("search_spaces.hub").HUB:
            raise ValueError(f"unknown search space {name!r}: did you mean 'hub:{name}'?") from None
        raise ValueError(f"{error}; or hub:NAME, FILE.py:CLASS or module:CLASS") from None


def is_own(name: str) -> bool:
    """Whether loading the space runs a file of the user's: see `search_spaces.own`."""
    return ":" in name and not name.startswith("hub:")


def resolve(name: str) -> str:
    """The name of the same space wherever the working directory is.

    Raises:
        ValueError: it names a file or a module that does not exist.
    """
    if not is_own(name):
        return name
    resolved: str = import_module("search_spaces.own").resolve(name)
    return resolved


__all__ = ["SPACES", "is_own", "load", "resolve"]
