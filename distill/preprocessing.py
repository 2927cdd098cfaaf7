"""From pixels to model space and back: normalisation and ZCA whitening, fitted on training images only.

Letters: N images, C channels, H x W pixels, D = C*H*W.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# 3 x 64 x 64. The D x D matrix and its eigendecomposition outgrow a workstation soon after (D^2 and D^3).
MAX_WHITENING_DIMENSIONS = 12_288
_CHUNK = 1024


@dataclass(frozen=True)
class Whitening:
    """ZCA whitening of normalised images: y = (x - mean) @ matrix, with a symmetric matrix.

    Attributes:
        mean: float32 (D,).
        matrix: float32 (D, D), V diag(1 / sqrt(s + epsilon)) V^T for the covariance V diag(s) V^T.

    Source: Krizhevsky 2009, appendix A; epsilon = 0.1 as in the dataset condensation literature.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        return torch.matmul(images.flatten(1) - self.mean, self.matrix).view_as(images)

    def inverse(self, images: Tensor) -> Tensor:
        """Undo the whitening: (N, C, H, W) to (N, C, H, W), computed in float64 by a linear solve."""
        flat = torch.linalg.solve(self.matrix.double(), images.flatten(1).double().T).T
        unwhitened: Tensor = (flat + self.mean.double()).to(images.dtype)
        return unwhitened.view_as(images)


@dataclass(frozen=True)
class Preprocessing:
    """What stands between stored pixels and the network: per-channel normalisation, then ZCA if any.

    Attributes:
        mean, std: float32 (C,), of pixels scaled to [0, 1].
        whitening: applied after the normalisation, or None.
    """

    mean: Tensor
    std: Tensor
    whitening: Whitening | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 pixels (N, C, H, W) to float32 model space (N, C, H, W), on the device of `images`.

        Raises:
            ValueError: they are of another type or number of channels, and would come out wrong in silence.
        """
        self._require_pixels(images)
        scale, shift = 1.0 / (255.0 * self.std), self.mean / self.std
        normalised = images.to(torch.float32) * scale.view(-1, 1, 1) - shift.view(-1, 1, 1)
        return normalised if self.whitening is None else self.whitening(normalised)

    def _require_pixels(self, images: Tensor) -> None:
        if not isinstance(images, Tensor):
            raise ValueError(
                f"images are a torch tensor, not {type(images).__name__}: give torch.from_numpy(...)"
            )
        if images.dtype != torch.uint8:
            raise ValueError(
                f"pixels are uint8 from 0 to 255, not {images.dtype}: of floats from 0 to 1 give "
                "(images * 255).round().to(torch.uint8)"
            )
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(f"images have the shape (N, {len(self.mean)}, H, W), not {tuple(images.shape)}")

    def pictures(self, images: Tensor) -> Tensor:
        """Model space back to pixels for the eye: float32 in [0, 1], clipped, (N, C, H, W)."""
        unwhitened = images if self.whitening is None else self.whitening.inverse(images)
        return (unwhitened * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1)).clamp(0.0, 1.0)

    def unwhitened(self) -> "Preprocessing":
        """The normalisation alone."""
        return replace(self, whitening=None)

    def to(self, device: torch.device) -> "Preprocessing":
        """The same on another device."""
        whitening = self.whitening and Whitening(
            self.whitening.mean.to(device), self.whitening.matrix.to(device)
        )
        return Preprocessing(self.mean.to(device), self.std.to(device), whitening)


def fit_preprocessing(images: Tensor, *, zca: bool, epsilon: float = 0.1) -> Preprocessing:
    """Statistics of training images.

    Args:
        images: uint8 (N, C, H, W), training images only.
        zca: whether to whiten as well.
        epsilon: added to the covariance's eigenvalues; of normalised images, so 1 is a pixel's variance.
    Raises:
        ValueError: if `zca` is asked for images of more than `MAX_WHITENING_DIMENSIONS` values.
    """
    dimensions = images[0].numel()
    if zca and dimensions > MAX_WHITENING_DIMENSIONS:
        raise ValueError(
            f"ZCA of {dimensions} values an image would need a {dimensions} x {dimensions} matrix; "
            f"at most {MAX_WHITENING_DIMENSIONS} are allowed: use smaller images or zca=false"
        )
    normalisation = _fit_normalisation(images)
    if not zca:
        return normalisation
    return replace(normalisation, whitening=_fit_whitening(images, normalisation, epsilon))


def _fit_normalisation(images: Tensor) -> Preprocessing:
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in images.split(_CHUNK):
        pixels = chunk.double() / 255.0
        total += pixels.sum(dim=(0, 2, 3))
        squares += pixels.square().sum(dim=(0, 2, 3))
    count = images.numel() / images.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0.0).sqrt()
    # A constant channel (an all-black mask, say) would divide by zero; half a grey level is its floor.
    return Preprocessing(mean.float(), std.clamp_min(0.5 / 255.0).float())


def _fit_whitening(images: Tensor, normalisation: Preprocessing, epsilon: float) -> Whitening:
    dimensions = images[0].numel()
    total = torch.zeros(dimensions, dtype=torch.float64)
    products = torch.zeros(dimensions, dimensions, dtype=torch.float64)
    for chunk in images.split(_CHUNK):
        flat = normalisation(chunk).flatten(1)
        total += flat.sum(dim=0, dtype=torch.float64)
        # The product of one chunk is exact enough in float32 and twice as fast; the sum is not.
        products += (flat.T @ flat).double()
    mean = total / len(images)
    covariance = products / len(images) - torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(covariance)
    matrix = (vectors * (values.clamp_min(0.0) + epsilon).rsqrt()) @ vectors.T
    return Whitening(mean.float(), matrix.float())
