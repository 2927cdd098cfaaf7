"""Which norms, activations and poolings kernels compute, and what they are told of them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from distill.networks import InstanceNorm

Kind = Literal["none", "group", "batch", "layer"]
_IDENTITY, _LEAKY, _SIGMOID = 0, 1, 2
_NONE, _MAX, _AVERAGE = 0, 1, 2


@dataclass(frozen=True)
class Form:
    """What is computed: the norm and how many groups of channels share statistics, activation, pooling.

    spent: whether a backward pass may write the maps' gradient over the maps.
    """

    kind: Kind
    groups: int
    eps: float
    activation: int
    slope: float
    pooling: int
    spent: bool


def norm_form(norm: nn.Module | None) -> tuple[Kind, int, float]:
    """Its kind, groups and eps.

    Raises:
        ValueError: it has no fused form.
    """
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


def activation_form(activation: nn.Module | None) -> tuple[int, float]:
    """Its number and slope; raises as `norm_form` does."""
    if activation is None:
        return _IDENTITY, 1.0
    if type(activation) is nn.ReLU:
        return _LEAKY, 0.0
    if type(activation) is nn.LeakyReLU:
        return _LEAKY, float(activation.negative_slope)
    if type(activation) is nn.Sigmoid:
        return _SIGMOID, 0.0
    raise ValueError(f"{activation} has no fused form")


def pooling_form(pooling: nn.Module | None) -> int:
    """Its number; raises as `norm_form` does."""
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


def fit(norm: nn.Module | None, form: Form, maps: Tensor) -> bool:
    """Whether maps are what a kernel takes: of the norm's shape, with something to normalise and to pool.

    A norm's numbers are read as float32, which they may be no more.
    """
    if maps.dim() != 4 or not maps.numel() or (form.pooling and min(maps.shape[2:]) < 2):
        return False
    if norm is not None and not _in_float32(norm):
        return False
    if isinstance(norm, nn.LayerNorm):
        return tuple(norm.normalized_shape) == maps.shape[1:]
    if isinstance(norm, nn.BatchNorm2d):
        several = not norm.training or maps.numel() > maps.shape[1]
        return several and norm.num_features == maps.shape[1]
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels == maps.shape[1] and maps.numel() > norm.num_groups
    return True


def _in_float32(norm: nn.Module) -> bool:
    numbers = (getattr(norm, name, None) for name in ("weight", "bias", "running_mean", "running_var"))
    return all(each is None or each.dtype == torch.float32 for each in numbers)
