"""Searches among networks that cost no more than they may."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import nn
from trial_helpers import stored

from atom_nas.commands.options import quantity
from atom_nas.estimators.measure import network_costs
from atom_nas.limits import bounded
from atom_nas.run_folder import read_record
from atom_nas.search import SearchSettings, run_search
from atom_nas.search_plan import prepare
from reports import write_report
from search_spaces import load
from search_spaces.base import Counted, ImageShape, count_fitting, enumerate_space

Ran = list[tuple[str, str]]
SHAPE = (1, 8, 8)
SMALL, LARGE = "w32-d1-none-relu-avg", "w256-d2-batch-relu-max"


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    return replace(quick, reference="none", max_parameters=20_000, max_flops=100_000)


@pytest.mark.parametrize("name", ["random", "grid", "evolution", "tpe", "successive-halving"])
def test_nothing_larger_is_trained(settings: SearchSettings, ran: Ran, name: str) -> None:
    run_search(replace(settings, strategy=name, samples=8))
    trials = stored(settings.out, "proxy")
    assert len(trials) == 8 <= len(ran)
    assert all(trial.done for trial in trials)
    assert all(trial.scores["parameters"] <= 20_000 for trial in trials)
    assert all(trial.scores["flops"] <= 100_000 for trial in trials)
    assert read_record(settings.out)["space"]["limits"] == {"parameters": 20_000, "flops": 100_000}
    page = write_report([settings.out]).page.read_text()
    assert "networks of at most 20,000 parameters and at most 100,000 FLOPs" in page


@pytest.mark.usefixtures("ran")
def test_a_run_goes_on_with_its_limits_and_no_others(settings: SearchSettings) -> None:
    run_search(settings)
    run_search(replace(settings, resume=True, samples=5))
    assert len(stored(settings.out, "proxy")) == 5
    wrong = r"cannot be resumed .*: space\.limits\.flops was 100000 there and is not set now"
    with pytest.raises(ValueError, match=wrong):
        run_search(replace(settings, resume=True, max_flops=None))


@pytest.mark.usefixtures("ran")
def test_larger_ones_of_a_list_are_left_out(settings: SearchSettings, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"architecture\n{LARGE}\n{SMALL}\n{SMALL}\n")
    listed = replace(settings, architectures=path, samples=None)
    summary = run_search(listed)
    assert (summary.proposed, summary.failed, summary.duplicates, summary.beyond) == (1, 0, 1, 1)
    with pytest.raises(ValueError, match=r"space\.limits\.parameters was 20000 there and is 30000 now"):
        run_search(replace(listed, resume=True, max_parameters=30_000))
    path.write_text(f"architecture\n{LARGE}\n")
    alone = "none of the 1 architectures of .* is within --max-parameters 20,000 and --max-flops 100,000"
    with pytest.raises(ValueError, match=alone):
        prepare(replace(listed, out=tmp_path / "other"))


def test_limits_that_nothing_keeps_say_what_the_least_is(settings: SearchSettings) -> None:
    space = load("convnet")
    assert isinstance(space, Counted)
    fitting = [each for each in enumerate_space(space) if space.misfit(each, SHAPE) is None]
    least = min(space.costs(each, SHAPE, 10)["parameters"] for each in fitting)
    said = f"is within --max-parameters {least - 1:,.0f}: the least of any is {least:,.0f} parameters"
    with pytest.raises(ValueError, match=re.escape(said)):
        prepare(replace(settings, max_flops=None, max_parameters=least - 1))
    assert prepare(replace(settings, max_flops=None, max_parameters=least)).expected > 0


@pytest.mark.parametrize("most", [0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_number_from_1(quick: SearchSettings, most: Any) -> None:
    with pytest.raises(ValueError, match="max_flops must be a number from 1, not"):
        replace(quick, max_flops=most)


@pytest.mark.parametrize("most", ["500k", True])
def test_a_limit_is_no_text_or_truth_value(quick: SearchSettings, most: Any) -> None:
    with pytest.raises(ValueError, match=f"max_flops must be a number, not {most!r}"):
        replace(quick, max_flops=most)


def test_networks_of_ones_own_are_built_to_be_counted(settings: SearchSettings, own_space: Path) -> None:
    space = load(f"{own_space}:Blocks", image_shape=SHAPE, classes=10)
    sizes = [network_costs(space.build(each, SHAPE, 10), SHAPE) for each in enumerate_space(space)]
    middle = sorted(each["parameters"] for each in sizes)[len(sizes) // 2]
    state = torch.get_rng_state()
    limited = replace(settings, max_parameters=middle, max_flops=None)
    within = bounded(limited, space, SHAPE, 10)
    assert within is not None
    assert count_fitting(within, SHAPE)[0] == sum(each["parameters"] <= middle for each in sizes) < len(sizes)
    assert torch.equal(torch.get_rng_state(), state)


LARGE_SPACE = """
import nni
from nni.nas.nn.pytorch import ModelSpace, MutableLinear
from torch import nn

