"""A space cut down to networks that cost no more than they may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from search_spaces.base import ImageShape, Space
from search_spaces.within import Within

BUILT = 200
"""A space whose networks have to be built to know their costs is looked through up to this size; in a larger
one no more are built in search of the next that fits."""


class Bounded(Within):
    """The same choices, of which only networks within limits fit.

    Args:
        space: what they are of.
        limits: the most that a network may have, by what is counted: "parameters", "flops".
        costs: those of an architecture's network, by the same names; asked once for each.
        built: whether that takes building the network.
    """

    def __init__(
        self,
        space: Space,
        limits: Mapping[str, float],
        costs: Callable[[Any], Mapping[str, float]],
        *,
        built: bool,
    ) -> None:
        super().__init__(space)
        self.limits = dict(limits)
        self._costs = costs
        self._built = built
        self._known: dict[str, Mapping[str, float]] = {}

    @property
    def most_listed(self) -> int:
        """Fewer where networks have to be built."""
        most = super().most_listed
        return min(most, BUILT) if self._built else most

    @property
    def counted(self) -> int:
        """Of how many architectures the costs have been asked."""
        return len(self._known)

    def costs(self, architecture: Any) -> Mapping[str, float]:
        """What the architecture's network costs, by the names of the limits and perhaps others."""
        name = str(architecture)
        if name not in self._known:
            self._known[name] = self._costs(architecture)
        return self._known[name]

    def misfit(self, architecture: Any, image_shape: ImageShape) -> str | None:
        """As the space does, or which limit the network is beyond."""
        reason = super().misfit(architecture, image_shape)
        return reason or self.excess(architecture)

    def excess(self, architecture: Any) -> str | None:
        """Which limit the network is beyond, None if it is within all."""
        costs = self.costs(architecture)
        beyond = [f"{costs[what]:,.0f} {what}" for what, most in self.limits.items() if costs[what] > most]
        return f"it has {' and '.join(beyond)}, more than it may" if beyond else None
