"""What a result was made with, for its record."""

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("atom-nas", "torch", "torchvision", "numpy", "scikit-learn", "safetensors")


def describe() -> dict[str, str]:
    """Versions of Python and packages, the processor, its usable cores, the source's git commit if any."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "processor": _processor()}
    found["cores"] = str(usable_cores())
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    commit = _commit()
    return {**found, "commit": commit} if commit else found


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
