"""Differentiable siamese augmentation (DSA): six transforms, one drawn a call.

Letters: N images, C channels, H x W pixels. Every transform is differentiable in the images and takes
one row of parameters per image, or one row for all (siamese).

Source: Zhao and Bilen 2021, arXiv:2102.08259, strategy `color_crop_cutout_flip_scale_rotate` with that
paper's ranges.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_CROP_FRACTION = 0.125  # largest shift, as a share of the side
_CUTOUT_FRACTION = 0.5  # side of the square that is cut out, as a share of the side
_FLIP_PROBABILITY = 0.5
_SCALE_FACTOR = 1.2  # height and width each shrink or grow by at most this factor
_ROTATION_DEGREES = 15.0


def color(images: Tensor, rows: Tensor) -> Tensor:
    """Brightness +-0.5, then saturation x[0, 2] about the grey image, then contrast x[0.5, 1.5].

    Args:
        images: (N, C, H, W). rows: (N or 1, 3), uniform in [0, 1].
    """
    brightness, saturation, contrast = (rows[:, i].view(-1, 1, 1, 1) for i in range(3))
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (saturation * 2.0) + grey
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - level) * (contrast + 0.5) + level


def crop(images: Tensor, rows: Tensor) -> Tensor:
    """Shift by up to an eighth of each side; what enters is zero. rows: (N or 1, 2), uniform in [0, 1]."""
    count, channels, height, width = images.shape
    ys = _shifted(height, rows[:, 0])
    xs = _shifted(width, rows[:, 1])
    places = (ys.unsqueeze(2) * (width + 2) + xs.unsqueeze(1)).flatten(1)
    padded = F.pad(images, (1, 1, 1, 1)).flatten(2)
    return padded.gather(2, places.unsqueeze(1).expand(count, channels, -1)).view_as(images)


def _shifted(side: int, fraction: Tensor) -> Tensor:
    """Source positions in an image padded by one zero on each side: (rows, side)."""
    reach = int(side * _CROP_FRACTION + 0.5)
    shift = _pick(fraction, 2 * reach + 1) - reach
    positions = torch.arange(side, device=fraction.device) + shift.view(-1, 1) + 1
    return positions.clamp(0, side + 1)


def _pick(fraction: Tensor, count: int) -> Tensor:
    """Uniform [0, 1) to an integer in 0..count-1 (float32 rounding could reach `count`)."""
    return (fraction * count).floor().clamp_max(count - 1).long()


def cutout(images: Tensor, rows: Tensor) -> Tensor:
    """Zero a square of half the side, which may hang over the edge. rows: (N or 1, 2), uniform in [0, 1]."""
    height, width = images.shape[2:]
    inside_y = _cut_range(height, rows[:, 0]).view(-1, 1, height, 1)
    inside_x = _cut_range(width, rows[:, 1]).view(-1, 1, 1, width)
    return images * ~(inside_y & inside_x)


def _cut_range(side: int, fraction: Tensor) -> Tensor:
    size = int(side * _CUTOUT_FRACTION + 0.5)
    start = _pick(fraction, side + (1 - size % 2)).view(-1, 1) - size // 2
    positions = torch.arange(side, device=fraction.device)
    return (positions >= start) & (positions < start + size)


def flip(images: Tensor, rows: Tensor) -> Tensor:
    """Mirror left to right with probability one half. rows: (N or 1, 1), uniform in [0, 1]."""
    return torch.where((rows < _FLIP_PROBABILITY).view(-1, 1, 1, 1), images.flip(3), images)


def scale(images: Tensor, rows: Tensor) -> Tensor:
    """Stretch height and width each by a factor in [1/1.2, 1.2]. rows: (N or 1, 2), uniform in [0, 1]."""
    factors = rows * (_SCALE_FACTOR - 1.0 / _SCALE_FACTOR) + 1.0 / _SCALE_FACTOR
    return _linear(images, factors.diag_embed())


def rotate(images: Tensor, rows: Tensor) -> Tensor:
    """Turn by up to 15 degrees either way. rows: (N or 1, 1), uniform in [0, 1]."""
    angle = (rows[:, 0] - 0.5) * 2.0 * math.radians(_ROTATION_DEGREES)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1)
    return _linear(images, turn.view(-1, 2, 2))


def _linear(images: Tensor, matrices: Tensor) -> Tensor:
    """What is at (x, y) from the centre comes from matrix (x, y); matrices: (N or 1, 2, 2).

    The places are those of `F.affine_grid`, whose many small matrix products take longer than all the rest.
    """
    height, width = images.shape[2:]
    y, x = (_from_centre(side, matrices) for side in (height, width))
    by_x, by_y = (column.reshape(-1, 2, 1, 1) for column in matrices.unbind(2))
    places = by_x * x + by_y * y.view(-1, 1)
    grid = places.movedim(1, 3).expand(len(images), height, width, 2)
    return F.grid_sample(images, grid, align_corners=False)


def _from_centre(side: int, like: Tensor) -> Tensor:
    """The pixels' middles, where the image reaches from -1 to 1: (side,)."""
    return (torch.arange(side, device=like.device, dtype=like.dtype) * 2 + 1) / side - 1


