"""The networks that evaluation trains, and of them the ConvNets, whose feature maps are matched.

Letters: N images, C channels, H x W map, L blocks.
"""

import importlib
import math
from collections.abc import Iterator
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

Network = TypeVar("Network", bound=nn.Module)

# name -> one-line summary; `build` reads the number after `convnet` as the depth, and finds the others in
# `distill.architectures`.
NETWORKS: dict[str, str] = {
    "convnet2": "ConvNet-D2: 2 blocks of conv3x3-128, instance norm, ReLU, average pool",
    "convnet3": "ConvNet-D3: 3 such blocks, the field's network for 28x28 and 32x32 images",
    "convnet4": "ConvNet-D4: 4 such blocks, the field's network for 64x64 images",
    "convnet5": "ConvNet-D5: 5 such blocks, for 128x128 images",
    "alexnet": "AlexNet: 5 convolutions without norm, 3 max poolings; from 8x8 pixels",
    "vgg11": "VGG11: 8 convolutions with instance norm, one linear layer; from 16x16 pixels",
    "vgg11bn": "VGG11 with batch norm",
    "resnet18": "ResNet18: 3x3 stem without pooling, instance norm; from 16x16 pixels",
    "resnet18bn": "ResNet18 with batch norm",
    "vit": "vision transformer: 64 patches (8 x 8), 6 blocks of width 192; from 8x8 pixels",
}

WIDEST = 8192
"""Channels of a ConvNet's blocks at most: 600 million weights a block."""


class InstanceNorm(nn.GroupNorm):
    """Instance norm with affine parameters: (N, C, H, W) to the same, computed in float32.

    GroupNorm of one channel a group, which eagerly is several times faster than InstanceNorm2d. Under
    torch.compile the plain formula is what fuses with its neighbours, about twice as fast as GroupNorm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not torch.compiler.is_compiling():
            return super().forward(input)
        signal = input.float()
        variance, mean = torch.var_mean(signal, dim=(2, 3), correction=0, keepdim=True)
        scale = self.weight.view(-1, 1, 1) * torch.rsqrt(variance + self.eps)
        return ((signal - mean) * scale + self.bias.view(-1, 1, 1)).to(input.dtype)


class ConvBlock(nn.Module):
    """conv3x3, instance norm with affine parameters, ReLU: (N, C, H, W) to (N, width, H, W)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel_size=3, padding=1)
        self.norm = InstanceNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)))


class ConvNet(nn.Module):
    """The field's ConvNet: `depth` blocks, each followed by 2x2 average pooling, then a linear layer.

    Source: Zhao et al. 2021 (dataset condensation), arXiv:2006.05929.

    Args:
        image_shape: (C, H, W) of the images.
        classes: outputs.
        depth, width: blocks, and channels of each.
    Raises:
        ValueError: if the images are too small for `depth` poolings.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, depth: int, width: int = 128) -> None:
        super().__init__()
        channels, height, width_pixels = image_shape
        if min(height, width_pixels) < 2**depth:
            raise ValueError(
                f"ConvNet-D{depth} halves its input {depth} times and needs sides of at least {2**depth}, "
                f"not {height}x{width_pixels}; use a shallower one"
            )
        self.blocks = nn.ModuleList(ConvBlock(channels if i == 0 else width, width) for i in range(depth))
        self.classifier = nn.Linear(width * (height >> depth) * (width_pixels >> depth), classes)

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The L feature maps after each activation, and the embedding before the classifier.

        Args:
            images: (N, C, H, W).
        Returns:
            L maps (N, width, H / 2^l, W / 2^l), l = 0..L-1, and the flattened embedding (N, D).
        """
        maps = []
        signal = images
        for block in self.blocks:
            maps.append(block(signal))
            signal = F.avg_pool2d(maps[-1], 2)
        return maps, signal.flatten(1)

    def layers(self) -> Iterator[nn.Module]:
        """What `forward` does as modules to be called one after the other; they share the parameters."""
        for block in self.blocks:
            yield from (block.conv, block.norm, nn.ReLU(), nn.AvgPool2d(2))  # type: ignore[misc]
        yield from (nn.Flatten(), self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, classes)."""
        return cast(Tensor, self.classifier(self.features(images)[1]))


def convnet_operations(image_shape: tuple[int, int, int], depth: int, width: int) -> float:
    """Operations of the convolutions in one image's forward pass; a multiply-add counts as two."""
    channels, height, pixels = image_shape
    inputs = [channels] + [width] * (depth - 1)
    return sum(18.0 * n * width * (height >> level) * (pixels >> level) for level, n in enumerate(inputs))


