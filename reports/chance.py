"""What guessing gets right."""

import math


def with_luck(chance: float, images: int) -> float:
    """The share of images that guessing still gets right with luck, two standard deviations of it.

    Args:
        chance: the share that it gets right on average.
        images: how many it is asked about, > 0.
    """
    return chance + 2 * math.sqrt(chance * (1 - chance) / images)
