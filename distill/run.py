"""From settings to an artifact on disk: load the data, distill, save with the card."""

import functools
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill import environment, methods, synthetic, watching
from distill.attention import runs_fused
from distill.data import RealDataset
from distill.files import lock_folder
from distill.methods.base import Problem
from distill.precision import settle
from distill.preprocessing import fit_preprocessing
from distill.seeding import derive_seed
from distill.session import BOARD, CHECKPOINT, Progress, RecordedSession, State, Stopwatch
from distill.sources import ZCA_DATASETS, load_dataset, suited_augmentation
from distill.synthetic import SyntheticSet
from distill.target import check_target, holds_set, is_begun, sweep, withdraw_set

_CURVE_POINTS = 500
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """What to distill, how, and where to.

    Attributes:
        dataset: a name that `atom-nas list datasets` shows, or folder:PATH.
        method: a name that `atom-nas list methods` shows.
        method_config: the method's `Config`; its defaults if None.
        ipc: synthetic images per class.
        out: the folder of the synthetic set.
        seed: of everything random in the distillation, from 0 to 2^63 - 1.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        zca: whiten or not; None whitens where the papers do (CIFAR-10 and CIFAR-100).
        validation_fraction: share of the training images held out from distillation, on which
            architectures are scored later; 0 holds out none and cannot be searched with.
        validation_seed: of that split; the same for all sets that are to be compared.
        image_size: side in pixels that images are resized and cropped to; for folder:PATH and tinyimagenet.
        data_dir: where downloaded datasets are kept; None is the user's cache folder.
        tensorboard: true writes losses and images for TensorBoard to `tensorboard` in the set's folder; or a
            folder for them, of this run alone.
        images_every: iterations from one grid of images there to the next; None is a tenth of all.
        evaluate_every: iterations from one short training on the images so far to the next, scored on
            held-out validation images; None trains none.
    """

    dataset: str
    out: Path
    method: str = "atom"
    method_config: Any = None
    ipc: int = 10
    seed: int = 0
    device: str = "auto"
    zca: bool | None = None
    validation_fraction: float = 0.1
    validation_seed: int = 0
    image_size: int | None = None
    data_dir: Path | None = None
    tensorboard: Path | bool = False
    images_every: int | None = None
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("out", "data_dir"):
            value = getattr(self, name)
            # Scripts give paths as text as well.
            object.__setattr__(self, name, None if value is None else Path(value))
        # Before any image is read: the first reading of a large dataset takes minutes.
        if self.ipc < 1:
            raise ValueError(f"ipc must be at least 1, not {self.ipc}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in [0, 1), not {self.validation_fraction}")
        for name in ("seed", "validation_seed"):
            seed = getattr(self, name)
            if not (isinstance(seed, int) and 0 <= seed <= _LARGEST_SEED):
                raise ValueError(f"{name} must be a whole number in 0..{_LARGEST_SEED}, not {seed}")
        if not isinstance(self.tensorboard, bool):
            object.__setattr__(self, "tensorboard", Path(self.tensorboard))
        self._require_watchable()

    def _require_watchable(self) -> None:
        for name in ("images_every", "evaluate_every"):
            every = getattr(self, name)
            if every is not None and every < 1:
                raise ValueError(f"{name} must be at least 1, not {every}")
        if self.images_every and self.board is None:
            raise ValueError("images_every is for the images in TensorBoard: add --tensorboard")
        if self.evaluate_every and not self.validation_fraction:
            raise ValueError(
                "evaluate_every scores on held-out images, and validation_fraction=0 holds out none"
            )
        if (self.board or self.evaluate_every) and not hasattr(self.config, "iterations"):
            raise ValueError(
                f"{self.method} has no iterations to watch: leave out --tensorboard and --evaluate-every"
            )

    @property
    def board(self) -> Path | None:
        """The folder for TensorBoard, if there is to be one."""
        return self.out / BOARD if self.tensorboard is True else self.tensorboard or None

    @property
    def config(self) -> Any:
        """The method's configuration, defaults filled in and `dsa` suited to the dataset."""
        config = methods.load(self.method).Config() if self.method_config is None else self.method_config
        if not hasattr(config, "augmentation"):
            return config
        return replace(config, augmentation=suited_augmentation(config.augmentation, self.dataset))

    @property
    def whitens(self) -> bool:
        """Whether ZCA is used."""
        return self.dataset in ZCA_DATASETS if self.zca is None else self.zca

    def resolved(self) -> dict[str, Any]:
        """Every setting that the result depends on, as JSON values."""
        return {
            "dataset": self.dataset,
            "image_size": self.image_size,
            "method": self.method,
            "ipc": self.ipc,
            "seed": self.seed,
            "zca": self.whitens,
            "validation_fraction": self.validation_fraction,
            "validation_seed": self.validation_seed,
            **asdict(self.config),
        }


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
    stopwatch = Stopwatch()
    tell = on_stage or (lambda _: None)
    made_with = environment.describe()  # Now: a checkout may move on while the code that runs does not.
    method = methods.load(settings.method)
    device = resolve_device(settings.device)
    out, resolved = settings.out, settings.resolved()
    finished = functools.partial(check_target, out, resolved, resume=resume, overwrite=overwrite)
    if found := finished():
        return found
    dataset, problem = _pose(settings, device, tell)
    settings = _suited(settings, problem, tell)
    out.mkdir(parents=True, exist_ok=True)
    observer = watching.observer(settings, dataset, problem, tell)
    with closing(lock_folder(out, "distillation")), closing(observer):
        # Again, now that nobody else can write: another distillation may have come first.
        if found := finished():
            return found
        sweep(out)
        session = _WatchfulSession(
            out,
            {**settings.resolved(), "fingerprint": dataset.fingerprint},
            resume=resume and not overwrite,
            on_progress=on_progress,
            should_stop=should_stop,
            checkpoint_seconds=checkpoint_seconds,
            stopwatch=stopwatch,
            observer=observer,
        )
        if overwrite and (holds_set(out) or is_begun(out)):
            session.begin_anew()
        tell(f"distilling with {settings.method}")
        images = method.distill(problem, settings.config, session)
        made_with["kernels"] = _kernels(settings, device)
        card = {**_card(settings, dataset, session, device), "environment": made_with}
        return _write(out, images, problem, card)


