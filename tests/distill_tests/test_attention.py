"""The fused blocks of the matching ConvNet, against the equations in float64."""

import pytest
import torch
from distill_helpers import problem
from torch import Tensor

from distill import attention, kernels, methods, portions
from distill.attention import AttentionSums, runs_fused
from distill.matching import LossWeights, Sums, channel_sums, matching_loss, reduce_sums, spatial_sums
from distill.methods import _matching
from distill.methods._pixels import initial_state
from distill.networks import ConvNet, convnet, reinitialise
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
    "channel, power 4": LossWeights(spatial=0.0, channel=3.0, mmd=0.0, channel_power=4.0),
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


def compared(shape, width, depth, weights, precision, *, raised: float = 0.0) -> tuple[float, float]:
    """Relative error of loss and gradient against float64; the norms' biases are `raised`."""
    network = network_of(shape, width, depth)
    for block in network.blocks:
        block.norm.bias.data += raised
    generator = stream(1, "images")
    real, synthetic = (torch.randn(n, *shape, generator=generator) for n in (12, 6))
    exact = loss_and_gradient(
        lambda x: exact_sums(network.double(), x, weights), real.double(), synthetic.double(), weights
    )
    found = loss_and_gradient(AttentionSums(network.float(), weights, precision), real, synthetic, weights)
    difference = float((found[1] - exact[1]).norm() / exact[1].norm())
    return abs(found[0] - exact[0]) / exact[0], difference


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
@pytest.mark.parametrize(("shape", "width", "depth"), [((3, 32, 32), 32, 3), ((1, 9, 13), 16, 2)])
def test_loss_and_gradient_follow_the_equations(shape, width, depth, weights):
    loss, gradient = compared(shape, width, depth, weights, "float32")
    assert loss < 1e-5
    assert gradient < 2e-3  # rounding may turn a unit on or off; without that it is 1e-6


@pytest.mark.parametrize("name", sorted(WEIGHTS.keys() - {"channel"}))  # whose sums are then all the same
def test_where_every_unit_is_on_gradients_are_exact(name):
    loss, gradient = compared((3, 16, 16), 32, 2, WEIGHTS[name], "float32", raised=6.0)
    assert loss < 5e-5
    assert gradient < 1e-4


def error_of_channel_sums(maps: Tensor) -> float:
    """Of the norm and what follows, against float64."""
    weight, bias = torch.ones(16), torch.zeros(16)
    _, _, sums = attention._Attend.apply(maps.clone().requires_grad_(True), weight, bias, 1e-5, (0.0, 1.0))
    normal = torch.nn.functional.group_norm(maps.double(), 16, weight.double(), bias.double(), 1e-5)
    exact = normal.relu().sum((2, 3))
    return float((sums.detach() - exact).norm() / exact.norm())


@pytest.mark.parametrize("place", [(0, 0), (0, 20), (20, 0), (20, 20), (39, 39)], ids=str)
@pytest.mark.parametrize("far", [0.0, 100.0, 1e4])
def test_one_pixel_far_from_the_rest_costs_no_digits(place, far):
    """As padding makes of a flat picture's corners."""
    maps = torch.randn(1, 16, 40, 40, generator=stream(6, "maps"))
    maps[:, :, place[0], place[1]] = far
    assert error_of_channel_sums(maps) < 5e-6


@pytest.mark.parametrize("size", [(40, 40), (400, 1), (1, 400), (3, 5)], ids=str)
def test_an_offset_costs_no_more_digits_than_the_maps_have_lost_to_it(size):
    maps = torch.randn(1, 16, *size, generator=stream(6, "maps")) + 1e3
    assert error_of_channel_sums(maps) < 1e-4


@pytest.mark.skipif(
    not runs_bfloat16(torch.device("cpu")), reason="no bfloat16 convolutions on this processor"
)
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_bfloat16_is_as_near_as_its_rounding_lets_it(weights):
    loss, gradient = compared((3, 32, 32), 32, 3, weights, "bfloat16")
    assert loss < 0.05
    assert gradient < 0.2


def outputs_and_gradient(sums: AttentionSums, images: Tensor) -> list[Tensor]:
    leaf = images.clone().requires_grad_(True)
    outputs = listed(sums(leaf))
    (gradient,) = torch.autograd.grad(sum(output.square().sum() for output in outputs), leaf)
    return [*outputs, gradient]


