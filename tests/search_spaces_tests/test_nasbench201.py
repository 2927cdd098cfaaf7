"""The cells of NAS-Bench-201: the benchmark's strings, sizes and skeleton, and which cells are the same."""

import csv
import os
import random
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch import nn

from search_spaces import load
from search_spaces.base import enumerate_space
from search_spaces.nasbench201 import EDGES, OPERATIONS, Cell, CellSpace, signature

SPACE = CellSpace()
SHAPE = (3, 32, 32)
LARGEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def cell(text: str) -> Cell:
    return SPACE.parse(text)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        # Published by the benchmark (NATS-Bench, CIFAR-10).
        ("|skip_connect~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|", 802426),
        (LARGEST, 1531546),
    ],
)
def test_sizes_are_the_benchmarks(text: str, count: int) -> None:
    assert parameters(SPACE.build(cell(text), SHAPE, 10)) == count


def test_multiplications_are_the_benchmarks() -> None:
    """The largest cell: 220.12 million multiply-adds, as published."""
    counted = 0

    def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d | nn.Linear):
            counted += out.numel() * module.weight[0].numel()

    network = SPACE.build(cell(LARGEST), SHAPE, 10).eval()
    for module in network.modules():
        module.register_forward_hook(count)
    network(torch.zeros(1, *SHAPE))
    assert counted / 1e6 == pytest.approx(220.12, abs=0.01)


def test_cheaper_skeletons() -> None:
    small = load("nasbench201", cells=1, channels=4)
    assert parameters(small.build(cell(LARGEST), SHAPE, 10)) < 30000
    assert small.build(cell(LARGEST), (1, 8, 8), 3)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert small.misfit(cell(LARGEST), (3, 3, 3))
    for option in ({"cells": 0}, {"channels": "16"}, {"cells": True}, {"cells": 1025}, {"channels": 10**9}):
        with pytest.raises(ValueError, match=next(iter(option))):
            load("nasbench201", **option)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|+|none~0|none~1|+|none~0|none~1|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~3|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2",
        "|none~0|+|none~0|none~1|+|none~0|none~1|max_pool~2|",
        "|none~1|+|none~0|none~0|+|none~0|none~1|none~2|",
    ],
)
def test_strings_that_are_no_cell(text: str) -> None:
    with pytest.raises(ValueError, match=r"cell|operation") as caught:
        cell(text)
    assert len(str(caught.value).splitlines()) == 1


def test_what_nothing_flows_through_learns_nothing_and_still_trains() -> None:
    network = SPACE.build(Cell(("none",) * 6), SHAPE, 10)
    logits = network(torch.randn(2, *SHAPE))
    logits.sum().backward()
    assert torch.equal(logits[0], logits[1])


def test_a_cell_adds_what_its_edges_give() -> None:
    operations = ("skip_connect", "avg_pool_3x3", "skip_connect", "none", "avg_pool_3x3", "skip_connect")
    network = load("nasbench201", cells=1, channels=2).build(Cell(operations), (1, 8, 8), 2)
    maps = torch.randn(1, 2, 8, 8)
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    second = pool(maps) + maps
    assert torch.allclose(network[2](maps), pool(maps) + second)


def alike(cells: list[Cell], maps: torch.Tensor) -> bool:
    """Whether cells whose convolutions of one kind all have the same weights give the same."""
    results = []
    for each in cells:
        module = load("nasbench201", cells=1, channels=4).build(each, (1, 8, 8), 2)[2]
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                size = layer.weight.numel()
                layer.weight.data = torch.sin(torch.arange(float(size))).view_as(layer.weight)
        results.append(module.double()(maps))
    return all(torch.allclose(results[0], other, atol=1e-9) for other in results[1:])


def test_cells_of_one_signature_compute_the_same() -> None:
    groups = defaultdict(list)
    for each in enumerate_space(SPACE):
        groups[signature(each)].append(each)  # type: ignore[arg-type]
    assert len(groups) == 5044
    maps = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    chosen = random.Random(0)
    for group in chosen.sample(sorted((g for g in groups.values() if len(g) > 1), key=str), 60):
        assert alike(chosen.sample(group, min(3, len(group))), maps)
    singles = sorted((g[0] for g in groups.values()), key=str)
    for pair in (chosen.sample(singles, 2) for _ in range(20)):
        assert signature(pair[0]) != signature(pair[1])


def test_a_convolution_used_twice_is_not_two_of_them() -> None:
    twice = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|"
    both = "|nor_conv_1x1~0|+|nor_conv_1x1~0|none~1|+|none~0|skip_connect~1|skip_connect~2|"
    mirrored = "|nor_conv_1x1~0|+|nor_conv_1x1~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
    assert signature(cell(twice)) != signature(cell(both))
    assert signature(cell(both)) != signature(cell(mirrored))
    renamed = "|none~0|+|nor_conv_1x1~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
    assert signature(cell(renamed)) == signature(cell(both))


def test_representatives_stand_for_their_group() -> None:
    for each in list(enumerate_space(SPACE))[::97]:
        first = SPACE.representative(each)  # type: ignore[arg-type]
        assert signature(first) == signature(each)  # type: ignore[arg-type]
        assert SPACE.representative(first) == first


@pytest.mark.skipif("ATOM_NAS_DATA" not in os.environ, reason="ATOM_NAS_DATA names no folder of real data")
def test_the_published_table_is_of_the_space() -> None:
    path = Path(os.environ["ATOM_NAS_DATA"]) / "nats-bench-tss-cifar10.csv"
    with path.open() as file:
        names = [row["architecture"] for row in csv.DictReader(file)]
    assert len(names) == 5000
    assert all(str(cell(name)) == name for name in names)
    assert {operation for name in names for operation in cell(name).operations} == set(OPERATIONS)
    assert all(len(cell(name).operations) == len(EDGES) for name in names)
