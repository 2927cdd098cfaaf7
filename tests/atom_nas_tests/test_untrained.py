"""Training-free estimators against loops written from their equations."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from trial_helpers import search_data

from atom_nas.estimators import (
    fisher,
    grad_norm,
    grasp,
    jacov,
    naswot,
    snip,
    synflow,
    zico,
)
from atom_nas.estimators._untrained import UntrainedConfig, in_turns
from atom_nas.search import run_search
from atom_nas.search_plan import prepare
from atom_nas.settings import SearchSettings

IMAGES = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def network(activation: nn.Module | None = None, *, norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 3, 3),
        *([nn.BatchNorm2d(3)] if norm else []),
        activation or nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 3),
    ]
    return nn.Sequential(*layers).double()


def loss_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """By torch's own backward, weights of the convolution and of the linear layer."""
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    return [
        layer.weight.grad.clone() for layer in model if hasattr(layer, "weight") and layer.weight.dim() > 1
    ]  # type: ignore[union-attr,attr-defined]


def weights(model: nn.Module) -> list[Tensor]:
    return [layer.weight.detach() for layer in model if hasattr(layer, "weight") and layer.weight.dim() > 1]  # type: ignore[union-attr,attr-defined]


def test_snip_and_gradient_norm() -> None:
    model = network(norm=True)
    found = loss_gradients(model, IMAGES, LABELS)
    expected = sum(float((w * g).abs().sum()) for w, g in zip(weights(model), found, strict=True))
    assert snip.measure(model, IMAGES, LABELS) == pytest.approx(expected)
    norms = sum(math.sqrt(float((g**2).sum())) for g in found)
    assert grad_norm.measure(model, IMAGES, LABELS) == pytest.approx(norms)


def test_grasp_is_minus_weights_times_hessian_times_gradient() -> None:
    model = network(nn.Sigmoid())
    convolution, linear = model[0], model[3]
    sizes = [convolution.weight.numel(), linear.weight.numel()]

    def loss(flat: Tensor) -> Tensor:
        first, second = flat.split(sizes)
        maps = torch.sigmoid(F.conv2d(IMAGES, first.view_as(convolution.weight), convolution.bias))
        return F.cross_entropy(F.linear(maps.flatten(1), second.view_as(linear.weight), linear.bias), LABELS)

    flat = torch.cat([each.flatten() for each in weights(model)])
    hessian = torch.autograd.functional.hessian(loss, flat)
    gradient = torch.autograd.functional.jacobian(loss, flat)
    expected = -float(flat @ (hessian @ gradient))
    assert grasp.measure(model, IMAGES, LABELS) == pytest.approx(expected, rel=1e-9)


def test_fisher() -> None:
    model = network()
    maps = model[1](model[0](IMAGES)).detach().requires_grad_(True)
    F.cross_entropy(model[3](maps.flatten(1)), LABELS).backward()
    expected = 0.0
    for channel in range(3):
        squares = [
            sum(
                float((maps[n, channel, y, x] * maps.grad[n, channel, y, x]).detach())
                for y in range(4)
                for x in range(4)
            )
            ** 2
            for n in range(6)
        ]
        expected += sum(squares) / 6 / 2
    assert fisher.measure(model, IMAGES, LABELS) == pytest.approx(expected)


def test_naswot_counts_units_that_agree() -> None:
    model = network(nn.LeakyReLU())
    codes = (model[0](IMAGES).flatten(1) > 0).tolist()
    kernel = [[float(sum(a == b for a, b in zip(i, j, strict=True))) for j in codes] for i in codes]
    expected = np.linalg.slogdet(np.array(kernel))[1]
    assert naswot.measure(model, IMAGES, LABELS) == pytest.approx(expected)
    assert naswot.measure(model, IMAGES[:1].repeat(6, 1, 1, 1), LABELS) < expected - 50
    with pytest.raises(ValueError, match="no activation layer"):
        naswot.measure(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double(), IMAGES, LABELS)


