"""Normalisation and ZCA: against direct formulas, and back."""

import pytest
import torch

from distill.preprocessing import MAX_WHITENING_DIMENSIONS, fit_preprocessing
from distill.seeding import stream


def pixels(count: int = 300, channels: int = 3, side: int = 4) -> torch.Tensor:
    """Correlated pixels, as in pictures: a few random planes mixed."""
    generator = stream(0, "pixels")
    basis = torch.randn(5, channels * side * side, generator=generator)
    mixed = torch.randn(count, 5, generator=generator) @ basis + 0.3 * torch.randn(
        count, channels * side * side, generator=generator
    )
    return (128 + 25 * mixed).clamp(0, 255).to(torch.uint8).view(count, channels, side, side)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_channels_have_mean_zero_and_deviation_one(channels):
    images = pixels(2500, channels)  # more than one chunk
    space = fit_preprocessing(images, zca=False)(images)
    assert space.dtype == torch.float32
    assert torch.allclose(space.mean(dim=(0, 2, 3)), torch.zeros(channels), atol=1e-4)
    assert torch.allclose(space.std(dim=(0, 2, 3), correction=0), torch.ones(channels), atol=1e-4)


def test_statistics_equal_direct_formulas():
    images = pixels()
    fitted = fit_preprocessing(images, zca=True, epsilon=0.1)
    direct = images.double() / 255
    mean, std = direct.mean(dim=(0, 2, 3)), direct.std(dim=(0, 2, 3), correction=0)
    flat = ((direct - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)).flatten(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T, correction=0))
    matrix = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
    assert torch.allclose(fitted.mean.double(), mean, atol=1e-6)
    assert torch.allclose(fitted.whitening.matrix.double(), matrix, atol=1e-4)
    expected = (flat - flat.mean(dim=0)) @ matrix
    assert torch.allclose(fitted(images).flatten(1).double(), expected, atol=1e-3)


def test_whitened_covariance_is_flat_where_there_is_variance():
    images = pixels(5000)
    space = fit_preprocessing(images, zca=True, epsilon=1e-4)(images).flatten(1)
    covariance = torch.cov(space.T)
    assert torch.allclose(covariance, torch.eye(len(covariance)), atol=0.02)


@pytest.mark.parametrize("zca", [False, True])
def test_pictures_undo_the_preprocessing(zca):
    images = pixels()
    fitted = fit_preprocessing(images, zca=zca)
    back = (fitted.pictures(fitted(images)) * 255).round()
    assert torch.allclose(back, images.float(), atol=1.0)


def test_a_constant_channel_does_not_divide_by_zero():
    images = pixels()
    images[:, 1] = 0
    assert bool(torch.isfinite(fit_preprocessing(images, zca=True)(images)).all())


def test_whitening_of_large_images_is_refused():
    side = int((MAX_WHITENING_DIMENSIONS / 3) ** 0.5) + 1
    with pytest.raises(ValueError, match="zca=false"):
        fit_preprocessing(torch.zeros(1, 3, side, side, dtype=torch.uint8), zca=True)
