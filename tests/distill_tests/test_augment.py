"""The six transforms: what each does to known images, and that siamese use treats images alike."""

import pytest
import torch
from torch import nn

from distill.augment import DSA, TRANSFORMS, Augmentation, augment_classes, draw, parse_strategy
from distill.seeding import stream


def images(count: int = 4, channels: int = 3, side: int = 8) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def rows(*values: float) -> torch.Tensor:
    return torch.tensor([values])


@pytest.mark.parametrize("name", DSA)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_row_serves_all_images_as_its_copies_would(name, channels):
    batch = images(channels=channels)
    row = torch.rand(1, TRANSFORMS[name][1], generator=torch.Generator().manual_seed(1))
    together = Augmentation(name, row)(batch)
    each = Augmentation(name, row.expand(len(batch), -1))(batch)
    alone = torch.cat([Augmentation(name, row)(image[None]) for image in batch])
    assert together.shape == batch.shape
    assert torch.allclose(together, each, atol=1e-6)
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("name", DSA)
def test_gradients_reach_the_pixels(name):
    batch = images().double().requires_grad_(True)
    row = torch.full((1, TRANSFORMS[name][1]), 0.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        Augmentation(name, row), (batch[:1, :, :4, :4].detach().requires_grad_(),)
    )
    Augmentation(name, row)(batch).sum().backward()
    assert bool(torch.isfinite(batch.grad).all())
    assert bool(batch.grad.any())


@pytest.mark.parametrize(
    ("name", "neutral"),
    [("color", (0.5, 0.5, 0.5)), ("crop", (0.5, 0.5)), ("flip", (0.9,)), ("rotate", (0.5,))],
)
def test_neutral_parameters_change_nothing(name, neutral):
    assert torch.allclose(Augmentation(name, rows(*neutral))(images()), images(), atol=1e-5)


def test_neutral_scale_changes_nothing():
    neutral = (1.0 - 1.0 / 1.2) / (1.2 - 1.0 / 1.2)
    assert torch.allclose(Augmentation("scale", rows(neutral, neutral))(images()), images(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "fractions", "matrix"),
    [
        ("scale", (0.2, 0.9), ((0.9066667, 0.0), (0.0, 1.1633333))),
        ("rotate", (0.9,), ((0.9781476, -0.2079117), (0.2079117, 0.9781476))),
    ],
)
def test_places_are_those_of_torchs_affine_grid(name, fractions, matrix):
    batch = images()[:, :, :, :6]
    theta = torch.tensor([[*matrix[0], 0.0], [*matrix[1], 0.0]]).expand(len(batch), 2, 3)
    grid = nn.functional.affine_grid(theta, list(batch.shape), align_corners=False)
    wanted = nn.functional.grid_sample(batch, grid, align_corners=False)
    assert torch.allclose(Augmentation(name, rows(*fractions))(batch), wanted, atol=1e-5)
    assert not torch.allclose(wanted, batch, atol=0.1)


def test_flip_mirrors_columns():
    assert torch.equal(Augmentation("flip", rows(0.1))(images()), images().flip(3))


def test_crop_shifts_by_at_most_an_eighth_and_fills_with_zeros():
    batch = images(side=16) + 1.0
    low, high = (Augmentation("crop", rows(v, v))(batch) for v in (0.0, 0.999))
    assert torch.equal(low[:, :, 2:, 2:], batch[:, :, :-2, :-2])
    assert torch.equal(high[:, :, :-2, :-2], batch[:, :, 2:, 2:])
    assert not bool(low[:, :, :2].any())
    assert not bool(high[:, :, :, -2:].any())


@pytest.mark.parametrize(("centre", "expected"), [(0.5, 16), (0.0, 4)])
def test_cutout_removes_a_square_of_half_the_side(centre, expected):
    kept = Augmentation("cutout", rows(centre, centre))(torch.ones(1, 1, 8, 8))
    assert int((kept == 0).sum()) == expected


def test_color_keeps_a_grey_image_grey_and_moves_its_level():
    grey = torch.full((1, 3, 4, 4), 0.25)
    assert torch.allclose(Augmentation("color", rows(0.7, 0.1, 0.9))(grey), grey + 0.2, atol=1e-6)


def test_parameters_at_the_edge_of_the_unit_interval_stay_in_range():
    for name in DSA:
        for value in (0.0, 1.0):
            out = Augmentation(name, torch.full((1, TRANSFORMS[name][1]), value))(images())
            assert bool(torch.isfinite(out).all())


def test_drawing_is_seeded_and_uses_every_transform():
    def names(seed):
        generator = torch.Generator().manual_seed(seed)
        return [draw(DSA, generator).transform for _ in range(60)]

    assert names(3) == names(3)
    assert names(3) != names(4)
    assert set(names(3)) == set(DSA)


def test_strategies():
    assert parse_strategy("dsa") == DSA
    assert parse_strategy("none") == ()
    assert parse_strategy("crop_flip") == ("crop", "flip")
    batch = images()
    assert draw((), torch.Generator())(batch) is batch
    with pytest.raises(ValueError, match="'blur'"):
        parse_strategy("crop_blur")


@pytest.mark.parametrize("names", [DSA, ("flip",), ()], ids=["all", "one", "none"])
def test_classes_are_augmented_together_as_they_are_alone(names):
    generator = stream(0, "classes")
    images = torch.rand(20 * 3, 3, 8, 8, generator=generator).requires_grad_()
    drawn = [draw(names, generator) for _ in range(20)]
    together = augment_classes(images, drawn)
    alone = torch.cat([each(chunk) for each, chunk in zip(drawn, images.chunk(20), strict=True)])
    assert torch.equal(together, alone)
    weights = torch.rand(alone.shape, generator=generator)
    gradients = [torch.autograd.grad((out * weights).sum(), images)[0] for out in (together, alone)]
    assert torch.equal(*gradients)
    assert len({each.transform for each in drawn}) == max(1, len(names))
