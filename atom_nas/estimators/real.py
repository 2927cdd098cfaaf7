"""The reference: train on the real images, score on real validation and test images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from atom_nas.estimators.base import (
    SCORING_VERSION,
    SearchData,
    configure,
    fingerprint,
    metric_settings,
    preprocessing_fingerprint,
    subset,
    train_and_score,
    validation_subset,
)
from distill.leg import Leg
from distill.training import Evaluation, TrainingConfig, evaluate

EPOCHS = 30
RECIPE: Mapping[str, Any] = {"batch_size": 32, "learning_rate": 0.02, "schedule": "onecycle"}
"""By which networks of all kinds learn most of real images, in a few steps most of all (docs/convnets.md)."""


@dataclass(frozen=True, kw_only=True)
class RealConfig:
    """How the reference trains and what it scores on.

    Attributes:
        training: of every network on the real images; `EPOCHS` epochs by `RECIPE` by default.
        train_images: train on a seeded subset of this many images, with equal shares per class; None: on
            all. A reference from a subset is a cheaper, weaker one: say so where it is quoted.
        validation_images: as `train_images`, of the validation images.
        subset_seed: of these subsets.
    """

    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=EPOCHS, **RECIPE))
    train_images: int | None = None
    validation_images: int | None = None
    subset_seed: int = 0


class RealEstimator:
    """Trains on the real training images without the validation images; the test split is read for scores."""

    name = "real"

    def __init__(self, data: SearchData, config: RealConfig) -> None:
        """Take the real splits, or subsets of them, out of `data`.

        Raises:
            ValueError: if a subset is smaller than the number of classes.
        """
        self.config = config
        self._test, self._preprocessing = data.test, data.preprocessing
        self._balanced, self._metric = data.balanced, metric_settings(data)
        seed, classes = config.subset_seed, data.classes
        self._fit = subset(data.fit, classes, config.train_images, seed, "training subset")
        self._validation = validation_subset(data, config.validation_images, seed)

    def settings(self) -> dict[str, Any]:
        """The training config, and digests of all images that bear on a score."""
        fit, validation, test = self._fit, self._validation, self._test
        return {
            "estimator": self.name,
            "version": SCORING_VERSION,
            "training": asdict(self.config.training),
            "training_images": len(fit),
            "training_fingerprint": fingerprint(fit.images, fit.labels),
            "validation_images": len(validation),
            "validation_fingerprint": fingerprint(validation.images, validation.labels),
            "test_images": len(test),
            "test_fingerprint": fingerprint(test.images, test.labels),
            "preprocessing": preprocessing_fingerprint(self._preprocessing),
            **self._metric,
        }

    def score(
        self, network: nn.Module, *, seed: int, device: torch.device, leg: Leg | None = None
    ) -> dict[str, float]:
        """See `train_and_score`; adds `test_accuracy`, in [0, 1]."""
        scores = train_and_score(
            network,
            self._fit.images,
            self._fit.labels,
            training=self.config.training,
            validation=self._validation,
            preprocessing=self._preprocessing,
            seed=seed,
            device=device,
            leg=leg,
            balanced=self._balanced,
        )
        tested = self._test_of(network, device)
        return scores | {"test_accuracy": tested.accuracy_by(balanced=self._balanced)}

    def _test_of(self, network: nn.Module, device: torch.device) -> Evaluation:
        return evaluate(
            network, self._test.images, self._test.labels, device=device, preprocessing=self._preprocessing
        )


def estimator(data: SearchData, **options: Any) -> RealEstimator:
    """The estimator with a `RealConfig` of the given options."""
    return RealEstimator(data, configure(RealConfig, "real", options))
