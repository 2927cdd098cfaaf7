"""48 of the 720 ConvNets: each width, depth and pooling once, norms and activations as evenly as 48 allow.

Some of the widest without pooling take as long as all others together: a network of more than MOST
operations an image is taken with a quarter of its width.

python docs/ranking/stratify.py > docs/ranking/convnets.csv
"""

import itertools
import random

from atom_nas.estimators.measure import network_costs
from search_spaces import load
from search_spaces.base import ImageShape

SEED = 0
MOST = 1e9
IMAGE: ImageShape = (3, 32, 32)
CLASSES = 10


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
        architecture = space.architecture(sample)
        if network_costs(space.build(architecture, IMAGE, CLASSES), IMAGE)["flops"] > MOST:
            architecture = space.architecture(sample | {"width": int(width) // 4})
        print(architecture)


if __name__ == "__main__":
    main()