class WithDeadEnd(nn.Module):
    """A network of which some units lead nowhere, called twice, the second time for the output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.dead, self.last = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 8, 3), nn.Linear(48, 3)
        self.activation, self.other = nn.ReLU(), nn.ReLU()
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        self.other(self.dead(images))
        self.activation(self.dead(images))
        return self.last(self.activation(self.first(images)).flatten(1))


def test_naswot_leaves_out_units_that_lead_nowhere() -> None:
    model = WithDeadEnd()
    living = nn.Sequential(model.first, nn.ReLU(), nn.Flatten(), model.last)
    expected = naswot.measure(living, IMAGES, LABELS)
    assert naswot.measure(model, IMAGES, LABELS) == expected
    codes = [(layer(IMAGES).flatten(1) > 0).double() for layer in (model.first, model.dead)]
    kernel = sum(code @ code.T + (1 - code) @ (1 - code).T for code in codes)
    assert float(torch.linalg.slogdet(kernel).logabsdet) > expected + 1


def test_jacov_is_of_the_correlations_of_the_jacobian() -> None:
    model = network(nn.Sigmoid())
    rows = [
        torch.autograd.functional.jacobian(lambda image: model(image[None]).sum(), image).flatten().numpy()
        for image in IMAGES
    ]
    values = np.linalg.eigvalsh(np.corrcoef(rows))
    expected = -float(np.sum(np.log(values.clip(0) + 1e-5) + 1 / (values.clip(0) + 1e-5)))
    assert jacov.measure(model, IMAGES, LABELS) == pytest.approx(expected, rel=1e-4)


def test_zico_sets_gradients_against_their_deviation() -> None:
    model = network(nn.Sigmoid())
    halves = [loss_gradients(model, IMAGES[part], LABELS[part]) for part in (slice(0, 3), slice(3, 6))]
    expected = 0.0
    for first, second in zip(*halves, strict=True):
        ratios = [
            (abs(a) + abs(b)) / 2 / (abs(a - b) / 2)
            for a, b in zip(first.flatten().tolist(), second.flatten().tolist(), strict=True)
            if a != b
        ]
        expected += math.log(sum(ratios))
    assert zico.measure(model, IMAGES, LABELS) == pytest.approx(expected)


def test_synflow_of_a_chain_is_the_product_of_its_weights() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 1, bias=False), nn.BatchNorm1d(1), nn.Linear(1, 1, bias=False)
    )
    with torch.no_grad():
        model[1].weight.fill_(-0.5)
        model[3].weight.fill_(3.0)
    # R = sum |w1| * 36 inputs * |w2|; each layer's weights times gradients add up to R.
    assert synflow.measure(model, IMAGES.float(), LABELS) == pytest.approx(math.log(2 * 36 * 0.5 * 3.0))
    with torch.no_grad():
        model[3].weight.fill_(0.0)
    assert synflow.measure(model, IMAGES.float(), LABELS) == pytest.approx(-708.396, abs=0.01)


def test_a_minibatch_takes_classes_in_turn() -> None:
    labels = torch.tensor([0] * 5 + [1] * 5 + [2] * 2)
    drawn = in_turns(labels, 3, UntrainedConfig(batch_size=9))
    assert labels[drawn].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0]
    assert len(set(drawn.tolist())) == 9
    everything = in_turns(labels, 3, UntrainedConfig(batch_size=100))
    assert sorted(everything.tolist()) == list(range(12))
    other = in_turns(labels, 3, UntrainedConfig(batch_size=9, subset_seed=1))
    assert other.tolist() != drawn.tolist()


def test_a_minibatch_that_cannot_hold_all_classes_takes_some_at_random() -> None:
    """The measures ask for no class; more images than that may not fit into memory."""
    labels = torch.arange(100).repeat(3)
    drawn = labels[in_turns(labels, 100, UntrainedConfig())].tolist()
    assert len(set(drawn)) == len(drawn) == 64
    assert max(drawn) > 64
    assert drawn != sorted(drawn)
    assert set(labels[in_turns(labels, 100, UntrainedConfig(subset_seed=1))].tolist()) != set(drawn)
    few: Any = snip.estimator(search_data(), batch_size=2)
    assert len(set(few._labels.tolist())) == 2


def test_real_and_synthetic_images_come_in_model_space() -> None:
    data = search_data()
    for kind, pool in (("synthetic", data.synthetic_images), ("real", data.preprocessing(data.fit.images))):
        made: Any = snip.estimator(data, images=kind, batch_size=6)
        assert all(any(torch.equal(image, other) for other in pool) for image in made._images)


def test_a_search_says_which_images_its_estimators_look_at(quick: SearchSettings) -> None:
    given = {"images": "real", "batch_size": 20}
    settings = replace(quick, estimators="early-stopping,snip,synflow", training_free=given, reference="none")
    _, *others = prepare(settings).others
    assert [each.name for each in others] == ["snip", "synflow"]
    assert [each.settings() | given for each in others] == [each.settings() for each in others]
    run_search(replace(settings, estimators="snip"))
    with pytest.raises(ValueError, match=r"estimators\.snip\.images was 'real' there and is 'synthetic' now"):
        run_search(replace(settings, estimators="snip", training_free={}, resume=True))
