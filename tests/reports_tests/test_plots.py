"""What the figures show, computed apart from drawing, and that drawing twice gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports import plots
from reports.canvas import STYLE, house_style, save_figure
from reports.document import SpearmanReport
from reports.savings import Costs, measure_savings
from reports.scores import describe_score

RHO = SpearmanReport(
    value=0.5, low=0.1, high=0.8, confidence=0.95, p_value=0.01, p_method="exact", n=4, reason=None
)


def test_agreement_shows_recorded_values_and_ranks_from_the_best() -> None:
    data = plots.agreement_data([-0.5, -0.1, np.nan, -0.1], [0.2, 0.9, 0.4, 0.8], signs=(-1, 1))
    assert data.x.tolist() == [0.5, 0.1, 0.1]
    assert data.x_ranks.tolist() == [3.0, 1.5, 1.5]
    assert data.y_ranks.tolist() == [3.0, 1.0, 2.0]
    assert data.picked.tolist() == [False, True, True]
    assert data.best.tolist() == [False, True, False]


def test_top_k_starts_at_the_pick_and_ends_at_the_best() -> None:
    data = plots.top_k_data([3, 2, 1], [0.6, 0.4, 0.9], sign=1)
    assert data.k.tolist() == [1, 2, 3]
    assert data.ruler.tolist() == pytest.approx([0.6, 0.6, 0.9])
    assert data.random.tolist() == pytest.approx([1.9 / 3, (0.6 + 0.9 + 0.9) / 3, 0.9])
    assert data.best == 0.9


def test_top_k_of_a_loss_falls_towards_the_smallest() -> None:
    data = plots.top_k_data([3, 2, 1], [-0.6, -0.4, -0.9], sign=-1)
    assert data.ruler.tolist() == pytest.approx([0.6, 0.4, 0.4])
    assert data.best == 0.4


@pytest.mark.parametrize(("score", "sign", "scale"), [("test_accuracy", 1, 100), ("validation_loss", -1, 1)])
def test_the_axis_on_the_right_reads_what_is_lost(score: str, sign: int, scale: float) -> None:
    label = plots.AxisLabel.of(describe_score(score), percent=sign > 0)
    data = plots.top_k_data([4, 3, 2, 1], sign * np.array([0.6, 0.4, 0.9, 0.5]), sign=sign)
    assert data.lost(data.ruler, percent=label.percent)[-1] == 0
    with house_style():
        figure = plots.draw_top_k(data, label)
        figure.draw_without_rendering()
    left = figure.axes[0]
    (right,) = left.child_axes
    for value in (data.best, data.random[0]):
        lost = scale * sign * (data.best - value)
        heights = [axes.transData.transform((1, y))[1] for axes, y in ((left, value), (right, lost))]
        assert heights[0] == pytest.approx(heights[1])
    assert right.get_ylabel().startswith("lost against the best of all")
    assert ("(points)" in right.get_ylabel()) == (sign > 0)


def test_long_curves_are_thinned_but_keep_both_ends() -> None:
    rng = np.random.default_rng(0)
    data = plots.top_k_data(rng.normal(size=3_000), rng.normal(size=3_000), sign=1)
    assert len(data.k) < 500
    assert (data.k[0], data.k[-1]) == (1, 3_000)
    assert (np.diff(data.ruler) >= 0).all()


def test_cost_bars_hold_only_what_was_measured() -> None:
    known = measure_savings(Costs(distill_seconds=5.0, proxy_seconds=[1.0], reference_seconds=None))
    assert [bar.label for bar in plots.cost_bars(known, 1.0, None)] == ["on the synthetic set"]
    bars = plots.cost_bars(known, 1.0, 9.0)
    assert [[part[1] for part in bar.parts] for bar in bars] == [[5.0, 1.0], [9.0]]
    unknown = measure_savings(Costs(distill_seconds=None, proxy_seconds=[1.0], reference_seconds=None))
    assert [part[0] for part in plots.cost_bars(unknown, 1.0, None)[0].parts] == ["ranking by it"]


def test_lower_is_better_axes_are_turned_round() -> None:
    loss = plots.AxisLabel.of(describe_score("validation_loss"), percent=False)
    accuracy = plots.AxisLabel.of(describe_score("validation_accuracy"), percent=True)
    data = plots.agreement_data([-4, -3, -2, -1], [1, 3, 2, 4], signs=(-1, 1))
    with house_style():
        values, ranks = plots.draw_agreement(data, RHO, loss, accuracy).axes
    assert values.xaxis.get_inverted()
    assert not values.yaxis.get_inverted()
    assert ranks.xaxis.get_inverted()
    assert ranks.yaxis.get_inverted()


def test_title_says_rho_interval_and_n() -> None:
    label = plots.AxisLabel(text="score")
    data = plots.agreement_data([1, 2, 3, 4], [1, 3, 2, 4], signs=(1, 1))
    with house_style():
        figure = plots.draw_agreement(data, RHO, label, label)
    assert figure.get_suptitle() == "Spearman 0.50 (95% CI 0.10 to 0.80, n = 4)"


def test_the_same_figure_gives_the_same_files(tmp_path: Path) -> None:
    bars = [
        plots.Bar(label="a", value=0.5, low=-0.3, high=0.8),
        plots.Bar(label="b", value=-0.4, low=None, high=None),
    ]
    for name in ("first", "second"):
        with house_style():
            save_figure(plots.draw_bars(bars, "title"), tmp_path, name)
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    before = {key: matplotlib.rcParams[key] for key in STYLE}
    with house_style():
        save_figure(plots.draw_bars([plots.Bar(label="a", value=0.5, low=0.3, high=0.8)], "t"), tmp_path, "x")
    assert {key: matplotlib.rcParams[key] for key in STYLE} == before
