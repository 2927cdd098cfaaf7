"""The heat map of sets by networks: what its cells say, and that drawing twice gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.canvas import house_style
from reports.matrix import draw_matrix, matrix_data, save_matrix

ROWS = [
    ("atom", {"convnet3": {"mean": 0.5417, "std": 0.0061}, "vit": {"mean": 0.25, "std": None}}),
    ("$dm$ \u2603", {"convnet3": {"mean": 0.489, "std": 0.002}}),
]


def test_cells_say_mean_and_deviation_in_percent() -> None:
    data = matrix_data(ROWS)
    assert data.networks == ("convnet3", "vit")
    assert data.sets == ("atom", "$dm$ \u2603")
    assert data.texts == (("54.2 ± 0.6", "25.0"), ("48.9 ± 0.2", "–"))
    assert data.means[0].tolist() == pytest.approx([54.17, 25.0])
    assert np.isnan(data.means[1, 1])


def test_every_cell_is_drawn_in_ink_that_can_be_read() -> None:
    with house_style():
        figure = draw_matrix(matrix_data(ROWS), "Accuracy")
    (axes,) = figure.axes
    drawn = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert drawn[0, 0] == ("54.2 ± 0.6", "white")
    assert drawn[1, 0][0] == "25.0"
    assert drawn[1, 0][1] != "white"
    assert drawn[1, 1][0] == "–"
    assert drawn[1, 1][1] != "white"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["atom", "$dm$ \u2603"]
    assert axes.images[0].get_clim() == pytest.approx((25.0, 54.17))
    assert figure.get_suptitle() == "Accuracy"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_matrix_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    for name in ("first", "second"):
        save_matrix(ROWS, "Accuracy", tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def test_a_single_number_is_a_picture_too(tmp_path: Path) -> None:
    save_matrix([("a", {"vit": {"mean": 0.5, "std": None}})], "Accuracy", tmp_path / "one.png")
    with house_style():
        (axes,) = draw_matrix(matrix_data([("a", {"vit": {"mean": float("nan"), "std": None}})]), "t").axes
    assert [text.get_text() for text in axes.texts] == ["–"]
