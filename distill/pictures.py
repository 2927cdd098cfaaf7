"""Images in model space as pictures for the eye."""

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from distill.formation import decode, encode
from distill.preprocessing import Preprocessing


def as_pictures(preprocessing: Preprocessing, images: Tensor, factor: int = 1) -> Tensor:
    """Images in model space, (N, C, H, W), for the eye: uint8 of the same shape.

    Args:
        factor: of multi-formation, where the images are stored ones. Whitening mixes the pixels of what
            networks see, so the small images are un-whitened as such, and shrunk again.
    """
    if factor > 1 and preprocessing.whitening:
        shown = encode(preprocessing.pictures(decode(images, factor)), factor)
    else:
        shown = preprocessing.pictures(images)
    return (shown * 255.0).round().to(torch.uint8)


def grid(pictures: Tensor, labels: Tensor) -> Image.Image:
    """Pictures uint8 (N, C, H, W) as one image, a row a class; small ones are enlarged to be seen."""
    enlarge = max(1, 64 // pictures.shape[-1])
    cells = F.interpolate(pictures.float(), scale_factor=float(enlarge), mode="nearest")
    cells = F.pad(cells, (1, 1, 1, 1), value=255.0).to(torch.uint8)
    rows = [cells[labels == k] for k in labels.unique()]
    columns = max(len(row) for row in rows)
    lines = [
        F.pad(row, (0, 0, 0, 0, 0, 0, 0, columns - len(row)), value=255).permute(1, 2, 0, 3).flatten(2)
        for row in rows
    ]
    sheet = torch.cat(lines, dim=1)
    sheet = sheet.expand(3, -1, -1) if len(sheet) == 1 else sheet
    return Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())
