"""CAFE's losses against plain loops in float64."""

import math

import pytest
import torch

from distill.alignment import alignment_loss, discrimination_loss
from distill.seeding import stream

CLASSES, EACH, WIDTH = 3, 5, 7


def drawn(*shape: int, name: str) -> torch.Tensor:
    return torch.randn(*shape, generator=stream(0, name), dtype=torch.float64)


def test_alignment_is_the_sum_of_squared_distances_of_means() -> None:
    real, synthetic = ([drawn(CLASSES, size, name=f"{side}{size}") for size in (11, 4)] for side in "rs")
    found = alignment_loss(real, synthetic)
    for k in range(CLASSES):
        expected = sum(
            (float(t[k, i]) - float(s[k, i])) ** 2
            for t, s in zip(real, synthetic, strict=True)
            for i in range(t.shape[1])
        )
        assert float(found[k]) == pytest.approx(expected)
    assert float(alignment_loss(real, real).sum()) == 0


def test_discrimination_is_a_cross_entropy_over_the_means() -> None:
    features, centres = drawn(CLASSES * EACH, WIDTH, name="f"), drawn(CLASSES, WIDTH, name="c")
    found = discrimination_loss(features, centres)
    for k in range(CLASSES):
        total = 0.0
        for n in range(k * EACH, (k + 1) * EACH):
            scores = [
                sum(float(features[n, d] * centres[j, d]) for d in range(WIDTH)) / math.sqrt(WIDTH)
                for j in range(CLASSES)
            ]
            total += math.log(sum(map(math.exp, scores))) - scores[k]
        assert float(found[k]) == pytest.approx(total / EACH)


def test_gradients_are_those_of_finite_differences_and_reach_synthetic_means_only() -> None:
    features = drawn(CLASSES * EACH, WIDTH, name="f").requires_grad_(True)
    real = drawn(CLASSES, WIDTH, name="r").requires_grad_(True)
    centres = drawn(CLASSES, WIDTH, name="c").requires_grad_(True)
    assert torch.autograd.gradcheck(lambda c: discrimination_loss(features, c), (centres,))
    assert torch.autograd.gradcheck(lambda c: alignment_loss([real], [c]), (centres,))
    (discrimination_loss(features, centres) + alignment_loss([real], [centres])).sum().backward()
    assert features.grad is None
    assert real.grad is None


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="7 images do not divide into 3 classes"):
        discrimination_loss(torch.zeros(7, 2), torch.zeros(3, 2))
    layers = [torch.zeros(3, 2)]
    for other in ([], [torch.zeros(3, 4)], [*layers, *layers]):
        with pytest.raises(ValueError, match="real means are"):
            alignment_loss(layers, other)
    with pytest.raises(ValueError, match="real means are"):
        alignment_loss([], [])
