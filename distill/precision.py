"""Number formats of forward and backward passes, and whether this machine can run them."""

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# Run in a process of its own: a kernel that the processor lacks ends the process with an illegal instruction.
_PROBE = """
import torch
with torch.autocast("cpu", dtype=torch.bfloat16):
    out = torch.nn.Conv2d(8, 16, 3, padding=1)(torch.randn(32, 8, 8, 8, requires_grad=True))
out.float().sum().backward()
"""


@functools.cache
def runs_bfloat16(device_type: str) -> bool:
    """Whether convolutions train in bfloat16 on this machine; on a CPU finding out takes seconds, once."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    command = [sys.executable, "-c", _PROBE]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0


def require(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that this machine cannot run.

    Raises:
        ValueError: if convolutions fail in `precision` on `device`.
    """
    if precision == "bfloat16" and not runs_bfloat16(device.type):
        raise ValueError(
            f"torch {torch.__version__} cannot run convolutions in bfloat16 on this {device.type}; "
            "use precision=float32"
        )


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Within, convolutions run in `precision`; for float32 nothing changes.

    On a CPU linear layers stay in float32: there torch 2.15 ends the process with an illegal instruction
    on processors that claim to support bfloat16, and they are a small part of the work.
    """
    if precision == "float32":
        yield
    elif device.type == "cpu" and not torch.compiler.is_compiling():
        with torch.autocast("cpu", dtype=torch.bfloat16), _Float32Linear():
            yield
    else:
        with torch.autocast(device.type, dtype=torch.bfloat16):
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
