"""The fused blocks of the matching ConvNet, against the equations in float64."""

import pytest
import torch
from distill_helpers import problem
from torch import Tensor

from distill import attention, kernels, methods
from distill.attention import attention_sums, runs_fused
from distill.matching import LossWeights, Sums, channel_sums, matching_loss, reduce_sums, spatial_sums
from distill.methods import _matching
from distill.methods._pixels import initial_state
from distill.networks import ConvNet, convnet
from distill.precision import runs_bfloat16
from distill.seeding import stream
from distill.session import Session

MISSING = kernels.why_unavailable()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"no kernels here: {MISSING}")
CPU = torch.device("cpu")
CLASSES = 2
WEIGHTS = {
    "atom": LossWeights(spatial=3.0, channel=2.0, mmd=0.5),
    "powers 2 and 4": LossWeights(spatial=3.0, channel=2.0, mmd=0.5, spatial_power=2.0, channel_power=4.0),
    "powers 1.5 and 2": LossWeights(spatial=1.0, channel=2.0, mmd=0.1, spatial_power=1.5, channel_power=2.0),
    "spatial": LossWeights(spatial=3.0, channel=0.0, mmd=0.0),
    "channel": LossWeights(spatial=0.0, channel=3.0, mmd=0.0),
    "dm": LossWeights(spatial=0.0, channel=0.0, mmd=1.0),
}


def network_of(shape: tuple[int, int, int], width: int, depth: int) -> ConvNet:
    network = convnet(shape, CLASSES, depth=depth, width=width, generator=stream(0, "network"))
    generator = stream(0, "affine")
    for block in network.blocks:
        block.norm.weight.data.copy_(torch.rand(width, generator=generator) + 0.5)
        block.norm.bias.data.copy_(torch.randn(width, generator=generator) * 0.3)
    return network.requires_grad_(False)


def exact_sums(network: ConvNet, images: Tensor, weights: LossWeights) -> Sums:
    maps, embedding = network.features(images)
    return Sums(
        spatial=[spatial_sums(f, weights.spatial_power) for f in maps[:-1]] if weights.spatial else [],
        channel=[channel_sums(f, weights.channel_power) for f in maps[:-1]] if weights.channel else [],
        embedding=embedding,
    )


def loss_and_gradient(reduce, real: Tensor, synthetic: Tensor, weights: LossWeights) -> tuple[float, Tensor]:
    synthetic = synthetic.clone().requires_grad_(True)
    target, source = (
        reduce_sums(reduce(images), classes=CLASSES, weights=weights) for images in (real, synthetic)
    )
    loss = matching_loss(target, source, weights=weights).total
    return float(loss.detach()), torch.autograd.grad(loss, synthetic)[0].double()


def compared(shape, width, depth, weights, precision) -> tuple[float, float]:
    """Relative error of loss and gradient against float64."""
    network = network_of(shape, width, depth)
    generator = stream(1, "images")
    real, synthetic = (torch.randn(n, *shape, generator=generator) for n in (12, 6))
    exact = loss_and_gradient(
        lambda x: exact_sums(network.double(), x, weights), real.double(), synthetic.double(), weights
    )
    found = loss_and_gradient(
        lambda x: attention_sums(network.float(), x, weights, precision), real, synthetic, weights
    )
    difference = float((found[1] - exact[1]).norm() / exact[1].norm())
    return abs(found[0] - exact[0]) / exact[0], difference


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
@pytest.mark.parametrize(("shape", "width", "depth"), [((3, 32, 32), 32, 3), ((1, 9, 13), 16, 2)])
def test_loss_and_gradient_follow_the_equations(shape, width, depth, weights):
    loss, gradient = compared(shape, width, depth, weights, "float32")
    assert loss < 1e-5
    assert gradient < 2e-3  # rounding may turn a unit on or off; without that it is 1e-6


@pytest.mark.skipif(not runs_bfloat16("cpu"), reason="no bfloat16 convolutions on this processor")
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_bfloat16_is_as_near_as_its_rounding_lets_it(weights):
    loss, gradient = compared((3, 32, 32), 32, 3, weights, "bfloat16")
    assert loss < 0.05
    assert gradient < 0.2


