"""The cells of NAS-Bench-201, also called the topology space of NATS-Bench, in the benchmark's own skeleton.

A cell has four nodes; node i sums one operation on each earlier node: 6 edges, 5 operations, 15,625 cells.
The skeleton: conv3x3 to C channels; three stages of N cells at C, 2C and 4C channels with a residual block
that halves the map between them; batch norm, ReLU, global average pool, linear. The benchmark has N = 5 and
C = 16.

Source: Dong and Yang, "NAS-Bench-201", ICLR 2020 (arXiv:2001.00326); Dong, Liu, Musial and Gabrys,
"NATS-Bench", TPAMI 2021 (arXiv:2009.00437).

Letters: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import Tensor, nn

from search_spaces.base import ImageShape, choose

EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(to, from), in the order of a cell's string form."""
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CELLS, CHANNELS = 5, 16
_SMALLEST_SIDE = 4


@dataclass(frozen=True)
class Cell:
    """One cell, by the operation on each edge of `EDGES`.

    Its string form is the benchmark's: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`, where ~j is an edge from node
    j.
    """

    operations: tuple[str, ...]

    def __str__(self) -> str:
        parts = {to: "" for to, _ in EDGES}
        for (to, source), operation in zip(EDGES, self.operations, strict=True):
            parts[to] += f"{operation}~{source}|"
        return "+".join(f"|{part}" for part in parts.values())


LARGEST_OPTION = 1024
"""Beyond, a network would take minutes to build and more memory than there is; the benchmark has 5 and 16."""


@dataclass(frozen=True, kw_only=True)
class CellSpace:
    """All 15,625 cells in a skeleton of `cells` cells a stage and `channels` channels in the first.

    Attributes:
        cells: of each of the three stages; the benchmark has 5.
        channels: of the first stage, twice as many in each later one; the benchmark has 16.
        name: of the space.
    Raises:
        ValueError: either is not a whole number from 1 to `LARGEST_OPTION`.
    """

    cells: int = CELLS
    channels: int = CHANNELS
    name: str = field(default="nasbench201", init=False)

    def __post_init__(self) -> None:
        for option in ("cells", "channels"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_OPTION:
                raise ValueError(f"{option} is {value!r}: a whole number from 1 to {LARGEST_OPTION}")

    @property
    def choices(self) -> Mapping[str, tuple[Any, ...]]:
        return {f"node{to}_from{source}": OPERATIONS for to, source in EDGES}

    def architecture(self, sample: Mapping[str, Any]) -> Cell:
        return Cell(tuple(sample[choice] for choice in self.choices))

    def sample_of(self, architecture: Cell) -> dict[str, Any]:
        return dict(zip(self.choices, architecture.operations, strict=True))

    def parse(self, text: str) -> Cell:
        nodes = text.split("+")
        operations = [part for node in nodes for part in node.strip("|").split("|")]
        found = [operation.rpartition("~") for operation in operations]
        cell = Cell(tuple(operation for operation, _, _ in found)) if len(found) == len(EDGES) else None
        if cell is None or str(cell) != text:
            example = str(Cell(("nor_conv_3x3",) * len(EDGES)))
            raise ValueError(f"{_shown(text)} is not the form of a cell; one is {example!r}")
        for operation in cell.operations:
            choose("operation", operation, OPERATIONS)
        return cell

    def misfit(self, architecture: Cell, image_shape: ImageShape) -> str | None:  # noqa: ARG002
        side = min(image_shape[1:])
        return None if side >= _SMALLEST_SIDE else f"a side of {side} pixels cannot be halved twice"

    def representative(self, architecture: Cell) -> Cell:
        """The same cell for all that are the same function of as many weights, see `signature`."""
        return _representatives()[signature(architecture)]

    def build(self, architecture: Cell, image_shape: ImageShape, classes: int) -> nn.Module:
        reason = self.misfit(architecture, image_shape)
        if reason is not None:
            raise ValueError(f"{architecture} does not fit images of shape {image_shape}: {reason}")
        width = self.channels
        layers: list[nn.Module] = [
            nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        ]
        for stage in range(3):
            if stage:
                layers.append(Reduction(width))
                width *= 2
            layers += [CellModule(architecture, width) for _ in range(self.cells)]
        head = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, *head, nn.Linear(width, classes))

    def costs(self, architecture: Cell, image_shape: ImageShape, classes: int) -> dict[str, float]:
        channels, height, width = image_shape
        outputs = self.channels
        weights = 9 * channels * outputs
        parameters, flops = weights + 2 * outputs, 2 * weights * height * width
        for stage in range(3):
            if stage:
                height, width = -(-height // 2), -(-width // 2)
                first, shortcut = 18 * outputs**2, 2 * outputs**2
                outputs *= 2
                weights = first + 9 * outputs**2 + shortcut
                parameters, flops = parameters + weights + 4 * outputs, flops + 2 * weights * height * width
            # Edges from nodes without input have weights too, but do nothing.
            has, runs = (self.cells * count * outputs**2 for count in _kernel_pixels(architecture))
            parameters += has + self.cells * 2 * outputs * _convolutions(architecture)
            flops += 2 * runs * height * width
        return {
            "parameters": float(parameters + 2 * outputs + (outputs + 1) * classes),
            "flops": float(flops + 2 * outputs * classes),
        }


def space(*, cells: int = CELLS, channels: int = CHANNELS) -> CellSpace:
    """The cells in a skeleton of so many cells a stage and channels; fewer of either make cheaper proxies."""
    return CellSpace(cells=cells, channels=channels)


def signature(cell: Cell) -> str:
    """A form that cells share only if they are the same function of as many weights.

    `none` adds nothing, `skip_connect` passes its node on, the order of a sum does not matter, and the pool
    of a sum is the sum of the pools (padding is not counted, so a pool is linear up to rounding). A
    convolution whose output is used twice is one, and is told from two of the same kind: (conv-a + conv-a)
    is not (conv-a + conv-b), which the benchmark's own count of isomorphic cells does not see. "" is the
    cell whose output is always zero.
    """
    nodes: dict[int, list[str]] = {0: ["0"], 1: [], 2: [], 3: []}
    for number, ((to, source), operation) in enumerate(zip(EDGES, cell.operations, strict=True)):
        if operation == "skip_connect":
            nodes[to] += nodes[source]
        elif operation == "avg_pool_3x3":
            nodes[to] += [f"({term}){operation}" for term in nodes[source]]
        elif operation != "none" and nodes[source]:
            nodes[to].append(f"({_sum(nodes[source])}){operation}#{number}")
    return _renumbered(_sum(nodes[3]))


def _sum(terms: list[str]) -> str:
    """Terms in an order that does not depend on the numbers of their convolutions."""
    return "+".join(sorted(terms, key=lambda term: (re.sub(r"#\d", "", term), term)))


def _renumbered(text: str) -> str:
    """Convolutions numbered in the order of their first appearance."""
    seen: dict[str, str] = {}
    return re.sub(r"#\d", lambda match: seen.setdefault(match[0], f"#{len(seen)}"), text)


@cache
def _representatives() -> dict[str, Cell]:
    """The first cell of each signature, in the order of enumeration."""
    from search_spaces.base import enumerate_space

    found: dict[str, Cell] = {}
    for cell in enumerate_space(CellSpace()):
        found.setdefault(signature(cell), cell)  # type: ignore[arg-type]
    return found


_PIXELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}
"""Of the kernel of each convolution that an edge may have."""


