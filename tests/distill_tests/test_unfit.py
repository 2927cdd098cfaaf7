"""Kernels where maps, parameters or torch's defaults are not what they are for."""

import pytest
import torch
from torch import nn

from distill.fusion import Tail, fuse
from distill.kernels import why_unavailable
from distill.networks import InstanceNorm

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason="no kernels")


def conv(channels: int = 3, outputs: int = 32) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, 3, padding=1)


def network(*layers: nn.Module) -> nn.Sequential:
    """Weights are always the same."""
    made = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return made


def drawn(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(1))


MISFITS = {
    "a layer norm of smaller maps": ([conv(), nn.LayerNorm([32, 8, 8]), nn.ReLU()], (4, 3, 32, 32)),
    "a layer norm of larger maps": ([conv(), nn.LayerNorm([32, 32, 32])], (4, 3, 16, 16)),
    "a layer norm, channels last": ([conv(), nn.LayerNorm([8, 8, 32])], (4, 3, 8, 8)),
    "a group norm of more channels": ([conv(3, 16), nn.GroupNorm(32, 32), nn.ReLU()], (4, 3, 8, 8)),
    "a group norm of fewer channels": ([conv(), nn.GroupNorm(4, 16)], (4, 3, 8, 8)),
    "a batch norm of fewer channels": ([conv(), nn.BatchNorm2d(16), nn.ReLU()], (4, 3, 8, 8)),
    "images of more channels": ([conv(1), nn.ReLU()], (4, 3, 8, 8)),
    "maps of more channels": ([conv(3, 64), nn.ReLU(), conv(32, 32)], (4, 3, 8, 8)),
    "a pixel to pool": ([conv(), nn.MaxPool2d(2)], (4, 3, 1, 1)),
    "a value to normalise by a batch": ([conv(), nn.BatchNorm2d(32), nn.ReLU()], (1, 3, 1, 1)),
    "a value to normalise by itself": ([conv(), nn.GroupNorm(32, 32)], (1, 3, 1, 1)),
    "maps without columns": ([conv(), nn.ReLU()], (2, 3, 8, 0)),
    "many maps without rows": ([conv(32)], (2, 32, 0, 8)),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_torch_refuses_is_refused_by_torch(case):
    layers, shape = MISFITS[case]
    plain, images = network(*layers), drawn(*shape)
    with pytest.raises((RuntimeError, ValueError)) as wanted:
        plain(images)
    with pytest.raises(type(wanted.value)) as found:
        fuse(plain)(images)
    assert str(found.value) == str(wanted.value)


def test_one_image_without_a_batch_is_what_it_is_to_torch():
    plain, image = network(conv(), nn.ReLU(), nn.MaxPool2d(2)), drawn(3, 8, 8)
    torch.testing.assert_close(fuse(plain)(image), plain(image))


def outcome(of: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of a weighted sum of it."""
    of.zero_grad(set_to_none=True)
    out = of(images)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), *(torch.as_tensor(p.grad).clone() for p in of.parameters())]


@pytest.mark.parametrize("first", [3, 32])
def test_of_no_images_there_is_no_gradient(first):
    plain, images = network(conv(first), nn.ReLU(), nn.MaxPool2d(2)), drawn(0, first, 8, 8)
    out, *gradients = outcome(fuse(plain), images)
    assert out.shape == (0, 32, 4, 4)
    assert not any(gradient.any() for gradient in gradients)


def said(of: nn.Module, images: torch.Tensor) -> torch.Tensor | str:
    """The output, or what it is refused with."""
    try:
        return of(images)
    except RuntimeError as refused:
        return str(refused)


NORMS = {"batch": nn.BatchNorm2d, "group": InstanceNorm, "layer": lambda n: nn.LayerNorm([n, 8, 8])}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("type_", [torch.float64, torch.bfloat16])
def test_a_norm_of_another_type_is_torchs(norm, type_):
    plain, images = network(conv(), NORMS[norm](32), nn.ReLU()), drawn(4, 3, 8, 8)
    fused = fuse(plain)
    plain[1].to(type_)
    found, wanted = said(fused, images), said(plain, images)
    assert type(found) is type(wanted)
    if isinstance(wanted, str):
        assert found == wanted
    else:
        torch.testing.assert_close(found, wanted)


def test_running_statistics_of_another_type_are_torchs():
    plain = network(conv(), nn.BatchNorm2d(32), nn.ReLU()).eval()
    plain[1].running_var = torch.full((32,), 4.0, dtype=torch.float64)
    with torch.no_grad(), pytest.raises(RuntimeError) as wanted:
        plain(drawn(4, 3, 8, 8))
    with torch.no_grad(), pytest.raises(RuntimeError) as found:
        fuse(plain)(drawn(4, 3, 8, 8))
    assert str(found.value) == str(wanted.value)


def test_a_fused_network_turned_to_bfloat16_is_torchs():
    plain = network(conv(), InstanceNorm(32), nn.ReLU(), nn.AvgPool2d(2))
    images, fused = drawn(4, 3, 8, 8).bfloat16(), fuse(plain).bfloat16()
    torch.testing.assert_close(fused(images), plain.bfloat16()(images))


def test_without_a_convolution_there_is_nothing_to_fuse():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU())
    assert fuse(plain) is plain


def test_fusing_leaves_each_layer_in_its_mode():
    plain = network(conv(), nn.BatchNorm2d(32), nn.ReLU(), conv(32)).train()
    plain[1].eval()
    fused = fuse(plain)
    assert [layer.training for layer in plain] == [True, False, True, True]
    torch.testing.assert_close(fused(drawn(4, 3, 8, 8)), plain(drawn(4, 3, 8, 8)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [3, 32])
def test_parameters_may_be_parts_of_others(first):
    plain = network(conv(first), nn.ReLU(), conv(32), nn.ReLU())
    pool, numbers = drawn(128, 128, 3, 3, scale=0.1), torch.full((64,), 1e3)
    numbers[::2] = drawn(32)
    for layer in (plain[0], plain[2]):
        layer.weight = nn.Parameter(pool[:32, : layer.in_channels])
        layer.bias = nn.Parameter(numbers[::2])
    images = drawn(4, first, 8, 8)
    for found, wanted in zip(outcome(fuse(plain), images), outcome(plain, images), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(32), nn.GroupNorm(4, 32), nn.LayerNorm([32, 8, 8])])
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_torchs_default_type_does_not_matter(norm, default):
    plain = network(conv(), norm, nn.ReLU(), nn.AvgPool2d(2), conv(32), nn.ReLU())
    images = drawn(4, 3, 8, 8)
    wanted = outcome(fuse(plain), images)
    torch.set_default_dtype(default)
    try:
        fused = fuse(plain)
        fused.zero_grad(set_to_none=True)
        out = fused(images)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float32).view_as(out)
        (out * weights).sum().backward()
        found = [out.detach(), *(p.grad for p in fused.parameters())]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, wanted))


def test_torchs_default_device_does_not_matter():
    plain, images = network(conv(), InstanceNorm(32), nn.ReLU(), conv(32)), drawn(4, 3, 8, 8)
    wanted = fuse(plain)(images)
    with torch.device("meta"):
        found = fuse(plain)(images)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("slope", [None, 0.01])
def test_infinities_are_what_they_are_to_torch(slope):
    activation = nn.ReLU() if slope is None else nn.LeakyReLU(slope)
    maps = drawn(2, 16, 4, 4)
    maps[0, 3], maps[1, 5, 2, 2], maps[1, 6] = float("-inf"), float("inf"), float("nan")
    found = Tail(None, activation, None)(maps.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, activation(maps), equal_nan=True)


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("norm", [InstanceNorm(32), nn.BatchNorm2d(32), nn.GroupNorm(4, 32)])
def test_flat_maps_with_an_edge_are_normalised_as_exactly_as_by_torch(norm, side):
    """A convolution's maps of a nearly white image: the first pixel, at the corner, is unlike all others."""
    maps = network(conv())(2.5 + drawn(1, 3, side, side, scale=0.01)).detach()
    exact = norm.double()(maps.double())
    norm.float()
    torchs = (norm(maps) - exact).abs().max()
    ours = (Tail(norm, None, None)(maps.contiguous(memory_format=torch.channels_last)) - exact).abs().max()
    assert ours < 4 * torchs + 1e-6 * exact.abs().max()


@pytest.mark.parametrize("norm", [InstanceNorm(32), nn.BatchNorm2d(32), nn.GroupNorm(4, 32)])
@pytest.mark.parametrize("mean", [3.0, 300.0])
def test_gradients_of_flat_maps_are_as_exact_as_torchs(norm, mean):
    maps, arriving = mean + drawn(8, 32, 16, 16, scale=0.01), drawn(8, 32, 16, 16)

    def gradients(of, of_maps):
        norm.zero_grad(set_to_none=True)
        leaf = of_maps.detach().contiguous(memory_format=torch.channels_last).requires_grad_(True)
        of(leaf).backward(arriving.to(leaf.dtype))
        return [leaf.grad, norm.weight.grad.clone(), norm.bias.grad.clone()]

    exact = gradients(norm.double(), maps.double())
    norm.float()
    torchs, ours = gradients(norm, maps), gradients(Tail(norm, None, None), maps)
    for wanted, theirs, found in zip(exact, torchs, ours, strict=True):
        assert (found - wanted).abs().max() < 4 * (theirs - wanted).abs().max() + 2e-6 * wanted.abs().max()
