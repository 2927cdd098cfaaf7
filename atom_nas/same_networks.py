"""Architectures that are one network by several names."""

from collections.abc import Iterable

from search_spaces.base import Space, representative


class SameNetworks:
    """Which architectures of a space are the same network, by their string forms."""

    def __init__(self, space: Space) -> None:
        """Every name is looked at once."""
        self._space = space
        self._found: dict[str, str] = {}
        self._first: dict[str, str] = {}

    def representative(self, architecture: str) -> str:
        """The one that stands for all which are the same network."""
        if architecture not in self._found:
            parsed = self._space.parse(architecture)
            self._found[architecture] = str(representative(self._space, parsed))
        return self._found[architecture]

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
