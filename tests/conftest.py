"""Settings that hold for all tests."""

import os
from pathlib import Path

# Tests run side by side: one thread each, and the same sums on any number of cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Most tests have a cache folder of their own; the compiled kernels, which take seconds, are common to all.
os.environ.setdefault("ATOM_NAS_KERNELS", str(Path(__file__).parent.parent / ".pytest_cache" / "kernels"))
