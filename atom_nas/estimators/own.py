"""A training-free estimator of the user's own: a function in a Python file, by FILE.py:FUNCTION or
module:FUNCTION, of network, images and labels.

The file is run in this process and in every worker, as `search_spaces.own` has it.
"""

from numbers import Real
from typing import Any

from torch import Tensor, nn

from atom_nas.estimators._untrained import Untrained, UntrainedConfig
from atom_nas.estimators.base import SearchData, configure
from search_spaces import own


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