class Wide(ModelSpace):
    def __init__(self, image_shape, classes):
        super().__init__()
        widths = [nni.choice(f"w{place}", [2, 3, 4, 5, 6, 7]) for place in range(4)]
        self.first = MutableLinear(image_shape[1] * image_shape[2], widths[0])
        self.rest = nn.ModuleList(MutableLinear(a, b) for a, b in zip(widths, widths[1:]))
        self.last = MutableLinear(widths[3], classes)

    def forward(self, images):
        maps = self.first(images.flatten(1))
        for layer in self.rest:
            maps = layer(maps).relu()
        return self.last(maps)
"""


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("name", ["random", "evolution", "tpe", "successive-halving"])
def test_a_large_space_of_ones_own_is_drawn_from(settings: SearchSettings, tmp_path: Path, name: str) -> None:
    (tmp_path / "wide.py").write_text(LARGE_SPACE)
    wide = replace(
        settings, space=f"{tmp_path / 'wide.py'}:Wide", max_parameters=400, max_flops=None, samples=6
    )
    summary = run_search(replace(wide, strategy=name))
    assert (summary.proposed, summary.failed, summary.all_known) == (6, 0, False)
    names = [trial.architecture for trial in stored(wide.out, "proxy")]
    assert all(trial.scores["parameters"] <= 400 for trial in stored(wide.out, "proxy"))
    (tmp_path / "list.csv").write_text("\n".join(["architecture", *names]))
    listed = replace(wide, strategy=name, out=tmp_path / "listed", samples=4)
    drawn = run_search(replace(listed, architectures=tmp_path / "list.csv"))
    assert (drawn.proposed, drawn.failed) == (4, 0)


@pytest.mark.usefixtures("ran")
def test_drawing_in_vain_ends(settings: SearchSettings, tmp_path: Path) -> None:
    """The smallest network alone is within; whether it is drawn is luck."""
    (tmp_path / "wide.py").write_text(LARGE_SPACE)
    wide = replace(settings, space=f"{tmp_path / 'wide.py'}:Wide", max_flops=None, samples=3)
    least = load(wide.space, image_shape=SHAPE, classes=10)
    smallest = network_costs(least.build(next(enumerate_space(least)), SHAPE, 10), SHAPE)["parameters"]
    summary = run_search(replace(wide, max_parameters=smallest))
    assert summary.proposed <= 1
    assert not summary.all_known


def test_a_network_that_cannot_be_built_is_for_its_trial_to_tell(
    settings: SearchSettings, own_space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> nn.Module:
        raise RuntimeError("no such layer")

    space = load(f"{own_space}:Blocks", image_shape=SHAPE, classes=10)
    monkeypatch.setattr(type(space), "build", broken)
    within = bounded(replace(settings, max_parameters=1, max_flops=None), space, SHAPE, 10)
    assert within is not None
    assert within.misfit(next(enumerate_space(space)), SHAPE) is None


@pytest.mark.parametrize("name", ["convnet", "nasbench201"])
@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 32, 32)])
def test_counted_costs_are_those_of_the_built_network(name: str, shape: ImageShape) -> None:
    spaces = [load(name), load(name, cells=2, channels=8) if name == "nasbench201" else load(name, width=64)]
    for space in spaces:
        assert isinstance(space, Counted)
        everyone = list(enumerate_space(space))
        some = [each for each in everyone[:: len(everyone) // 24] if space.misfit(each, shape) is None]
        assert len(some) > 12
        for each in some:
            assert space.costs(each, shape, 7) == network_costs(space.build(each, shape, 7), shape)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.001M", 1_001_000),
        ("12,345,678", 12_345_678),
        ("500000", 5e5),
        ("500k", 5e5),
        ("1.5M", 1.5e6),
        ("2G", 2e9),
        ("1e6", 1e6),
        ("1,000", 1e3),
        ("3B", 3e9),
    ],
)
def test_quantities_may_have_a_factor(text: str, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "k", "5kk", "5 million", "1,5M", "-5", "nan"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no number such as 500000, 500k"):
        quantity(text)


SPARING = """
def small(network, images, labels):
    if sum(each.numel() for each in network.parameters()) > 80_000:
        raise RuntimeError("too large for my chip")
    return 1.0
"""


def test_scores_of_ones_own_are_tried_on_what_may_be_proposed(
    settings: SearchSettings, tmp_path: Path
) -> None:
    own = tmp_path / "sparing.py"
    own.write_text(SPARING)
    cells = replace(settings, space="nasbench201", max_flops=None, estimators=(f"{own}:small",))
    limited = prepare(replace(cells, max_parameters=80_000))
    assert [each.name for each in limited.others] == ["small"]
    with pytest.raises(ValueError, match=r"small scores none of the networks that were tried: .*too large"):
        prepare(replace(cells, max_parameters=None))
