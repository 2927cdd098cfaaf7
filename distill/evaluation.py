"""How good a synthetic set is: fresh networks trained on it, tested on real images."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill import networks
from distill.data import RealDataset, Split
from distill.methods import random as random_method
from distill.methods.base import Problem
from distill.seeding import derive_seed, stream
from distill.session import Session
from distill.synthetic import SyntheticSet
from distill.training import Evaluation, TrainingConfig, evaluate, train

Build = Callable[[str, tuple[int, int, int], int, torch.Generator], nn.Module]


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


class Evaluator:
    """Trains networks on sets that share a real dataset, a preprocessing and a training recipe.

    Args:
        synthetic: gives preprocessing, images per class and the split.
        dataset: its real dataset.
        config: how every network is trained.
        seed: of initial weights, batches and augmentation, and of the random baseline's draw.
        test: what is tested on; the real test split if None (tuning passes the validation split).
        build: makes a network by name, as `distill.networks.build` does.
    """

    def __init__(
        self,
        synthetic: SyntheticSet,
        dataset: RealDataset,
        *,
        config: TrainingConfig,
        seed: int,
        device: torch.device,
        test: Split | None = None,
        build: Build = networks.build,
    ) -> None:
        self._synthetic, self._dataset, self._config = synthetic, dataset, config
        self._build = build
        self._seed, self._device = seed, device
        self._test = dataset.test if test is None else test
        if not len(self._test):
            raise ValueError("there are no images to test on")

    def accuracy(
        self, subject: str, network: str, repeat: int, on_epoch: Callable[[int], None] | None = None
    ) -> float:
        """Of one network, on the test images; see `evaluation`."""
        return self.evaluation(subject, network, repeat, on_epoch).accuracy

    def evaluation(
        self, subject: str, network: str, repeat: int, on_epoch: Callable[[int], None] | None = None
    ) -> Evaluation:
        """How one network does on the test images.

        Args:
            subject: `synthetic` for the set itself; `random` for a draw of as many real images per class,
                another one every repeat.
            network: that `build` knows, by default of `distill.networks.NETWORKS`.
            repeat: names the initial weights, the order of batches and the draw.
            on_epoch: called with the number of finished epochs.
        Raises:
            FloatingPointError: if the training loss is not finite.
            ValueError: if the images are too small for the network.
        """
        assert subject in ("synthetic", "random"), subject
        images, labels = self._training_set(subject, repeat)
        generator = stream(self._seed, "evaluation", network, repeat)
        fresh = self._build(network, self._dataset.image_shape, len(self._dataset.classes), generator)
        train(
            fresh,
            images,
            labels,
            config=self._config,
            seed=derive_seed(self._seed, "evaluation", repeat),
            device=self._device,
            on_epoch=on_epoch,
        )
        return evaluate(
            fresh,
            self._test.images,
            self._test.labels,
            device=self._device,
            preprocessing=self._synthetic.preprocessing,
            precision=self._config.precision,
        )

    def _training_set(self, subject: str, repeat: int) -> tuple[Tensor, Tensor]:
        """Images in model space and their labels, or probabilities."""
        if subject == "synthetic":
            return self._synthetic.images, self._synthetic.targets
        return self._random_images(repeat)

    def _random_images(self, repeat: int) -> tuple[Tensor, Tensor]:
        """Real images and labels, class by class, whatever the order of the synthetic set."""
        fit, _ = self._synthetic.split_real(self._dataset)
        problem = Problem(
            real=fit,
            classes=self._dataset.classes,
            preprocessing=self._synthetic.preprocessing,
            ipc=self._synthetic.card["ipc"],
            seed=derive_seed(self._seed, "baseline", repeat),
            device=self._device,
        )
        images = random_method.distill(problem, random_method.Config(), Session())
        return images, problem.labels


def default_network(image_shape: tuple[int, int, int]) -> str:
    """The field's ConvNet for images of this size, e.g. `convnet3`; the deepest there is for larger ones."""
    listed = [name for name in networks.NETWORKS if name.startswith("convnet")]
    wished = f"convnet{networks.fitting_depth(image_shape)}"
    return wished if wished in listed else listed[-1]


def as_json(synthetic: dict[str, Accuracy], baseline: dict[str, Accuracy]) -> dict[str, object]:
    """The record that `atom-nas evaluate --json` prints; the baseline, null if left out, is pooled over
    networks as well."""
    pooled: Sequence[float] = [value for accuracy in baseline.values() for value in accuracy.values]
    return {
        "networks": {name: accuracy.as_dict() for name, accuracy in synthetic.items()},
        "random_baseline": {
            **Accuracy(tuple(pooled)).as_dict(),
            "networks": {name: accuracy.as_dict() for name, accuracy in baseline.items()},
        }
        if pooled
        else None,
    }
