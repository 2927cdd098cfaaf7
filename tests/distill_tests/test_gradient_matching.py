"""The distance against a loop written from the equation in float64, and its gradients against differences."""

import math

import pytest
import torch
from torch.nn import functional as F

from distill.gradient_matching import (
    EPS,
    class_gradients,
    gradient_distance,
    matched_weights,
    weight_gradients,
)
from distill.networks import ConvNet, convnet
from distill.seeding import stream

SHAPES = [(3, 5), (4, 2), (1, 7)]


def gradients(seed: int, classes: int = 2) -> list[torch.Tensor]:
    generator = stream(seed, "gradients")
    return [torch.randn(classes, *shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def looped(real: list[torch.Tensor], synthetic: list[torch.Tensor], k: int) -> float:
    total = 0.0
    for h_layer, g_layer in zip(real, synthetic, strict=True):
        for h, g in zip(h_layer[k].tolist(), g_layer[k].tolist(), strict=True):
            product = sum(a * b for a, b in zip(h, g, strict=True))
            lengths = math.sqrt(sum(a * a for a in h)) * math.sqrt(sum(b * b for b in g))
            total += 1 - product / (lengths + EPS)
    return total


def network(channels: int = 2, side: int = 8, width: int = 3, classes: int = 3) -> ConvNet:
    made = convnet((channels, side, side), classes, depth=2, width=width, generator=stream(0, "net"))
    return made.double()


def images(count: int, channels: int = 2, side: int = 8, seed: int = 0) -> torch.Tensor:
    generator = stream(seed, "images")
    return torch.randn(count, channels, side, side, generator=generator, dtype=torch.float64)


def test_the_distance_is_that_of_the_equation():
    real, synthetic = gradients(0), gradients(1)
    expected = [looped(real, synthetic, k) for k in range(2)]
    assert gradient_distance(real, synthetic).tolist() == pytest.approx(expected, rel=1e-12)


def test_it_lies_between_nothing_and_twice_the_rows_whatever_the_lengths():
    rows = sum(shape[0] for shape in SHAPES)
    real = gradients(0)
    assert gradient_distance(real, [7 * layer for layer in real]).tolist() == pytest.approx([0, 0], abs=1e-5)
    opposite = gradient_distance(real, [-layer for layer in real])
    assert opposite.tolist() == pytest.approx([2 * rows] * 2, rel=1e-5)


def test_rows_without_gradient_are_apart_and_give_no_slope():
    real = gradients(0)
    still = [torch.zeros_like(layer).requires_grad_(True) for layer in real]
    distance = gradient_distance(real, still)
    assert distance.tolist() == [sum(shape[0] for shape in SHAPES)] * 2
    for slope in torch.autograd.grad(distance.sum(), still):
        assert bool(torch.isfinite(slope).all())


def test_only_the_synthetic_side_is_differentiated():
    real = [layer.requires_grad_(True) for layer in gradients(0)]
    synthetic = [layer.requires_grad_(True) for layer in gradients(1)]
    gradient_distance(real, synthetic).sum().backward()
    assert all(layer.grad is None for layer in real)
    assert all(bool(layer.grad.any()) for layer in synthetic)


def test_other_layers_or_shapes_are_refused():
    with pytest.raises(ValueError, match="have 3 layers, synthetic ones 2"):
        gradient_distance(gradients(0), gradients(1)[:2])
    with pytest.raises(ValueError, match="have 0 layers"):
        gradient_distance([], [])
    with pytest.raises(ValueError, match=r"are \(2, 3, 5\), synthetic \(1, 3, 5\)"):
        gradient_distance(gradients(0), gradients(1, classes=1))


@pytest.mark.parametrize("count", [1, 4])
def test_gradients_of_classes_taken_together_are_those_of_each_alone(count):
    net, batch, labels = network(), images(2 * count), torch.tensor([2, 0])
    together = class_gradients(net, batch, labels)
    weights = [p for name, p in net.named_parameters() if name.endswith("weight") and "norm" not in name]
    for k, part in enumerate(batch.split(count)):
        loss = F.cross_entropy(net(part), labels[k].expand(count))
        alone = torch.autograd.grad(loss, weights)
        once = weight_gradients(net, part, int(labels[k]), matched_weights(net))
        for expected, found, other in zip(alone, together, once, strict=True):
            assert torch.allclose(found[k], expected.flatten(1), rtol=1e-9, atol=1e-12)
            assert torch.allclose(other[0], expected.flatten(1), rtol=1e-9, atol=1e-12)


def test_the_distances_slope_at_the_pixels_is_that_of_differences():
    net, labels = network(channels=1, side=4, width=2), torch.tensor([1, 2])
    real = [layer.detach() for layer in class_gradients(net, images(6, 1, 4, seed=1), labels)]

    def distance(pixels: torch.Tensor) -> torch.Tensor:
        return gradient_distance(real, class_gradients(net, pixels, labels))

    assert torch.autograd.gradcheck(distance, images(4, 1, 4).requires_grad_(True), eps=1e-7, atol=1e-5)
