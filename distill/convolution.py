"""3x3 convolutions in float32 on a CPU by fewer multiplications than torch's, with gradients.

Between many channels by Winograd's minimal filtering, a quarter of the multiplications (Lavin and Gray 2016,
arXiv:1509.09308); over a picture's few channels by products with patches. What an image gives does not depend
on the others of its batch, nor any bit on the number of threads.

Letters: N images, C channels in, K channels out, H x W pixels.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill import kernels
from distill.kernels import LANES

FEWEST = 32
"""With fewer channels on either side minimal filtering gains nothing."""
PICTURE = 4
"""Channels up to which patches are the faster way."""
_TILE = 4


class Convolution(nn.Module):
    """A `Conv2d` that is computed the fast way where there is one; parameters are shared with it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K, H', W')."""
        if torch.is_autocast_enabled(maps.device.type):
            return cast(Tensor, self.conv(maps))
        return convolve(maps, self.conv)


def convolve(maps: Tensor, conv: nn.Conv2d) -> Tensor:
    """conv(maps), in the type of the maps: (N, C, H, W) to (N, K, H', W').

    Differentiable, once, in maps and parameters.
    """
    function = _way(maps, conv)
    if function is None:
        weight, bias = (None if p is None else p.to(maps.dtype) for p in (conv.weight, conv.bias))
        return cast(Tensor, conv._conv_forward(maps, weight, bias))  # type: ignore[arg-type]
    maps = maps.contiguous(memory_format=torch.channels_last)
    return cast(Tensor, function.apply(maps, conv.weight, conv.bias))


def _way(maps: Tensor, conv: nn.Conv2d) -> "type[_Winograd | _Patches] | None":
    """The fast way of a convolution, or None: it depends on sizes, never on the number of images."""
    if maps.dim() != 4 or not maps.numel() or maps.shape[1] != conv.in_channels:
        return None  # torch says what is wrong, if anything is
    form = (conv.kernel_size, conv.stride, conv.dilation, conv.groups, conv.padding_mode)
    if form != ((3, 3), (1, 1), (1, 1), 1, "zeros") or conv.padding not in (1, (1, 1), "same"):
        return None
    if {maps.dtype, conv.weight.dtype} != {torch.float32} or maps.device.type != "cpu":
        return None
    if conv.out_channels % LANES or kernels.why_unavailable() is not None:
        return None
    if conv.in_channels <= PICTURE:
        return _Patches
    many = conv.in_channels % LANES == 0 and min(conv.in_channels, conv.out_channels) >= FEWEST
    return _Winograd if many and 2 * _area(maps, 1) >= _area(maps, _TILE) else None


def _area(maps: Tensor, tile: int) -> int:
    """Pixels of a map whose sides are rounded up to tiles."""
    height, width = (-(-side // tile) * tile for side in maps.shape[2:])
    return height * width


class Constant:
    """A convolution of constant parameters by kernels, called many times on one thread.

    Args:
        conv: the convolution.
        shape: (C, H, W) of the maps that it will be given.
        back: whether gradients will be carried back through it.
    """

    def __init__(self, conv: nn.Conv2d, shape: tuple[int, int, int], *, back: bool) -> None:
        self.shape, self.outputs = shape, conv.out_channels
        self._winograd = _way(_example(shape), conv) is _Winograd
        weight = conv.weight.detach()
        self._bias = None if conv.bias is None else conv.bias.detach().contiguous()
        self._filters = _points(weight, turned=False) if self._winograd else _with_bias(weight, self._bias)
        if back:
            self._turned = _points(weight, turned=True) if self._winograd else _turned_rows(weight)

    @staticmethod
    def suits(conv: nn.Conv2d, shape: tuple[int, int, int]) -> bool:
        """Whether there is a kernel for maps of this shape."""
        return _way(_example(shape), conv) is not None

    def forward(self, count: int, maps: int, out: int) -> None:
        """Addresses of channels-last maps (count, C, H, W) and of their results (count, K, H, W)."""
        channels, height, width = self.shape
        sizes = (1, count, height, width, channels, self.outputs)
        if self._winograd:
            filters, bias = addresses(self._filters, self._bias)
            kernels.library().winograd_forward(*sizes, maps, filters, bias, out)
        else:
            kernels.library().patches_forward(*sizes, maps, self._filters.data_ptr(), out)

    def backward(self, count: int, gradient: int, out: int) -> None:
        """Addresses of the results' gradients (count, K, H, W) and of the maps' (count, C, H, W)."""
        channels, height, width = self.shape
        turned = self._turned.data_ptr()
        if self._winograd:
            sizes = (1, count, height, width, self.outputs, channels)
            kernels.library().winograd_forward(*sizes, gradient, turned, None, out)
        else:
            sizes = (1, count, height, width, channels, self.outputs)
            kernels.library().patches_backward(*sizes, self._turned.shape[1], gradient, turned, out)


def _example(shape: tuple[int, int, int]) -> Tensor:
    return torch.empty((1, *shape), dtype=torch.float32, device="cpu")


class _Winograd(torch.autograd.Function):
    """A convolution by minimal filtering, 16 outputs for 36 multiplications."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(maps, weight)
        return _filtered(maps, weight.detach(), bias, turned=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        for_maps = for_weight = None
        if ctx.needs_input_grad[0]:
            for_maps = _filtered(gradient, weight, None, turned=True)
        if ctx.needs_input_grad[1]:
            for_weight = torch.empty_like(weight)
            sizes = (*_sizes(maps, len(weight)), *for_weight.stride())
            kernels.library().winograd_gradient(*sizes, *addresses(maps, gradient, for_weight))
        return for_maps, for_weight, _for_bias(ctx, gradient)


def _filtered(maps: Tensor, weight: Tensor, bias: Tensor | None, *, turned: bool) -> Tensor:
    """Maps convolved with the weight; turned: with the one that carries gradients back."""
    points = _points(weight, turned=turned)
    bias = None if bias is None else bias.detach().contiguous()
    outputs = points.shape[2]
    out = _map(maps, outputs)
    kernels.library().winograd_forward(*_sizes(maps, outputs), *addresses(maps, points, bias, out))
    return out


def _points(weight: Tensor, *, turned: bool) -> Tensor:
    channels, outputs = weight.shape[:2] if turned else weight.shape[1::-1]
    points = weight.new_empty(36, channels, outputs)
    sizes = (turned, channels, outputs, *weight.stride())
    kernels.library().winograd_filters(*sizes, *addresses(weight, points))
    return points


class _Patches(torch.autograd.Function):
    """A convolution of a picture's few channels as a product with the patches under its pixels."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(maps, weight)
        out = _map(maps, len(weight))
        rows = _with_bias(weight.detach(), bias)
        kernels.library().patches_forward(*_sizes(maps, len(weight)), *addresses(maps, rows, out))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        for_maps = for_weight = None
        threads, *sizes = _sizes(maps, len(weight))
        if ctx.needs_input_grad[0]:
            filled = _turned_rows(weight)
            for_maps = torch.empty_like(maps)
            given = addresses(gradient, filled, for_maps)
            kernels.library().patches_backward(threads, *sizes, filled.shape[1], *given)
        if ctx.needs_input_grad[1]:
            rows = maps.new_empty(9 * maps.shape[1], len(weight))
            kernels.library().patches_gradient(*sizes, *addresses(maps, gradient, rows))
            for_weight = rows.view(3, 3, -1, len(weight)).permute(3, 2, 0, 1)
        return for_maps, for_weight, _for_bias(ctx, gradient)


def _with_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    last = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    return torch.cat([_as_rows(weight), last[None]])


def _turned_rows(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) to (K, L): a patch's numbers in a row, filled up with zeros to whole vectors."""
    columns = _as_rows(weight).T
    return F.pad(columns, (0, -columns.shape[1] % LANES)).contiguous()


def _as_rows(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) to (9 * C, K), in the order of a patch: row, column, channel."""
    return weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).contiguous()


def _for_bias(ctx: Any, gradient: Tensor) -> Tensor | None:
    if not ctx.needs_input_grad[2]:
        return None
    count, outputs, height, width = gradient.shape
    out = gradient.new_empty(outputs)
    sizes = (torch.get_num_threads(), count * height * width, outputs)
    kernels.library().bias_gradient(*sizes, *addresses(gradient, out))
    return out


def _map(like: Tensor, channels: int) -> Tensor:
    count, _, height, width = like.shape
    # Type and device are the maps', whatever torch's defaults are by now.
    shape = (count, channels, height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _sizes(maps: Tensor, outputs: int) -> tuple[int, ...]:
    """Threads, N, H, W, C, K, as the kernels take them."""
    count, channels, height, width = maps.shape
    return torch.get_num_threads(), count, height, width, channels, outputs


def addresses(*tensors: Tensor | None) -> list[int | None]:
    """Of tensors, as the kernels take them; what is absent has none."""
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]