def _write(out: Path, images: Tensor, problem: Problem, card: Mapping[str, Any]) -> SyntheticSet:
    """Write the set in the place of an old one, and drop the checkpoint, which has served."""
    labels = torch.arange(len(problem.classes)).repeat_interleave(problem.ipc)
    withdraw_set(out)
    result = synthetic.save(out, images, labels, problem.preprocessing, card)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return result


def _suited(settings: DistillSettings, problem: Problem, tell: Callable[[str], None]) -> DistillSettings:
    """The settings, checked against the problem; `compile` is decided, the precision one the machine has."""
    config = settings.config
    if not hasattr(config, "suited"):
        return settings
    precision, lacking = settle(config.precision, problem.device)
    if lacking:
        tell(lacking)
    config, reason = replace(config, precision=precision).suited(problem)
    settings = replace(settings, method_config=config)
    how = {"compiled": f"compiled: {reason}", "fused": "computing with fused kernels"}
    tell(how.get(_kernels(settings, problem.device), f"not compiled: {reason}"))
    return settings


def _kernels(settings: DistillSettings, device: torch.device) -> str:
    """What computed the features: sets differ in rounding by it."""
    config = settings.config
    if getattr(config, "compile", False):
        return "compiled"
    return "fused" if hasattr(config, "width") and runs_fused(config.width, device) else "eager"


def _pose(
    settings: DistillSettings, device: torch.device, tell: Callable[[str], None]
) -> tuple[RealDataset, Problem]:
    """The real data, and the problem of distilling what is not held out of it."""
    if settings.board:
        watching.require_tensorboard()  # Before any image is read.
    tell(f"reading {settings.dataset}")
    dataset = load_dataset(settings.dataset, data_dir=settings.data_dir, image_size=settings.image_size)
    fit, _ = dataset.carve_validation(settings.validation_fraction, settings.validation_seed)
    tell("measuring mean and deviation" + (" and ZCA" if settings.whitens else ""))
    problem = Problem(
        real=fit,
        classes=dataset.classes,
        preprocessing=fit_preprocessing(fit.images, zca=settings.whitens),
        ipc=settings.ipc,
        seed=derive_seed(settings.seed, "distill"),
        device=device,
    )
    return dataset, problem


class _WatchfulSession(RecordedSession):
    """Also keeps the loss curve for the card; methods that do not iterate leave an empty one."""

    curve: tuple[dict[str, float], ...] = ()

    def restore(self) -> State | None:
        state = super().restore()
        self.curve = tuple(state.curve) if state else ()
        return state

    def after(self, state: State, total: int) -> None:
        self.curve = tuple(state.curve)
        super().after(state, total)


def resolve_device(name: str) -> torch.device:
    """`auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N` to a device that exists.

    Raises:
        ValueError: if the name is unknown, or CUDA is asked for and absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise ValueError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:N")
    kind, _, index = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("CUDA was asked for, but torch finds no CUDA device here; use --device cpu or auto")
    if index and int(index) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {name}: {torch.cuda.device_count()} CUDA device(s) found")
    return torch.device(name)


def _card(
    settings: DistillSettings, dataset: RealDataset, session: _WatchfulSession, device: torch.device
) -> dict[str, Any]:
    return {
        "dataset": {
            "name": settings.dataset,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "image_shape": dataset.image_shape,
            "image_size": settings.image_size,
            "train_images": len(dataset.train),
            "test_images": len(dataset.test),
            "validation_fraction": settings.validation_fraction,
            "validation_seed": settings.validation_seed,
        },
        "method": settings.method,
        "ipc": settings.ipc,
        "seed": settings.seed,
        "device": device.type,
        "config": settings.resolved(),
        "wall_seconds": session.wall_seconds,
        "cpu_seconds": session.cpu_seconds,
        "peak_memory_mb": session.peak_memory_mb(device),
        "loss_curve": _thinned(session.curve),
        **({"watching": watched} if (watched := watching.costs(settings.out)) else {}),
    }


def _thinned(curve: tuple[dict[str, float], ...]) -> list[dict[str, float]]:
    """At most `_CURVE_POINTS` points of the curve, its last among them; `log.jsonl` has all."""
    stride = -(-len(curve) // _CURVE_POINTS) or 1
    return [point for i, point in enumerate(curve) if i % stride == 0 or i == len(curve) - 1]
