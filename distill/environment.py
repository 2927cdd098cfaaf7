"""What a result was made with, and what it took, for its record."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch

from distill.markdown import harmless
from distill.process import return_freed_memory

_MIB = 2**20
_PACKAGES = ("atom-nas", "torch", "torchvision", "numpy", "scikit-learn", "safetensors")


def describe() -> dict[str, str]:
    """Versions of Python and packages, the processor, its usable cores, the source's git commit if any."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "processor": _processor()}
    found["cores"] = str(usable_cores())
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    commit = _commit()
    return {**found, "commit": commit} if commit else found


def other_rounding(before: object, now: Mapping[str, str]) -> str | None:
    """What of an earlier environment makes results of another rounding than now, in words; None if nothing.

    Args:
        before, now: as `describe` gives them, with an entry `kernels`; `before` may be a stranger's.
    """
    if not isinstance(before, Mapping):
        return None
    changed = [name for name in ("torch", "kernels") if name in before and before[name] != now.get(name)]
    was = [f"{name} {harmless(str(before[name]))} ({now.get(name, 'none')} now)" for name in changed]
    return " and ".join(was) or None


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1] for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that this file is part of; None when it is installed elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def begin_measuring(device: torch.device) -> float | None:
    """Start to measure the memory of a piece of work; give the result to `memory_used_mb` after it.

    On Linux writing 5 to clear_refs sets the process's peak to its present size (proc(5)). What earlier work
    freed is handed back to the system first: kept by malloc, it would hide what this work needs.

    Returns:
        MiB in use now; None where a peak cannot be reset.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / _MIB
    return_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _of_status("VmRSS")


def memory_used_mb(device: torch.device, before: float | None) -> float | None:
    """MiB at the peak above what `begin_measuring` found; None where that is unknown."""
    peak = None if before is None else peak_memory_mb(device)
    return None if before is None or peak is None else max(0.0, peak - before)


def peak_memory_mb(device: torch.device) -> float | None:
    """MiB at the peak: allocated by torch on a GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    return _of_status("VmHWM") or _peak_by_resource()


def _of_status(name: str) -> float | None:
    """MiB of an entry of /proc/self/status."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return float(line.split()[1]) * 1024 / _MIB
    return None


def _peak_by_resource() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
