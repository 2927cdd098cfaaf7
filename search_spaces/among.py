"""A space cut down to listed architectures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from search_spaces.base import LISTED, ImageShape, Space, size
from search_spaces.within import Within


class Among(Within):
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
        super().__init__(space)
        self._names = frozenset(names)

    @property
    def most_listed(self) -> int:
        """As many as there may be: only those that are listed are looked at any closer."""
        return LISTED

    def misfit(self, architecture: Any, image_shape: ImageShape) -> str | None:
        """As the space does, or that the architecture is not listed."""
        if str(architecture) not in self._names:
            return "it is not among the listed ones"
        return super().misfit(architecture, image_shape)
