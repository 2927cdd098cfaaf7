"""Multi-formation: a stored image holds factor x factor smaller ones, which are enlarged to be trained on.

At the same number of stored values a set so has factor^2 times as many images, of less detail each. Pure and
differentiable.

Letters: N stored images, C channels, H x W pixels, f the factor.

Source: Kim et al. 2022, arXiv:2205.14959 (IDC); used by Zhao et al. 2023, arXiv:2307.09742 (IDM).
"""

from torch import Tensor
from torch.nn import functional as F

LARGEST_FACTOR = 8
SMALLEST_SIDE = 4
"""Of a small image, in pixels: what is smaller than that shows nothing."""


def require_factor(factor: int, height: int, width: int) -> None:
    """Refuse a factor that images of H x W pixels cannot be cut by.

    Raises:
        ValueError: if the factor lies outside 1..8, does not divide both sides, or leaves small images of
            less than 4 pixels a side; 1 always passes.
    """
    if not 1 <= factor <= LARGEST_FACTOR:
        raise ValueError(f"factor must lie in 1..{LARGEST_FACTOR}, not {factor}")
    if not _fits(factor, height, width):
        allowed = [f for f in range(1, LARGEST_FACTOR + 1) if _fits(f, height, width)]
        raise ValueError(
            f"factor {factor} does not cut images of {height}x{width} pixels into equal ones of at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}; possible: {', '.join(map(str, allowed))}"
        )


def _fits(factor: int, height: int, width: int) -> bool:
    whole = height % factor == 0 and width % factor == 0
    return factor == 1 or (whole and min(height, width) // factor >= SMALLEST_SIDE)


def decode(images: Tensor, factor: int) -> Tensor:
    """What networks see: (N, C, H, W) to (N*f^2, C, H, W).

    The small images of a stored one stand together, row by row; each is enlarged bilinearly, its corners not
    aligned, without a look at its neighbours. Factor 1 gives `images` itself.
    """
    if factor == 1:
        return images
    size = (images.shape[2], images.shape[3])
    return F.interpolate(_cut(images, factor), size=size, mode="bilinear", align_corners=False)


def encode(images: Tensor, factor: int) -> Tensor:
    """Images shrunk by averaging over f x f pixels, f^2 in one: (N*f^2, C, H, W) to (N, C, H, W).

    They come to stand where `decode` takes them from. Factor 1 gives `images` itself.
    """
    return images if factor == 1 else _join(F.avg_pool2d(images, factor), factor)


def _cut(images: Tensor, factor: int) -> Tensor:
    """(N, C, H, W) to (N*f^2, C, H/f, W/f)."""
    cells = images.unflatten(3, (factor, -1)).unflatten(2, (factor, -1))
    small: Tensor = cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    return small


def _join(images: Tensor, factor: int) -> Tensor:
    """(N*f^2, C, H/f, W/f) to (N, C, H, W)."""
    cells = images.unflatten(0, (-1, factor, factor))
    whole: Tensor = cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    return whole
