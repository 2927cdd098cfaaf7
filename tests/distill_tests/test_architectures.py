"""The other networks for evaluation: what they are made of, what they refuse, and that they learn."""

import math
from itertools import pairwise

import pytest
import torch
from distill_helpers import CPU, blobs
from torch import nn
from torchvision.models import resnet18 as published_resnet18

from distill.architectures import BUILDERS
from distill.networks import InstanceNorm, blank, build
from distill.preprocessing import fit_preprocessing
from distill.seeding import stream
from distill.training import TrainingConfig, train


@pytest.mark.parametrize(
    ("name", "smallest"), [("alexnet", 8), ("vgg11", 16), ("resnet18bn", 16), ("vit", 8)]
)
def test_the_smallest_images_are_named(name, smallest):
    build(name, (1, smallest, smallest), 2, stream(0))
    side = smallest - 1
    message = f"at least {smallest}x{smallest} pixels, not {side}x{side}; use another network"
    with pytest.raises(ValueError, match=message):
        build(name, (1, side, side), 2, stream(0))


def test_a_transformer_takes_square_images_only():
    with pytest.raises(ValueError, match="square images, not 16x24"):
        build("vit", (1, 16, 24), 2, stream(0))


def test_norms_are_those_of_the_names():
    for name in ("vgg11", "resnet18"):
        kinds = [
            {type(m) for m in build(form, (3, 32, 32), 10, stream(0)).modules()}
            for form in (name, name + "bn")
        ]
        assert InstanceNorm in kinds[0]
        assert nn.BatchNorm2d not in kinds[0]
        assert InstanceNorm not in kinds[1]
        assert nn.BatchNorm2d in kinds[1]
    assert not any(
        isinstance(m, nn.GroupNorm) for m in build("alexnet", (3, 32, 32), 10, stream(0)).modules()
    )


def test_sizes_are_those_of_the_sources():
    """Parameters as the layers of Zhao et al.'s networks.py have them, and torchvision's but for the stem."""

    def count(name):
        return sum(p.numel() for p in blank(name, (3, 32, 32), 10).parameters())

    def convolutions(kernel, *channels):
        return sum(kernel**2 * a * b + b for a, b in pairwise(channels))

    alexnet = convolutions(5, 3, 128, 192) + convolutions(3, 192, 256, 192, 192) + 192 * 16 * 10 + 10
    assert count("alexnet") == alexnet
    widths = (64, 128, 256, 256, 512, 512, 512, 512)
    vgg11 = convolutions(3, 3, *widths) + 2 * sum(widths) + 512 * 10 + 10
    assert count("vgg11") == count("vgg11bn") == vgg11
    theirs = sum(p.numel() for p in published_resnet18(num_classes=10).parameters())
    assert count("resnet18") == count("resnet18bn") == theirs - 64 * 3 * (49 - 9)


def test_default_initialisation_of_attention_has_pytorchs_bounds():
    attention = build("vit", (3, 32, 32), 10, stream(0)).encoder.layers[0].self_attention
    fresh = nn.MultiheadAttention(192, 3)
    assert float(attention.in_proj_weight.detach().std()) == pytest.approx(
        float(fresh.in_proj_weight.detach().std()), rel=0.02
    )
    assert float(attention.in_proj_weight.detach().abs().max()) <= math.sqrt(6 / (4 * 192))
    assert not attention.in_proj_bias.any()
    assert not attention.out_proj.bias.any()


@pytest.mark.parametrize("name", ["alexnet", "vit"])
def test_padding_and_pooling_keep_the_edge_of_odd_images(name):
    """Padding adds to what is there, and a convolution before the pooling has seen the last row."""
    network = build(name, (1, 31, 31), 3, stream(0)).eval()
    images = torch.zeros(2, 1, 31, 31)
    images[1, :, -1] = 5.0
    blank_edge, edge = network(images)
    assert not torch.equal(blank_edge, edge)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_layer_takes_part_in_learning(name):
    data = blobs([3, 3], side=16)
    images = fit_preprocessing(data.images, zca=False)(data.images)
    network = build(name, (1, 16, 16), 2, stream(0))
    before = {key: value.clone() for key, value in network.named_parameters()}
    config = TrainingConfig(epochs=4, learning_rate=0.003, augmentation="none", weight_decay=0.0)
    record = train(network, images, data.labels, config=config, seed=0, device=CPU)
    assert record.final_loss < record.epoch_losses[0]
    for key, value in network.named_parameters():
        # A norm takes out what a bias before it adds.
        assert value.ndim == 1 or not torch.equal(value, before[key]), key
