"""What the matching losses need of a ConvNet's features, by fused kernels on a CPU.

A block's activated map is never written to memory: one pass over the convolution's output leaves the pooled
map and the attention sums. Images are independent, so they are handled in portions: in float32 by
`distill.portions`, else, and where a convolution has no kernel, by torch's convolutions and autograd.

Letters: N images, C channels, H x W pixels, (h, w) after pooling, L blocks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distill import kernels
from distill.convolution import convolve
from distill.kernels import LANES
from distill.matching import LossWeights, Sums
from distill.networks import ConvNet
from distill.portions import Portions, arguments, convolution_blocks, powers
from distill.precision import Precision

PORTION_BYTES = 32 * 2**20
"""Size of the largest map of a portion."""


def runs_fused(width: int, device: torch.device) -> bool:
    """Whether there are kernels for a ConvNet of this width on this device and machine."""
    return why_not_fused(width, device) is None


def why_not_fused(width: int, device: torch.device) -> str | None:
    """Why there are no kernels for a ConvNet of this width on this device and machine; None if there are."""
    if device.type != "cpu":
        return "they are a CPU's"
    if width % LANES:
        return f"they take widths that are multiples of {LANES}, not {width}"
    return kernels.why_unavailable()


class AttentionSums:
    """Attention sums below the last block, and the embedding, of images on a CPU.

    Differentiable in the images; the network's parameters are taken as constants.
    """

    def __init__(self, network: ConvNet, weights: LossWeights, precision: Precision) -> None:
        self._network, self._weights, self._precision = network, weights, precision
        self._portions = Portions(network, weights)

    def __call__(self, images: Tensor) -> Sums:
        """Of float32 images (N, C, H, W), by the parameters as they are now."""
        kind = torch.bfloat16 if self._precision == "bfloat16" else torch.float32
        sums = self._portions.sums(images) if kind == torch.float32 else None
        if sums is not None:
            return sums
        size = _portion(self._network, images, kind.itemsize)
        return _joined([_sums_of(self._network, each, self._weights) for each in images.to(kind).split(size)])


def _joined(parts: Sequence[Sums]) -> Sums:
    return Sums(
        spatial=[torch.cat(layer) for layer in zip(*(part.spatial for part in parts), strict=True)],
        channel=[torch.cat(layer) for layer in zip(*(part.channel for part in parts), strict=True)],
        embedding=torch.cat([part.embedding for part in parts]),
    )


def _portion(network: ConvNet, images: Tensor, item_bytes: int) -> int:
    width = convolution_blocks(network)[0].conv.out_channels
    return max(1, PORTION_BYTES // (width * images.shape[2] * images.shape[3] * item_bytes))


def _sums_of(network: ConvNet, signal: Tensor, weights: LossWeights) -> Sums:
    blocks = convolution_blocks(network)
    spatial, channel = [], []
    for number, block in enumerate(blocks):
        lower = number < len(blocks) - 1
        maps = convolve(signal, block.conv)
        used = powers(weights, lower)
        signal, rows, columns = _Attend.apply(maps, block.norm.weight, block.norm.bias, block.norm.eps, used)
        if used[0]:
            spatial.append(rows)
        if used[1]:
            channel.append(columns)
    return Sums(spatial=spatial, channel=channel, embedding=signal.flatten(1).float())


class _Attend(torch.autograd.Function):
    """Instance norm, ReLU, attention sums and average pooling behind a convolution.

    powers: p of the spatial and q of the channel sums; 0 leaves one out. Gives the pooled map (N, C, h, w) in
    the map's type, and sums (N, H*W) and (N, C) in float32; those left out are empty.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float, powers: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        maps = maps.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = maps.shape
        size = (count, channels, height // 2, width // 2)
        pooled = torch.empty(size, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
        spatial, channel, moments = (
            maps.new_empty(shape, dtype=torch.float32)
            for shape in (
                (count, height * width if powers[0] else 0),
                (count, channels if powers[1] else 0),
                (2, count, channels),
            )
        )
        results = (pooled, *(_present(sums) for sums in (spatial, channel)), *moments.unbind())
        kernels.library().attention_forward(*_call(maps, weight, bias, eps, powers), *map(_address, results))
        ctx.save_for_backward(maps, weight, bias, moments)
        ctx.eps, ctx.powers = eps, powers
        ctx.set_materialize_grads(True)
        return pooled, spatial, channel

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, bias, moments = ctx.saved_tensors
        pooled, spatial, channel = gradients
        given = (
            *moments.unbind(),
            pooled.to(maps.dtype).contiguous(memory_format=torch.channels_last),
            *(_present(sums.float().contiguous()) for sums in (spatial, channel)),
        )
        out = torch.empty_like(maps)
        call = _call(maps, weight, bias, ctx.eps, ctx.powers)
        kernels.library().attention_backward(*call, *map(_address, given), out.data_ptr())
        return out, None, None, None, None


def _call(
    maps: Tensor, weight: Tensor, bias: Tensor, eps: float, powers: tuple[float, float]
) -> tuple[Any, ...]:
    """The arguments that both directions begin with; as many threads as torch has by default."""
    half, threads = maps.dtype == torch.bfloat16, torch.get_num_threads()
    return arguments(maps.shape, weight, bias, eps, powers, maps.data_ptr(), half=half, threads=threads)


def _present(sums: Tensor) -> Tensor | None:
    return sums if sums.numel() else None


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
