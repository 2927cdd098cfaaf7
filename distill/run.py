"""From settings to an artifact on disk: load the data, distill, save with the card."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import torch

from distill import environment, methods, watching
from distill.data import RealDataset
from distill.files import lock_folder
from distill.methods.base import Problem
from distill.preprocessing import fit_preprocessing
from distill.seeding import derive_seed
from distill.session import Progress, RecordedSession, Stopwatch, thinned
from distill.settings import DistillSettings, resolve_device
from distill.shards import Shard
from distill.sources import load_dataset
from distill.synthetic import SyntheticSet
from distill.target import LATER, check_target, is_begun, sweep, write_set


def distill(
    settings: DistillSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint_seconds: float = 30.0,
) -> SyntheticSet:
    """Distill as `settings` say and write the artifact to `settings.out`.

    The seconds on the card are those of this function from its start, reading and preparing the data
    included, in every process that took part; less those of watching it (`tensorboard`, `evaluate_every`).

    Args:
        resume: go on from the folder's checkpoint; a finished artifact of the same settings is returned.
        overwrite: replace an artifact or checkpoint that is there. The artifact stays whole until the new one
            is written; only `log.jsonl` and `evaluations.jsonl` give way at once.
        on_stage: told in a few words what is being done.
        on_progress, should_stop, checkpoint_seconds: see `RecordedSession`.
    Raises:
        ValueError: on settings that cannot work, or a folder that holds something else.
        Interrupted: once `should_stop` says so; the state is saved.
    """
    stopwatch, tell = Stopwatch(), on_stage or (lambda _: None)
    made_with = environment.describe()  # Now: a checkout may move on while the code that runs does not.
    settings, device = _settled(settings, stopwatch, tell)
    out = settings.out
    finished = functools.partial(check_target, out, settings.resolved(), resume=resume, overwrite=overwrite)
    if found := _finished_before(finished, settings, tell):
        return found
    data, problem, held_out = _pose(settings, device, tell)
    settings = _suited(settings, problem, tell)
    out.mkdir(parents=True, exist_ok=True)
    observer = watching.observer(settings, held_out, problem, tell)
    with closing(lock_folder(out, "distillation")), closing(observer):
        # Again, now that nobody else can write: another distillation may have come first.
        if found := finished():
            return _of_the_same_data(found, settings)
        sweep(out)
        session = RecordedSession(
            out,
            _identity(settings, data),
            resume=resume and not overwrite,
            on_progress=on_progress,
            on_stage=tell,
            should_stop=should_stop,
            checkpoint_seconds=checkpoint_seconds,
            stopwatch=stopwatch,
            observer=observer,
            preset=settings.preset,
            made_with={**made_with, "kernels": settings.config.kernels(problem.device)},
        )
        with _begun(session), _reproducible(problem):
            tell(f"distilling with {settings.method}")
            images = methods.load(settings.method).distill(problem, settings.config, session)
        card = _card(settings, data, problem, session)
        return write_set(out, images, problem.labels, problem.preprocessing, card)


def _finished_before(
    finished: Callable[[], SyntheticSet | None], settings: DistillSettings, tell: Callable[[str], None]
) -> SyntheticSet | None:
    """The set, if it is finished; raises ValueError if another process is at it, before anything is read."""
    if is_begun(settings.out):
        lock_folder(settings.out, "distillation").close()
    if (found := finished()) is None:
        return None
    tell("it is finished already")
    return _of_the_same_data(found, settings)


def _of_the_same_data(found: SyntheticSet, settings: DistillSettings) -> SyntheticSet:
    """The finished set, if the dataset is still what it was made of; raises ValueError if not."""
    found.real_dataset(data_dir=settings.data_dir, name=settings.dataset)
    return found


def _identity(settings: DistillSettings, data: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint must agree with; settings that earlier versions lacked count where they are used."""
    used = {k: v for k, v in settings.resolved().items() if k not in LATER or v != LATER[k]}
    return {**used, "fingerprint": data["fingerprint"]}


@contextmanager
def _begun(session: RecordedSession) -> Iterator[None]:
    """Within, the run can be resumed; one that cannot work leaves nothing of the kind, but any older set."""
    if not session.goes_on:
        session.begin_anew()
    try:
        yield
    except (ValueError, RuntimeError, MemoryError):  # the last two where memory is too small
        session.forget_beginning()
        raise


