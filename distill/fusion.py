"""Normalise, activate and pool in one pass over memory: what follows a convolution, fused for a CPU.

Letters: N images, C channels, H x W pixels, (h, w) after pooling, v a value before and z one after the norm.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from distill.convolution import Convolution, addresses
from distill.forms import Form, activation_form, fit, norm_form, pooling_form
from distill.kernels import library
from distill.networks import ConvNet

_PLAIN, _SUM, _MAKE = 0, 1, 2
"""What a backward pass over the maps does, see `tail_backward` in the kernels."""


class Tail(nn.Module):
    """An optional norm, activation and 2x2 pooling as one operation on channels-last maps, on a CPU.

    float32 or bfloat16 maps; sums are float32. The modules stay the owners of parameters and running
    statistics.

    Args:
        spent: nobody but this will need the maps, so that gradients may be written over them.
    Raises:
        ValueError: if a module has no fused form, see `fuse`.
    """

    def __init__(
        self,
        norm: nn.Module | None,
        activation: nn.Module | None,
        pooling: nn.Module | None,
        *,
        spent: bool = False,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.plain = nn.Sequential(*(part for part in (norm, activation, pooling) if part is not None))
        kind, groups, eps = norm_form(norm)
        self.form = Form(kind, groups, eps, *activation_form(activation), pooling_form(pooling), spent)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, h, w)."""
        if maps.dtype not in (torch.float32, torch.bfloat16) or maps.device.type != "cpu":
            raise TypeError(f"fused maps are float32 or bfloat16 on a CPU, not {maps.dtype} on {maps.device}")
        if not fit(self.norm, self.form, maps):
            return cast(Tensor, self.plain(maps))  # torch says what is wrong, if anything is
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
        if not isinstance(norm, nn.BatchNorm2d):
            return _apply(_Own, maps, norm.weight, norm.bias, self.form)
        out, mean, variance = _Batch.apply(maps, norm.weight, norm.bias, self.form)
        _track(norm, mean, variance, maps)
        return cast(Tensor, out)


def fuse(network: nn.Module) -> nn.Module:
    """The network with fast convolutions and whatever follows them fused; parameters and buffers are shared.

    Of an `nn.Sequential` or a `ConvNet`, each run of (norm, activation, pooling) behind a `Conv2d`, any of
    them absent or `Identity`, becomes a `Tail`. Subclasses may compute anything, so they stay as they
    are; so does a whole network of another type, of other numbers than float32, or with hooks, which expect
    every module to be called. Gradients are written over maps, so that a graph can be gone through backward
    once only.
    """
    if any(map(_is_altered, network.modules())) or _has_global_hook():
        return network
    if any(parameter.dtype != torch.float32 for parameter in network.parameters()):
        return network
    if type(network) is ConvNet:
        layers = list(network.layers())
    elif type(network) is nn.Sequential:
        layers = [layer for layer in network if type(layer) is not nn.Identity]
    else:
        return network
    fused = list(_fused(layers))
    if not any(isinstance(layer, Convolution) for layer in fused):
        return network
    whole = nn.Sequential(*fused)
    whole.training = network.training  # of the layers each its own
    return whole


def _is_altered(module: nn.Module) -> bool:
    """Whether it does other than its class: has hooks, or methods of its own."""
    own: dict[str, Any] = vars(module)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    replaced = (
        callable(value) and callable(getattr(type(module), name, None)) for name, value in own.items()
    )
    return any(own[name] for name in hooks) or any(replaced)


def _has_global_hook() -> bool:
    """Whether hooks are called for the modules of all networks."""
    kinds = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    return any(getattr(nn.modules.module, f"_global_{kind}", None) for kind in kinds)


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
        for form in (norm_form, activation_form, pooling_form):
            fits = place < len(layers) and _has_form(form, layers[place])
            parts.append(layers[place] if fits else None)
            place += fits
        if any(parts):
            yield Tail(*parts, spent=True)


def _has_form(form: Any, layer: nn.Module) -> bool:
    try:
        form(layer)
    except ValueError:
        return False
    return True


def _apply(function: Any, *arguments: Any) -> Tensor:
    return cast(Tensor, function.apply(*arguments))


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
    def forward(ctx: Any, maps: Tensor, scale: Tensor | None, shift: Tensor | None, form: Form) -> Tensor:
        if scale is not None and shift is not None:
            scale, shift = (t.expand(maps.shape[:2]).contiguous() for t in (scale, shift))
        ctx.form = form
        ctx.save_for_backward(maps, scale, shift)
        return _forward(maps, scale, shift, form)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, scale, shift = ctx.saved_tensors
        gradient, dz = _as_maps(gradient, maps), _room(ctx, maps)
        _backward(_PLAIN, maps, scale, shift, gradient, ctx.form, dz)
        if scale is not None:
            dz *= scale[:, :, None, None].to(dz.dtype)
        return dz, None, None, None