def test_portions_and_threads_change_no_bit(monkeypatch):
    network = network_of((3, 16, 16), 16, 2)
    images = torch.randn(9, 3, 16, 16, generator=stream(2, "images"))

    def result() -> list[Tensor]:
        leaf = images.clone().requires_grad_(True)
        sums = attention_sums(network, leaf, WEIGHTS["atom"], "float32")
        outputs = [*sums.spatial, *sums.channel, sums.embedding]
        (gradient,) = torch.autograd.grad(sum(output.square().sum() for output in outputs), leaf)
        return [*outputs, gradient]

    whole = result()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        other = result()
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(attention, "PORTION_BYTES", 4 * 16 * 16 * 16 * 2)  # two images
    cut = result()
    assert all(torch.equal(a, b) for a, b in zip(whole, other, strict=True))
    assert all((a - b).norm() <= 1e-5 * a.norm() for a, b in zip(whole, cut, strict=True))


def test_what_is_not_a_number_stays_none():
    network = network_of((1, 8, 8), 16, 2)
    images = torch.randn(2, 1, 8, 8)
    images[0, 0, 3, 3] = float("nan")
    sums = attention_sums(network, images, WEIGHTS["atom"], "float32")
    for layer in (*sums.spatial, *sums.channel, sums.embedding):
        assert layer[0].isnan().any()
        assert layer[1].isfinite().all()


def test_widths_without_kernels_and_machines_without_a_compiler_are_eager(monkeypatch):
    assert runs_fused(128, CPU)
    assert not runs_fused(24, CPU)
    assert not runs_fused(128, torch.device("cuda"))
    monkeypatch.setattr(attention.kernels, "why_unavailable", lambda: "no compiler")
    assert not runs_fused(128, CPU)


@pytest.mark.parametrize("name", ["atom", "datadam", "dm"])
def test_a_distillation_comes_out_as_the_eager_one(name, monkeypatch):
    posed, module = problem(), methods.load(name)
    config = module.Config(iterations=5, width=16, batch_real=16)
    fused = module.distill(posed, config, Session())
    monkeypatch.setattr(_matching, "runs_fused", lambda *_: False)
    eager = module.distill(posed, config, Session())
    moved = (eager - initial_state(posed, config.initialization).images).norm()
    assert (fused - eager).norm() < 1e-2 * moved
    assert not torch.equal(fused, eager)  # else one of them was not what it is called


def test_kernels_are_called_a_fixed_number_of_times(monkeypatch):
    """A guard on speed that no clock decides: a call a block, portion and direction, whatever the classes."""
    calls = []
    library = kernels.library()

    class Counting:
        def __getattr__(self, function):
            def call(*arguments):
                calls.append(function)
                getattr(library, function)(*arguments)

            return call

    monkeypatch.setattr(attention.kernels, "library", Counting)
    module = methods.load("atom")
    module.distill(problem(), module.Config(iterations=3, width=16, batch_real=16), Session())
    depth = 2
    assert calls.count("attention_forward") == 3 * 2 * depth  # real and synthetic images
    assert calls.count("attention_backward") == 3 * depth


@pytest.mark.parametrize(("width", "shape"), [(32, (3, 16, 16)), (16, (1, 9, 13))])
def test_images_without_gradients_give_the_same_bits_in_any_portions_on_any_threads(
    width, shape, monkeypatch
):
    network, weights = network_of(shape, width, 2), WEIGHTS["powers 2 and 4"]
    images = torch.randn(7, *shape, generator=stream(1, "images"))
    wanted = attention_sums(network, images.clone().requires_grad_(True), weights, "float32")
    for threads, size in ((1, attention.CACHED_BYTES), (1, 1), (3, 2 * width * shape[1] * shape[2] * 4)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr(attention, "CACHED_BYTES", size)
        found = attention_sums(network, images, weights, "float32")
        for one, other in zip(
            (*found.spatial, *found.channel, found.embedding),
            (*wanted.spatial, *wanted.channel, wanted.embedding),
            strict=True,
        ):
            assert torch.equal(one, other.detach())
