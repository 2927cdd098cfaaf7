"""How good a synthetic set is: fresh networks trained on it, tested on the real test split."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill import networks
from distill.data import RealDataset, Split
from distill.methods import random as random_method
from distill.methods.base import Problem
from distill.seeding import derive_seed, stream
from distill.session import Session
from distill.synthetic import SyntheticSet
from distill.training import TrainingConfig, evaluate, train


@dataclass(frozen=True)
class Accuracy:
    """Test accuracies in [0, 1] of independently initialised and trained networks."""

    values: tuple[float, ...]

    def as_dict(self) -> dict[str, float | int | list[float] | None]:
        """mean, sample standard deviation (None for a single value), n and the values themselves."""
        std = statistics.stdev(self.values) if len(self.values) > 1 else None
        return {
            "mean": statistics.fmean(self.values),
            "std": std,
            "n": len(self.values),
            "values": list(self.values),
        }


@dataclass(frozen=True)
class Step:
    """What is being trained: the set (`synthetic` or `random`), the network, which repeat, its epoch."""

    subject: str
    network: str
    repeat: int
    epoch: int


class Evaluator:
    """Trains networks on sets that share a real dataset, a preprocessing and a training recipe.

    Args:
        synthetic: gives preprocessing, images per class and the split.
        dataset: its real dataset.
        config: how every network is trained.
        seed: of initial weights, batches and augmentation, and of the random baseline's draw.
        on_step: called after every epoch.
        test: what is tested on; the real test split if None (tuning passes the validation split).
    """

    def __init__(
        self,
        synthetic: SyntheticSet,
        dataset: RealDataset,
        *,
        config: TrainingConfig,
        seed: int,
        device: torch.device,
        on_step: Callable[[Step], None] | None = None,
        test: Split | None = None,
    ) -> None:
        self._synthetic, self._dataset, self._config = synthetic, dataset, config
        self._seed, self._device, self._on_step = seed, device, on_step
        self._test = test or dataset.test

    def synthetic(self, network: str, repeats: int) -> Accuracy:
        """Of `repeats` networks trained on the synthetic set."""
        images, labels = self._synthetic.images, self._synthetic.labels
        return Accuracy(tuple(self._one(images, labels, "synthetic", network, r) for r in range(repeats)))

    def random_baseline(self, network: str, repeats: int) -> Accuracy:
        """Of `repeats` networks, each trained on another random draw of as many real images per class."""
        return Accuracy(
            tuple(
                self._one(self._random_images(r), self._synthetic.labels, "random", network, r)
                for r in range(repeats)
            )
        )

    def _random_images(self, repeat: int) -> Tensor:
        fit, _ = self._synthetic.split_real(self._dataset)
        problem = Problem(
            real=fit,
            classes=self._dataset.classes,
            preprocessing=self._synthetic.preprocessing,
            ipc=self._synthetic.card["ipc"],
            seed=derive_seed(self._seed, "baseline", repeat),
            device=self._device,
        )
        return random_method.distill(problem, random_method.Config(), Session())

    def _one(self, images: Tensor, labels: Tensor, subject: str, name: str, repeat: int) -> float:
        network = networks.build(name, self._dataset.image_shape, len(self._dataset.classes))
        networks.reinitialise(network, stream(self._seed, "evaluation", name, repeat))

        def on_epoch(epoch: int) -> None:
            if self._on_step:
                self._on_step(Step(subject, name, repeat, epoch))

        train(
            network,
            images,
            labels,
            config=self._config,
            seed=derive_seed(self._seed, "evaluation", repeat),
            device=self._device,
            on_epoch=on_epoch,
        )
        return evaluate(
            network,
            self._test.images,
            self._test.labels,
            device=self._device,
            preprocessing=self._synthetic.preprocessing,
            precision=self._config.precision,
        ).accuracy


def default_network(image_shape: tuple[int, int, int]) -> str:
    """The field's ConvNet for images of this size, e.g. `convnet3`."""
    return f"convnet{networks.fitting_depth(image_shape)}"


def as_json(synthetic: dict[str, Accuracy], baseline: dict[str, Accuracy]) -> dict[str, object]:
    """The record that `atom-nas evaluate --json` prints; the baseline is also pooled over networks."""
    pooled: Sequence[float] = [value for accuracy in baseline.values() for value in accuracy.values]
    return {
        "networks": {name: accuracy.as_dict() for name, accuracy in synthetic.items()},
        "random_baseline": {
            **Accuracy(tuple(pooled)).as_dict(),
            "networks": {name: accuracy.as_dict() for name, accuracy in baseline.items()},
        },
    }
