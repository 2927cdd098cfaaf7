"""A space cut down to a list."""

from types import SimpleNamespace

import pytest
import torch

from search_spaces import load
from search_spaces.among import Among
from search_spaces.base import Space, count_fitting, first_fitting

SHAPE = (1, 8, 8)
LISTED = ["w32-d2-batch-relu-max", "w64-d1-none-relu-avg", "w32-d4-none-relu-max"]  # the last is too deep


def test_only_what_is_listed_fits_and_only_if_it_fits_in_the_space() -> None:
    space = load("convnet")
    among = Among(space, LISTED)
    assert isinstance(among, Space)
    assert (among.name, among.choices) == (space.name, space.choices)
    assert count_fitting(among, SHAPE) == (2, 720)
    assert str(first_fitting(among, SHAPE)) == LISTED[0]
    assert among.misfit(space.parse(LISTED[0]), SHAPE) is None
    assert among.misfit(space.parse("w32-d1-none-relu-avg"), SHAPE) == "it is not among the listed ones"
    deep = among.parse(LISTED[2])
    assert among.misfit(deep, SHAPE) == space.misfit(deep, SHAPE) is not None
    assert among.architecture(among.sample_of(deep)) == deep
    assert among.build(among.parse(LISTED[1]), SHAPE, 3)(torch.zeros(2, *SHAPE)).shape == (2, 3)


def test_spaces_too_large_to_look_through_are_refused() -> None:
    huge = SimpleNamespace(name="huge", choices={f"c{k}": tuple(range(10)) for k in range(6)})
    with pytest.raises(ValueError, match="'huge' has more than 100,000 architectures"):
        Among(huge, ["any"])  # type: ignore[arg-type]
