"""`evaluate`: accuracies of networks trained on synthetic sets, kept in the cache as they are finished.

Not beside the sets, which may be read-only, or a stranger's who would have measured whatever pleases him.
"""

import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atom_nas.engines.base import Job, Outcome
from atom_nas.engines.local import LocalConfig, LocalEngine
from atom_nas.evaluation.plan import EvaluationPlan, Subject
from atom_nas.names import harmless
from distill import kernels
from distill.data import RealDataset, Split
from distill.environment import usable_cores
from distill.evaluation import Accuracy, Evaluator
from reports.chance import telling
from reports.formatting import plural

ACCURACY, BALANCED = "accuracy", "balanced_accuracy"
TELLING = "telling_images"
"""As many images as tell by balanced accuracy, see `reports.chance.telling`."""
SMALLEST = "smallest_class"
_MEASURED = (ACCURACY, BALANCED, TELLING, SMALLEST)


@dataclass(frozen=True)
class Found:
    """What came of a plan.

    Attributes:
        plan: the plan.
        accuracies: of every subject, by network.
        reused: how many trainings were done before.
        guess: the accuracy of always naming the largest class.
        smallest: the share of the smallest class; None where it is not known.
        images: how many are tested on; of balanced accuracies see `reports.chance.telling`.
    """

    plan: EvaluationPlan
    accuracies: Mapping[Subject, Mapping[str, Accuracy]]
    reused: int
    guess: float
    smallest: float | None
    images: float


@dataclass(frozen=True, kw_only=True)
class Training(Job):
    """One network to train and test.

    Attributes:
        subject: what it is trained on.
        network: its name or title.
        repeat: which of the networks of this kind.
        place: among all trainings of the plan.
    """

    subject: Subject
    network: str
    repeat: int
    place: int


@dataclass(frozen=True, kw_only=True)
class EvaluationWork:
    """What the workers do.

    Attributes:
        evaluators: of each set.
        epochs: int64 (trainings,), in memory that all processes share: how many each has finished.
    """

    evaluators: tuple[Evaluator, ...]
    epochs: Tensor

    def warm_up(self, device: torch.device) -> None:
        """Nothing is slow at first but torch itself."""

    def scores(self, job: Training, device: torch.device) -> dict[str, float]:  # noqa: ARG002
        """The accuracies of one fresh network, on the device that the evaluators name."""

        def tick(done: int) -> None:
            self.epochs[job.place] = done

        evaluator = self.evaluators[job.subject.place]
        found = evaluator.evaluation(job.subject.kind, job.network, job.repeat, tick)
        return {ACCURACY: found.accuracy, BALANCED: found.balanced}


def carry_out(
    plan: EvaluationPlan,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    workers: int | None = None,
    on_epoch: Callable[[int], None] | None = None,
    fresh: bool = False,
) -> Found:
    """Carry out `plan` in worker processes, leaving out what was done before.

    Args:
        dataset, data_dir: where the real dataset is, see `SyntheticSet.real_dataset`.
        workers: processes, of one thread each; None: the usable cores on a CPU, 1 on a GPU. Results do not
            depend on it.
        on_epoch: called with the number of epochs done, of `plan.total_epochs`.
        fresh: train again what was done before.
    Raises:
        ValueError: if the real dataset is not the sets', or trainings failed; all others are kept.
        EngineError: if the workers cannot start.
    """
    known = {} if fresh else _read(plan.record)
    keys = {job: plan.key(job.subject, job.network, job.repeat) for job in _trainings(plan)}
    measure = BALANCED if plan.balanced else ACCURACY
    left = [job for job, key in keys.items() if measure not in known.get(key, {})]
    reused = len(keys) - len(left)
    # A dataset that is named is checked even where nothing is left to do on it.
    named = dataset is not None or data_dir is not None
    real = plan.sets[0].real_dataset(data_dir=data_dir, name=dataset) if left or named else None
    if real is not None and SMALLEST not in known.get(plan.guess_key, {}):
        known[plan.guess_key] = _sizes(plan, real)
        _append(plan.record, {**json.loads(plan.guess_key), **known[plan.guess_key]})
    if real is not None and left:
        spared = reused * plan.config.epochs
        tell = (lambda done: on_epoch(spared + done)) if on_epoch else None
        failed = []
        for outcome in _train(plan, left, real, workers, tell):
            if outcome.reason:
                failed.append(outcome)
                continue
            key = keys[outcome.job]
            known[key] = outcome.scores
            _append(plan.record, {**json.loads(key), **known[key]})
        _raise_failures(sorted(failed, key=lambda outcome: outcome.job.place), len(keys))
    if on_epoch:
        on_epoch(plan.total_epochs)
    accuracies = {job: known[key][measure] for job, key in keys.items()}
    even, images, sizes = 1 / len(plan.sets[0].classes), plan.images, known.get(plan.guess_key, {})
    return Found(
        plan,
        _gathered(plan, accuracies),
        reused,
        guess=even if plan.balanced else sizes.get(ACCURACY, even),
        smallest=sizes.get(SMALLEST),
        images=sizes.get(TELLING, images) if plan.balanced else images,
    )


