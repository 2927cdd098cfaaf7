"""What guessing gets right."""

import math
from collections.abc import Sequence

LOPSIDED = 1.5
"""The largest class is this many times its even share: naming it always is then the better guess."""
IMBALANCED = 2.0
"""The largest class has more than so many times the images of the smallest: accuracies that count images can
then hide that the rare classes are not known."""


def how_to_guess(largest: float, classes: int) -> str:
    """The better way of guessing, in words.

    Args:
        largest: the largest class's share.
        classes: how many there are.
    """
    way = "always naming the largest" if largest > LOPSIDED / classes else "guessing one"
    return f"{way} of {classes} classes"


def imbalance(largest: float, smallest: float) -> str | None:
    """That classes are far from one size, in words; None where they are not.

    Args:
        largest, smallest: the shares of the largest class and of the smallest, > 0.
    """
    if largest <= IMBALANCED * smallest:
        return None
    return (
        f"classes are imbalanced: the largest has {100 * largest:.3g}% of the images that accuracies are of, "
        f"the smallest {100 * smallest:.3g}%"
    )


def telling(counts: Sequence[int]) -> float:
    """As many images of classes of one size would tell as much by balanced accuracy as so many of each do.

    The mean of K shares, each of n_k images, has a variance of p (1 - p) (1 / n_1 + ... + 1 / n_K) / K^2.

    Args:
        counts: of each class; classes without images do not count.
    """
    there = [count for count in counts if count]
    return len(there) ** 2 / sum(1 / count for count in there)


def with_luck(chance: float, images: float) -> float:
    """The share of images that guessing still gets right with luck, two standard deviations of it; 1 where
    there are too few images for anything else.

    Args:
        chance: the share that it gets right on average.
        images: how many it is asked about, > 0.
    """
    return min(1.0, chance + 2 * math.sqrt(chance * (1 - chance) / images))
