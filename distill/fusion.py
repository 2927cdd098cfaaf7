"""Normalise, activate and pool in one pass over memory: what follows a convolution, fused for a CPU.

Letters: N images, C channels, H x W pixels, (h, w) after pooling, v a value before and z one after the norm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.convolution import Convolution
from distill.kernels import library
from distill.networks import ConvNet, InstanceNorm

Kind = Literal["none", "group", "batch", "layer"]
_IDENTITY, _LEAKY, _SIGMOID = 0, 1, 2
_NONE, _MAX, _AVERAGE = 0, 1, 2


@dataclass(frozen=True)
class _Form:
    """What is computed: the norm and how many groups of channels share statistics, activation, pooling."""

    kind: Kind
    groups: int
    eps: float
    activation: int
    slope: float
    pooling: int


@dataclass(frozen=True)
class _Affine:
    """z = (v * scale + shift) * gain + offset; scale, shift (N, C), gain, offset (H, W, C), or absent."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    gain: Tensor | None = None
    offset: Tensor | None = None

    @property
    def addresses(self) -> tuple[int | None, ...]:
        """As the kernels take them."""
        tensors = (self.scale, self.shift, self.gain, self.offset)
        assert all(tensor is None or tensor.is_contiguous() for tensor in tensors)
        return tuple(None if tensor is None else tensor.data_ptr() for tensor in tensors)


class Tail(nn.Module):
    """An optional norm, activation and 2x2 pooling as one operation on channels-last maps, on a CPU.

    float32 or bfloat16 maps; sums are float32. The modules stay the owners of parameters and running
    statistics.

    Raises:
        ValueError: if a module has no fused form, see `fuse`.
    """

    def __init__(
        self, norm: nn.Module | None, activation: nn.Module | None, pooling: nn.Module | None
    ) -> None:
        super().__init__()
        self.norm = norm
        kind, groups, eps = _norm_form(norm)
        self.form = _Form(kind, groups, eps, *_activation_form(activation), _pooling_form(pooling))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, h, w)."""
        if maps.dtype not in (torch.float32, torch.bfloat16) or maps.device.type != "cpu":
            raise TypeError(f"fused maps are float32 or bfloat16 on a CPU, not {maps.dtype} on {maps.device}")
        maps = maps.contiguous(memory_format=torch.channels_last)
        norm: Any = self.norm
        if norm is None:
            return _apply(_Plain, maps, None, None, self.form)
        if isinstance(norm, nn.BatchNorm2d) and not norm.training:
            if torch.is_grad_enabled():  # a kernel's scale and shift are constants
                return _apply(_Plain, norm(maps), None, None, self.form)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            shift = norm.bias - norm.running_mean * scale
            return _apply(_Plain, maps, scale, shift, self.form)
        out, mean, variance = _Normalised.apply(maps, norm.weight, norm.bias, self.form)
        if isinstance(norm, nn.BatchNorm2d):
            _track(norm, mean, variance, maps)
        return torch.as_tensor(out)


def fuse(network: nn.Module) -> nn.Module:
    """The network with fast convolutions and whatever follows them fused; parameters and buffers are shared.

    Of an `nn.Sequential` or a `ConvNet`, each run of (norm, activation, pooling) behind a `Conv2d`, any of
    them absent or `Identity`, becomes a `Tail`. Subclasses may compute anything, so they stay as they
    are; so does a whole network of another type, of other numbers than float32, or with hooks, which expect
    every module to be called.
    """
    if any(map(_is_altered, network.modules())) or nn.modules.module._has_any_global_hook():
        return network
    if any(parameter.dtype != torch.float32 for parameter in network.parameters()):
        return network
    if type(network) is ConvNet:
        layers = list(network.layers())
    elif type(network) is nn.Sequential:
        layers = [layer for layer in network if type(layer) is not nn.Identity]
    else:
        return network
    return nn.Sequential(*_fused(layers)).train(network.training)


def _is_altered(module: nn.Module) -> bool:
    """Whether it does other than its class: has hooks, or methods of its own."""
    own: dict[str, Any] = vars(module)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    replaced = (
        callable(value) and callable(getattr(type(module), name, None)) for name, value in own.items()
    )
    return any(own[name] for name in hooks) or any(replaced)


def _fused(layers: list[nn.Module]) -> Iterator[nn.Module]:
    place = 0
    while place < len(layers):
        layer = layers[place]
        place += 1
        if type(layer) is not nn.Conv2d:
            yield layer
            continue
        yield Convolution(layer)
        parts: list[nn.Module | None] = []
        for form in (_norm_form, _activation_form, _pooling_form):
            fits = place < len(layers) and _has_form(form, layers[place])
            parts.append(layers[place] if fits else None)
            place += fits
        if any(parts):
            yield Tail(*parts)


def _has_form(form: Any, layer: nn.Module) -> bool:
    try:
        form(layer)
    except ValueError:
        return False
    return True


def _norm_form(norm: nn.Module | None) -> tuple[Kind, int, float]:
    if norm is None:
        return "none", 0, 0.0
    whole = getattr(norm, "weight", None) is not None and getattr(norm, "bias", None) is not None
    if whole and type(norm) is nn.BatchNorm2d and norm.track_running_stats and norm.momentum:
        return "batch", 0, norm.eps
    if whole and isinstance(norm, nn.GroupNorm) and type(norm) in (nn.GroupNorm, InstanceNorm):
        return "group", norm.num_groups, norm.eps
    if whole and type(norm) is nn.LayerNorm and len(norm.normalized_shape) == 3:
        return "layer", 1, norm.eps
    raise ValueError(f"{norm} has no fused form")


def _activation_form(activation: nn.Module | None) -> tuple[int, float]:
    if activation is None:
        return _IDENTITY, 1.0
    if type(activation) is nn.ReLU:
        return _LEAKY, 0.0
    if type(activation) is nn.LeakyReLU:
        return _LEAKY, float(activation.negative_slope)
    if type(activation) is nn.Sigmoid:
        return _SIGMOID, 0.0
    raise ValueError(f"{activation} has no fused form")


def _pooling_form(pooling: nn.Module | None) -> int:
    if pooling is None:
        return _NONE
    if type(pooling) in (nn.MaxPool2d, nn.AvgPool2d):
        sizes = all(size in (2, (2, 2)) for size in (pooling.kernel_size, pooling.stride))
        plain = pooling.padding in (0, (0, 0)) and not pooling.ceil_mode
        if isinstance(pooling, nn.MaxPool2d):
            special, form = pooling.dilation not in (1, (1, 1)) or pooling.return_indices, _MAX
        else:
            special, form = pooling.divisor_override is not None, _AVERAGE
        if sizes and plain and not special:
            return form
    raise ValueError(f"{pooling} has no fused form")


def _apply(function: Any, *arguments: Any) -> Tensor:
    return torch.as_tensor(function.apply(*arguments))


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, maps: Tensor) -> None:
    """Move the running statistics as torch's own batch norm does: with the unbiased variance."""
    count = maps.numel() // maps.shape[1]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    assert norm.num_batches_tracked is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)


