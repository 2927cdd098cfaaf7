"""Early stopping, the honest baseline: what the same training on real images instead would have given.

The proxy's steps, batch sizes and learning rates, on as many images as those steps take, drawn from all real
training images.
"""

from typing import Any

from atom_nas.estimators.base import SearchData, configure
from atom_nas.estimators.proxy import ProxyConfig, ProxyEstimator


class EarlyStoppingEstimator(ProxyEstimator):
    """Trains on the real training images less those held out, on which it scores as the proxy does.

    An epoch looks at as many images as the synthetic set has, so that it takes as many steps; which ones goes
    through the whole split before any is seen again.
    """

    name = "early-stopping"

    def __init__(self, data: SearchData, config: ProxyConfig) -> None:
        """Take the real splits, and the number of synthetic images, out of `data`; errors as the proxy's."""
        super().__init__(data, config)
        self._images_an_epoch = len(data.synthetic_labels)
        self._images, self._labels = data.fit.images, data.fit.labels

    def settings(self) -> dict[str, Any]:
        """As the proxy's, with how many of the training images an epoch looks at."""
        return super().settings() | {"images_an_epoch": self._images_an_epoch}


def estimator(data: SearchData, **options: Any) -> EarlyStoppingEstimator:
    """The estimator with a `ProxyConfig` of the given options."""
    return EarlyStoppingEstimator(data, configure(ProxyConfig, "early-stopping", options))
