"""Execution engines by name: where trials run."""

import importlib
from types import ModuleType

from atom_nas.names import choose

ENGINES: dict[str, str] = {
    "local": "worker processes on this machine",
}


def load(name: str) -> ModuleType:
    """The engine's module, imported on first use; its `engine(workload, **options)` makes one.

    Raises:
        ValueError: on an unknown name, with the nearest matches.
    """
    return importlib.import_module(f"atom_nas.engines.{choose('engine', name, ENGINES)}")
