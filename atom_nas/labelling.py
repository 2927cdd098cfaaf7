"""`atom_nas.label`: what the command of that name does, from Python."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from atom_nas.config import construct
from atom_nas.names import choose
from distill import labelling
from distill.labelling import LabelConfig, teacher_training
from distill.networks import NETWORKS
from distill.settings import resolve_device
from distill.synthetic import SyntheticSet, load
from distill.training import TrainingConfig
from search_spaces import is_own


def label(
    unlabelled: SyntheticSet | Path | str,
    out: Path | str,
    *,
    training: Mapping[str, Any] | TrainingConfig | None = None,
    device: str = "auto",
    dataset: str | None = None,
    data_dir: Path | None = None,
    overwrite: bool = False,
    on_epoch: Callable[[int], None] | None = None,
    **options: Any,
) -> SyntheticSet:
    """Write a set with soft labels to `out`; called again after an interruption it goes on to the same bits.

    Args:
        training: of the teachers: a `TrainingConfig`, or keys of it; the others are `teacher_training`'s.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        dataset, data_dir: where the real dataset is, see `SyntheticSet.real_dataset`.
        options: other fields of `LabelConfig`: teachers, network, temperature, hard_share, seed.
        unlabelled, out, overwrite, on_epoch: see `distill.labelling.label`.
    Raises:
        ValueError: a name or setting is unknown or wrong; else as `distill.labelling.label`.
    """
    given = unlabelled if isinstance(unlabelled, SyntheticSet) else load(unlabelled)
    config = training.as_dict() if isinstance(training, TrainingConfig) else training or {}
    if not isinstance(config, Mapping):
        raise ValueError(f"training is a TrainingConfig, or a mapping of its keys, not {training!r}")
    chosen, resolved, fallback = planned(given, options, training=config, device=device)
    if fallback:
        warnings.warn(fallback, stacklevel=2)
    real = given.real_dataset(data_dir=data_dir, name=dataset)
    return labelling.label(
        given, real, Path(out), chosen, device=resolved, overwrite=overwrite, on_epoch=on_epoch
    )


def planned(
    unlabelled: SyntheticSet, options: Mapping[str, Any], *, training: Mapping[str, Any], device: str
) -> tuple[LabelConfig, torch.device, str | None]:
    """How to label and where, and why in another precision than was asked for, if so.

    Args:
        options: fields of `LabelConfig` but training.
        training: of `TrainingConfig`, where they are not `teacher_training`'s.
        device: as `label` has it.
    Raises:
        ValueError: see `label`.
    """
    made = construct(LabelConfig, options)
    network = made.network
    if network is not None:
        if is_own(network):
            allowed = ", ".join(NETWORKS)
            raise ValueError(
                f"--network takes no network of your own, which is for evaluate; allowed: {allowed}"
            )
        choose("network", network, NETWORKS)
    resolved = resolve_device(device)
    wanted = construct(TrainingConfig, {**teacher_training().as_dict(), **training})
    config, fallback = wanted.suited_to(unlabelled.card["dataset"]["name"]).settled(resolved)
    return replace(made, training=config), resolved, fallback
