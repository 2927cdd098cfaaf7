"""Settings that hold for all tests."""

import os

# Tests run side by side: one thread each, and the same sums on any number of cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
