"""What every registered search space promises, and a space of the user's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from search_spaces import SPACES, load
from search_spaces.base import Space, count_fitting, enumerate_space

SHAPES = [(1, 8, 8), (3, 32, 32)]


@pytest.fixture(params=[*sorted(SPACES), "own"])
def space(request: pytest.FixtureRequest, own_space: Path) -> Space:
    return load(f"{own_space}:Blocks") if request.param == "own" else load(request.param)


def test_follows_the_protocol(space: Space) -> None:
    assert isinstance(space, Space)
    assert load(space.name).choices == space.choices
    assert all(values and len(set(values)) == len(values) for values in space.choices.values())


def test_architectures_are_distinct_values_with_a_stable_form(space: Space) -> None:
    first, again = list(enumerate_space(space)), list(enumerate_space(space))
    assert first == again
    assert len(set(first)) == len({str(architecture) for architecture in first}) == len(first)
    assert all(re.fullmatch(r"[^\s,'\"]+", str(architecture)) for architecture in first)


def test_forms_and_samples_are_inverses(space: Space) -> None:
    for architecture in enumerate_space(space):
        assert space.parse(str(architecture)) == architecture
        sample = space.sample_of(architecture)
        assert list(sample) == list(space.choices)
        assert space.architecture(sample) == architecture


@pytest.mark.parametrize("text", ["", "nonsense", "a-b-c-d-e", "é,\n'"])
def test_nonsense_is_refused_in_one_line(space: Space, text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        space.parse(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fitting_architecture_classifies_and_a_misfit_is_refused(
    space: Space, shape: tuple[int, int, int]
) -> None:
    fitting, size = count_fitting(space, shape)
    assert fitting is not None
    assert 0 < fitting <= size == len(list(enumerate_space(space)))
    everyone = list(enumerate_space(space))
    for architecture in everyone[:: max(1, size // 12)]:
        if space.misfit(architecture, shape) is None:
            logits = space.build(architecture, shape, 4)(torch.zeros(2, *shape))
            assert logits.shape == (2, 4)
        else:
            with pytest.raises(ValueError, match=re.escape(str(architecture))):
                space.build(architecture, shape, 4)


def test_building_twice_from_one_seed_is_the_same_network(space: Space) -> None:
    architecture = next(a for a in enumerate_space(space) if space.misfit(a, SHAPES[0]) is None)
    images = torch.ones(1, *SHAPES[0])
    answers = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            answers.append(space.build(architecture, SHAPES[0], 3).eval()(images))
    assert torch.equal(*answers)
