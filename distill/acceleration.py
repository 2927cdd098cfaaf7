"""Whether a run is compiled: decided from the size of the work and what the machine has, and said."""

import functools
from dataclasses import dataclass
from typing import Literal

import torch

Auto = Literal["auto"]

# Compiling takes about half a minute. On a CPU it pays once the eager run would take minutes: float32
# convolutions reach about 1e11 operations a second there. On a GPU small steps are bound by launches.
CPU_OPERATIONS = 2e13
GPU_ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Work:
    """The size of a run: `operations` are floating point operations of all passes together."""

    iterations: int
    operations: float


def decide(compiled: bool | Auto, work: Work, device: torch.device) -> tuple[bool, str]:
    """Whether to compile, and in a few words why; what was asked for is kept.

    Raises:
        ValueError: if compiling was asked for and cannot be done here.
    """
    if compiled == "auto":
        if not _pays(work, device):
            return False, "the run is too short for it to pay"
        missing = why_not_compile(device.type)
        return missing is None, missing or "the run is long enough for it to pay"
    missing = why_not_compile(device.type) if compiled else None
    if missing:
        raise ValueError(f"compile=true is not possible here: {missing}; leave it out")
    return compiled, "as asked for"


def _pays(work: Work, device: torch.device) -> bool:
    if device.type == "cuda":
        return work.iterations >= GPU_ITERATIONS
    return work.operations >= CPU_OPERATIONS


@functools.cache
def why_not_compile(device_type: str) -> str | None:
    """Why torch.compile does not work on this machine, or None; finding out takes seconds, once."""
    try:
        torch.compile(_probe)(torch.ones(8, device=device_type))
    except Exception as error:  # noqa: BLE001 - whatever a compiler's absence or age leads to
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"torch.compile fails here ({lines[0] if lines else type(error).__name__})"
    return None


def _probe(values: torch.Tensor) -> torch.Tensor:
    return values.exp() * 2.0
