"""A space cut down to some of its architectures: what a strategy draws from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search_spaces.base import Architecture, ImageShape, Space, most_listed

if TYPE_CHECKING:
    from torch import nn


class Within:
    """The same choices as those of a space, of which fewer combinations may fit."""

    def __init__(self, space: Space) -> None:
        self._space = space

    @property
    def name(self) -> str:
        """That of the space."""
        return self._space.name

    @property
    def choices(self) -> Mapping[str, tuple[Any, ...]]:
        """Those of the space."""
        return self._space.choices

    @property
    def most_listed(self) -> int:
        """As the space has it."""
        return most_listed(self._space)

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
        """As the space does."""
        return self._space.misfit(architecture, image_shape)

    def build(self, architecture: Any, image_shape: ImageShape, classes: int) -> nn.Module:
        """As the space does."""
        return self._space.build(architecture, image_shape, classes)
