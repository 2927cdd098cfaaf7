"""The protocol of a search space, and what follows from it alone. Free of torch and of NNI."""

from __future__ import annotations

import difflib
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn

ImageShape = tuple[int, int, int]
"""Channels, height and width of one image."""
LISTED = 100_000
"""A space of more architectures is never looked through one by one, see `most_listed`."""


class Architecture(Protocol):
    """A frozen value that names one network.

    Its string form is stable and readable, holds no comma and no quote, and `Space.parse` reads it back.
    """

    def __hash__(self) -> int: ...

    def __str__(self) -> str: ...


@runtime_checkable
class Space(Protocol):
    """A finite set of architectures: every combination of some declared choices.

    A space takes its own architectures only, hence the `Any`: a narrower type in an implementation is right.
    """

    @property
    def name(self) -> str:
        """The name under which `search_spaces.load` finds the space."""

    @property
    def choices(self) -> Mapping[str, tuple[Any, ...]]:
        """What is to be chosen, and among which values (plain str, int, float or bool), both in order."""

    def architecture(self, sample: Mapping[str, Any]) -> Architecture:
        """The architecture in which each choice has the value the sample gives it."""

    def sample_of(self, architecture: Any) -> dict[str, Any]:
        """The inverse of `architecture`: each choice and its value, in the order of `choices`."""

    def parse(self, text: str) -> Architecture:
        """Read an architecture's string form.

        Raises:
            ValueError: the wrong part and what is allowed in its place.
        """

    def misfit(self, architecture: Any, image_shape: ImageShape) -> str | None:
        """Why the architecture cannot learn from images of this shape, in a few words; None if it can."""

    def build(self, architecture: Any, image_shape: ImageShape, classes: int) -> nn.Module:
        """The network, from float32 images (N, C, H, W) to logits (N, classes).

        Freshly initialised from torch's global generator: the caller forks and seeds it.

        Raises:
            ValueError: the architecture does not fit such images.
        """


@runtime_checkable
class Repeating(Protocol):
    """A space in which some networks have several names."""

    def representative(self, architecture: Any) -> Architecture:
        """One and the same architecture for all that are the same function of as many weights."""


@runtime_checkable
class Counted(Protocol):
    """A space that knows what its networks cost without building them."""

    def costs(self, architecture: Any, image_shape: ImageShape, classes: int) -> dict[str, float]:
        """Trainable `parameters`, and `flops` of one image's forward pass.

        A multiplication and an addition count as two; only convolutions and matrix products count.
        """


def representative(space: Space, architecture: Architecture) -> Architecture:
    """The architecture that stands for all which are the same network; itself where none is known to be."""
    return space.representative(architecture) if isinstance(space, Repeating) else architecture


def enumerate_space(space: Space) -> Iterator[Architecture]:
    """Every architecture of the space, the last choice varying fastest."""
    for values in itertools.product(*space.choices.values()):
        yield space.architecture(dict(zip(space.choices, values, strict=True)))


def size(space: Space) -> int:
    """How many architectures there are."""
    return math.prod(map(len, space.choices.values()))


def most_listed(space: Space) -> int:
    """Up to how many architectures the space is looked through one by one."""
    return getattr(space, "most_listed", LISTED)


def is_listed(space: Space) -> bool:
    """Whether the space is small enough to be looked through one by one."""
    return size(space) <= most_listed(space)


def count_fitting(space: Space, image_shape: ImageShape) -> tuple[int | None, int]:
    """How many architectures fit images of this shape (C, H, W), and how many there are.

    The first is None, unknown, if there are too many to look through.
    """
    total = size(space)
    if not is_listed(space):
        return None, total
    return sum(space.misfit(each, image_shape) is None for each in enumerate_space(space)), total


def some_architectures(space: Space) -> Iterator[Architecture]:
    """Every architecture, in order; of too many to look through the first, then draws, always the same."""
    if is_listed(space):
        yield from enumerate_space(space)
        return
    yield next(enumerate_space(space))
    generator = random.Random(0)
    for _ in range(min(most_listed(space), LISTED // 10)):
        yield space.architecture({name: generator.choice(each) for name, each in space.choices.items()})


def first_fitting(space: Space, image_shape: ImageShape) -> Architecture:
    """The first of `some_architectures` that fits.

    Raises:
        ValueError: none does.
    """
    for architecture in some_architectures(space):
        if space.misfit(architecture, image_shape) is None:
            return architecture
    raise ValueError(f"no architecture of the space {space.name!r} fits images of shape {image_shape}")


def nearest(name: str, known: Sequence[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """What somebody who typed `name` may have meant, best first: that whose initials it is (`lr`:
    `learning_rate`), and those whose share of letters in common (difflib's ratio) reaches `cutoff`."""
    spelled = [
        each for each in known if "_" in each and "".join(word[:1] for word in each.split("_")) == name
    ]
    like = difflib.get_close_matches(name, known, n=most, cutoff=cutoff)
    return list(dict.fromkeys([*spelled, *like]))[:most]


def choose(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return `name` if it is one of `allowed`.

    Args:
        kind: what is being named, for the message ("space", "strategy", ...).
        name: what the user gave.
        allowed: the names there are, in the order to show them.
    Raises:
        ValueError: one line that says what was given, the nearest matches and all allowed names.
    """
    known = list(allowed)
    if name in known:
        return name
    if not known:
        raise ValueError(f"unknown {kind} {name!r}: there are none")
    near = nearest(name, known)
    hint = f"did you mean {' or '.join(repr(match) for match in near)}? " if near else ""
    raise ValueError(f"unknown {kind} {name!r}: {hint}allowed: {', '.join(known)}")
