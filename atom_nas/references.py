"""Reference trials kept across runs: the costliest numbers of a search are trained once per machine."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from atom_nas.trials import Trial, TrialStore
from distill.files import cache_folder

Result = TypeVar("Result")


class ReferenceCache:
    """Finished reference trials of one dataset, space, settings, seed and kind of device.

    A trial store that several searches may share. The cache only saves time, so whatever is wrong with it is
    a warning, after which it is left alone. Failed trials are not kept: another machine may have the memory.
    """

    def __init__(self, key: Mapping[str, Any]) -> None:
        """Open the cache of `key` (JSON values; all that determines a score besides the architecture)."""
        text = json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)
        name = f"{hashlib.sha256(text.encode()).hexdigest()}.sqlite"
        self.path = cache_folder() / "references" / name
        self._store: TrialStore | None = None
        self._store = self._try(self._open)

    def get(self, estimator: str, architecture: str) -> Trial | None:
        """The finished trial, or None."""
        store = self._store
        return self._try(lambda: store.get(estimator, architecture)) if store else None

    def add(self, trial: Trial) -> None:
        """Keep a trial if it is done and the cache has none of this architecture."""
        store = self._store
        if store and trial.done:
            self._try(lambda: store.add_if_absent(trial))

    def close(self) -> None:
        """Close the file; later calls find and keep nothing."""
        if self._store:
            self._store.close()
            self._store = None

    def _open(self) -> TrialStore:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return TrialStore.create(self.path, shared=True)

    def _try(self, action: Callable[[], Result]) -> Result | None:
        try:
            return action()
        except (OSError, ValueError) as error:
            warnings.warn(f"the reference cache is not used: {error}", stacklevel=3)
            self.close()
            return None
