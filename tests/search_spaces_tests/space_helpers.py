"""Code of spaces, as a user writes it."""

from pathlib import Path
from typing import Any

import pytest

import search_spaces

SHAPE = (1, 8, 8)
HEAD = """
import nni, torch
from torch import nn
from nni.mutable import ensure_frozen
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableConv2d, MutableLinear, Repeat
"""
CONSTRAINED = """
from nni.mutable import ExpressionConstraint

class Constrained(ModelSpace):
    def __init__(self, classes=3):
        super().__init__()
        a, b = nni.choice("a", [1, 2, 3]), nni.choice("b", [1, 2, 3])
        self.add_mutable(ExpressionConstraint(a + b == 4, label="four"))
        layers = MutableLinear(64, a), MutableLinear(a, b), MutableLinear(b, classes)
        self.body = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, x):
        return self.body(x)
"""


def written(folder: Path, code: str, name: str = "spaces.py") -> Path:
    path = folder / name
    path.write_text(HEAD + code)
    return path


def refused(name: str, **options: Any) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        search_spaces.load(name, image_shape=SHAPE, classes=3, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
