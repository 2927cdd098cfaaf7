"""Number formats of forward and backward passes, and whether this machine can run them."""

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls the instructions, on x86 and on ARM."""
# Run in a process of its own: a kernel that the processor lacks ends the process with an illegal instruction.
_PROBE = """
import torch
with torch.autocast("cpu", dtype=torch.bfloat16):
    out = torch.nn.Conv2d(8, 16, 3, padding=1)(torch.randn(32, 8, 8, 8, requires_grad=True))
out.float().sum().backward()
"""


def cpu_flags() -> set[str]:
    """The instruction sets that Linux says the processor has; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    listed = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return set(listed.partition(":")[2].split())


@functools.cache
def runs_bfloat16(device: torch.device) -> bool:
    """Whether this machine trains convolutions in bfloat16 by instructions of its own.

    Torch also imitates them on processors without, some 50 times slower than float32, and on some that claim
    to have them it ends the process; on a CPU finding out takes seconds, once.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not _CPU_FLAGS & cpu_flags():
        return False
    command = [sys.executable, "-c", _PROBE]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0


def settle(precision: Precision, device: torch.device) -> tuple[Precision, str | None]:
    """The precision asked for; or float32, and why, where this machine has no instructions for it."""
    if precision == "float32" or runs_bfloat16(device):
        return precision, None
    return "float32", f"computing in float32: this {device.type} has no bfloat16 that torch can use"


def require(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that this machine cannot run.

    Raises:
        ValueError: if convolutions fail in `precision` on `device`.
    """
    if precision == "bfloat16" and not runs_bfloat16(device):
        raise ValueError(
            f"this {device.type} has no bfloat16 convolutions that torch {torch.__version__} can run; "
            "use precision=float32"
        )


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Within, convolutions run in `precision`; for float32 nothing changes.

    On a CPU linear layers stay in float32: there torch 2.15 ends the process with an illegal instruction
    on processors that claim to support bfloat16, and they are a small part of the work.
    """
    if precision == "float32":
        return nullcontext()
    if device.type == "cpu" and not torch.compiler.is_compiling():
        return _cpu_autocast()
    # No generator of ours: torch 2.4 cannot compile one.
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextmanager
def _cpu_autocast() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16), _Float32Linear():
        yield


class _Float32Linear(TorchFunctionMode):
    """Takes linear layers out of the autocast that it is entered in."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            exact = [value.float() if isinstance(value, Tensor) else value for value in args]
            return func(*exact, **(kwargs or {}))
