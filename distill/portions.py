"""Images through a ConvNet by fused kernels in float32, forward and back, on a CPU.

Each thread takes a share of the images, and of that a few at a time through all blocks: their maps never
leave a core's caches, but for those that the way back needs. Images are independent, so no bit depends on how
they are shared out.

Letters: N images, C channels, H x W pixels, (h, w) after pooling.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill import kernels
from distill.convolution import Constant
from distill.matching import LossWeights, Sums
from distill.networks import ConvBlock, ConvNet

CACHED_BYTES = 2**20
"""Size of the largest map of the images that go through the blocks together."""

_FLOAT = 4


def powers(weights: LossWeights, lower: bool) -> tuple[float, float]:
    """p and q of a block, 0 for sums that are not used; those of the last block never are."""
    return (
        weights.spatial_power if weights.spatial and lower else 0.0,
        weights.channel_power if weights.channel and lower else 0.0,
    )


def convolution_blocks(network: ConvNet) -> list[ConvBlock]:
    """The network's blocks, the first first."""
    return [block for block in network.blocks if isinstance(block, ConvBlock)]


def arguments(
    shape: Sequence[int],
    weight: Tensor,
    bias: Tensor,
    eps: float,
    powers: tuple[float, float],
    maps: int,
    *,
    half: bool = False,
    threads: int = 1,
) -> tuple[Any, ...]:
    """What both directions of the kernel behind a convolution take first.

    Args:
        shape: (N, C, H, W) of the maps.
        weight, bias, eps: of the norm.
        powers: see `powers`.
        maps: their address, in float32 or, `half`, bfloat16.
    """
    count, channels, height, width = shape
    sizes = (count, height, width, channels)
    return half, threads, *sizes, eps, *powers, maps, weight.data_ptr(), bias.data_ptr()


class Portions:
    """A ConvNet that many images go through: the memory of what is kept for the way back is used again."""

    def __init__(self, network: ConvNet, weights: LossWeights) -> None:
        self._blocks = convolution_blocks(network)
        lower = [True] * (len(self._blocks) - 1) + [False]
        self._powers = [powers(weights, each) for each in lower]
        self._memory = _Memory()

    def sums(self, images: Tensor) -> Sums | None:
        """Attention sums below the last block, and the embedding, of float32 images (N, C, H, W).

        None where some convolution has no kernel. Differentiable in the images, once; the network's
        parameters are taken as constants, as they are now.

        Raises:
            ValueError: images of another form than the network takes.
        """
        channels = self._blocks[0].conv.in_channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"images are {tuple(images.shape)}: the network takes (N, {channels}, H, W)")
        images = images.float().contiguous(memory_format=torch.channels_last)
        convs = self._convolutions(images)
        if convs is None:
            return None
        blocks = [_Block(*each) for each in zip(self._blocks, convs, self._powers, strict=True)]
        embedding, *sums = _Through.apply(images, blocks, self._memory)
        spatial, channel = sums[: len(blocks)], sums[len(blocks) :]
        return Sums(
            spatial=[rows for rows, block in zip(spatial, blocks, strict=True) if block.powers[0]],
            channel=[columns for columns, block in zip(channel, blocks, strict=True) if block.powers[1]],
            embedding=embedding.flatten(1),
        )

    def _convolutions(self, images: Tensor) -> list[Constant] | None:
        """The blocks' convolutions, each for maps of half the side of the one before."""
        convs = [block.conv for block in self._blocks]
        height, width = images.shape[2:]
        shapes = [(conv.in_channels, height >> level, width >> level) for level, conv in enumerate(convs)]
        if not all(Constant.suits(*each) for each in zip(convs, shapes, strict=True)):
            return None
        back = torch.is_grad_enabled() and images.requires_grad
        return _on_threads([partial(Constant, *each, back=back) for each in zip(convs, shapes, strict=True)])


