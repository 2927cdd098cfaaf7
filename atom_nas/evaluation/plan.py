"""What `evaluate` is asked to do: which networks, trained on which sets, tested on which images."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from atom_nas import __version__
from atom_nas.estimators.base import SCORING_VERSION
from atom_nas.evaluation.own_network import Builder, OwnNetwork, find
from atom_nas.names import choose
from distill import kernels
from distill.evaluation import default_network
from distill.files import cache_folder, printable
from distill.networks import NETWORKS, blank
from distill.synthetic import SyntheticSet
from distill.training import TrainingConfig
from search_spaces import is_own

SPLITS: dict[str, str] = {
    "test": "the real test split",
    "validation": "the real images that the sets hold out, for tuning",
}
"""What networks can be tested on."""


@dataclass(frozen=True)
class Subject:
    """What networks are trained on.

    Attributes:
        label: its name in tables and pictures.
        place: of a set in `EvaluationPlan.sets`.
        kind: that set, or `random` real images, as many as it has and in its model space.
    """

    label: str
    place: int
    kind: Literal["synthetic", "random"]


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Which networks to train, on what, how often and how.

    Attributes:
        sets: of one and the same dataset.
        networks: of `distill.networks.NETWORKS`, or titles in `own`.
        repeats: networks of each kind.
        config: of every training.
        seed: see `Evaluator`.
        device: where to train.
        baseline: whether to train on random real images as well.
        split: of `SPLITS`.
        own: networks of the user's by their titles.
        balanced: accuracies are the mean over classes, not images.
    Raises:
        ValueError: if the sets cannot be compared, a network cannot take their images, or
            there is nothing to repeat.
    """

    sets: tuple[SyntheticSet, ...]
    networks: tuple[str, ...]
    repeats: int
    config: TrainingConfig
    seed: int
    device: torch.device
    baseline: bool = True
    split: str = "test"
    own: Mapping[str, OwnNetwork] = field(default_factory=dict)
    balanced: bool = False

    def __post_init__(self) -> None:
        choose("split", self.split, SPLITS)
        if not self.sets:
            raise ValueError("no synthetic set given: name at least one")
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {self.repeats}")
        for other in self.sets[1:]:
            _require_same_data(self.sets[0], other)
        _require_distinct(self.sets)
        if self.split == "validation":
            _require_same_validation(self.sets)
        dataset = self.sets[0].card["dataset"]
        for name in self.networks:
            fits = self.build.probe if name in self.own else blank
            fits(name, tuple(dataset["image_shape"]), len(dataset["classes"]))

    @cached_property
    def build(self) -> Builder:
        """Makes the networks."""
        return Builder(self.own)

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """The sets, and random real images if asked for: once for all sets that have as many in one space."""
        if len(self.sets) == 1:
            sets = [Subject("synthetic", 0, "synthetic")]
        else:
            sets = [Subject(label, i, "synthetic") for i, label in enumerate(_labels(self.sets))]
        return (*sets, *self._baselines()) if self.baseline else tuple(sets)

    def _baselines(self) -> list[Subject]:
        firsts: dict[str, int] = {}
        for place, each in enumerate(self.sets):
            firsts.setdefault(json.dumps(_space(each), sort_keys=True), place)
        places = list(firsts.values())
        sizes = [self.sets[place].card["ipc"] for place in places]
        if len(places) == 1:
            names = [""]
        elif len(set(sizes)) == len(sizes):
            names = [f", {size} per class" for size in sizes]
        else:
            labels = _labels(self.sets)
            names = [f" as for {labels[place]}" for place in places]
        return [Subject(f"random real{name}", i, "random") for name, i in zip(names, places, strict=True)]

    @property
    def images(self) -> int:
        """How many are tested on; of held-out ones, of which each class has its share, nearly."""
        dataset = self.sets[0].card["dataset"]
        if self.split == "test":
            return int(dataset["test_images"])
        return max(1, round(int(dataset["train_images"]) * float(dataset["validation_fraction"])))

    @property
    def record(self) -> Path:
        """Where finished trainings of this dataset are kept; its fingerprint is a stranger's to choose."""
        fingerprint = self.sets[0].card["dataset"]["fingerprint"]
        name = hashlib.sha256(fingerprint.encode()).hexdigest()
        return cache_folder() / "evaluations" / f"{name}.jsonl"

    @property
    def trainings(self) -> int:
        """How many there are."""
        return len(self.subjects) * len(self.networks) * self.repeats

    @property
    def total_epochs(self) -> int:
        """Of all trainings together."""
        return self.trainings * self.config.epochs

    @property
    def guess_key(self) -> str:
        """Where the record keeps what guessing gets right, as canonical JSON."""
        dataset = self.sets[0].card["dataset"]
        held_out = [dataset["validation_fraction"], dataset["validation_seed"]]
        parts = {"guess": self.split, "validation": held_out if self.split == "validation" else None}
        return json.dumps(parts, sort_keys=True)

    def key(self, subject: Subject, network: str, repeat: int) -> str:
        """What a training's result depends on, as canonical JSON."""
        trained_on = self.sets[subject.place]
        parts = {
            "subject": subject.kind,
            "network": network,
            **({"code": self.own[network].code} if network in self.own else {}),
            "repeat": repeat,
            "seed": self.seed,
            "split": self.split,
            "training": self.config.as_dict(),
            "device": self.device.type,
            "kernels": kernels.way() if self.device.type == "cpu" else None,
            # Random images are those of every set that has as many of them in the same space.
            **(_set(trained_on) if subject.kind == "synthetic" else {"set": None}),
            **_space(trained_on),
            "torch": torch.__version__,
            "atom_nas": __version__,
            "scoring": SCORING_VERSION,
        }
        return json.dumps(parts, sort_keys=True)


