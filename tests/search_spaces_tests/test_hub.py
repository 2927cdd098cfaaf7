"""NNI's hub: each space builds and trains a step on small images, coloured or grey, from one seed alike."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import search_spaces
from search_spaces._nni import hub_class, parameters
from search_spaces.base import first_fitting
from search_spaces.foreign import probe
from search_spaces.hub import HUB, LEFT_OUT, defaults

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, dict[str, Any]] = {
    "mobilenetv3": {"base_widths": [8] * 9, "depth_range": [1, 2]},
    "proxylessnas": {"width_mult": 0.25},
    "nasbench101": {"stem_out_channels": 8, "num_modules_per_stack": 1},
    **{name: {"width": 4, "num_cells": 3} for name in ("darts", "nasnet", "enas", "amoebanet", "pnas")},
}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("name", HUB)
def test_a_network_trains_a_step(name: str, shape: tuple[int, int, int]) -> None:
    space = search_spaces.load(f"hub:{name}", image_shape=shape, classes=7, **SMALL.get(name, {}))
    probe(space, shape, 7)  # type: ignore[arg-type]
    architecture = first_fitting(space, shape)
    networks = []
    for _ in range(2):
        torch.manual_seed(4)
        networks.append(space.build(architecture, shape, 7).train())
    first, second = networks
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    step = torch.optim.SGD(first.parameters(), 0.01)
    loss = F.cross_entropy(first(torch.rand(4, *shape)), torch.arange(4))
    loss.backward()
    step.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_weights_are_drawn_as_pytorchs_layers_draw_them() -> None:
    space = search_spaces.load("hub:shufflenet", image_shape=(1, 8, 8), classes=3)
    network = space.build(first_fitting(space, (1, 8, 8)), (1, 8, 8), 3)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.8 * bound < float(module.weight.detach().abs().max()) <= bound


@pytest.mark.parametrize("name", HUB)
def test_options_are_those_of_nnis_constructor(name: str) -> None:
    taken = parameters(hub_class(HUB[name].kind))
    assert set(HUB[name].options) | set(HUB[name].ours) <= set(taken)
    assert all(default is not inspect.Parameter.empty for default in defaults(name).values())


def test_nothing_of_the_hub_is_forgotten() -> None:
    hub_class("NDS")
    hub = sys.modules["nni.nas.hub.pytorch"]
    from nni.nas.nn.pytorch import ModelSpace

    spaces = {
        value for value in vars(hub).values() if isinstance(value, type) and issubclass(value, ModelSpace)
    }
    assert {kind.__name__ for kind in spaces} == {each.kind for each in HUB.values()} | set(LEFT_OUT)


def test_options() -> None:
    assert search_spaces.load("hub:darts", width=[4, 8], num_cells=3).choices["width"] == ("4", "8")
    assert "width" not in search_spaces.load("hub:darts", width=4).choices
    for name, options, said in [
        ("hub:dart", {}, "unknown space of NNI's hub 'dart': did you mean 'darts'?"),
        ("hub:darts", {"dataset": "imagenet"}, "unknown option of hub:darts 'dataset'"),
        ("hub:mobilenetv3", {"base_widths": [8]}, "hub:mobilenetv3 cannot be made with these options"),
    ]:
        with pytest.raises(ValueError, match=said):
            search_spaces.load(name, **options)


def test_the_hub_needs_no_lightning_and_leaves_nothing_behind() -> None:
    program = (
        "import os, sys, nni.common.framework as framework\n"
        "before = dict(os.environ)\n"
        "sys.modules['pytorch_lightning'] = None\n"
        "import search_spaces\n"
        "assert search_spaces.load('hub:enas').choices\n"
        "assert 'nni.nas.oneshot.pytorch' not in sys.modules\n"
        "assert framework.get_default_framework() == 'pytorch' and dict(os.environ) == before"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
