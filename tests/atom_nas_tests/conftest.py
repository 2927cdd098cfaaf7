"""Fixtures of the search side: a cache of its own for every test, and a synthetic set of digits."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from atom_nas.settings import SearchSettings

# Worker processes import what their jobs name, so the helpers must be a module they can find.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's cache of references out of every test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ATOM_NAS_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def digits_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic set of digits: ten real images a class."""
    from distill.run import distill
    from distill.settings import DistillSettings

    folder = tmp_path_factory.mktemp("sets") / "random"
    distill(DistillSettings(dataset="digits", method="random", ipc=10, out=folder))
    return folder


@pytest.fixture
def quick(digits_set: Path, tmp_path: Path) -> "SearchSettings":
    """The smallest search that has it all: a few ConvNets, a proxy and a real reference."""
    from atom_nas.settings import SearchSettings

    return SearchSettings(
        synthetic=digits_set,
        out=tmp_path / "run",
        samples=4,
        epochs=2,
        reference_epochs=1,
        reference_images=100,
        validation_images=50,
        workers=1,
        seed=39,  # its samples are small networks
        device="cpu",
        recipe=False,
    )


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> "list[tuple[str, str]]":
    """Run trials inline; gives the list of those that ran."""
    from trial_helpers import InlineEngine

    from atom_nas import engines

    jobs: list[tuple[str, str]] = []

    def engine(workload: Any, **options: Any) -> InlineEngine:
        assert set(options) == {"workers", "device"}
        return InlineEngine(workload, jobs)

    monkeypatch.setattr(engines, "load", lambda _: SimpleNamespace(engine=engine))
    return jobs
