"""A space cut down to networks that cost no more than they may."""

from typing import Any

import pytest

from search_spaces import load
from search_spaces.base import LISTED, Counted, Space, count_fitting, enumerate_space, is_listed, most_listed
from search_spaces.bounded import BUILT, Bounded

SHAPE = (1, 8, 8)
SPACE = load("convnet")


def bounded(space: Space = SPACE, *, built: bool = False, **limits: float) -> tuple[Bounded, list[str]]:
    """And the architectures whose costs were asked for."""
    asked: list[str] = []

    def costs(architecture: Any) -> dict[str, float]:
        asked.append(str(architecture))
        assert isinstance(SPACE, Counted)
        return SPACE.costs(architecture, SHAPE, 10)

    return Bounded(space, limits, costs, built=built), asked


def test_only_networks_within_all_limits_fit() -> None:
    within, asked = bounded(parameters=20_000, flops=100_000)
    assert isinstance(within, Space)
    assert isinstance(SPACE, Counted)
    fitting = [each for each in enumerate_space(SPACE) if SPACE.misfit(each, SHAPE) is None]
    found = [each for each in enumerate_space(within) if within.misfit(each, SHAPE) is None]
    costs = {each: SPACE.costs(each, SHAPE, 10) for each in fitting}
    small = [each for each in fitting if costs[each]["parameters"] <= 2e4 and costs[each]["flops"] <= 1e5]
    assert 0 < len(small) < len(fitting)
    assert found == small
    assert count_fitting(within, SHAPE) == (len(small), 720)
    assert len(asked) == len(set(asked)) == len(fitting)  # once each, of what fits at all


def test_a_misfit_says_what_it_has_too_much_of() -> None:
    large = SPACE.parse("w256-d1-none-relu-avg")
    assert bounded(parameters=1000)[0].misfit(large, SHAPE) == "it has 43,530 parameters, more than it may"
    both = bounded(parameters=1000, flops=1000)[0].misfit(large, SHAPE)
    assert both == "it has 43,530 parameters and 376,832 flops, more than it may"
    assert bounded(parameters=43_530)[0].misfit(large, SHAPE) is None
    deep = SPACE.parse("w256-d4-none-relu-avg")
    assert bounded(parameters=1)[0].misfit(deep, SHAPE) == SPACE.misfit(deep, SHAPE)


@pytest.mark.parametrize("built", [False, True])
def test_a_space_is_looked_through_only_if_that_builds_few_networks(built: bool) -> None:
    within, asked = bounded(built=built, parameters=20_000)
    assert most_listed(within) == (BUILT if built else LISTED)
    assert is_listed(within) == (not built)
    assert (count_fitting(within, SHAPE)[0] is None) == built
    assert (asked == []) == built
    few, _ = bounded(load("convnet", width=32), built=built, parameters=20_000)
    assert is_listed(few)
