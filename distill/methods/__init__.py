"""How a synthetic set is made: one file a method, one line here.

A method's module defines `Config`, a frozen keyword-only dataclass derived from
`distill.methods.base.MethodConfig`, `distill(problem, config, session)` and `INDEPENDENT_CLASSES` (see
`distill.methods.base.Method`).
"""

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from distill.methods.base import Method

METHODS: dict[str, str] = {
    "atom": "match spatial and channel attention and mean features (Khaki et al. 2024)",
    "datadam": "match spatial attention and mean features (Sajedi et al. 2023)",
    "dm": "match mean features (Zhao and Bilen 2023)",
    "dc": "match gradients of a network's weights (Zhao et al. 2021)",
    "dsa": "match gradients of a network's weights under augmentation (Zhao and Bilen 2021)",
    "cafe": "align features of all layers, and tell classes apart (Wang et al. 2022)",
    "random": "real images drawn at random from each class",
    "herding": "real images whose running mean follows the class mean in feature space (Welling 2009)",
    "kcenter": "real images that cover each class in feature space (Sener and Savarese 2018)",
}


def load(name: str) -> "Method":
    """The method's module.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; allowed: {', '.join(METHODS)}")
    return cast("Method", importlib.import_module(f"distill.methods.{name}"))
