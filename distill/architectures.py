"""The field's other networks that a set is judged by, fitted to small images; `distill.networks` lists them.

AlexNet, VGG11 and ResNet18 follow the code of Zhao et al. 2021 (dataset condensation, arXiv:2006.05929;
VICO-UoE/DatasetCondensation, networks.py): their AlexNet has no norm, VGG11 and ResNet18 have instance
norm, and the forms with batch norm are named with BN. Theirs pad pictures of one channel to 32x32; these take
images as they are. Weights are drawn as PyTorch's layers draw theirs, there and here.

Letters: N images, C channels, H x W pixels.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock

from distill.networks import InstanceNorm

ImageShape = tuple[int, int, int]
Norm = Callable[[int], nn.Module]

_VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def alexnet(image_shape: ImageShape, classes: int) -> nn.Sequential:
    """Five convolutions without norm, three of them followed by 2x2 max pooling, and one linear layer.

    Raises:
        ValueError: on images of fewer than 8 pixels a side.
    """
    channels, height, width = _require("alexnet", image_shape, 8)
    return nn.Sequential(
        *(nn.Conv2d(channels, 128, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(128, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(192, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 192, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(192 * (height // 8) * (width // 8), classes)),
    )


def vgg11(image_shape: ImageShape, classes: int, *, norm: Norm) -> nn.Sequential:
    """Eight convolutions with a norm in five stages, 2x2 max pooling between them, and one linear layer.

    Pooling that would leave a single pixel is left out, since the instance norm of one value is no function
    of it; at the end comes the maximum over the map. From 32 pixels on nothing is left out, and at 32 it is
    the network of Zhao et al.

    Raises:
        ValueError: on images of fewer than 16 pixels a side.
    """
    inputs, *sides = _require("vgg11", image_shape, 16)
    layers: list[nn.Module] = []
    for stage, widths in enumerate(_VGG11):
        if stage and min(sides) >= 4:
            layers.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
        for width in widths:
            layers += (nn.Conv2d(inputs, width, 3, padding=1), norm(width), nn.ReLU())
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def resnet18(image_shape: ImageShape, classes: int, *, norm: Norm) -> nn.Module:
    """torchvision's ResNet-18 with a 3x3 stem of stride 1 and without the first pooling.

    Raises:
        ValueError: on images of fewer than 16 pixels a side: their last maps would be too small for a norm.
    """
    channels, _, _ = _require("resnet18", image_shape, 16)
    network: nn.Module = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes, norm_layer=norm)
    network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


class ViT(VisionTransformer):  # type: ignore[misc]
    """A small vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): 6 blocks of width 192, 3 heads.

    Always 8x8 patches, of as many pixels as that takes; where their sides are no multiple of 8, images are
    padded to the right and below with zeros, which is the mean in model space.

    The default recipe (SGD, learning rate 0.01) moves it little: trained on 100 digits of 16 pixels, it was
    right on 20% after 60 epochs (chance: 10%), where VGG11 was on 62% and ResNet18 on 77% after 20.

    Raises:
        ValueError: on images that are not square, or of fewer than 8 pixels a side.
    """

    def __init__(self, image_shape: ImageShape, classes: int) -> None:
        channels, height, width = _require("vit", image_shape, 8)
        if height != width:
            raise ValueError(f"vit needs square images, not {height}x{width}; use another network")
        patch = -(-height // 8)
        super().__init__(
            image_size=8 * patch,
            patch_size=patch,
            num_layers=6,
            num_heads=3,
            hidden_dim=192,
            mlp_dim=384,
            num_classes=classes,
        )
        self.conv_proj = nn.Conv2d(channels, 192, kernel_size=patch, stride=patch)
        self._missing = 8 * patch - height

    def draw_parameters(self, generator: torch.Generator) -> None:
        """The class token and the positions, which no layer holds, from N(0, 0.02^2) as in BERT."""
        for parameter in (self.class_token, self.encoder.pos_embedding):
            parameter.copy_(torch.empty(parameter.shape).normal_(std=0.02, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, classes)."""
        return torch.as_tensor(super().forward(F.pad(images, (0, self._missing, 0, self._missing))))


def _require(name: str, image_shape: ImageShape, smallest: int) -> ImageShape:
    if min(image_shape[1:]) < smallest:
        height, width = image_shape[1:]
        raise ValueError(
            f"{name} needs images of at least {smallest}x{smallest} pixels, not {height}x{width}; use "
            "another network, or a set of larger images"
        )
    return image_shape


BUILDERS: dict[str, Callable[[ImageShape, int], nn.Module]] = {
    "alexnet": alexnet,
    "vgg11": partial(vgg11, norm=InstanceNorm),
    "vgg11bn": partial(vgg11, norm=nn.BatchNorm2d),
    "resnet18": partial(resnet18, norm=InstanceNorm),
    "resnet18bn": partial(resnet18, norm=nn.BatchNorm2d),
    "vit": ViT,
}
"""name -> what makes the network with weights of any value; `distill.networks.build` draws them."""
