"""What guessing gets right."""

import math

LOPSIDED = 1.5
"""The largest class is this many times its even share: naming it always is then the better guess."""


def how_to_guess(largest: float, classes: int) -> str:
    """The better way of guessing, in words.

    Args:
        largest: the largest class's share.
        classes: how many there are.
    """
    way = "always naming the largest" if largest > LOPSIDED / classes else "guessing one"
    return f"{way} of {classes} classes"


def with_luck(chance: float, images: int) -> float:
    """The share of images that guessing still gets right with luck, two standard deviations of it; 1 where
    there are too few images for anything else.

    Args:
        chance: the share that it gets right on average.
        images: how many it is asked about, > 0.
    """
    return min(1.0, chance + 2 * math.sqrt(chance * (1 - chance) / images))
