"""What `load_architecture` gives: a network of a run with what it takes to use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor, nn

from distill.preprocessing import Preprocessing
from distill.sources.images import decode

Images: TypeAlias = "Tensor | NDArray[np.uint8] | Path | str | Image | Sequence[Path | str | Image]"
_BATCH = 256


@dataclass(frozen=True)
class LoadedArchitecture:
    """A network of a run, ready to use.

    Attributes:
        network: float32 (N, C, H, W) in model space to logits (N, classes), on the CPU. With its weights in
            evaluation mode; without, freshly initialised in training mode.
        classes: names; logit k is that of `classes[k]`.
        preprocessing: brings real uint8 images (N, C, H, W) into model space: `preprocessing(images)`.
        card: what is known of it; with weights the whole card, with accuracies and recipe.
    """

    network: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    card: dict[str, Any]

    @torch.no_grad()
    def probabilities(self, images: Images) -> Tensor:
        """How probable each class is for each image: float32 (N, classes), on the CPU.

        Args:
            images: files, or images opened by Pillow, which are read as the images trained on were, if those
                were files: turned as they say, made to cover the network's side and cropped; or uint8 pixels
                (N, C, H, W) of the network's own size.
        Raises:
            ValueError: a file cannot be read, or is of deeper greys than the images trained on; or pixels are
                of another type, size or number of channels.
        """
        if isinstance(images, np.ndarray):
            if images.dtype != np.uint8:
                raise ValueError(f"pixels are uint8 (N, C, H, W), not {images.dtype}")
            images = torch.from_numpy(np.array(images, order="C"))  # a copy: torch takes no flipped axes
        pixels = images if isinstance(images, Tensor) else self._read(images)
        size = list(self.card["image_shape"][1:])
        if (
            pixels.ndim == 4
            and pixels.shape[1] == self.card["image_shape"][0]
            and list(pixels.shape[2:]) != size
        ):
            shown = ["x".join(map(str, each)) for each in (pixels.shape[2:], size)]
            raise ValueError(f"images are {shown[0]}, and the network takes {shown[1]}: resize them")
        device = next(self.network.parameters()).device
        network, training = self.network, self.network.training
        network.eval()
        try:
            found = [
                network(self.preprocessing(part).to(device)).softmax(1).cpu() for part in pixels.split(_BATCH)
            ]
        finally:
            self.network.train(training)
        return torch.cat(found)

    def predict(self, images: Images) -> list[str]:
        """The most probable class of each image, by name; otherwise as `probabilities`."""
        return [self.classes[k] for k in self.probabilities(images).argmax(dim=1).tolist()]

    def _read(self, files: Path | str | Image | Sequence[Path | str | Image]) -> Tensor:
        channels, height, width = self.card["image_shape"]
        if height != width:
            raise ValueError(f"files are read for square networks, and this one takes {height}x{width}")
        given: Sequence[Any] = files if isinstance(files, list | tuple) else [files]
        strange = [type(each).__name__ for each in given if not isinstance(each, str | Path | Image)]
        if strange:
            raise ValueError(
                "give image files, images of Pillow, or uint8 pixels (N, C, H, W) as a tensor or array, not "
                f"{strange[0]}"
            )
        sources = [each if isinstance(each, Image) else Path(each) for each in given]
        if not sources:
            raise ValueError("no image was given")
        pixels = torch.from_numpy(decode(sources, height, self.card.get("grey_bits", 8)))
        if pixels.shape[1] > channels:  # greys may be stored as colours
            coloured = (pixels != pixels[:, :1]).flatten(1).any(dim=1)
            if coloured.any():
                raise ValueError(
                    f"{sources[int(coloured.nonzero()[0])]} is in colour, and the network was trained on "
                    "grey images: convert it, e.g. by PIL's Image.open(path).convert('L')"
                )
            pixels = pixels[:, :1]
        return pixels.expand(-1, channels, -1, -1)

    def __repr__(self) -> str:
        known = {name: self.card.get(name) for name in ("validation_accuracy", "test_accuracy")}
        kind = "balanced " if self.card.get("balanced") is True else ""
        scores = [f", {kind}{name} {value:.4f}" for name, value in known.items() if value is not None]
        return (
            f"LoadedArchitecture({self.card['architecture']}, {len(self.classes)} classes{''.join(scores)})"
        )