# name -> (transform, uniform numbers it takes a row); the order is part of the seeded draw.
TRANSFORMS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "color": (color, 3),
    "crop": (crop, 2),
    "cutout": (cutout, 2),
    "flip": (flip, 1),
    "scale": (scale, 2),
    "rotate": (rotate, 1),
}
DSA = tuple(TRANSFORMS)


@dataclass(frozen=True)
class Augmentation:
    """One drawn transform with its parameters, to be applied to any number of batches.

    Attributes:
        transform: a name of `TRANSFORMS`, or None for the identity.
        rows: float32 (rows, parameters), uniform in [0, 1]; one row serves a batch of any size.
    """

    transform: str | None
    rows: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        if self.transform is None:
            return images
        return TRANSFORMS[self.transform][0](images, self.rows.to(images.device, non_blocking=True))


def draw(names: tuple[str, ...], generator: torch.Generator, rows: int = 1) -> Augmentation:
    """Draw one transform of `names`, and its parameters.

    Args:
        names: of `TRANSFORMS`; empty gives the identity.
        generator: CPU.
        rows: 1 for siamese use (all images alike), or the number of images.
    """
    if not names:
        return Augmentation(None, torch.empty(0, 0))
    name = names[int(torch.randint(len(names), (1,), generator=generator))]
    return Augmentation(name, torch.rand(rows, TRANSFORMS[name][1], generator=generator))


def augment_classes(images: Tensor, augmentations: Sequence[Augmentation]) -> Tensor:
    """Each class's images through its own augmentation, as many calls as there are transforms among them.

    Args:
        images: (K*n, C, H, W), n of each class, standing together.
        augmentations: K, of one row each.
    Returns:
        (K*n, C, H, W); every image as `augmentations[k]` alone would give it.
    """
    by_class = images.unflatten(0, (len(augmentations), -1))
    sharing: dict[str | None, list[int]] = {}
    for k, augmentation in enumerate(augmentations):
        sharing.setdefault(augmentation.transform, []).append(k)
    parts: list[Tensor] = []
    for transform, members in sharing.items():
        chosen = by_class if len(sharing) == 1 else by_class[members]
        rows = torch.cat([augmentations[k].rows for k in members]).repeat_interleave(by_class.shape[1], dim=0)
        parts.append(Augmentation(transform, rows)(chosen.flatten(0, 1)).unflatten(0, chosen.shape[:2]))
    if len(sharing) == 1:
        return parts[0].flatten(0, 1)
    place = torch.tensor([k for members in sharing.values() for k in members]).argsort()
    return torch.cat(parts)[place.to(images.device)].flatten(0, 1)


def as_tensors(augmentations: Sequence[Augmentation], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Augmentations drawn from `names` in a form whose shape does not depend on the draw.

    Returns:
        kinds int64 (n,), positions in `names`, -1 for the identity; rows float32 (n, R), R the parameters of
        the transform that has most, those that are not used zero. n: the rows of all augmentations.
    """
    most = max(count for _, count in TRANSFORMS.values())
    kinds, rows = [], []
    for augmentation in augmentations:
        count = max(1, len(augmentation.rows))
        kinds += [names.index(augmentation.transform) if augmentation.transform else -1] * count
        rows.append(
            F.pad(
                augmentation.rows, (0, most - augmentation.rows.shape[1], 0, count - len(augmentation.rows))
            )
        )
    return torch.tensor(kinds), torch.cat(rows)


def augment_chosen(images: Tensor, kinds: Tensor, rows: Tensor, names: Sequence[str]) -> Tensor:
    """As `augment_classes`, by the same operations whatever was drawn, so that it can be recorded.

    Every image goes through all transforms, and the result of its class's is taken.

    Args:
        images: (K*n, C, H, W), n of each class, standing together.
        kinds, rows: of `as_tensors`, on the images' device.
    """
    if not names:
        return images
    each = len(images) // len(kinds)
    kinds, rows = kinds.repeat_interleave(each).view(-1, 1, 1, 1), rows.repeat_interleave(each, dim=0)
    chosen = images
    for kind, name in enumerate(names):
        transform, count = TRANSFORMS[name]
        chosen = torch.where(kinds == kind, transform(images, rows[:, :count]), chosen)
    return chosen


def parse_strategy(text: str) -> tuple[str, ...]:
    """`dsa` (all six), `none`, or names joined by `_` such as `crop_flip`.

    Raises:
        ValueError: on an unknown transform.
    """
    if text in ("", "none"):
        return ()
    names = DSA if text == "dsa" else tuple(text.split("_"))
    unknown = [name for name in names if name not in TRANSFORMS]
    if unknown:
        raise ValueError(
            f"unknown augmentation {', '.join(map(repr, unknown))} in {text!r}; allowed: dsa, none, "
            f"or any of {', '.join(TRANSFORMS)} joined by '_'"
        )
    return names
