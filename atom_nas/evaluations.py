"""`evaluate`: accuracies of networks trained on a synthetic set, kept in the cache as they are finished.

Not beside the set, which may be read-only, or a stranger's who would have measured whatever pleases him.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atom_nas import __version__
from atom_nas.estimators.base import SCORING_VERSION
from atom_nas.names import choose
from distill.data import RealDataset
from distill.evaluation import Accuracy, Evaluator, as_json, default_network
from distill.files import cache_folder
from distill.networks import NETWORKS
from distill.synthetic import SyntheticSet
from distill.training import TrainingConfig

_SUBJECTS = ("synthetic", "random")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which networks to train, how often and how.

    Attributes:
        synthetic: the set.
        networks: of `distill.networks.NETWORKS`.
        repeats: networks of each kind.
        config: of every training.
        seed: see `Evaluator`.
        device: where to train.
        baseline: whether to train on random real images as well.
    """

    synthetic: SyntheticSet
    networks: tuple[str, ...]
    repeats: int
    config: TrainingConfig
    seed: int
    device: torch.device
    baseline: bool = True

    @property
    def subjects(self) -> tuple[str, ...]:
        """What is trained on: the synthetic set, and random real images if asked for."""
        return _SUBJECTS if self.baseline else _SUBJECTS[:1]

    @property
    def record(self) -> Path:
        """Where finished trainings on this set are kept."""
        return cache_folder() / "evaluations" / f"{self.synthetic.card['images_sha256']}.jsonl"

    @property
    def total_epochs(self) -> int:
        """Of all trainings together."""
        return len(self.subjects) * len(self.networks) * self.repeats * self.config.epochs

    def key(self, subject: str, network: str, repeat: int) -> str:
        """What a training's result depends on, as canonical JSON."""
        parts = {
            "subject": subject,
            "network": network,
            "repeat": repeat,
            "seed": self.seed,
            "training": self.config.as_dict(),
            "device": self.device.type,
            "set": self.synthetic.card["images_sha256"],
            "dataset": self.synthetic.card["dataset"]["fingerprint"],
            "preprocessing": self.synthetic.card["preprocessing"],
            "torch": torch.__version__,
            "atom_nas": __version__,
            "scoring": SCORING_VERSION,
        }
        return json.dumps(parts, sort_keys=True)


def choose_networks(text: str | None, synthetic: SyntheticSet) -> tuple[str, ...]:
    """Comma-separated names to names; None gives the field's ConvNet for the images' size.

    Raises:
        ValueError: on an unknown name, with the nearest matches.
    """
    if text is None:
        return (default_network(synthetic.card["dataset"]["image_shape"]),)
    names = [name.strip() for name in text.split(",")]
    return tuple(dict.fromkeys(choose("network", name, NETWORKS) for name in names))


def evaluate(
    plan: Plan,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    on_epoch: Callable[[int], None] | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Carry out `plan`, leaving out what was done before.

    Args:
        dataset, data_dir: where the real dataset is, see `SyntheticSet.real_dataset`.
        on_epoch: called with the number of epochs done, of `plan.total_epochs`.
        fresh: train again what was done before.
    Returns:
        networks: NAME to mean, std, n and values; random_baseline: the same, pooled and by network; reused:
        how many trainings were done before.
    """
    known = {} if fresh else _read(plan.record)
    reused = done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_epoch:
            on_epoch(done)

    evaluator: Evaluator | None = None
    found: dict[str, dict[str, Accuracy]] = {subject: {} for subject in _SUBJECTS}
    for network in plan.networks:
        for subject in plan.subjects:
            values = []
            for repeat in range(plan.repeats):
                key = plan.key(subject, network, repeat)
                if key in known:
                    done += plan.config.epochs
                    reused += 1
                else:
                    evaluator = evaluator or _evaluator(
                        plan, plan.synthetic.real_dataset(data_dir, dataset), tick
                    )
                    known[key] = evaluator.accuracy(subject, network, repeat)
                    _append(plan.record, {**json.loads(key), "accuracy": known[key]})
                values.append(known[key])
            found[subject][network] = Accuracy(tuple(values))
    return {**as_json(found["synthetic"], found["random"]), "reused": reused}


def _evaluator(plan: Plan, dataset: RealDataset, tick: Callable[[], None]) -> Evaluator:
    return Evaluator(
        plan.synthetic,
        dataset,
        config=plan.config,
        seed=plan.seed,
        device=plan.device,
        on_epoch=tick,
    )


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line; one that a kill cut short is ended first, so that it takes only itself down.

    The record only saves time: where it cannot be written, that is said and all goes on.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(max(0, file.tell() - 1))
            cut = file.read(1) not in (b"", b"\n")
            file.write((b"\n" if cut else b"") + json.dumps(entry).encode() + b"\n")
    except OSError as error:
        warnings.warn(f"finished trainings are not kept: {error}", stacklevel=2)


def _read(path: Path) -> dict[str, float]:
    """Finished trainings by key; a line that a kill cut short is no result."""
    known = {}
    for line in _lines(path):
        try:
            entry = json.loads(line)
            accuracy = float(entry.pop("accuracy"))
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        known[json.dumps(entry, sort_keys=True)] = accuracy
    return known


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The record as a table: a row a network and set, accuracies in percent."""
    rows = [[name, "synthetic", *_cells(entry)] for name, entry in found["networks"].items()]
    baseline = found["random_baseline"]
    if baseline:
        rows += [[name, "random real", *_cells(entry)] for name, entry in baseline["networks"].items()]
    return ["network", "trained on", "mean", "std", "n"], rows


def _cells(entry: Mapping[str, Any]) -> list[str]:
    std = "–" if entry["std"] is None else f"{100 * entry['std']:.2f}"
    return [f"{100 * entry['mean']:.2f}", std, str(entry["n"])]
