"""The 720 ConvNets: counts by hand, strings both ways, sizes by a formula, a gradient through each."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from search_spaces import SPACES, load
from search_spaces.base import count_fitting, enumerate_space
from search_spaces.convnet import ConvNetArchitecture, ConvNetSpace

SPACE = ConvNetSpace()
PICKED = ConvNetArchitecture(width=64, depth=3, norm="instance", activation="relu", pooling="avg")


def test_there_are_720_in_grid_order() -> None:
    texts = [str(architecture) for architecture in enumerate_space(SPACE)]
    assert len(texts) == len(set(texts)) == 720
    assert texts[:2] == ["w32-d1-none-sigmoid-none", "w32-d1-none-sigmoid-max"]
    assert texts[-1] == "w256-d4-group-leaky_relu-avg"


def test_string_form_and_sample_round_trip() -> None:
    assert str(PICKED) == "w64-d3-instance-relu-avg"
    for architecture in enumerate_space(SPACE):
        assert SPACE.parse(str(architecture)) == architecture
        assert SPACE.architecture(SPACE.sample_of(architecture)) == architecture


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "w65-d3-instance-relu-avg",
            "unknown width 'w65': did you mean 'w64'.* allowed: w32, w64, w128, w256",
        ),
        ("w64-d5-instance-relu-avg", "unknown depth 'd5'.* allowed: d1, d2, d3, d4"),
        ("w64-d3-instanc-relu-avg", "unknown norm 'instanc': did you mean 'instance'"),
        ("w64-d3-instance-gelu-avg", "unknown activation 'gelu'.* allowed: sigmoid, relu, leaky_relu"),
        ("w64-d3-instance-relu-avg ", "unknown pooling 'avg ': did you mean 'avg'"),
        ("w064-d3-instance-relu-avg", "unknown width 'w064'"),
        ("W64-d3-instance-relu-avg", "unknown width 'W64'"),
        ("w64-d3-relu-avg", "does not have the 5 parts of a ConvNet: width-depth-norm-activation-pooling"),
        ("", "does not have the 5 parts of a ConvNet"),
    ],
)
def test_parse_names_the_wrong_part_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SPACE.parse(text)
    assert "\n" not in str(caught.value)


# A side of s pixels takes floor(log2 s) poolings; each depth that asks for more loses 4 * 5 * 3 * 2 = 120.
# A single pixel leaves the 240 without pooling, less 4 * 4 * 3 = 48 with instance and 48 with batch norm.
@pytest.mark.parametrize(
    ("shape", "fitting"),
    [
        ((3, 64, 64), 720),
        ((3, 32, 32), 720),
        ((1, 28, 28), 720),
        ((1, 16, 16), 720),
        ((1, 15, 15), 600),
        ((1, 8, 8), 600),
        ((1, 4, 4), 480),
        ((1, 3, 32), 360),
        ((1, 2, 2), 360),
        ((1, 1, 5), 240),
        ((1, 1, 1), 144),
    ],
)
def test_count_fitting(shape: tuple[int, int, int], fitting: int) -> None:
    assert count_fitting(SPACE, shape) == (fitting, 720)


def test_misfit_says_why() -> None:
    assert (
        SPACE.misfit(SPACE.parse("w32-d4-none-relu-max"), (1, 8, 8))
        == "4 poolings do not fit a side of 8 pixels"
    )
    assert (
        SPACE.misfit(SPACE.parse("w32-d1-none-relu-max"), (1, 1, 9))
        == "1 pooling does not fit a side of 1 pixels"
    )
    assert "constant" in str(SPACE.misfit(SPACE.parse("w32-d1-instance-relu-none"), (1, 1, 1)))
    with pytest.raises(ValueError, match=r"w32-d4-none-relu-max does not fit images of shape .* 4 poolings"):
        SPACE.build(SPACE.parse("w32-d4-none-relu-max"), (1, 8, 8), 10)


# Width changes the number of channels only, so one width stands for all.
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 2, 3), (3, 1, 1)])
def test_every_fitting_architecture_learns_down_to_its_first_convolution(shape: tuple[int, int, int]) -> None:
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    for architecture in enumerate_space(ConvNetSpace(width=(32,))):
        if SPACE.misfit(architecture, shape) is not None:
            continue
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = SPACE.build(architecture, shape, 3)
        logits = network(images)
        assert logits.shape == (2, 3)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        gradient = next(network.parameters()).grad
        assert gradient is not None
        assert gradient.isfinite().all(), architecture
        assert gradient.abs().max() > 0, architecture


def test_a_single_pixel_under_instance_norm_is_dead() -> None:
    """What `misfit` excludes: the network's answer does not depend on its image."""
    pixels = torch.tensor([-5.0, 0.0, 7.0]).reshape(3, 1, 1, 1)
    maps = torch.nn.Conv2d(1, 32, 3, padding=1)(pixels)
    assert maps.std(dim=0).max() > 0.1
    assert torch.nn.GroupNorm(32, 32)(maps).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("text", "shape", "classes"),
    [
        ("w128-d3-instance-relu-avg", (3, 32, 32), 10),
        ("w32-d2-layer-sigmoid-max", (1, 28, 20), 7),
        ("w64-d4-none-leaky_relu-none", (3, 9, 9), 2),
        ("w256-d1-batch-relu-max", (1, 8, 8), 10),
    ],
)
def test_parameter_count(text: str, shape: tuple[int, int, int], classes: int) -> None:
    """Convolutions 9*in*out + out, an affine pair a norm, and the linear layer, counted without torch."""
    architecture = SPACE.parse(text)
    channels, height, width = shape
    expected = 0
    for _ in range(architecture.depth):
        expected += 9 * channels * architecture.width + architecture.width
        channels = architecture.width
        scales = {"none": 0, "layer": channels * height * width}.get(architecture.norm, channels)
        expected += 2 * scales
        if architecture.pooling != "none":
            height, width = height // 2, width // 2
    expected += channels * height * width * classes + classes
    network = SPACE.build(architecture, shape, classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    if text == "w128-d3-instance-relu-avg":
        assert expected == 320_010  # as Zhao et al.'s ConvNet for CIFAR-10


def test_build_draws_from_torchs_global_generator_only() -> None:
    def weights() -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return next(SPACE.build(PICKED, (1, 8, 8), 10).parameters()).detach()

    assert torch.equal(weights(), weights())


def test_a_space_can_be_narrowed() -> None:
    narrow = load("convnet", width=[32], depth=[2, 1], norm=["none"])
    assert narrow.choices["depth"] == (2, 1)
    assert count_fitting(narrow, (1, 2, 2)) == (12, 18)
    assert load("convnet", width=32, norm="none").choices["width"] == (32,)
    assert load("convnet", width=32, norm="none").choices["norm"] == ("none",)
    with pytest.raises(ValueError, match="unknown norm 'batch': allowed: none"):
        narrow.parse("w32-d1-batch-relu-none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": [48]}, "width is .48.: it takes one or more different values of 32, 64, 128, 256"),
        ({"depth": 7}, "depth is .7.: it takes one or more"),
        ({"depth": [True]}, "depth is .True."),
        ({"depth": None}, "depth is .None."),
        ({"width": ["32"]}, "width is"),
        ({"norm": [["batch"]]}, "norm is"),
        ({"norm": []}, "norm is "),
        ({"depth": [1, 1]}, "depth is .1, 1."),
        ({"widht": [32]}, "unknown option of the search space 'convnet' 'widht': did you mean 'width'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("convnet", **options)


def test_unknown_space() -> None:
    with pytest.raises(ValueError, match="unknown search space 'darts': did you mean 'hub:darts'"):
        load("darts")
    with pytest.raises(ValueError, match="unknown search space 'covnet': did you mean 'convnet'"):
        load("covnet")
    assert "convnet" in SPACES


def test_importing_the_package_imports_no_torch_and_no_nni() -> None:
    program = (
        "import sys, search_spaces, search_spaces.base; sys.exit(bool({'torch', 'nni'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
