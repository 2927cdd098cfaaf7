"""The peak memory of one trial in a worker that outlives it."""

import sys
from contextlib import suppress
from pathlib import Path

import torch

_MIB = 2**20


def reset_peak(device: torch.device) -> None:
    """Start a new measurement.

    On Linux writing 5 to clear_refs sets the process's peak to its present size (proc(5)). Where that is
    impossible the peak is the worker's so far: an upper bound.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float | None:
    """MiB at the peak since `reset_peak`: allocated by torch on a GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024 / _MIB
    return _peak_by_resource()


def _peak_by_resource() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
