"""Rank neural architectures cheaply on distilled datasets, and learn how far to trust the ranking.

The command line is `atom-nas`; from Python:

>>> import atom_nas
>>> synthetic = atom_nas.load("runs/atom")
>>> summary = atom_nas.run_search(atom_nas.SearchSettings(synthetic=synthetic.path, out="runs/search"))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atom_nas.confirmed.loaded import LoadedArchitecture
    from atom_nas.confirmed.loading import load_architecture
    from atom_nas.engines.base import EngineError
    from atom_nas.evaluation.evaluating import evaluate
    from atom_nas.hub import push
    from atom_nas.labelling import label
    from atom_nas.resuming import resumed
    from atom_nas.search import Progress, SearchSettings, SearchSummary, run_search
    from distill.export import export
    from distill.merging import merge
    from distill.run import distill
    from distill.settings import DistillSettings
    from distill.synthetic import SyntheticSet, load
    from reports.writing import write_report

__version__ = "0.1.0"

# Names resolve on first use, so that `atom-nas --help` imports neither torch nor nni nor matplotlib.
_HOMES = {
    "DistillSettings": "distill.settings",
    "EngineError": "atom_nas.engines.base",
    "LoadedArchitecture": "atom_nas.confirmed.loaded",
    "Progress": "atom_nas.search",
    "SearchSettings": "atom_nas.search",
    "SearchSummary": "atom_nas.search",
    "SyntheticSet": "distill.synthetic",
    "distill": "distill.run",
    "evaluate": "atom_nas.evaluation.evaluating",
    "export": "distill.export",
    "label": "atom_nas.labelling",
    "load": "distill.synthetic",
    "load_architecture": "atom_nas.confirmed.loading",
    "merge": "distill.merging",
    "push": "atom_nas.hub",
    "resumed": "atom_nas.resuming",
    "run_search": "atom_nas.search",
    "write_report": "reports.writing",
}

__all__ = [
    "DistillSettings",
    "EngineError",
    "LoadedArchitecture",
    "Progress",
    "SearchSettings",
    "SearchSummary",
    "SyntheticSet",
    "__version__",
    "distill",
    "evaluate",
    "export",
    "label",
    "load",
    "load_architecture",
    "merge",
    "push",
    "resumed",
    "run_search",
    "write_report",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'atom_nas' has no attribute {name!r}")
