"""Settings that hold for all tests."""

import os
import re
from pathlib import Path

import pytest

# Tests run side by side: one thread each, and the same sums on any number of cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Most tests have a cache folder of their own; the compiled kernels, which take seconds, are common to all.
os.environ.setdefault("ATOM_NAS_KERNELS", str(Path(__file__).parent.parent / ".pytest_cache" / "kernels"))


@pytest.fixture(scope="session")
def own_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the guide to a space of one's own; its class is Blocks."""
    guide = (Path(__file__).parent.parent / "docs/guide/extending.md").read_text(encoding="utf-8")
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "ModelSpace" in block
    ]
    path = tmp_path_factory.mktemp("own") / "my_spaces.py"
    path.write_text(code)
    return path