def listed(sums: Sums) -> list[Tensor]:
    return [*sums.spatial, *sums.channel, sums.embedding]


def same_bits(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


KERNELS = pytest.mark.parametrize(
    ("width", "shape"), [(32, (3, 16, 16)), (64, (1, 9, 13)), (16, (3, 16, 16))]
)
"""Of 16 channels the second convolution has no kernel: torch's, with autograd."""


@KERNELS
def test_threads_change_no_bit(width, shape, monkeypatch):
    images = torch.randn(9, *shape, generator=stream(2, "images"))
    sums = AttentionSums(network_of(shape, width, 2), WEIGHTS["atom"], "float32")
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(outputs_and_gradient(sums, images))
    assert same_bits(found[0], found[1])
    assert same_bits(found[0], found[2])


@KERNELS
@pytest.mark.parametrize("bytes_a_portion", [1, 2 * 32 * 16 * 16 * 4, 2**30])
def test_portions_change_no_bit_but_by_torchs_convolutions(width, shape, bytes_a_portion, monkeypatch):
    images = torch.randn(9, *shape, generator=stream(2, "images"))
    sums = AttentionSums(network_of(shape, width, 2), WEIGHTS["powers 2 and 4"], "float32")
    whole = outputs_and_gradient(sums, images)
    monkeypatch.setattr(portions, "CACHED_BYTES", bytes_a_portion)
    monkeypatch.setattr(attention, "PORTION_BYTES", bytes_a_portion)
    cut = outputs_and_gradient(sums, images)
    assert all((a - b).norm() <= 1e-5 * a.norm() for a, b in zip(whole, cut, strict=True))
    assert width == 16 or same_bits(whole, cut)


@KERNELS
def test_images_without_gradients_give_the_same_bits(width, shape):
    images = torch.randn(7, *shape, generator=stream(1, "images"))
    sums = AttentionSums(network_of(shape, width, 2), WEIGHTS["powers 2 and 4"], "float32")
    assert same_bits(listed(sums(images)), outputs_and_gradient(sums, images)[:-1])


def test_memory_used_again_holds_nothing_of_before():
    shape = (3, 16, 16)
    sums = AttentionSums(network_of(shape, 32, 2), WEIGHTS["atom"], "float32")
    many, few = (torch.randn(n, *shape, generator=stream(3, "images", n)) for n in (9, 4))
    fresh = [outputs_and_gradient(sums, images) for images in (few, many, few)]
    assert same_bits(fresh[0], fresh[2])
    leaves = [images.clone().requires_grad_(True) for images in (many, few)]
    at_once = [sums(leaf) for leaf in leaves]  # both before either gradient is taken
    for leaf, found, expected in zip(leaves, at_once, (fresh[1], fresh[0]), strict=True):
        (gradient,) = torch.autograd.grad(sum(each.square().sum() for each in listed(found)), leaf)
        assert torch.equal(gradient, expected[-1])


def test_memory_of_another_size_of_images_is_not_used_again():
    def sums() -> AttentionSums:
        return AttentionSums(network_of((3, 16, 16), 32, 2), WEIGHTS["atom"], "float32")

    shared = sums()
    many, small = (
        torch.randn(n, 3, side, side, generator=stream(7, "images", n)) for n, side in ((5, 16), (3, 8))
    )
    for images in (many, small, many):
        # The features' number differs, not what is summed on the way.
        assert same_bits(outputs_and_gradient(shared, images), outputs_and_gradient(sums(), images))


def test_gradients_that_are_views_of_one_number():
    images = torch.randn(3, 3, 16, 16, generator=stream(8, "images"))
    sums = AttentionSums(network_of((3, 16, 16), 32, 2), WEIGHTS["atom"], "float32")
    found = []
    for gradient in (torch.ones(()).expand(3, 256), torch.ones(3, 256)):
        leaf = images.clone().requires_grad_(True)
        found.append(torch.autograd.grad(sums(leaf).spatial[0], leaf, gradient)[0])
    assert torch.equal(*found)


def test_gradients_are_there_once():
    sums = AttentionSums(network_of((3, 16, 16), 32, 2), WEIGHTS["dm"], "float32")
    leaf = torch.randn(2, 3, 16, 16).requires_grad_(True)
    total = sums(leaf).embedding.sum()
    torch.autograd.grad(total, leaf, retain_graph=True)
    with pytest.raises(RuntimeError, match="taken before"):
        torch.autograd.grad(total, leaf)


def test_the_parameters_are_those_of_the_call():
    network, images = network_of((3, 16, 16), 32, 2), torch.randn(2, 3, 16, 16)
    sums = AttentionSums(network, WEIGHTS["atom"], "float32")
    *before, wanted = outputs_and_gradient(sums, images)
    leaf = images.clone().requires_grad_(True)
    total = sum(output.square().sum() for output in listed(sums(leaf)))
    reinitialise(network, stream(5, "network"))
    assert torch.equal(torch.autograd.grad(total, leaf)[0], wanted)
    after = listed(sums(images))
    assert not same_bits(before, after)
    assert same_bits(after, listed(AttentionSums(network, WEIGHTS["atom"], "float32")(images)))


def test_images_of_another_form():
    shape = (3, 16, 16)
    sums = AttentionSums(network_of(shape, 32, 2), WEIGHTS["atom"], "float32")
    images = torch.randn(2, *shape, generator=stream(4, "images"))
    assert same_bits(listed(sums(images.double())), listed(sums(images)))
    assert [len(each) for each in listed(sums(images[:0]))] == [0, 0, 0]
    with pytest.raises(ValueError, match=r"the network takes \(N, 3, H, W\)"):
        sums(images[:, :1])


def test_what_is_not_a_number_stays_none():
    network = network_of((1, 8, 8), 16, 2)
    images = torch.randn(2, 1, 8, 8)
    images[0, 0, 3, 3] = float("nan")
    sums = AttentionSums(network, WEIGHTS["atom"], "float32")(images)
    for layer in (*sums.spatial, *sums.channel, sums.embedding):
        assert layer[0].isnan().any()
        assert layer[1].isfinite().all()


def test_widths_without_kernels_and_machines_without_a_compiler_are_eager(monkeypatch):
    assert runs_fused(128, CPU)
    assert not runs_fused(24, CPU)
    assert not runs_fused(128, torch.device("cuda"))
    monkeypatch.setattr(attention.kernels, "why_unavailable", lambda: "no compiler")
    assert not runs_fused(128, CPU)


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("name", ["atom", "datadam", "dm"])
def test_a_distillation_comes_out_as_the_eager_one(name, width, monkeypatch):
    posed, module = problem(), methods.load(name)
    config = module.Config(iterations=5, width=width, batch_real=16)
    fused = module.distill(posed, config, Session())
    monkeypatch.setattr(_matching, "runs_fused", lambda *_: False)
    eager = module.distill(posed, config, Session())
    moved = (eager - initial_state(posed, config.initialization).images).norm()
    assert (fused - eager).norm() < 1e-2 * moved
    assert not torch.equal(fused, eager)  # else one of them was not what it is called


@pytest.mark.parametrize("cached_portions", [1, 2])
def test_kernels_are_called_a_fixed_number_of_times(cached_portions, monkeypatch):
    """A guard on speed that no clock decides: a call a block, portion and direction, whatever the classes."""
    calls = []
    library = kernels.library()

    class Counting:
        def __getattr__(self, function):
            def call(*arguments):
                calls.append(function)
                getattr(library, function)(*arguments)

            return call

    posed, module, width = problem(), methods.load("atom"), 32
    real, synthetic = 16 * len(posed.classes), posed.ipc * len(posed.classes)
    map_bytes = 4 * width * posed.image_shape[1] * posed.image_shape[2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(portions, "CACHED_BYTES", -(-real // cached_portions) * map_bytes)
    monkeypatch.setattr(attention.kernels, "library", Counting)
    module.distill(posed, module.Config(iterations=3, width=width, batch_real=16), Session())
    depth = 2
    assert synthetic * cached_portions <= real  # they are one portion
    assert calls.count("attention_forward") == 3 * depth * (cached_portions + 1)
    assert calls.count("attention_backward") == 3 * depth
    assert calls.count("winograd_filters") == 3 * 3  # of the second block: twice for forward, once for back
    assert calls.count("winograd_forward") == 3 * (cached_portions + 2)