def fitting_depth(image_shape: tuple[int, int, int]) -> int:
    """The field's depth for images of this size: 3 at 28 and 32 pixels, 4 at 64, 5 at 128.

    At least 2, since attention is matched below the last block; smaller images end on a 2x2 map.
    """
    return max(2, round(math.log2(min(image_shape[1:]))) - 2)


def convnet(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    depth: int,
    width: int = 128,
    generator: torch.Generator,
) -> ConvNet:
    """A `ConvNet` on the CPU with weights drawn from `generator`; torch's global generator is not touched."""
    with torch.device("meta"):
        network = ConvNet(image_shape, classes, depth, width)
    return _drawn(network, generator)


def _drawn(network: Network, generator: torch.Generator) -> Network:
    """The network, which has no memory for its weights yet, with weights drawn from `generator` alone."""
    network.to_empty(device="cpu")
    reinitialise(network, generator)
    return network


def blank(name: str, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network of `NETWORKS` without weights, on torch's meta device: enough to know that it fits.

    Raises:
        ValueError: if the name is unknown or the images are too small for it.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; allowed: {', '.join(NETWORKS)}")
    with torch.device("meta"):
        if name.startswith("convnet"):
            return ConvNet(image_shape, classes, int(name.removeprefix("convnet")))
        # Imported on first use: torchvision's models take a while.
        make = importlib.import_module("distill.architectures").BUILDERS[name]
        return make(image_shape, classes)  # type: ignore[no-any-return]


def build(
    name: str, image_shape: tuple[int, int, int], classes: int, generator: torch.Generator
) -> nn.Module:
    """A network of `NETWORKS` by name, (N, C, H, W) to logits, with weights drawn from `generator`.

    Raises:
        ValueError: as `blank`.
    """
    return _drawn(blank(name, image_shape, classes), generator)


@runtime_checkable
class DrawsParameters(Protocol):
    """A module with parameters that no layer of it holds."""

    def draw_parameters(self, generator: torch.Generator) -> None:
        """Draw those parameters afresh, in place, from `generator` (CPU); gradients are off."""
        ...


@torch.no_grad()
def reinitialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights afresh, in place, from `generator` (CPU), with PyTorch's default distributions.

    Convolutions and linear layers: uniform in +-1/sqrt(fan_in), weights and biases alike; attention: Xavier's
    uniform for queries, keys and values, biases 0; normalisation layers: scale 1, shift 0, nothing tracked
    yet; others as they say themselves. The numbers drawn do not depend on the network's device.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1.0 / math.sqrt(module.weight[0].numel())
            _uniform(module.weight, bound, generator)
            if isinstance(module, NonDynamicallyQuantizableLinear):  # the output of an attention
                module.bias.zero_()
            elif module.bias is not None:
                _uniform(module.bias, bound, generator)
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            _uniform(module.in_proj_weight, math.sqrt(6.0 / sum(module.in_proj_weight.shape)), generator)
            module.in_proj_bias.zero_()
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm | nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, DrawsParameters):
            module.draw_parameters(generator)


def _uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    if parameter.device.type == "cpu" and parameter.is_contiguous():
        parameter.uniform_(-bound, bound, generator=generator)
    else:
        parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
