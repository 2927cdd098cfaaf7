"""Networks of a space from their string forms, in whatever process they are wanted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from torch import nn

import search_spaces
from search_spaces.base import Space
from search_spaces.foreign import NniSpace


class Builder(Protocol):
    """Builds an architecture from its string form; a picklable value, since workers get a copy.

    The network is freshly initialised from torch's global generator, which the trial seeds.
    """

    def __call__(self, architecture: str) -> nn.Module: ...


@runtime_checkable
class SlowAtFirst(Protocol):
    """A builder whose first network takes longer."""

    def warm_up(self) -> None:
        """Do what only the first network needs; torch's generator is left as it was."""
        ...


@dataclass(frozen=True, kw_only=True)
class SpaceBuilder:
    """A `Builder` of networks of a space.

    A space of the user's own is imported there from its files, which must be as they were
    when the search began.

    Attributes:
        space, options: see `search_spaces.load`.
        image_shape, classes: what networks are for.
        code: the digest of the user's files; None where there are none.
    """

    space: str
    options: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    classes: int
    code: str | None = None

    def __call__(self, architecture: str) -> nn.Module:
        """The freshly initialised network of an architecture's string form."""
        space = self._loaded()
        return space.build(space.parse(architecture), self.image_shape, self.classes)

    def warm_up(self) -> None:
        """Import what the space needs."""
        self._loaded()

    def _loaded(self) -> Space:
        options = json.dumps(dict(self.options), sort_keys=True)
        return _loaded_once(self.space, options, self.image_shape, self.classes, self.code)


@lru_cache(maxsize=2)
def _loaded_once(
    name: str, options: str, image_shape: tuple[int, int, int], classes: int, code: str | None
) -> Space:
    """Once in a process: a file that is changed while a worker runs does not change its networks."""
    space = load_space(name, json.loads(options), image_shape, classes)
    if code and isinstance(space, NniSpace) and space.code != code:
        others = " or a module that it imports" if len(space.sources) > 1 else ""
        raise ValueError(f"{space.file}{others} has changed while the search ran: go on with it by --resume")
    return space


def load_space(
    name: str, options: Mapping[str, Any], image_shape: tuple[int, int, int], classes: int
) -> Space:
    """The space for images of a shape (C, H, W) and so many classes: see `search_spaces.load`.

    Raises:
        ValueError: as there, and if an option is one that comes from the dataset.
    """
    for option in ("image_shape", "classes"):
        if option in options:
            raise ValueError(f"{option} is no option of a space, it comes from the dataset: leave it out")
    return search_spaces.load(name, image_shape=image_shape, classes=classes, **options)