class _Batch(torch.autograd.Function):
    """z = (v - mean) / std * weight + bias, with a channel's mean and std over the batch.

    Also returns mean and variance, (C,), which batch norm tracks.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, form: Form) -> tuple[Tensor, ...]:
        means, squares = _statistics(maps)
        mean = means.mean(0)
        variance = (squares / _pixels(maps) + (means - mean).square()).mean(0)
        rstd = torch.rsqrt(variance + form.eps)
        scale = rstd * weight.detach()
        scale, shift = (each.expand_as(means).contiguous() for each in (scale, bias.detach() - mean * scale))
        ctx.form = form
        ctx.save_for_backward(maps, weight, mean, rstd, scale, shift)
        ctx.mark_non_differentiable(mean, variance)
        return _forward(maps, scale, shift, form), mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        maps, weight, mean, rstd, scale, shift = ctx.saved_tensors
        gradient = _as_maps(gradient, maps)
        sums = _floats(maps, 2, *maps.shape[:2]).zero_()
        center = mean.expand_as(scale).contiguous()
        _backward(_SUM, maps, scale, shift, gradient, ctx.form, sums=sums, rule=(None, None, None, center))
        total = sums[0].sum(0)
        correlation = (sums[1] * rstd).sum(0)  # of dz and (v - mean) / std
        share = rstd * weight / (len(maps) * _pixels(maps))
        made_of = (-share * rstd * correlation, -share * total)
        rule = [scale, *(each.expand_as(scale).contiguous() for each in made_of), center]
        made = _room(ctx, maps)
        _backward(_MAKE, maps, scale, shift, gradient, ctx.form, made, rule=rule)
        return made, correlation, total, None


class _Own(torch.autograd.Function):
    """z = (v - mean) / std * weight + bias, with mean and std of an image's channels, by groups of them.

    weight and bias are a channel's, (C,), or a value's, (C, H, W).
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, form: Form) -> Tensor:
        parameters = _parameters(weight.detach(), bias.detach())
        statistics = _floats(maps, 4, *maps.shape[:2])  # mean, 1 / std, and z's scale and shift
        out = _outputs(maps, form)
        addresses = _addresses(*parameters, statistics, out)
        library().own_forward(*_call(maps, form), maps.data_ptr(), form.groups, form.eps, *addresses)
        ctx.form = form
        ctx.save_for_backward(maps, statistics, *parameters)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, statistics, weight, _, gain, offset = ctx.saved_tensors
        form: Form = ctx.form
        gradient = _as_maps(gradient, maps)
        made, sums = _room(ctx, maps), _floats(maps, 2, *maps.shape[:2]).zero_()
        of_values = None if gain is None else _floats(maps, 2, *gain.shape).zero_()
        both = (None, None) if of_values is None else of_values.unbind()
        addresses = _addresses(weight, gain, offset, statistics, gradient, made, sums, *both)
        library().own_backward(*_call(maps, form), maps.data_ptr(), form.groups, *addresses)
        if of_values is None:
            dbias, dweight = sums.sum(1)
        else:
            dweight, dbias = of_values.permute(0, 3, 1, 2)
        return made, dweight, dbias, None


def _room(ctx: Any, maps: Tensor) -> Tensor:
    """Where the maps' gradient goes: a kernel reads a pixel's values before it writes there.

    Raises:
        RuntimeError: the maps have been written over by another backward pass.
    """
    if not ctx.form.spent:
        return torch.empty_like(maps)
    if getattr(ctx, "done", False):
        raise RuntimeError("a fused network's graph can be gone through backward once only")
    ctx.done = True
    return maps.detach()


def _parameters(weight: Tensor, bias: Tensor) -> tuple[Tensor | None, ...]:
    """A norm's weight and bias as the kernels take them: a channel's two, and a value's two as (H, W, C)."""
    if weight.dim() == 1:
        return weight.contiguous(), bias.contiguous(), None, None
    return None, None, *(each.permute(1, 2, 0).contiguous() for each in (weight, bias))


def _addresses(*tensors: Tensor | None) -> list[int | None]:
    assert all(
        t is None or t.is_contiguous() or t.is_contiguous(memory_format=torch.channels_last) for t in tensors
    )
    return addresses(*tensors)


def _pixels(maps: Tensor) -> int:
    return maps.shape[2] * maps.shape[3]


def _half(maps: Tensor) -> int:
    return int(maps.dtype == torch.bfloat16)


def _call(maps: Tensor, form: Form) -> tuple[Any, ...]:
    """The arguments that forward and backward begin with."""
    count, channels, height, width = maps.shape
    threads = torch.get_num_threads()
    return _half(maps), form.activation, form.pooling, threads, form.slope, count, height, width, channels


def _outputs(maps: Tensor, form: Form) -> Tensor:
    """Room for pool(act(z)): (N, C, H, W) to (N, C, h, w)."""
    count, channels, height, width = maps.shape
    size = (height // 2, width // 2) if form.pooling else (height, width)
    shape = (count, channels, *size)
    return torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)


def _floats(maps: Tensor, *shape: int) -> Tensor:
    """Room for float32 numbers beside the maps, whatever torch's default type and device are by now."""
    return maps.new_empty(shape, dtype=torch.float32)


def _as_maps(gradient: Tensor, maps: Tensor) -> Tensor:
    return gradient.to(maps.dtype).contiguous(memory_format=torch.channels_last)


def _forward(maps: Tensor, scale: Tensor | None, shift: Tensor | None, form: Form) -> Tensor:
    """pool(act(z)): (N, C, H, W) to (N, C, h, w)."""
    out = _outputs(maps, form)
    library().tail_forward(*_call(maps, form), *_addresses(maps, scale, shift, out))
    return out


def _backward(
    kind: int,
    maps: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    gradient: Tensor,
    form: Form,
    made: Tensor | None = None,
    *,
    sums: Iterable[Tensor | None] = (None, None),
    rule: Iterable[Tensor | None] = (None, None, None, None),
) -> None:
    """One pass, see `tail_backward` in the kernels, to `made`, (N, C, H, W), or to sums; rules are (N, C)."""
    library().tail_backward(
        *_call(maps, form), kind, *_addresses(maps, scale, shift, gradient, made, *sums, *rule)
    )


def _statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and sum of squared deviations from it, of each image and channel: (N, C) each."""
    count, channels, height, width = maps.shape
    mean, squares = _floats(maps, 2, count, channels).unbind()
    sizes = (torch.get_num_threads(), count, height * width, channels)
    library().tail_statistics(_half(maps), *sizes, *_addresses(maps, mean, squares))
    return mean, squares