def choose_networks(names: Sequence[str] | None, synthetic: SyntheticSet) -> dict[str, OwnNetwork | None]:
    """The networks of these names, each once; None gives the field's ConvNet for the images' size.

    Returns:
        name to where it is made, None for those of `distill.networks.NETWORKS`.
    Raises:
        ValueError: on an unknown name, with the nearest matches; no such file or function; or two of the
            user's of one title.
    """
    if names is None:
        return {default_network(synthetic.card["dataset"]["image_shape"]): None}
    chosen: dict[str, OwnNetwork | None] = {}
    for name in map(str.strip, names):
        if is_own(name):
            network = find(name)
            known = chosen.setdefault(network.title, network)
            if known != network:
                raise ValueError(f"{name} has the name of another network: rename one of them")
        elif name.endswith(".py"):
            raise ValueError(f"{name} may define several networks: name one by {name}:FUNCTION")
        else:
            chosen[choose("network", name, NETWORKS)] = None
    return chosen


def _set(synthetic: SyntheticSet) -> dict[str, Any]:
    """What a network is trained on; the factor is named where there is one, as earlier versions had none."""
    factor = {"factor": synthetic.factor} if synthetic.factor > 1 else {}
    return {"set": synthetic.card["images_sha256"], **factor}


def _space(synthetic: SyntheticSet) -> dict[str, Any]:
    """What decides which real images stand beside a set, and how they are prepared."""
    record: Mapping[str, Any] = synthetic.card["dataset"]
    return {
        "dataset": record["fingerprint"],
        "validation": [record["validation_fraction"], record["validation_seed"]],
        "preprocessing": synthetic.card["preprocessing"],
        "ipc": synthetic.card["ipc"],
    }


def _labels(sets: tuple[SyntheticSet, ...]) -> list[str]:
    """The folders' names, or whole paths where names are not enough."""
    names = [printable(each.path.resolve().name) for each in sets]
    return names if len(set(names)) == len(names) else [printable(each.path) for each in sets]


def _require_distinct(sets: tuple[SyntheticSet, ...]) -> None:
    paths = [each.path.resolve() for each in sets]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise ValueError(f"{printable(twice)} is given twice: name every set once")


def _require_same_data(first: SyntheticSet, other: SyntheticSet) -> None:
    ours, theirs = first.card["dataset"], other.card["dataset"]
    if any(ours[part] != theirs[part] for part in ("fingerprint", "classes", "image_shape")):
        raise ValueError(
            f"{printable(other.path)} was not distilled from the same data as {printable(first.path)} "
            f"({theirs['name']} and {ours['name']}, of different fingerprints): only sets of one dataset are "
            "compared; evaluate them one by one"
        )


def _require_same_validation(sets: tuple[SyntheticSet, ...]) -> None:
    for each in sets:
        if not each.card["dataset"]["validation_fraction"]:
            raise ValueError(
                f"{printable(each.path)} was distilled with validation_fraction=0, so no real images are "
                "held out to score on: distill with --set validation_fraction=0.1, or use --split test"
            )
    held_out = {tuple(_space(each)["validation"]) for each in sets}
    if len(held_out) > 1:
        raise ValueError(
            "the sets hold out different images for validation (validation_fraction, validation_seed: "
            f"{' and '.join(map(str, sorted(held_out)))}): evaluate them one by one"
        )
