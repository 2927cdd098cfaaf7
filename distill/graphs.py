"""Training passes as CUDA graphs: what a small network costs on a GPU is the launching of its kernels.

Forward and backward of one batch shape are recorded once and replayed; other shapes run as ever.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from distill.precision import Precision

FEWEST_STEPS = 50
"""Recording costs about as much as ten steps."""


class Graphed(nn.Module):
    """A network on a CUDA device that replays its training passes; parameters and buffers are shared with it.

    Args:
        network: in training mode.
        example: (N, C, H, W), like the batches that are to be replayed.
        precision: of the recorded passes; `autocast` around the call is of no effect on them.
    Raises:
        RuntimeError: the network cannot be recorded.
    """

    def __init__(self, network: nn.Module, example: Tensor, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self._shape = example.shape
        with _Kept(network):
            record: Any = torch.cuda.make_graphed_callables
            # A list, so that it is no submodule: it is the network once more.
            self._replay = [record(_Captured(network, precision).train(network.training), (example,))]

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to logits, valid until the next call where they were replayed."""
        replayed = self.network.training and torch.is_grad_enabled() and images.shape == self._shape
        return torch.as_tensor(self._replay[0](images) if replayed else self.network(images))


class _Captured(nn.Module):
    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network, self._half = network, precision == "bfloat16"

    def forward(self, images: Tensor) -> Any:
        # Cached casts of the weights would be recorded as they are now.
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self._half, cache_enabled=False):
            return self.network(images)


class _Kept:
    """Puts back what warming up changes: running statistics, and torch's random state."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __enter__(self) -> None:
        self._buffers = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
        self._random = torch.cuda.get_rng_state()

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for buffer, before in self._buffers:
            buffer.copy_(before)
        torch.cuda.set_rng_state(self._random)


def graphed(network: nn.Module, example: Tensor, precision: Precision, steps: int) -> nn.Module:
    """The network as CUDA graphs where there is a GPU and the training is long enough, else as it is.

    Warns, once a process, where it cannot be recorded.
    """
    if example.device.type != "cuda" or steps < FEWEST_STEPS:
        return network
    try:
        return Graphed(network, example, precision)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"training without CUDA graphs: {reason}", stacklevel=2)
        return network