def _sizes(plan: EvaluationPlan, real: RealDataset) -> dict[str, float]:
    """Of the images that are tested on: what naming the largest class always gets right, how many of them
    tell, and the share of the smallest class."""
    held_out = _held_out(plan, real)
    counts = (real.test if held_out is None else held_out).labels.bincount().tolist()
    largest, smallest = max(counts) / sum(counts), min(filter(None, counts)) / sum(counts)
    return {ACCURACY: largest, TELLING: telling(counts), SMALLEST: smallest}


def _trainings(plan: EvaluationPlan) -> list[Training]:
    """All of them, network by network, so that one that fails is met early."""
    kinds = itertools.product(plan.networks, plan.subjects, range(plan.repeats))
    return [
        Training(subject=subject, network=network, repeat=repeat, place=place)
        for place, (network, subject, repeat) in enumerate(kinds)
    ]


def _train(
    plan: EvaluationPlan,
    jobs: Sequence[Training],
    real: RealDataset,
    workers: int | None,
    on_epoch: Callable[[int], None] | None,
) -> Iterator[Outcome[Training]]:
    """The outcomes of the jobs as they finish; `on_epoch` is told the epochs of these jobs."""
    epochs = torch.zeros(plan.trainings, dtype=torch.int64).share_memory_()
    work = EvaluationWork(evaluators=tuple(_evaluators(plan, real)), epochs=epochs)
    if plan.device.type == "cpu":
        # Compiled here, once, if this machine has none yet: workers then find them.
        kernels.why_unavailable()
    count = workers or (1 if plan.device.type == "cuda" else usable_cores())
    on_wait = (lambda: on_epoch(int(epochs.sum()))) if on_epoch else None
    with LocalEngine(work, LocalConfig(workers=count, device=str(plan.device))) as engine:
        yield from engine.run(jobs, on_wait)


def _evaluators(plan: EvaluationPlan, real: RealDataset) -> list[Evaluator]:
    held_out = _held_out(plan, real)
    return [
        Evaluator(
            each,
            real,
            config=plan.config,
            seed=plan.seed,
            device=plan.device,
            test=held_out,
            build=plan.build,
        )
        for each in plan.sets
    ]


def _held_out(plan: EvaluationPlan, real: RealDataset) -> Split | None:
    """The images that are tested on if those are not the test split."""
    return plan.sets[0].split_real(real)[1] if plan.split == "validation" else None


def _raise_failures(failed: Sequence[Outcome[Training]], total: int) -> None:
    if failed:
        first, reason = failed[0].job, failed[0].reason
        raise ValueError(
            f"{len(failed)} of {plural(total, 'training')} failed, e.g. {first.network} on "
            f"{harmless(first.subject.label)} ({reason}): leave such a network out, or train it otherwise "
            "(--set learning_rate=...); the others are kept and not repeated"
        )


def _gathered(
    plan: EvaluationPlan, accuracies: Mapping[Training, float]
) -> dict[Subject, dict[str, Accuracy]]:
    def values(subject: Subject, network: str) -> tuple[float, ...]:
        wanted = (subject, network)
        return tuple(each for job, each in accuracies.items() if (job.subject, job.network) == wanted)

    return {
        subject: {network: Accuracy(values(subject, network)) for network in plan.networks}
        for subject in plan.subjects
    }


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


def _read(path: Path) -> dict[str, Mapping[str, float]]:
    """What was measured, by key; a line that a kill cut short is no result."""
    known: dict[str, Mapping[str, float]] = {}
    for line in _lines(path):
        try:
            entry = json.loads(line)
            measured = {name: float(entry.pop(name)) for name in _MEASURED if name in entry}
        except (ValueError, AttributeError, TypeError):
            continue
        if measured:
            known[json.dumps(entry, sort_keys=True)] = measured
    return known


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
