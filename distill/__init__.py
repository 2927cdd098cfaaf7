"""Real data in, synthetic sets out, and the one loop that trains a network on either.

>>> import distill
>>> synthetic = distill.load("runs/atom")       # images, labels, normalisation and card
>>> synthetic.dataset()[0]                       # a torch Dataset in model space
"""

import importlib
from typing import TYPE_CHECKING, Any

from distill.process import use_huge_pages, wait_asleep

if TYPE_CHECKING:
    from distill.data import RealDataset, Split
    from distill.merging import merge
    from distill.preprocessing import Preprocessing
    from distill.run import distill
    from distill.settings import DistillSettings
    from distill.sources import load_dataset
    from distill.synthetic import SyntheticSet, load
    from distill.training import TrainingConfig, evaluate, train

use_huge_pages()
wait_asleep()

# Names resolve on first use, so that importing the package (for `--help`) does not import torch.
_HOMES = {
    "RealDataset": "data",
    "Split": "data",
    "Preprocessing": "preprocessing",
    "DistillSettings": "settings",
    "distill": "run",
    "load_dataset": "sources",
    "SyntheticSet": "synthetic",
    "load": "synthetic",
    "merge": "merging",
    "TrainingConfig": "training",
    "evaluate": "training",
    "train": "training",
}

__all__ = [
    "DistillSettings",
    "Preprocessing",
    "RealDataset",
    "Split",
    "SyntheticSet",
    "TrainingConfig",
    "distill",
    "evaluate",
    "load",
    "load_dataset",
    "merge",
    "train",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"distill.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'distill' has no attribute {name!r}")
