"""The 720 ConvNets of the dataset-distillation literature.

depth x (conv3x3 - norm - activation - pool2x2), flatten, linear: the ConvNet of Zhao, Mopuri and Bilen,
"Dataset Condensation with Gradient Matching" (ICLR 2021, arXiv:2006.05929), whose search space over
width, depth, norm, activation and pooling became the family's architecture-search experiment. One
difference from their code: the first convolution pads by 1 for grey images too, not by 3.

Letters: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from search_spaces.base import ImageShape, choose

WIDTHS = (32, 64, 128, 256)
DEPTHS = (1, 2, 3, 4)
NORMS: dict[str, Callable[[int, int, int], nn.Module]] = {  # of maps (C, H, W)
    "none": lambda *_: nn.Identity(),
    "batch": lambda c, *_: nn.BatchNorm2d(c),
    "layer": lambda *chw: nn.LayerNorm(chw),
    "instance": lambda c, *_: nn.GroupNorm(c, c),
    "group": lambda c, *_: nn.GroupNorm(4, c),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
}
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "avg": lambda: nn.AvgPool2d(2),
}
PREFIXES = {"width": "w", "depth": "d", "norm": "", "activation": "", "pooling": ""}


@dataclass(frozen=True, kw_only=True)
class ConvNetArchitecture:
    """One ConvNet; its string form is, for example, `w64-d3-instance-relu-avg`.

    Attributes:
        width: channels of every convolution.
        depth: number of blocks.
        norm: normalisation after each convolution.
        activation: non-linearity after each normalisation.
        pooling: 2x2 pooling that ends each block, or none.
    """

    width: int
    depth: int
    norm: str
    activation: str
    pooling: str

    def __str__(self) -> str:
        return "-".join(f"{prefix}{getattr(self, name)}" for name, prefix in PREFIXES.items())


@dataclass(frozen=True, kw_only=True)
class ConvNetSpace:
    """All combinations of the given values; by default all 720. A field may be narrowed to fewer values.

    Raises:
        ValueError: a field is empty, repeats a value, or holds one that is not a ConvNet's.
    """

    width: tuple[int, ...] = WIDTHS
    depth: tuple[int, ...] = DEPTHS
    norm: tuple[str, ...] = tuple(NORMS)
    activation: tuple[str, ...] = tuple(ACTIVATIONS)
    pooling: tuple[str, ...] = tuple(POOLINGS)
    name: str = field(default="convnet", init=False)

    def __post_init__(self) -> None:
        for choice, values in self.choices.items():
            _check_values(choice, values, getattr(ConvNetSpace, choice))

    @property
    def choices(self) -> Mapping[str, tuple[Any, ...]]:
        return {choice: getattr(self, choice) for choice in PREFIXES}

    def architecture(self, sample: Mapping[str, Any]) -> ConvNetArchitecture:
        return ConvNetArchitecture(**{choice: sample[choice] for choice in self.choices})

    def sample_of(self, architecture: ConvNetArchitecture) -> dict[str, Any]:
        return asdict(architecture)

    def parse(self, text: str) -> ConvNetArchitecture:
        parts = text.split("-")
        if len(parts) != len(self.choices):
            example = self.architecture({choice: values[-1] for choice, values in self.choices.items()})
            raise ValueError(
                f"{text!r} does not have the {len(self.choices)} parts of a ConvNet: "
                f"{'-'.join(self.choices)}, for example {str(example)!r}"
            )
        named = zip(self.choices.items(), parts, strict=True)
        return self.architecture(
            {choice: _parse_part(choice, values, part) for (choice, values), part in named}
        )

    def misfit(self, architecture: ConvNetArchitecture, image_shape: ImageShape) -> str | None:
        side = min(image_shape[1:])
        if architecture.pooling != "none":
            # Every norm of a network whose poolings fit sees 2x2 pixels or more.
            fits = side >> architecture.depth >= 1
            return None if fits else f"{_poolings(architecture.depth)} not fit a side of {side} pixels"
        if max(image_shape[1:]) > 1:
            return None
        return {
            "instance": "instance norm makes a single pixel constant",
            "batch": "batch norm cannot train on one image of a single pixel",
        }.get(architecture.norm)

    def build(self, architecture: ConvNetArchitecture, image_shape: ImageShape, classes: int) -> nn.Module:
        reason = self.misfit(architecture, image_shape)
        if reason is not None:
            raise ValueError(f"{architecture} does not fit images of shape {image_shape}: {reason}")
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for _ in range(architecture.depth):
            layers += _block(architecture, channels, height, width)
            channels = architecture.width
            if architecture.pooling != "none":
                height, width = height // 2, width // 2
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, classes))

    def costs(
        self, architecture: ConvNetArchitecture, image_shape: ImageShape, classes: int
    ) -> dict[str, float]:
        channels, height, width = image_shape
        outputs = architecture.width
        parameters, flops = 0, 0
        for _ in range(architecture.depth):
            flops += 2 * 9 * channels * outputs * height * width
            parameters += (9 * channels + 1) * outputs
            of_norm = {"none": 0, "layer": 2 * outputs * height * width}
            parameters += of_norm.get(architecture.norm, 2 * outputs)
            channels = outputs
            if architecture.pooling != "none":
                height, width = height // 2, width // 2
        values = channels * height * width
        return {
            "parameters": float(parameters + (values + 1) * classes),
            "flops": float(flops + 2 * values * classes),
        }


def space(
    *,
    width: Iterable[int] | int = WIDTHS,
    depth: Iterable[int] | int = DEPTHS,
    norm: Iterable[str] | str = tuple(NORMS),
    activation: Iterable[str] | str = tuple(ACTIVATIONS),
    pooling: Iterable[str] | str = tuple(POOLINGS),
) -> ConvNetSpace:
    """The space of ConvNets, or the part of it that has the given values, or the one value, only."""
    return ConvNetSpace(
        width=_listed(width),
        depth=_listed(depth),
        norm=_listed(norm),
        activation=_listed(activation),
        pooling=_listed(pooling),
    )


def _listed(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list | tuple) else (values,)


def _check_values(choice: str, values: tuple[Any, ...], allowed: tuple[Any, ...]) -> None:
    listed = ", ".join(map(str, allowed))
    # With their type: true equals 1, and what is typed may be anything.
    given = [(type(value), value) for value in values]
    known = [(type(value), value) for value in allowed]
    if not given or any(given.count(each) > 1 or each not in known for each in given):
        raise ValueError(f"{choice} is {list(values)}: it takes one or more different values of {listed}")


def _parse_part(choice: str, values: tuple[Any, ...], part: str) -> Any:
    by_text = {f"{PREFIXES[choice]}{value}": value for value in values}
    return by_text[choose(choice, part, by_text)]


def _poolings(depth: int) -> str:
    return "1 pooling does" if depth == 1 else f"{depth} poolings do"


def _block(architecture: ConvNetArchitecture, channels: int, height: int, width: int) -> list[nn.Module]:
    """One block for maps of (channels, height, width)."""
    return [
        nn.Conv2d(channels, architecture.width, kernel_size=3, padding=1),
        NORMS[architecture.norm](architecture.width, height, width),
        ACTIVATIONS[architecture.activation](),
        POOLINGS[architecture.pooling](),
    ]
