"""Architectures that are one network by several names."""

from collections.abc import Iterable

import torch

from distill.seeding import own_randomness
from search_spaces.base import Architecture, Space, representative
from search_spaces.foreign import NniSpace
from search_spaces.identity import identity_of


class SameNetworks:
    """Which architectures of a space are the same network, by their string forms.

    Model spaces of NNI's do not say; there, networks are built and compared, and the name that was asked for
    first stands for its network.
    """

    def __init__(self, space: Space, image_shape: tuple[int, int, int], classes: int) -> None:
        """Every name is looked at once."""
        self._space, self._image_shape, self._classes = space, image_shape, classes
        self._found: dict[str, str] = {}
        self._named: dict[str, str] = {}
        self._first: dict[str, str] = {}

    def representative(self, architecture: str) -> str:
        """The one that stands for all which are the same network."""
        if architecture not in self._found:
            parsed = self._space.parse(architecture)
            if isinstance(self._space, NniSpace):
                identity = self._identity(parsed)
                same = self._named.setdefault(identity, architecture) if identity else architecture
            else:
                same = str(representative(self._space, parsed))
            self._found[architecture] = same
        return self._found[architecture]

    def _identity(self, architecture: Architecture) -> str | None:
        """Of the network as it is built from one seed; None where it cannot be, as its trial will tell."""
        try:
            with own_randomness(0, torch.device("cpu")):
                return identity_of(self._space.build(architecture, self._image_shape, self._classes))
        except Exception:  # noqa: BLE001 - a user's constructor may raise anything
            return None

    def repeated(self, architectures: Iterable[str]) -> dict[str, str]:
        """Those that are the same network as an earlier one, and the first of these."""
        self._first = {}
        found: dict[str, str] = {}
        for name in architectures:
            self.note(name, found)
        return found

    def note(self, architecture: str, found: dict[str, str]) -> None:
        """Add one more to what `repeated` found, if it is the same network as an earlier one."""
        first = self._first.setdefault(self.representative(architecture), architecture)
        if first != architecture:
            found[architecture] = first
