"""The leaderboard: who is on the front, and labels that do not lie on one another."""

from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from reports.analysis import describe_agreement
from reports.document import ScoreReport
from reports.leaderboard import Ruler, beside, draw, rulers, spread, within


def ruler(name: str, seconds: float | None, value: float | None) -> ScoreReport:
    import pandas as pd

    made = describe_agreement(name, pd.Series([1.0, 2, 3, 4]), pd.Series([1.0, 2, 3, 4]))
    spearman = made.spearman.model_copy(update={"value": value, "low": 0.0, "high": 1.0})
    return made.model_copy(update={"spearman": spearman, "seconds_each": seconds})


def test_the_front_is_whoever_nobody_beats_for_as_little() -> None:
    found = rulers(
        [
            ruler("validation_accuracy", 10.0, 0.8),
            ruler("final_training_loss", 10.0, 0.9),
            ruler("synflow", 0.1, 0.7),
            ruler("snip", 0.2, 0.6),
            ruler("parameters", 0.0, 0.7),
            ruler("flops", 0.0, 0.5),
            ruler("seconds", 10.0, 0.99),
            ruler("jacov", None, 0.99),
            ruler("zico", 0.1, None),
        ]
    )
    assert [each.value for each in found] == sorted((each.value for each in found), reverse=True)
    assert {each.label for each in found if each.front} == {"final training loss", "SynFlow", "parameters"}
    assert len(found) == 6


@pytest.mark.parametrize("reference", [None, 30.0])
def test_it_is_drawn_with_every_ruler_named(reference: float | None) -> None:
    figure = draw(rulers([ruler("synflow", 0.1, 0.7), ruler("parameters", 0.0, 0.6)]), reference)
    assert isinstance(figure, Figure)
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "SynFlow 0.70" in words
    assert "parameters 0.60" in words
    assert ("reference" in words) == (reference is not None)


def test_labels_keep_their_distance_and_their_place() -> None:
    values = [0.9, 0.89, 0.88, 0.5, 0.1]
    heights = spread(values, 0.1)
    assert all(above - below >= 0.1 - 1e-9 for above, below in pairwise(heights))
    assert heights[3:] == [0.5, 0.1]
    assert sum(heights[:3]) / 3 == pytest.approx(0.89)
    assert spread([], 0.1) == []


@pytest.mark.parametrize("count", [1, 3, 30])
def test_labels_stay_within_the_axis_and_apart(count: int) -> None:
    values = [0.95 - 0.001 * i for i in range(count)]
    shown = [
        Ruler(label=f"ruler {i}", seconds=1.0, value=value, low=None, high=None, front=i == 0)
        for i, value in enumerate(values)
    ]
    (axes,) = draw(shown, None).axes
    bottom, top = axes.get_ylim()
    heights = [text.xyann[1] for text in axes.texts]
    assert len(heights) == count
    assert all(bottom < height < top for height in heights)
    steps = [above - below for above, below in pairwise(heights)]
    assert all(step == pytest.approx(steps[0]) and step > 0 for step in steps)


def test_heights_are_moved_no_further_than_they_must() -> None:
    assert within([0.5, 0.2], 0.0, 1.0, 0.1) == [0.5, 0.2]
    assert within([1.3, 1.2, 0.2], 0.0, 1.0, 0.1) == pytest.approx([1.0, 0.9, 0.2])
    assert within([0.4, -0.1, -0.2], 0.0, 1.0, 0.1) == pytest.approx([0.4, 0.1, 0.0])


def test_labels_make_room_only_for_those_in_their_columns() -> None:
    """Of 10 letters of .1 decades and so a decade and a bit: rulers a decade apart meet, two do not."""
    shown = [
        Ruler(label="123456", seconds=seconds, value=value, low=None, high=None, front=False)
        for seconds, value in ((100.0, 0.9), (0.0, 0.8), (0.01, 0.7), (1000.0, 0.6), (0.0, 0.5), (0.1, 0.4))
    ]
    groups = [[each.value for each in group] for group in beside(shown, 0.1)]
    assert groups == [[0.8, 0.7, 0.5, 0.4], [0.9, 0.6]]
    assert [[each.value for each in group] for group in beside(shown, 0.01)] == [
        [0.8, 0.5], [0.7], [0.4], [0.9], [0.6],
    ]  # fmt: skip
