"""Networks of the user's own to judge sets by: a function in a Python file, by FILE.py:FUNCTION or
module:FUNCTION, of the images' shape (C, H, W) and the number of classes; a class will do.

The file is run in this process and in every worker, as `search_spaces.own` has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from distill import networks
from search_spaces import own
from search_spaces.foreign import in_one_line, warn_of_probabilities

ImageShape = tuple[int, int, int]


class OwnNetwork(own.UsersFunction):
    """Where a network is made."""

    @property
    def title(self) -> str:
        """FILE.py:FUNCTION, what it is called by in tables, in records and as a seed."""
        where, _, function = self.where.rpartition(":")
        path = Path(where)
        return f"{path.parent.name if path.name == '__init__.py' else path.name}:{function}"


def find(name: str) -> OwnNetwork:
    """The network that FILE.py:FUNCTION or module:FUNCTION stands for.

    Raises:
        ValueError: the file or the function is not there, or the file cannot be run.
    """
    where = own.resolve(name)
    return OwnNetwork(where, own.load_function(where)[1])


@dataclass(frozen=True)
class Builder:
    """Networks by name in any process: those of `distill.networks.NETWORKS`, and the user's by their titles.

    Attributes:
        own: the latter; their files must be as they were when they were found.
    """

    own: Mapping[str, OwnNetwork]

    def __call__(
        self, name: str, image_shape: ImageShape, classes: int, generator: torch.Generator
    ) -> nn.Module:
        """A network on the CPU, (N, C, H, W) to logits, with weights drawn as `generator` has them.

        Raises:
            ValueError: the images are too small for it; or the user's function fails, is another than it was,
                or gives no module; one line.
        """
        if name not in self.own:
            return networks.build(name, image_shape, classes, generator)
        function = self.own[name].current("meanwhile: repeat the command")
        with torch.random.fork_rng(devices=[]), in_one_line(f"{name} fails"):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            network = function(tuple(image_shape), classes)
        if not isinstance(network, nn.Module):
            raise ValueError(f"{name} returns {type(network).__name__}, not a torch.nn.Module")
        return network

    def probe(self, name: str, image_shape: ImageShape, classes: int) -> None:
        """Try the user's network on two blank images, before anything is trained.

        Raises:
            ValueError: as above; or it fails on them, or gives no (2, classes) logits.
        """
        network = self(name, image_shape, classes, torch.Generator().manual_seed(0)).eval()
        shape = "x".join(map(str, image_shape))
        fails = f"{name} fails on {shape} images"
        with torch.no_grad(), torch.random.fork_rng(devices=[]), in_one_line(fails):
            logits = network(torch.zeros(2, *image_shape))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, classes):
            gives = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"{name} makes {gives} of 2 images of {classes} classes, not (2, {classes})")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError(f"{name} has no parameters to train")
        if not bool(torch.isfinite(logits).all()):
            raise ValueError(f"{name} makes logits of blank images that are not finite")
        warn_of_probabilities(logits, name)
