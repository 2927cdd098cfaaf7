"""What the matching losses need of a ConvNet's features, by fused kernels on a CPU.

A block's activated map is never written to memory: one pass over the convolution's output leaves the pooled
map and the attention sums. Images are independent, so they are handled in portions. These bound the memory
where gradients are wanted; where none are, the maps of a few images at a time never leave the caches.

Letters: N images, C channels, H x W pixels, (h, w) after pooling, L blocks.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distill import kernels
from distill.convolution import Constant, convolve
from distill.kernels import LANES
from distill.matching import LossWeights, Sums
from distill.networks import ConvBlock, ConvNet
from distill.precision import Precision

PORTION_BYTES = 32 * 2**20
"""Size of the largest map of a portion whose gradients are wanted."""
CACHED_BYTES = 8 * 2**20
"""The same where they are not: few enough for the caches, enough for filters to be read once for many."""


def runs_fused(width: int, device: torch.device) -> bool:
    """Whether there are kernels for a ConvNet of this width on this device and machine."""
    return device.type == "cpu" and width % LANES == 0 and kernels.why_unavailable() is None


def attention_sums(network: ConvNet, images: Tensor, weights: LossWeights, precision: Precision) -> Sums:
    """Attention sums below the last block, and the embedding, of float32 images (N, C, H, W) on a CPU.

    Differentiable in the images; the network's parameters are taken as constants.
    """
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if kind == torch.float32 and not (torch.is_grad_enabled() and images.requires_grad):
        return _constant_sums(network, images, weights)
    portions = images.to(kind).split(_portion(network, images, kind.itemsize, PORTION_BYTES))
    return _joined([_sums_of(network, portion, weights) for portion in portions])


def _joined(parts: Sequence[Sums]) -> Sums:
    return Sums(
        spatial=[torch.cat(layer) for layer in zip(*(part.spatial for part in parts), strict=True)],
        channel=[torch.cat(layer) for layer in zip(*(part.channel for part in parts), strict=True)],
        embedding=torch.cat([part.embedding for part in parts]),
    )


def _portion(network: ConvNet, images: Tensor, item_bytes: int, limit: int) -> int:
    width = _blocks(network)[0].conv.out_channels
    return max(1, limit // (width * images.shape[2] * images.shape[3] * item_bytes))


def _blocks(network: ConvNet) -> list[ConvBlock]:
    return [block for block in network.blocks if isinstance(block, ConvBlock)]


def _sums_of(network: ConvNet, signal: Tensor, weights: LossWeights) -> Sums:
    blocks = _blocks(network)
    spatial, channel = [], []
    for number, block in enumerate(blocks):
        lower = number < len(blocks) - 1
        maps = convolve(signal, block.conv)
        powers = _powers(weights, lower)
        signal, rows, columns = _Attend.apply(
            maps, block.norm.weight, block.norm.bias, block.norm.eps, powers
        )
        if powers[0]:
            spatial.append(rows)
        if powers[1]:
            channel.append(columns)
    return Sums(spatial=spatial, channel=channel, embedding=signal.flatten(1).float())


def _powers(weights: LossWeights, lower: bool) -> tuple[float, float]:
    """p and q of a block, 0 for sums that are not used; those of the last block never are."""
    return (
        weights.spatial_power if weights.spatial and lower else 0.0,
        weights.channel_power if weights.channel and lower else 0.0,
    )


def _constant_sums(network: ConvNet, images: Tensor, weights: LossWeights) -> Sums:
    """As `attention_sums` in float32, without gradients: each thread takes a share of the images."""
    threads = torch.get_num_threads()
    shares = images.split(-(-len(images) // threads))
    convolutions = _constants(network, images)
    with ThreadPoolExecutor(threads) as pool:
        return _joined(list(pool.map(partial(_share_sums, network, convolutions, weights), shares)))


def _constants(network: ConvNet, images: Tensor) -> list[Constant]:
    """The blocks' convolutions, each for maps of half the side of the one before."""
    convs = [block.conv for block in _blocks(network)]
    height, width = images.shape[2:]
    sizes = [(1, conv.in_channels, height >> level, width >> level) for level, conv in enumerate(convs)]
    return [Constant(conv, images.new_empty(size)) for conv, size in zip(convs, sizes, strict=True)]


@torch.no_grad()
def _share_sums(
    network: ConvNet, convolutions: Sequence[Constant], weights: LossWeights, images: Tensor
) -> Sums:
    """A few images at a time go through all blocks, on one thread."""
    size = min(len(images), _portion(network, images, 4, CACHED_BYTES))
    stages, signal = [], images[:size]
    for number, (block, conv) in enumerate(zip(_blocks(network), convolutions, strict=True)):
        powers = _powers(weights, number < len(network.blocks) - 1)
        stages.append(_Stage(block, conv, powers, signal, len(images)))
        signal = stages[-1].pooled
    embedding = torch.empty(len(images), signal[0].numel())
    for start in range(0, len(images), size):
        signal = images[start : start + size]
        for stage in stages:
            signal = stage(signal, start)
        embedding[start : start + size] = signal.flatten(1)
    return Sums(
        spatial=[stage.spatial for stage in stages if stage.powers[0]],
        channel=[stage.channel for stage in stages if stage.powers[1]],
        embedding=embedding,
    )


class _Stage:
    """A block with the memory for its maps, which the next portion uses again, and for all images' sums."""

    def __init__(
        self, block: ConvBlock, conv: Constant, powers: tuple[float, float], signal: Tensor, count: int
    ) -> None:
        size, _, height, width = signal.shape
        channels = block.conv.out_channels
        self.powers, self._norm = powers, block.norm
        self._conv = conv
        self._maps = _last(size, channels, height, width)
        self.pooled = _last(size, channels, height // 2, width // 2)
        self.spatial = torch.empty(count, height * width if powers[0] else 0)
        self.channel = torch.empty(count, channels if powers[1] else 0)
        self._moments = torch.empty(2, size, channels)

    def __call__(self, signal: Tensor, start: int) -> Tensor:
        """The pooled map of images start.. of all; valid until the next call."""
        here = slice(start, start + len(signal))
        maps = self._conv(signal, self._maps[: len(signal)]).contiguous(memory_format=torch.channels_last)
        sums = (_present(self.spatial[here]), _present(self.channel[here]))
        results = (self.pooled, *sums, *self._moments.unbind())
        call = _call(maps, self._norm.weight, self._norm.bias, self._norm.eps, self.powers, threads=1)
        kernels.library().attention_forward(*call, *map(_address, results))
        return self.pooled[: len(signal)]


def _last(*shape: int) -> Tensor:
    return torch.empty(shape, memory_format=torch.channels_last)


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
        pooled = torch.empty(
            (count, channels, height // 2, width // 2), dtype=maps.dtype, memory_format=torch.channels_last
        )
        spatial = torch.empty(count, height * width if powers[0] else 0)
        channel = torch.empty(count, channels if powers[1] else 0)
        moments = torch.empty(2, count, channels)
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
    maps: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    powers: tuple[float, float],
    threads: int | None = None,
) -> tuple[Any, ...]:
    """The arguments that both directions begin with; as many threads as torch has by default."""
    count, channels, height, width = maps.shape
    half = int(maps.dtype == torch.bfloat16)
    shape = (count, height, width, channels)
    pointers = (maps.data_ptr(), weight.data_ptr(), bias.data_ptr())
    return half, threads or torch.get_num_threads(), *shape, eps, *powers, *pointers


def _present(sums: Tensor) -> Tensor | None:
    return sums if sums.numel() else None


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
