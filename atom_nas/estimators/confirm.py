"""The confirmation: train the chosen few on the real images, to be kept.

As the reference does, but with a recipe of its own, and with checkpoints on the way: these are the longest
trainings of a search.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from atom_nas.estimators.base import SearchData, configure, read_scores
from atom_nas.estimators.real import RECIPE, RealConfig, RealEstimator
from distill.leg import Clock, Leg, train_kept
from distill.training import TrainingConfig, TrainingRecord, train
from reports.confirmed import of_class

EPOCHS = 100
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class ConfirmConfig(RealConfig):
    """How the confirmation trains; what it scores on is said by `RealConfig`.

    Attributes:
        training: of every network on the real images; `EPOCHS` epochs by the reference's recipe by default.
    """

    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=EPOCHS, **RECIPE))


class ConfirmEstimator(RealEstimator):
    """Trains on the real training images without the validation images, in parts that are kept.

    Chosen is by validation accuracy; the test split is read for the report alone.
    """

    name = "confirm"

    def score(
        self, network: nn.Module, *, seed: int, device: torch.device, leg: Leg | None = None
    ) -> dict[str, float]:
        """See `RealEstimator.score`; with a leg, its checkpoint is renewed every `CHECKPOINT_SECONDS`.

        Adds the test accuracy of each class that has test images, by the names that `of_class` gives.
        """
        record = self._train(network, seed, device, leg)
        scores = read_scores(
            network,
            record,
            validation=self._validation,
            preprocessing=self._preprocessing,
            device=device,
            balanced=self._balanced,
        )
        tested = self._test_of(network, device)
        by_class = {of_class(k): share for k, share in enumerate(tested.by_class) if share is not None}
        return scores | {"test_accuracy": tested.accuracy_by(balanced=self._balanced)} | by_class

    def _train(self, network: nn.Module, seed: int, device: torch.device, leg: Leg | None) -> TrainingRecord:
        if leg is None:
            return self._part(network, seed, device, None, None)
        part, clock = partial(self._part, network, seed, device), Clock(leg, of_all=True)
        record = train_kept(part, network, leg, clock, seconds=CHECKPOINT_SECONDS, tell=lambda _: None)
        # As training has it, where none was left to do.
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return record

    def _part(
        self,
        network: nn.Module,
        seed: int,
        device: torch.device,
        until: int | None,
        after: TrainingRecord | None,
    ) -> TrainingRecord:
        return train(
            network,
            self._fit.images,
            self._fit.labels,
            config=self.config.training,
            seed=seed,
            device=device,
            preprocessing=self._preprocessing,
            until=until,
            after=after,
        )


def estimator(data: SearchData, **options: Any) -> ConfirmEstimator:
    """The estimator with a `ConfirmConfig` of the given options."""
    return ConfirmEstimator(data, configure(ConfirmConfig, "confirm", options))
