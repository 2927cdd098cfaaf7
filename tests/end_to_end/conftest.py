"""What tests of commands share: a cache of their own, and a small set of digits."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cli_helpers import QUICK, done


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """Nothing is read from or left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATOM_NAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory, own_cache):
    out = tmp_path_factory.mktemp("path") / "set"
    done(
        "distill",
        "--dataset",
        "digits",
        "--method",
        "atom",
        "--ipc",
        2,
        "--iterations",
        5,
        "--out",
        out,
        *QUICK,
    )
    return out
