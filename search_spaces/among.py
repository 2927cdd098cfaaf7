"""A space cut down to some of its architectures: what a strategy draws from where a list is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from search_spaces.base import LISTED, Architecture, ImageShape, Space, size

if TYPE_CHECKING:
    from torch import nn


class Among:
    """The same choices, of which only the listed combinations fit.

    Args:
        space: what they are of.
        names: string forms.
    Raises:
        ValueError: the space has more than `LISTED` architectures, so that strategies, which look for those
            that fit, would look in vain.
    """

    def __init__(self, space: Space, names: Iterable[str]) -> None:
        if size(space) > LISTED:
            raise ValueError(
                f"the space {space.name!r} has more than {LISTED:,} architectures, too many to draw those of "
                "a list: leave --samples and --strategy out, and all of the list are ranked"
            )
        self._space, self._names = space, frozenset(names)

    @property
    def name(self) -> str:
        """That of the space."""
        return self._space.name

    @property
    def choices(self) -> Mapping[str, tuple[Any, ...]]:
        """Those of the space."""
        return self._space.choices

    def architecture(self, sample: Mapping[str, Any]) -> Architecture:
        """As the space does."""
        return self._space.architecture(sample)

    def sample_of(self, architecture: Any) -> dict[str, Any]:
        """As the space does."""
        return self._space.sample_of(architecture)

    def parse(self, text: str) -> Architecture:
        """As the space does."""
        return self._space.parse(text)

    def misfit(self, architecture: Any, image_shape: ImageShape) -> str | None:
        """As the space does, or that the architecture is not listed."""
        if str(architecture) not in self._names:
            return "it is not among the listed ones"
        return self._space.misfit(architecture, image_shape)

    def build(self, architecture: Any, image_shape: ImageShape, classes: int) -> nn.Module:
        """As the space does."""
        return self._space.build(architecture, image_shape, classes)
