"""What a distillation is asked to do."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distill import methods
from distill.session import BOARD
from distill.shards import Shard
from distill.sources import ZCA_DATASETS
from distill.validation import require_types

if TYPE_CHECKING:
    from distill.methods.base import MethodConfig

_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """What to distill, how, and where to.

    Attributes:
        dataset: a name that `atom-nas list datasets` shows, or folder:PATH.
        method: a name that `atom-nas list methods` shows.
        method_config: the method's `Config`; its defaults if None.
        ipc: synthetic images per class; as stored, where a method's `factor` puts several into one.
        out: the folder of the synthetic set.
        seed: of everything random in the distillation, from 0 to 2^63 - 1.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        zca: whiten or not; None whitens where the papers do (CIFAR-10 and CIFAR-100).
        validation_fraction: share of the training images held out from distillation, on which
            architectures are scored later; 0 holds out none and cannot be searched with.
        validation_seed: of that split; the same for all sets that are to be compared.
        image_size: side in pixels that images are resized and cropped to; for folder:PATH and tinyimagenet.
        data_dir: where downloaded datasets are kept; None is the user's cache folder.
        preset: where settings came from, for the card; of no effect.
        shard: INDEX/COUNT, e.g. 2/8: distill this part of the classes, which `atom-nas merge` puts
            together with the others; None distills all.
        deterministic: compute each class by itself, so that merged shards are to the bit what one process
            gives, on the same kind of machine and with as many threads; without it they are up to rounding.
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
    preset: str | None = None
    shard: str | None = None
    deterministic: bool = False
    tensorboard: Path | bool = False
    images_every: int | None = None
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        require_types(self)
        self._require_own_config()
        if self.shard is not None:
            object.__setattr__(self, "shard", str(Shard.parse(self.shard)))
            if not methods.load(self.method).INDEPENDENT_CLASSES:
                raise ValueError(
                    f"{self.method} trains its networks on all classes, so that none can be distilled apart: "
                    "leave out shard, or choose another method"
                )
        for name in ("out", "data_dir"):
            value = getattr(self, name)
            # Scripts give paths as text as well.
            object.__setattr__(self, name, None if value is None else Path(value))
        # Before any image is read: the first reading of a large dataset takes minutes.
        for name in ("ipc", "images_every", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in [0, 1), not {self.validation_fraction}")
        for name in ("seed", "validation_seed"):
            seed = getattr(self, name)
            if not 0 <= seed <= _LARGEST_SEED:
                raise ValueError(f"{name} must be a whole number in 0..{_LARGEST_SEED}, not {seed}")
        if not isinstance(self.tensorboard, bool):
            object.__setattr__(self, "tensorboard", Path(self.tensorboard))
        self._require_watchable()

    def _require_own_config(self) -> None:
        expected, given = methods.load(self.method).Config, type(self.method_config)
        if self.method_config is not None and given is not expected:
            from distill.methods.base import MethodConfig  # Not before: it imports all that distilling takes.

            if not isinstance(self.method_config, MethodConfig):
                raise ValueError(
                    f"method_config must be a Config of distill.methods.{self.method}, not a {given.__name__}"
                )
            other = given.__module__.rpartition(".")[2]
            raise ValueError(
                f"method_config is a {given.__name__} of {other}, and the method is {self.method}: give "
                f"method={other!r} as well, or a Config of {self.method}"
            )

    def _require_watchable(self) -> None:
        if self.images_every and self.board is None:
            raise ValueError("images_every is for the images in TensorBoard: add --tensorboard")
        if self.evaluate_every and not self.validation_fraction:
            raise ValueError(
                "evaluate_every scores on held-out images, and validation_fraction=0 holds out none"
            )
        if (self.board or self.evaluate_every) and self.config.steps is None:
            raise ValueError(
                f"{self.method} has no iterations to watch: leave out --tensorboard and --evaluate-every"
            )

    @property
    def board(self) -> Path | None:
        """The folder for TensorBoard, if there is to be one."""
        return self.out / BOARD if self.tensorboard is True else self.tensorboard or None

    @property
    def config(self) -> "MethodConfig":
        """The method's configuration, defaults filled in and `dsa` suited to the dataset."""
        config = methods.load(self.method).Config() if self.method_config is None else self.method_config
        return config.fitted(self.dataset)

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
            "shard": self.shard,
            "deterministic": self.deterministic,
            **asdict(self.config),
        }


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
