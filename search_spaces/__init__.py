"""What can be sampled and built: one file a search space, an architecture is a plain frozen value."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from search_spaces.base import choose

if TYPE_CHECKING:
    from search_spaces.base import Space

SPACES: dict[str, str] = {
    "convnet": "the 720 ConvNets of the dataset-distillation papers: width, depth, norm, activation, pooling",
    "nasbench201": "the 15,625 cells of NAS-Bench-201 (NATS-Bench topology), in the benchmark's skeleton",
}


def load(name: str, **options: Any) -> Space:
    """The search space called `name`; only now is its module, and torch with it, imported.

    Args:
        name: a key of `SPACES`.
        options: keyword arguments of the `space` function of the module `search_spaces.<name>`.
    Raises:
        ValueError: unknown name or option, or a value the space does not allow.
    """
    module = import_module(f"search_spaces.{choose('search space', name, SPACES)}")
    allowed = inspect.signature(module.space).parameters
    for option in options:
        choose(f"option of the search space {name!r}", option, allowed)
    loaded: Space = module.space(**options)
    return loaded


__all__ = ["SPACES", "load"]
