"""The spaces of NNI's hub that train at small resolution, by `hub:NAME`. Free of torch and of NNI until used.

They were made for photographs of three channels, most of them for 224 pixels. A space that takes the strides
of its stem and stages, or the kind of its stem, is given those for small images. The first convolution takes
as many channels as the images have, the last layer gives as many logits as there are classes, and all weights
are drawn afresh as PyTorch's own layers draw them, so that no network has an initialisation of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from search_spaces.base import ImageShape, choose

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.foreign import NniSpace

PREFIX = "hub:"


@dataclass(frozen=True, kw_only=True)
class HubSpace:
    """One of NNI's spaces.

    Attributes:
        kind: its class in `nni.nas.hub.pytorch`.
        summary: what it is.
        options: of its constructor, those that may be given, and what they mean.
        ours: defaults of ours, for small images; an option that is given counts for more.
        labels: the parameter for the number of classes; None: it has none, the last layer is replaced.
    """

    kind: str
    summary: str
    options: Mapping[str, str]
    ours: Mapping[str, Any] = field(default_factory=dict)
    labels: str | None = "num_labels"


_CELLS = {
    "width": "channels of the first stage, a number or a list to choose from",
    "num_cells": "cells in all, in three stages, a number or a list to choose from",
    "drop_path_prob": "chance of an operation to be left out of a training step",
}


def _cells(kind: str, summary: str) -> HubSpace:
    return HubSpace(kind=kind, summary=summary, options=_CELLS, ours={"dataset": "cifar"}, labels=None)


HUB: dict[str, HubSpace] = {
    "mobilenetv3": HubSpace(
        kind="MobileNetV3Space",
        summary="MobileNetV3: kernels, expansions, widths, depths and squeeze-excitation of each block; "
        "total stride 8 here",
        options={
            "base_widths": "channels of stem, stages and head",
            "width_multipliers": "what these are multiplied by, 1.0 or a list to choose from",
            "expand_ratios": "expansions of a block to choose from",
            "depth_range": "fewest and most blocks a stage",
            "stride": "of stem, stages and head",
            "dropout_rate": "before the last layer",
        },
        ours={"stride": (1, 1, 1, 2, 2, 1, 2, 1, 1)},
    ),
    "proxylessnas": HubSpace(
        kind="ProxylessNAS",
        summary="ProxylessNAS: kernel and expansion of each inverted residual, depth of each stage; "
        "total stride 32, made for 224 pixels",
        options={
            "base_widths": "channels of stem, stages and head",
            "width_mult": "what these are multiplied by",
            "dropout_rate": "before the last layer",
        },
    ),
    "shufflenet": HubSpace(
        kind="ShuffleNetSpace",
        summary="single-path one-shot ShuffleNetV2: one of four blocks in each of 20 places; "
        "total stride 32, made for 224 pixels",
        options={"channel_search": "choose the inner channels of each block too"},
    ),
    "nasbench101": HubSpace(
        kind="NasBench101",
        summary="the cells of NAS-Bench-101: up to 7 nodes and 9 edges, in the benchmark's skeleton",
        options={
            "stem_out_channels": "channels of the first stack",
            "num_stacks": "stacks, with half the side and twice the channels from one to the next",
            "num_modules_per_stack": "cells a stack",
            "max_num_vertices": "nodes of a cell, input and output included",
            "max_num_edges": "edges of a cell",
        },
    ),
    "darts": _cells("DARTS", "the cells of DARTS: 4 nodes, 7 operations, all nodes to the output"),
    "nasnet": _cells("NASNet", "the cells of NASNet: 5 nodes, 13 operations, loose ends to the output"),
    "enas": _cells("ENAS", "the cells of ENAS: 5 nodes, 5 operations, loose ends to the output"),
    "amoebanet": _cells(
        "AmoebaNet", "the cells of AmoebaNet: 5 nodes, 8 operations, loose ends to the output"
    ),
    "pnas": _cells("PNAS", "the cells of PNAS: 5 nodes, 8 operations, all nodes to the output"),
}
"""Those that build and train on images of (3, 32, 32) and (1, 8, 8), as the tests have each of them do."""

LEFT_OUT: dict[str, str] = {
    "AutoFormer": "tokens and positions are no layers of PyTorch's; made for shared weights at 224 pixels",
    "NasBench201": "it is the space nasbench201 of this program",
    "NDS": "the base of the five spaces of cells, none by itself",
}
"""What NNI's hub has besides, and why it is not here."""


def load(name: str, options: Mapping[str, Any], image_shape: ImageShape, classes: int) -> NniSpace:
    """The space `hub:NAME`, made for images of a shape (C, H, W) and so many classes.

    Raises:
        ValueError: unknown space or option, or NNI's constructor refuses a value.
    """
    from search_spaces.own import json_text

    entry = choose("space of NNI's hub", name.removeprefix(PREFIX), HUB)
    for option in options:
        choose(f"option of {PREFIX}{entry}", option, HUB[entry].options)
    return _load(entry, json_text(options), tuple(image_shape), classes)


@lru_cache(maxsize=8)
def _load(name: str, options: str, image_shape: ImageShape, classes: int) -> NniSpace:
    """Cached, since a worker asks for every architecture anew."""
    import json

    from search_spaces import _nni
    from search_spaces.foreign import NniSpace, in_one_line

    entry, given, title = HUB[name], json.loads(options), f"{PREFIX}{name}"
    kind = _nni.hub_class(entry.kind)

    def arguments(_: ImageShape, count: int) -> dict[str, Any]:
        labels = {entry.labels: count} if entry.labels else {}
        return {**entry.ours, **given, **labels}

    with in_one_line(f"{title} cannot be made with these options"):
        declared = _nni.declared(kind, arguments(image_shape, classes))
    return NniSpace(
        name=title, title=title, kind=kind, arguments=arguments, finish=_suited, declared=declared
    )


def defaults(name: str) -> dict[str, Any]:
    """Option -> what it is if it is not given."""
    from search_spaces import _nni

    entry = HUB[name]
    parameters = _nni.parameters(_nni.hub_class(entry.kind))
    return {option: entry.ours.get(option, parameters[option].default) for option in entry.options}


def _suited(network: nn.Module, image_shape: ImageShape, classes: int) -> nn.Module:
    """The network for such images and classes, all its weights drawn from torch's generator."""
    from torch import nn

    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != image_shape[0]:
        first.in_channels = image_shape[0]
        first.weight = nn.Parameter(
            first.weight.new_empty(first.out_channels, image_shape[0], *first.kernel_size)
        )
    if isinstance(network.classifier, nn.Linear) and network.classifier.out_features != classes:
        network.classifier = nn.Linear(network.classifier.in_features, classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
    return network
