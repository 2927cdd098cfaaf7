"""`atom_nas.evaluate`: what the command of that name does, from Python."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atom_nas.config import construct
from atom_nas.evaluation.plan import EvaluationPlan, choose_networks
from atom_nas.evaluation.tables import as_record
from atom_nas.evaluation.trainings import carry_out
from distill.settings import resolve_device
from distill.synthetic import SyntheticSet, load
from distill.training import TrainingConfig

Given = SyntheticSet | Path | str


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What `evaluate` is called with, for its types."""

    networks: list[str] | None
    repeats: int
    training: dict[str, Any]
    split: str
    baseline: bool
    balanced: bool
    seed: int
    device: str
    dataset: str | None
    data_dir: Path | None
    workers: int | None
    fresh: bool
    on_epoch: Callable[[int], None] | None

    def __post_init__(self) -> None:
        if self.networks == [] or (self.workers is not None and self.workers < 1):
            raise ValueError("name at least one network, and have at least one worker")


def evaluate(
    sets: Given | Sequence[Given],
    *,
    networks: Sequence[str] | None = None,
    repeats: int = 5,
    training: Mapping[str, Any] | TrainingConfig | None = None,
    split: str = "test",
    baseline: bool = True,
    balanced: bool = False,
    seed: int = 0,
    device: str = "auto",
    dataset: str | None = None,
    data_dir: Path | None = None,
    workers: int | None = None,
    fresh: bool = False,
    on_epoch: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Train fresh networks on synthetic sets and test them on real images.

    Trainings run in processes of their own, which import the calling script: keep the call under
    `if __name__ == "__main__":`. Finished trainings are kept in the cache folder and not repeated.

    Args:
        sets: one, or several of one and the same dataset.
        networks: names that `atom-nas list networks` shows, or FILE.py:FUNCTION; None is the field's ConvNet
            for images of that size.
        repeats: networks of each kind.
        training: a `TrainingConfig`, or keys of it, e.g. epochs; the others are its defaults.
        split: test, or validation for the held-out images.
        baseline: whether to train on random real images as well.
        balanced: accuracies are the mean over classes of the share that is right of each, not over images.
        seed: of the networks' weights, their training, and the choice of random images.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        dataset, data_dir: where the real dataset is, see `SyntheticSet.real_dataset`.
        workers, fresh, on_epoch: see `atom_nas.evaluation.trainings.carry_out`.
    Returns:
        what `atom-nas evaluate --json` prints, see `evaluation_tables.as_record`; accuracies from 0 to 1.
    Raises:
        ValueError: if the sets cannot be compared, a name or a setting is unknown, a network cannot take the
            images, or trainings failed; those that ended are kept.
        EngineError: if the processes cannot start.
    """
    config = training.as_dict() if isinstance(training, TrainingConfig) else training
    options = {"repeats": repeats, "split": split, "baseline": baseline, "balanced": balanced, "seed": seed}
    config = {} if config is None else config
    others = {"networks": networks, "training": config, "device": str(device)}
    carrying = {
        "dataset": dataset,
        "data_dir": data_dir,
        "workers": workers,
        "fresh": fresh,
        "on_epoch": on_epoch,
    }
    own = construct(_Given, {**options, **others, **carrying})
    options = {name: getattr(own, name) for name in options}
    plan, fallback = planned(_loaded(sets), own.networks, training=own.training, device=own.device, **options)
    if fallback:
        warnings.warn(fallback, stacklevel=2)
    return as_record(carry_out(plan, **{name: getattr(own, name) for name in carrying}))


def _loaded(sets: Given | Sequence[Given]) -> list[SyntheticSet]:
    several = [sets] if isinstance(sets, SyntheticSet | Path | str) else sets
    several = list(several) if isinstance(several, Iterable) else [several]
    if not all(isinstance(each, SyntheticSet | Path | str) for each in several):
        raise ValueError(f"sets are a synthetic set, the folder of one, or a list of them, not {sets!r}")
    return [each if isinstance(each, SyntheticSet) else load(each) for each in several]


def planned(
    sets: Sequence[SyntheticSet],
    networks: Sequence[str] | None,
    *,
    training: Mapping[str, Any],
    device: str,
    **options: Any,
) -> tuple[EvaluationPlan, str | None]:
    """The plan, and why it has another precision than was asked for, if so; `options` are `EvaluationPlan`'s.

    Raises:
        ValueError: see `evaluate`.
    """
    if not sets:
        raise ValueError("no synthetic set given: name at least one")
    resolved = resolve_device(device)
    config = construct(TrainingConfig, training).suited_to(sets[0].card["dataset"]["name"])
    config, fallback = config.settled(resolved)
    chosen = choose_networks(networks, sets[0])
    own = {name: made for name, made in chosen.items() if made}
    plan = EvaluationPlan(
        sets=tuple(sets), networks=tuple(chosen), own=own, config=config, device=resolved, **options
    )
    return plan, fallback
