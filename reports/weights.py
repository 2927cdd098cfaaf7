"""The scores that a mean of ranks is made of, each with its weight in it: `NAME`, or `NAME=WEIGHT`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reports.scores import describe_score

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?(e-?[0-9]{1,2})?|\.[0-9]+", re.ASCII)
_MOST = 1000
"""A weight; one that is far from the others leaves nothing of them, or of itself."""


def weights_of(parts: Iterable[str]) -> dict[str, float]:
    """The weight of each score, by its name; 1 where none is given. Named twice alike is named once.

    Raises:
        ValueError: a weight is no number from a thousandth to a thousand, is of nothing, or a score has two.
    """
    weights: dict[str, float] = {}
    for part in parts:
        name, equals, text = (each.strip() for each in part.partition("="))
        if not name:
            raise ValueError(f"{part!r} weighs no score: name one, as in synflow=2")
        weight = _weight(name, text) if equals else 1.0
        if weights.setdefault(name, weight) != weight:
            raise ValueError(
                f"the score {name} is to be combined with two weights, {weights[name]:g} and {weight:g}: "
                "name it once"
            )
    return weights


def _weight(name: str, text: str) -> float:
    weight = float(text) if _NUMBER.fullmatch(text) else 0.0
    if not 1 / _MOST <= weight <= _MOST:
        raise ValueError(
            f"the weight of {name} must be a number from {1 / _MOST:g} to {_MOST:,}, as in {name}=2, "
            f"not {text!r}"
        )
    return weight


def weighted(name: str, weight: float) -> str:
    """What `weights_of` reads: the name alone if the weight is 1."""
    return name if weight == 1 else f"{name}={weight!r}".removesuffix(".0")


def told(name: str, weight: float) -> str:
    """The score for people, with its weight if that is not 1: "3 x training loss decay"."""
    label = describe_score(name).label
    return label if weight == 1 else f"{weight:g} x {label}"