class _Plain(torch.autograd.Function):
    """Without statistics: z = v, or v * scale + shift with a channel's constants (batch norm, evaluating)."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, scale: Tensor | None, shift: Tensor | None, form: _Form) -> Tensor:
        if scale is not None and shift is not None:
            scale, shift = (t.expand(maps.shape[:2]).contiguous() for t in (scale, shift))
        ctx.form = form
        ctx.save_for_backward(maps, scale, shift)
        return _forward(maps, _Affine(scale, shift), form)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, scale, shift = ctx.saved_tensors
        dz = _backward(maps, _Affine(scale, shift), gradient, ctx.form)
        if scale is not None:
            dz *= scale[:, :, None, None].to(dz.dtype)
        return dz, None, None, None


class _Normalised(torch.autograd.Function):
    """z = (v - mean) / std * weight + bias, with mean and std over the set of values that share them.

    Also returns mean and variance that the first image has, (C,): of the batch, which batch norm tracks.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, form: _Form) -> tuple[Tensor, ...]:
        means, squares = _statistics(maps)
        mean = _shared(means, form)
        variance = _shared(squares / _pixels(maps) + (means - mean).square(), form)
        rstd = torch.rsqrt(variance + form.eps).contiguous()
        ctx.form = form
        ctx.save_for_backward(maps, weight, bias, mean, rstd)
        ctx.mark_non_differentiable(mean, variance)
        return _forward(maps, _affine(mean, rstd, weight, bias, form), form), mean[0], variance[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        maps, weight, bias, mean, rstd = ctx.saved_tensors
        form: _Form = ctx.form
        affine = _affine(mean, rstd, weight, bias, form)
        sums = torch.zeros(2, *maps.shape[:2])
        parameters = None if affine.gain is None else torch.zeros(2, *affine.gain.shape)
        dz = _backward(maps, affine, gradient, form, sums, parameters)
        # Sums over each image and channel of d and of d * (v - mean) / std, where d is the gradient with
        # respect to the normalised value; a layer norm's weight is in it, a channel's comes next.
        total, correlation = sums[0], (sums[1] - mean * sums[0]) * rstd
        if parameters is None:
            dweight, dbias = correlation.sum(0), total.sum(0)
            total, correlation, slope = total * weight, correlation * weight, rstd * weight
        else:
            dweight, dbias = parameters.permute(0, 3, 1, 2).unbind()
            slope = rstd
        pixels = _pixels(maps)
        first = rstd * _shared(total, form) / pixels
        second = rstd.square() * _shared(correlation, form) / pixels
        _combine(maps, dz, slope, -second, mean * second - first)
        return dz, dweight, dbias, None


def _affine(mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, form: _Form) -> _Affine:
    """The norm as the kernels compute it: a layer norm's weight is a value's, the others' a channel's."""
    if form.kind == "layer":
        gain, offset = (t.detach().permute(1, 2, 0).contiguous() for t in (weight, bias))
        return _Affine(rstd, -mean * rstd, gain, offset)
    scale = rstd * weight.detach()
    return _Affine(scale, bias.detach() - mean * scale)


def _pixels(maps: Tensor) -> int:
    return maps.shape[2] * maps.shape[3]


def _shared(values: Tensor, form: _Form) -> Tensor:
    """The mean over the images or channels that share statistics, given back to each: (N, C) to (N, C)."""
    if form.kind == "batch":
        return values.mean(0, keepdim=True).expand_as(values)
    grouped = values.unflatten(1, (form.groups, -1))
    shared: Tensor = grouped.mean(2, keepdim=True).expand_as(grouped).reshape(values.shape)
    return shared


def _half(maps: Tensor) -> int:
    return int(maps.dtype == torch.bfloat16)


def _call(maps: Tensor, form: _Form) -> tuple[Any, ...]:
    """The arguments that forward and backward begin with."""
    count, channels, height, width = maps.shape
    threads = torch.get_num_threads()
    return _half(maps), form.activation, form.pooling, threads, form.slope, count, height, width, channels


def _forward(maps: Tensor, affine: _Affine, form: _Form) -> Tensor:
    """pool(act(z)): (N, C, H, W) to (N, C, h, w)."""
    count, channels, height, width = maps.shape
    size = (height // 2, width // 2) if form.pooling else (height, width)
    out = torch.empty((count, channels, *size), dtype=maps.dtype, memory_format=torch.channels_last)
    library().tail_forward(*_call(maps, form), maps.data_ptr(), *affine.addresses, out.data_ptr())
    return out


def _backward(
    maps: Tensor,
    affine: _Affine,
    gradient: Tensor,
    form: _Form,
    sums: Tensor | None = None,
    parameters: Tensor | None = None,
) -> Tensor:
    """dz, (N, C, H, W); adds to sums (2, N, C) and parameters (2, H, W, C) where given."""
    gradient = gradient.to(maps.dtype).contiguous(memory_format=torch.channels_last)
    dz = torch.empty_like(maps)
    pairs = [(None, None) if pair is None else pair.unbind() for pair in (sums, parameters)]
    outputs = [None if tensor is None else tensor.data_ptr() for pair in pairs for tensor in pair]
    inputs = (maps.data_ptr(), *affine.addresses, gradient.data_ptr())
    library().tail_backward(*_call(maps, form), *inputs, dz.data_ptr(), *outputs)
    return dz


def _statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and sum of squared deviations from it, of each image and channel: (N, C) each."""
    count, channels, height, width = maps.shape
    mean, squares = torch.empty(2, count, channels).unbind()
    pointers = (maps.data_ptr(), mean.data_ptr(), squares.data_ptr())
    threads = torch.get_num_threads()
    library().tail_statistics(_half(maps), threads, count, height * width, channels, *pointers)
    return mean, squares


def _combine(maps: Tensor, dz: Tensor, a: Tensor, b: Tensor, k: Tensor) -> None:
    """dz := dz * a + v * b + k, with (N, C) coefficients."""
    count, channels, height, width = maps.shape
    coefficients = [tensor.contiguous() for tensor in (a, b, k)]
    pointers = (maps.data_ptr(), dz.data_ptr(), *(tensor.data_ptr() for tensor in coefficients))
    threads = torch.get_num_threads()
    library().tail_combine(_half(maps), threads, count, height * width, channels, *pointers)
