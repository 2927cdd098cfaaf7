"""Fast convolutions against torch's in float64."""

import pytest
import torch
from torch import Tensor, nn

from distill import kernels
from distill.convolution import Convolution, _Patches, _way, _Winograd, convolve

pytestmark = pytest.mark.skipif(kernels.why_unavailable() is not None, reason="no C++ compiler")

# (N, C, K, H, W): tiles that fit and that do not, one tile, more tiles than a block has, pictures
MANY = [(3, 32, 48, 8, 8), (2, 48, 32, 7, 6), (1, 32, 32, 3, 4), (40, 64, 32, 16, 12)]
FEW = [(3, 3, 16, 8, 8), (2, 1, 48, 5, 7), (1, 4, 32, 1, 1), (2, 2, 16, 28, 28)]


def problem(shape: tuple[int, int, int, int, int], *, bias: bool = True) -> tuple[Tensor, nn.Conv2d, Tensor]:
    count, channels, outputs, height, width = shape
    generator = torch.Generator().manual_seed(count)
    maps = torch.randn(count, channels, height, width, generator=generator)
    conv = nn.Conv2d(channels, outputs, 3, padding=1, bias=bias)
    for parameter in conv.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / (9 * channels) ** 0.5
    return maps, conv, torch.randn(count, outputs, height, width, generator=generator)


def results(maps: Tensor, conv: nn.Conv2d, gradient: Tensor, *, fast: bool) -> list[Tensor]:
    """The output, and the gradients with respect to maps and parameters."""
    maps = maps.clone().requires_grad_()
    out = convolve(maps, conv) if fast else conv(maps)
    return [out.detach(), *torch.autograd.grad(out, [maps, *conv.parameters()], gradient)]


def assert_near(found: list[Tensor], exact: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, exact, strict=True):
        assert one.shape == other.shape
        scale = float(other.square().mean().sqrt())
        assert float((one.double() - other).abs().max()) < tolerance * scale


@pytest.mark.parametrize("shape", MANY + FEW, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_torchs(shape: tuple[int, int, int, int, int], bias: bool) -> None:
    maps, conv, gradient = problem(shape, bias=bias)
    assert _way(maps, conv) is (_Winograd if shape in MANY else _Patches)
    found = results(maps, conv, gradient, fast=True)
    exact = results(maps.double(), conv.double(), gradient.double(), fast=False)
    assert_near(found, exact, 2e-4)


@pytest.mark.parametrize("shape", [MANY[1], FEW[0]], ids=str)
def test_layouts_do_not_matter(shape: tuple[int, int, int, int, int]) -> None:
    maps, conv, gradient = problem(shape)
    plain = results(maps, conv, gradient, fast=True)
    conv.to(memory_format=torch.channels_last)
    last = results(
        maps.contiguous(memory_format=torch.channels_last),
        conv,
        gradient.contiguous(memory_format=torch.channels_last),
        fast=True,
    )
    assert all(torch.equal(*pair) for pair in zip(plain, last, strict=True))


@pytest.mark.parametrize("shape", [MANY[3], FEW[3]], ids=str)
def test_neither_threads_nor_the_rest_of_the_batch_change_a_bit(
    shape: tuple[int, int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, conv, gradient = problem(shape)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = results(maps, conv, gradient, fast=True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = results(maps, conv, gradient, fast=True)
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))
    part = results(maps[1:], conv, gradient[1:], fast=True)
    assert torch.equal(part[0], alone[0][1:])
    assert torch.equal(part[1], alone[1][1:])


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv2d(32, 32, 3, padding=1, stride=2), 8),
        (nn.Conv2d(32, 32, 3, padding=0), 8),
        (nn.Conv2d(32, 32, 3, padding=2, dilation=2), 8),
        (nn.Conv2d(32, 32, 3, padding=1, groups=2), 8),
        (nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"), 8),
        (nn.Conv2d(32, 32, 1), 8),
        (nn.Conv2d(32, 32, 3, padding=1), 2),
        (nn.Conv2d(16, 32, 3, padding=1), 8),
        (nn.Conv2d(32, 40, 3, padding=1), 8),
        (nn.Conv2d(3, 10, 3, padding=1), 8),
        (nn.Conv2d(32, 32, 3, padding=1).double(), 8),
    ],
    ids=str,
)
def test_others_are_left_to_torch(conv: nn.Conv2d, size: int) -> None:
    maps = torch.randn(2, conv.in_channels, size, size, dtype=conv.weight.dtype)
    assert _way(maps, conv) is None
    assert torch.equal(convolve(maps, conv), conv(maps))


def test_maps_of_another_type_take_the_weights_along() -> None:
    maps, conv, _ = problem(MANY[0])
    exact = conv(maps)
    assert convolve(maps.double(), conv).dtype == torch.float64
    torch.testing.assert_close(convolve(maps.double(), conv).float(), exact, rtol=1e-4, atol=1e-5)


def test_parameters_are_shared() -> None:
    maps, conv, gradient = problem(MANY[0])
    Convolution(conv)(maps).backward(gradient)
    assert conv.weight.grad is not None
    assert conv.weight.grad.stride() == conv.weight.stride()
    found = conv.weight.grad.clone()
    conv.zero_grad()
    conv(maps).backward(gradient)
    assert_near([found], [conv.weight.grad.double()], 2e-4)


def test_what_is_not_a_number_stays_so() -> None:
    maps, conv, _ = problem(MANY[0])
    maps[0, 0, 0, 0] = float("nan")
    out = convolve(maps, conv)
    assert bool(out[0].isnan().any())
    assert not bool(out[1:].isnan().any())
