"""Soft labels: what networks trained on the real images say of the synthetic ones.

An image of one class resembles others to some degree, and a network that is trained on that learns more from
few images than from the class alone. Any set can be given such labels, one of random real images too.

Source: Hinton et al. 2015, arXiv:1503.02531; for synthetic sets Qin et al. 2024, arXiv:2406.10485, where a
teacher that was stopped early is best for few images a class.

Letters: N stored images, K classes, f the set's factor.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill import environment, networks
from distill.data import RealDataset
from distill.evaluation import default_network
from distill.files import lock_folder, write_text
from distill.leg import Clock, Leg, train_kept
from distill.seeding import derive_seed, stream
from distill.session import LOG
from distill.synthetic import SyntheticSet
from distill.target import TEACHER, check_target, is_teacher, sweep, write_set
from distill.training import TrainingConfig, TrainingRecord, accelerated, evaluate, train
from distill.validation import require_types

_BATCH = 128
Report = Callable[[int], None]


def teacher_training(**changes: Any) -> TrainingConfig:
    """How teachers are trained: a few epochs of the real images, unless `changes` say otherwise."""
    chosen = {"epochs": 5, "batch_size": 128, "learning_rate": 0.02, "schedule": "onecycle"}
    return TrainingConfig(**{**chosen, **changes})


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """How a set is given soft labels.

    Attributes:
        teachers: networks whose predictions are averaged; they differ in their seed.
        network: of `distill.networks.NETWORKS`; None: the field's ConvNet for images of this size.
        temperature: by which logits are divided; more of it makes labels softer.
        hard_share: how much of each label stays the image's own class.
        training: of every teacher, on the real images without those held out.
        seed: >= 0, of the teachers.
    """

    teachers: int = 1
    network: str | None = None
    temperature: float = 1.0
    hard_share: float = 0.0
    training: TrainingConfig = field(default_factory=teacher_training)
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        if self.teachers < 1:
            raise ValueError(f"teachers must be at least 1, not {self.teachers}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be positive, not {self.temperature}")
        if not 0 <= self.hard_share < 1:
            raise ValueError(f"hard_share must lie in [0, 1), not {self.hard_share}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")

    @property
    def epochs(self) -> int:
        """Of all teachers together."""
        return self.teachers * self.training.epochs


def label(
    unlabelled: SyntheticSet,
    dataset: RealDataset,
    out: Path,
    config: LabelConfig,
    *,
    device: torch.device,
    overwrite: bool = False,
    on_epoch: Report | None = None,
) -> SyntheticSet:
    """Write the set with soft labels to `out`; the one given stays as it is.

    Every epoch of a teacher is kept in `out`: called again with the same arguments, the work goes on where it
    was interrupted, and ends in the same bits.

    Args:
        unlabelled: a set without soft labels.
        dataset: its real dataset; teachers see what distillation saw, in the set's model space.
        config: its training's precision must be one that the device has.
        overwrite: replace a set that is in `out`.
        on_epoch: called with the finished epochs of all teachers.
    Raises:
        ValueError: if the set has soft labels already, is in `out` itself, `out` holds something else, or a
            teacher's loss is not finite.
    """
    _require_plain(unlabelled, out)
    check_target(out, {}, resume=False, overwrite=overwrite)
    out.mkdir(parents=True, exist_ok=True)
    with closing(lock_folder(out, "labelling")):
        check_target(out, {}, resume=False, overwrite=overwrite)
        sweep(out)
        teachers = _Teachers(unlabelled, dataset, out, config, device)
        tell = on_epoch or (lambda _: None)
        found = [teachers.predict(number, tell) for number in range(config.teachers)]
        probabilities = torch.stack([each.probabilities for each in found]).mean(dim=0)
        whole = softened(probabilities, unlabelled.labels, config.hard_share)
        card = _card(unlabelled, config, teachers.name, found)
        write_text(out / LOG, "".join(json.dumps(point) + "\n" for point in card.get("loss_curve") or []))
        made = write_set(
            out, unlabelled.stored, unlabelled.stored_labels, unlabelled.preprocessing, card, whole
        )
        teachers.clear()
        return made


def softened(probabilities: Tensor, labels: Tensor, hard_share: float) -> Tensor:
    """h * onehot(label) + (1 - h) * p: float32 (N, K) of probabilities (N, K) and labels int64 (N,)."""
    hard = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (hard_share * hard + (1 - hard_share) * probabilities).float()


@dataclass(frozen=True)
class _Prediction:
    """probabilities float32 (N*f^2, K) of one teacher, its accuracy on the images held out (None if there are
    none), and what it took."""

    probabilities: Tensor
    accuracy: float | None
    seconds: float
    cpu_seconds: float


class _Teachers:
    """Trains them one after the other, each from where it was left."""

    def __init__(
        self,
        unlabelled: SyntheticSet,
        dataset: RealDataset,
        out: Path,
        config: LabelConfig,
        device: torch.device,
    ) -> None:
        self._set, self._config, self._out, self._device = unlabelled, config, out, device
        self._fit, self._held_out = unlabelled.split_real(dataset)
        self._shape, self._classes = dataset.image_shape, len(dataset.classes)
        self.name = config.network or default_network(self._shape)

    def predict(self, number: int, tell: Report) -> _Prediction:
        """What the teacher of this number, from 0, says of the synthetic images."""
        leg, before = self._leg(number), number * self._config.training.epochs
        clock = Clock(leg, of_all=True)
        generator = stream(self._config.seed, "teacher", self.name, number)
        network = networks.build(self.name, self._shape, self._classes, generator)
        part = partial(self._part, network, number)
        train_kept(part, network, leg, clock, seconds=0.0, tell=lambda done: tell(before + done))
        network.to(self._device)
        return _Prediction(self._probabilities(network), self._accuracy(network), *clock.spent())

    def _part(
        self, network: nn.Module, number: int, until: int, after: TrainingRecord | None
    ) -> TrainingRecord:
        try:
            return train(
                network,
                self._fit.images,
                self._fit.labels,
                config=self._config.training,
                seed=derive_seed(self._config.seed, "teacher", number),
                device=self._device,
                preprocessing=self._set.preprocessing,
                until=until,
                after=after,
            )
        except FloatingPointError as error:
            raise ValueError(f"{error} of teacher {number + 1}; a smaller learning_rate helps") from None

    def clear(self) -> None:
        """Remove the teachers, which have served, and what is left of others."""
        for path in filter(is_teacher, list(self._out.iterdir())):
            path.unlink()

    def _leg(self, number: int) -> Leg:
        """All of a training; its file is of no use to one with other settings or images."""
        card, config = self._set.card, asdict(self._config)
        space = [card["dataset"]["fingerprint"], card["dataset"]["validation_fraction"]]
        space += [card["dataset"]["validation_seed"], card["preprocessing"]]
        own = {name: config[name] for name in ("training", "seed")}
        key = json.dumps([own, self.name, number, space, self._device.type], sort_keys=True)
        name = f"{TEACHER}{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
        return Leg(until=self._config.training.epochs, checkpoint=self._out / name)

    @torch.no_grad()
    def _probabilities(self, network: nn.Module) -> Tensor:
        compute = accelerated(network.eval(), self._device)
        batches = self._set.images.split(_BATCH)
        logits = torch.cat([compute(batch.to(self._device)).float().cpu() for batch in batches])
        return (logits / self._config.temperature).softmax(dim=1)

    def _accuracy(self, network: nn.Module) -> float | None:
        if not len(self._held_out):
            return None
        images, labels = self._held_out.images, self._held_out.labels
        preprocessing = self._set.preprocessing
        return evaluate(network, images, labels, device=self._device, preprocessing=preprocessing).accuracy


def _require_plain(unlabelled: SyntheticSet, out: Path) -> None:
    if unlabelled.soft_labels is not None:
        raise ValueError(f"{unlabelled.path} has soft labels already: label the set that it was made of")
    if unlabelled.path.resolve() == out.resolve():
        raise ValueError(f"{out} is the set itself, which is kept: write the labelled one to another --out")


def _card(
    unlabelled: SyntheticSet, config: LabelConfig, network: str, found: list[_Prediction]
) -> Mapping[str, Any]:
    """The set's own, and what its labels are; their seconds count as the set's."""
    old = unlabelled.card
    wall, cpu = sum(each.seconds for each in found), sum(each.cpu_seconds for each in found)
    soft = {
        "teachers": config.teachers,
        "network": network,
        "temperature": config.temperature,
        "hard_share": config.hard_share,
        "training": config.training.as_dict(),
        "seed": config.seed,
        "validation_accuracy": [each.accuracy for each in found],
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "images_sha256": old["images_sha256"],
        "environment": environment.describe(),
    }
    seconds = {"wall_seconds": old["wall_seconds"] + wall, "cpu_seconds": old["cpu_seconds"] + cpu}
    return {**old, **seconds, "soft_labels": soft}