@contextmanager
def _reproducible(problem: Problem) -> Iterator[None]:
    """Within, cuDNN repeats its bits if the run is deterministic; these settings are the process's."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    if problem.deterministic:
        cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


def _settled(
    settings: DistillSettings, stopwatch: Stopwatch, tell: Callable[[str], None]
) -> tuple[DistillSettings, torch.device]:
    """The settings with a precision that the machine has, and its device."""
    if not isinstance(settings, DistillSettings):
        raise ValueError(f"distill takes DistillSettings, not {settings!r}")
    device = resolve_device(settings.device)
    config, lacking = settings.config.settled(device)
    if lacking:
        tell(lacking)
    with stopwatch.standing_still():  # Kernels are compiled once a machine, not once a set.
        config.kernels(device)
    return replace(settings, method_config=config), device


def _suited(settings: DistillSettings, problem: Problem, tell: Callable[[str], None]) -> DistillSettings:
    """The settings, checked against the problem, with all decided that they left to it."""
    config, decided = settings.config.suited(problem)
    for line in decided:
        tell(line)
    return replace(settings, method_config=config)


def _pose(
    settings: DistillSettings, device: torch.device, tell: Callable[[str], None]
) -> tuple[dict[str, Any], Problem, RealDataset | None]:
    """The real data's entry on the card, the problem of distilling what is not held out of it, and, where a
    distillation is evaluated on the way, the images held out as a dataset of their own.

    Whatever part of it is distilled, preprocessing is fitted to all of it; then only what is needed is kept.
    """
    if settings.board:
        watching.require_tensorboard()  # Before any image is read.
    tell(f"reading {settings.dataset}")
    dataset = load_dataset(settings.dataset, data_dir=settings.data_dir, image_size=settings.image_size)
    chosen = Shard.parse(settings.shard).class_numbers(len(dataset.classes)) if settings.shard else None
    data = _describe(settings, dataset)
    size = "x".join(map(str, dataset.image_shape))
    counts = f"{len(dataset.train):,} training and {len(dataset.test):,} test images of {size}"
    tell(f"{len(dataset.classes)} classes, {counts}")
    fit, validation = dataset.carve_validation(settings.validation_fraction, settings.validation_seed)
    classes, held_out = dataset.classes, None
    if settings.evaluate_every:
        held_out = RealDataset(dataset.name, classes, validation, validation)
    del dataset, validation  # Its images have been copied, and may be gigabytes.
    tell("measuring mean and deviation" + (" and ZCA" if settings.whitens else ""))
    problem = Problem(
        real=fit,
        classes=classes,
        preprocessing=fit_preprocessing(fit.images, zca=settings.whitens),
        ipc=settings.ipc,
        seed=derive_seed(settings.seed, "distill"),
        device=device,
        deterministic=settings.deterministic,
    )
    if chosen:
        problem = problem.narrowed(chosen, keep_others=settings.config.uses_all_classes)
    return data, problem, held_out


def _describe(settings: DistillSettings, dataset: RealDataset) -> dict[str, Any]:
    return {
        "name": settings.dataset,
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "image_shape": dataset.image_shape,
        "image_size": settings.image_size,
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "validation_fraction": settings.validation_fraction,
        "validation_seed": settings.validation_seed,
    }


def _card(
    settings: DistillSettings,
    data: Mapping[str, Any],
    problem: Problem,
    session: RecordedSession,
) -> dict[str, Any]:
    card = {
        "dataset": data,
        "method": settings.method,
        "ipc": settings.ipc,
        "factor": settings.config.across,
        "seed": settings.seed,
        "device": problem.device.type,
        "config": settings.resolved(),
        "preset": settings.preset,
        "wall_seconds": session.wall_seconds,
        "cpu_seconds": session.cpu_seconds,
        "peak_memory_mb": session.peak_memory_mb(problem.device),
        "loss_curve": thinned(session.curve),
        "environment": session.made_with,
        **({"watching": watched} if (watched := watching.costs(settings.out)) else {}),
    }
    if settings.shard:
        shard = Shard.parse(settings.shard)
        card["shard"] = {"index": shard.index, "count": shard.count, "classes": problem.class_numbers}
    return card