class _Block:
    """A block with constant parameters, as kernels take it: convolution, norm, ReLU, sums, pooling."""

    def __init__(self, block: ConvBlock, conv: Constant, powers: tuple[float, float]) -> None:
        self.conv, self.powers, self._eps = conv, powers, block.norm.eps
        self._weight, self._bias = (each.detach().clone() for each in (block.norm.weight, block.norm.bias))
        self.channels, self.height, self.width = conv.outputs, *conv.shape[1:]
        self.map_bytes = _FLOAT * self.channels * self.height * self.width

    def maps(self, count: int) -> Tensor:
        """Memory for maps of so many images."""
        return _channels_last(count, self.channels, self.height, self.width)

    def pooled(self, count: int) -> Tensor:
        """Memory for pooled maps of so many images."""
        return _channels_last(count, self.channels, self.height // 2, self.width // 2)

    def sums(self, count: int) -> tuple[Tensor, Tensor]:
        """Memory for spatial and channel sums of so many images; empty for those that are not used."""
        pixels = self.height * self.width
        return (
            _floats(count, pixels if self.powers[0] else 0),
            _floats(count, self.channels if self.powers[1] else 0),
        )

    def attend(self, count: int, maps: int, *results: int | None) -> None:
        """`results`: addresses of pooled maps, spatial and channel sums, means, inverse deviations."""
        kernels.library().attention_forward(*self._arguments(count, maps), *results)

    def attend_back(self, count: int, maps: int, *gradients: int | None) -> None:
        """`gradients`: addresses of means, inverse deviations, gradients of pooled maps and sums, result."""
        kernels.library().attention_backward(*self._arguments(count, maps), *gradients)

    def _arguments(self, count: int, maps: int) -> tuple[Any, ...]:
        shape = (count, self.channels, self.height, self.width)
        return arguments(shape, self._weight, self._bias, self._eps, self.powers, maps)


class _Kept(NamedTuple):
    """What the way back needs of a block: its maps, and the moments of their channels (N, C)."""

    maps: Tensor
    means: Tensor
    deviations: Tensor


class _Memory:
    """What was kept and is needed no more: memory that is new to a process costs as much as what fills it."""

    def __init__(self) -> None:
        self._free: list[_Kept] = []

    def take(self, blocks: Sequence[_Block], count: int) -> list[_Kept]:
        """Of each block, for at least so many images."""
        kept, self._free = self._free, []
        fits = [own.maps.shape[1:] for own in kept] == [block.maps(0).shape[1:] for block in blocks]
        return kept if fits and len(kept[0].maps) >= count else _memory(blocks, count)

    def give_back(self, kept: list[_Kept]) -> None:
        self._free = kept


class _Through(torch.autograd.Function):
    """Images (N, C, H, W) to the last pooled map, then each block's spatial and channel sums."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, blocks: Sequence[_Block], memory: _Memory) -> tuple[Tensor, ...]:
        count = len(images)
        embedding = blocks[-1].pooled(count)
        sums = [block.sums(count) for block in blocks]
        kept = memory.take(blocks, count) if ctx.needs_input_grad[0] else None
        _shared_out(count, blocks, partial(_forward, images, blocks, sums, embedding, kept))
        ctx.blocks, ctx.kept, ctx.memory, ctx.shape = blocks, kept, memory, images.shape
        ctx.set_materialize_grads(True)
        return embedding, *(rows for rows, _ in sums), *(columns for _, columns in sums)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, embedding: Tensor, *sums: Tensor) -> tuple[Tensor | None, ...]:
        blocks, kept = ctx.blocks, ctx.kept
        if kept is None:
            raise RuntimeError("the maps are gone: their gradients were taken before")
        found = _channels_last(*ctx.shape)
        gradients = [each.contiguous() for each in sums]
        pairs = list(zip(gradients[: len(blocks)], gradients[len(blocks) :], strict=True))
        last = embedding.contiguous(memory_format=torch.channels_last)
        _shared_out(len(found), blocks, partial(_backward, last, blocks, pairs, kept, found))
        ctx.memory.give_back(kept)
        ctx.kept = None
        return found, None, None


def _shared_out(count: int, blocks: Sequence[_Block], work: Callable[[range], None]) -> None:
    """work(starts of portions) on every thread, for a share of the images; a portion ends where the next, or
    the share, does."""
    size = max(1, CACHED_BYTES // max(block.map_bytes for block in blocks))
    each = max(1, -(-count // torch.get_num_threads()))
    bounds = [(first, min(first + each, count)) for first in range(0, count, each)]
    _on_threads([partial(work, range(first, last, size)) for first, last in bounds])


def _on_threads(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(lambda call: call(), calls))


def _portions(starts: range) -> list[tuple[int, int]]:
    """The first image of each portion, and how many it has."""
    return [(start, min(starts.step, starts.stop - start)) for start in starts]


def _forward(
    images: Tensor,
    blocks: Sequence[_Block],
    sums: Sequence[tuple[Tensor, Tensor]],
    embedding: Tensor,
    kept: Sequence[_Kept] | None,
    starts: range,
) -> None:
    used = kept or _memory(blocks, starts.step)
    pooled = [block.pooled(starts.step) for block in blocks]
    for start, count in _portions(starts):
        signal, place = _row(images, start), start if kept else 0
        for number, block in enumerate(blocks):
            maps, *moments = (_row(each, place) for each in used[number])
            block.conv.forward(count, signal, maps)
            signal = _row(embedding, start) if block is blocks[-1] else _row(pooled[number], 0)
            spatial, channel = (_present_row(each, start) for each in sums[number])
            block.attend(count, maps, signal, spatial, channel, *moments)


def _backward(
    embedding: Tensor,
    blocks: Sequence[_Block],
    sums: Sequence[tuple[Tensor, Tensor]],
    kept: Sequence[_Kept],
    found: Tensor,
    starts: range,
) -> None:
    gradients = [(block.maps(starts.step), block.pooled(starts.step)) for block in blocks]
    for start, count in _portions(starts):
        signal = _row(embedding, start)
        for number in reversed(range(len(blocks))):
            block, here = blocks[number], _row(gradients[number][0], 0)
            maps, *moments = (_row(each, start) for each in kept[number])
            spatial, channel = (_present_row(each, start) for each in sums[number])
            block.attend_back(count, maps, *moments, signal, spatial, channel, here)
            signal = _row(gradients[number - 1][1], 0) if number else _row(found, start)
            block.conv.backward(count, here, signal)


def _memory(blocks: Sequence[_Block], count: int) -> list[_Kept]:
    return [
        _Kept(block.maps(count), _floats(count, block.channels), _floats(count, block.channels))
        for block in blocks
    ]


def _row(tensor: Tensor, image: int) -> int:
    """The address of an image's part."""
    return int(tensor.data_ptr()) + image * tensor.stride(0) * _FLOAT


def _present_row(tensor: Tensor, image: int) -> int | None:
    return _row(tensor, image) if tensor.numel() else None


def _channels_last(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)


def _floats(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32)
