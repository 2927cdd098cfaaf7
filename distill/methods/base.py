"""What every method is given and must return.

Letters: K classes worked on, I images per class, C channels, H x W pixels.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from distill.data import Split
from distill.preprocessing import Preprocessing
from distill.session import Session
from distill.sources import suited_augmentation
from distill.validation import require_types

Self = TypeVar("Self", bound="MethodConfig")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be distilled.

    Attributes:
        real: the training images that may be used (validation images are not among them).
        classes: names of all classes; label k is `classes[k]`.
        preprocessing: from stored pixels to model space.
        ipc: images per class.
        seed: names every random stream.
        device: where to compute.
        subset: the class numbers to work on; all of them if None. Where a method's classes are independent
            given the seed, disjoint subsets together give what one run over all classes gives; other methods
            refuse a subset.
        deterministic: compute each class by itself, in batches of fixed shape, so that disjoint subsets give
            the bits that one run over all classes gives; without it they give the same up to rounding.
    Raises:
        ValueError: if a class has fewer than `ipc` images, or `ipc` is not positive.
    """

    real: Split
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    ipc: int
    seed: int
    device: torch.device
    subset: tuple[int, ...] | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.ipc < 1:
            raise ValueError(f"ipc must be at least 1, not {self.ipc}")
        counts = torch.bincount(self.real.labels, minlength=len(self.classes)).tolist()
        short = [k for k in self.class_numbers if counts[k] < self.ipc]
        if short:
            smallest = min(short, key=lambda k: counts[k])
            raise ValueError(
                f"ipc {self.ipc} is more than class {self.classes[smallest]} has: {counts[smallest]} "
                f"training images (validation images are held out); at most {counts[smallest]} is possible"
            )

    @property
    def class_numbers(self) -> tuple[int, ...]:
        """The K class numbers worked on."""
        return tuple(range(len(self.classes))) if self.subset is None else self.subset

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.real.images.shape[1:]
        return int(channels), int(height), int(width)

    @property
    def labels(self) -> Tensor:
        """Of what a method returns: int64 (K*I,)."""
        return torch.tensor(self.class_numbers).repeat_interleave(self.ipc)

    def pools(self) -> list[Tensor]:
        """For each class worked on, the int64 positions of its images in `real`."""
        everything = self.real.class_indices(len(self.classes))
        return [everything[k] for k in self.class_numbers]

    def narrowed(self, subset: tuple[int, ...], *, keep_others: bool = False) -> "Problem":
        """The problem of `subset` alone; images of other classes are dropped unless `keep_others`."""
        if keep_others:
            return replace(self, subset=subset)
        mine = torch.isin(self.real.labels, torch.tensor(subset))
        return replace(self, subset=subset, real=self.real.take(torch.nonzero(mine).flatten()))

    def prepare(self, positions: Tensor) -> Tensor:
        """The real images at `positions` in model space, on the CPU: float32 (N, C, H, W).

        I at once, all of one class: how a matrix product rounds, as whitening is one, depends on how many
        rows it has.

        Args:
            positions: int64 (N,), class by class; of each I, or a multiple of it.
        """
        parts = positions.split(self.ipc)
        return torch.cat([self.preprocessing(self.real.images[part]) for part in parts])


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What `distill.run` asks of every method's settings; a method overrides what is otherwise for it.

    Raises:
        ValueError: a setting is of another type than its field.
    """

    def __post_init__(self) -> None:
        require_types(self)

    @property
    def steps(self) -> int | None:
        """Iterations with a loss and images to watch; None where there are none."""
        return None

    @property
    def across(self) -> int:
        """f of multi-formation: each stored image holds f x f smaller ones."""
        return 1

    @property
    def uses_all_classes(self) -> bool:
        """Whether images of all classes are needed, also where only some classes are worked on."""
        return False

    def fitted(self: Self, dataset: str) -> Self:
        """The same with `dsa` spelled out for a dataset, where there is a setting `augmentation`."""
        if "augmentation" not in {field.name for field in fields(self)}:
            return self
        strategy: str = vars(self)["augmentation"]
        return replace(self, **{"augmentation": suited_augmentation(strategy, dataset)})

    def settled(self: Self, device: torch.device) -> tuple[Self, str | None]:
        """The same in a precision that the device has, and why it is another than was asked for."""
        del device
        return self, None

    def suited(self: Self, problem: Problem) -> tuple[Self, tuple[str, ...]]:
        """The same with all decided that was left to problem and machine, and what to say of it.

        Raises:
            ValueError: if the settings cannot work for this problem on this machine.
        """
        del problem
        return self, ()

    def kernels(self, device: torch.device) -> str:
        """What computes on this device: eager, fused or compiled; sets differ in rounding by it."""
        del device
        return "eager"


class Method(Protocol):
    """A module of this folder.

    `distill` returns float32 (K*I, C, H, W) in model space on the CPU, class by class in the order of
    `problem.class_numbers`. It is a pure function of problem and config: `session` only watches it,
    interrupts it and lets it continue. `INDEPENDENT_CLASSES` says whether what becomes of a class depends on
    none of the other synthetic images; if not, `distill` refuses a `problem.subset` with a ValueError.
    """

    Config: type[MethodConfig]
    INDEPENDENT_CLASSES: bool

    def distill(self, problem: Problem, config: Any, session: Session) -> Tensor: ...