def _convolutions(cell: Cell) -> int:
    return sum(operation in _PIXELS for operation in cell.operations)


def _kernel_pixels(cell: Cell) -> tuple[int, int]:
    """Of all the cell's convolutions together, and of those that are given anything to convolve."""
    reached, all_of_them, running = {0}, 0, 0
    for (to, source), operation in zip(EDGES, cell.operations, strict=True):
        pixels = _PIXELS.get(operation, 0)
        all_of_them += pixels
        if operation != "none" and source in reached:
            reached.add(to)
            running += pixels
    return all_of_them, running


class CellModule(nn.Module):
    """A cell at some width: (N, C, H, W) to the same."""

    def __init__(self, cell: Cell, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_MAKERS[operation](channels) for operation in cell.operations)
        self._used = [operation != "none" for operation in cell.operations]

    def forward(self, maps: Tensor) -> Tensor:
        nodes: dict[int, Tensor] = {0: maps}
        for (to, source), used, edge in zip(EDGES, self._used, self.edges, strict=True):
            if used and source in nodes:
                term = edge(nodes[source])
                nodes[to] = nodes[to] + term if to in nodes else term
        # A node without input is zero; the gradient of whatever came before is zero too.
        return nodes[3] if 3 in nodes else maps * 0.0


class Reduction(nn.Module):
    """The residual block between two stages: (N, C, H, W) to (N, 2C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, 2 * channels, 3, stride=2)
        self.second = _convolution(2 * channels, 2 * channels, 3)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return self.shortcut(maps) + self.second(self.first(maps))  # type: ignore[no-any-return]


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


_MAKERS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda _: nn.Identity(),
    "skip_connect": lambda _: nn.Identity(),
    "nor_conv_1x1": lambda channels: _convolution(channels, channels, 1),
    "nor_conv_3x3": lambda channels: _convolution(channels, channels, 3),
    "avg_pool_3x3": lambda _: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
}


def _shown(text: str) -> str:
    """What was given, short and on one line."""
    return repr(re.sub(r"\s+", " ", text)[:120])
