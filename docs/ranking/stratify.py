"""48 of the 720 ConvNets: each width, depth and pooling once, norms and activations as evenly as 48 allow.

python docs/ranking/stratify.py > docs/ranking/convnets.csv
"""

import itertools
import random

from search_spaces import load

SEED = 0


def main() -> None:
    """Print the column `architecture`."""
    space = load("convnet")
    strata = list(itertools.product(*(space.choices[name] for name in ("width", "depth", "pooling"))))
    generator = random.Random(SEED)

    def spread(name: str) -> list[str]:
        values = [str(value) for value in space.choices[name]]
        drawn = [value for _ in range(-(-len(strata) // len(values))) for value in values][: len(strata)]
        generator.shuffle(drawn)
        return drawn

    print("architecture")
    for (width, depth, pooling), norm, activation in zip(
        strata, spread("norm"), spread("activation"), strict=True
    ):
        sample = {"width": width, "depth": depth, "norm": norm, "activation": activation, "pooling": pooling}
        print(space.architecture(sample))


if __name__ == "__main__":
    main()
