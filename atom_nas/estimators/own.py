"""A training-free estimator of the user's own: a function in a Python file, by FILE.py:FUNCTION or
module:FUNCTION, of network, images and labels.

The file is run in this process and in every worker, as `search_spaces.own` has it.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, UntrainedConfig
from atom_nas.estimators.base import Estimator, SearchData, configure
from search_spaces import own
from search_spaces.base import Space
from search_spaces.foreign import in_one_line

_TRIED, _DRAWS = 12, 100


class Function(own.UsersFunction):
    """The user's function as a measure."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        function = self.current("while the search ran: go on with it by --resume")
        value = function(network, images, labels)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"it returns {type(value).__name__}, not a number")
        return float(value)


class OwnEstimator(Untrained):
    """Scores by the user's function; that its code is another, settings tell."""

    def __init__(self, function: Function, data: SearchData, config: UntrainedConfig) -> None:
        super().__init__(function.where.rpartition(":")[2], function, data, config)
        self._code = function.code

    def settings(self) -> dict[str, Any]:
        """As `Untrained.settings`, and the digest of the code."""
        return super().settings() | {"code": self._code}


def estimator(where: str, data: SearchData, **options: Any) -> OwnEstimator:
    """The estimator with an `UntrainedConfig` of the given options.

    Raises:
        ValueError: the file or the function is not there, or the file cannot be run.
    """
    _, code = own.load_function(where)
    return OwnEstimator(Function(where, code), data, configure(UntrainedConfig, where, options))


def try_out(
    estimators: Sequence[Estimator],
    names: Sequence[str],
    space: Space,
    data: SearchData,
    device: torch.device,
) -> None:
    """Score some untrained networks by the user's functions, before anything is trained.

    Args:
        names: architectures to be tried; none: random ones of the space.
    Raises:
        ValueError: one has a score of none of them; what went wrong first, in a line.
    """
    functions = [each for each in estimators if isinstance(each, OwnEstimator)]
    if not functions:
        return
    networks = []
    for architecture in islice(_some(names, space, data), _TRIED):
        # What fails to be built is not the function's fault.
        with torch.random.fork_rng(devices=[]), suppress(Exception):
            networks.append(space.build(architecture, data.image_shape, data.classes))
    for function in functions:
        faults = [_fault(function, network, device) for network in networks]
        if faults and None not in faults:
            raise ValueError(faults[0])


def _some(names: Sequence[str], space: Space, data: SearchData) -> Iterator[Any]:
    """Those that fit, in a random order that is always the same."""
    generator = random.Random(0)
    drawn: Iterator[Any]
    if names:
        drawn = map(space.parse, generator.sample(list(names), len(names)))
    else:
        drawn = (
            space.architecture({name: generator.choice(values) for name, values in space.choices.items()})
            for _ in range(_DRAWS)
        )
    return (each for each in drawn if space.misfit(each, data.image_shape) is None)


def _fault(function: OwnEstimator, network: nn.Module, device: torch.device) -> str | None:
    try:
        with in_one_line(f"{function.name} scores none of the networks that were tried"):
            function.score(network, seed=0, device=device)
    except ValueError as error:
        return str(error)
    return None
