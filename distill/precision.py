"""Number formats of forward and backward passes, and whether this machine can run them."""

import functools
import subprocess
import sys
from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Layer = Literal["convolution", "linear"]

# Run in a process of its own: on some processors a bfloat16 kernel ends the process with an illegal
# instruction, although torch and the processor both claim to support it.
_PROBE = """
import torch
layer = {"convolution": torch.nn.Conv2d(8, 16, 3, padding=1), "linear": torch.nn.Linear(64, 16)}[%r]
shape = {"convolution": (32, 8, 8, 8), "linear": (32, 64)}[%r]
with torch.autocast("cpu", dtype=torch.bfloat16):
    out = layer(torch.randn(shape, requires_grad=True))
out.float().sum().backward()
"""


@functools.cache
def runs_bfloat16(device_type: str, layer: Layer) -> bool:
    """Whether layers of this kind train in bfloat16 on this machine; on a CPU it takes seconds, once."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    command = [sys.executable, "-c", _PROBE % (layer, layer)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0


def require(precision: Precision, device: torch.device, *layers: Layer) -> None:
    """Refuse a precision that this machine cannot run.

    Raises:
        ValueError: if layers of one of these kinds fail in `precision` on `device`.
    """
    if precision == "float32":
        return
    for layer in layers:
        if not runs_bfloat16(device.type, layer):
            raise ValueError(
                f"torch {torch.__version__} cannot run a {layer} layer in {precision} on this "
                f"{device.type}; use precision=float32"
            )


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a precision on a device; for float32 it does nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
