"""The best network of each size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports import read_run, write_report
from reports.sizes import best_of_sizes, on_front

Make = Callable[..., Any]


@pytest.fixture
def sized(trial: Make, fabricated: Make, info: Make, tmp_path: Path) -> Callable[..., Path]:
    """A run of architectures by name: validation accuracy, parameters, FLOPs."""

    def make(rows: dict[str, tuple[float, float, float]], **changes: Any) -> Path:
        names = ("validation_accuracy", "parameters", "flops")
        proxy = [trial(name, dict(zip(names, values, strict=True))) for name, values in rows.items()]
        run: Path = fabricated([*proxy, trial("broken", None)], (), info("none", **changes)).write(
            tmp_path / "run"
        )
        return run

    return make


ROWS = {
    "large": (0.9, 9e6, 5e8),
    "wide": (0.8, 8e6, 1e8),
    "deep": (0.8, 2e6, 6e8),
    "worse": (0.7, 3e6, 6e8),
    "small": (0.5, 1e5, 1e6),
}


def test_they_are_what_none_as_small_scores_better_than(sized: Callable[..., Path]) -> None:
    found = best_of_sizes(read_run(sized(ROWS)), "validation_accuracy")
    assert {row.architecture: row.fronts for row in found} == {
        "large": ["parameters", "flops"],
        "wide": ["flops"],
        "deep": ["parameters"],
        "small": ["parameters", "flops"],
    }
    assert [row.rank for row in found] == [1, 2, 2, 5]
    assert (found[1].score, found[1].parameters, found[1].flops, found[1].reference) == (0.8, 8e6, 1e8, None)


def test_pages_show_them_with_a_figure(sized: Callable[..., Path]) -> None:
    report = write_report([sized(ROWS)])
    markdown = (report.page.parent / "report.md").read_text()
    assert "| 2 | `deep` | 80.0% | 2,000,000 | 600,000,000 | parameters |" in markdown
    assert "5 networks, validation accuracy over parameters and FLOPs; 4 of them are the best" in markdown
    assert (report.page.parent / "figures" / "sizes.svg").is_file()
    page = report.page.read_text()
    assert "<td>2,000,000</td><td>600,000,000</td>" in page
    numbers = json.loads((report.page.parent / "report.json").read_text())
    assert [row["architecture"] for row in numbers["sizes"]] == ["large", "wide", "deep", "small"]


def test_one_network_by_several_names_is_there_once(sized: Callable[..., Path]) -> None:
    run = sized(ROWS | {"again": ROWS["large"]}, same={"again": "large"})
    found = best_of_sizes(read_run(run), "validation_accuracy")
    assert [row.architecture for row in found] == ["large", "wide", "deep", "small"]


@pytest.mark.parametrize(
    ("rows", "score"),
    [
        (dict(list(ROWS.items())[:2]), "validation_accuracy"),
        ({name: (values[0], 5.0, 7.0) for name, values in ROWS.items()}, "validation_accuracy"),
        (ROWS, "parameters"),
    ],
)
def test_there_are_none_where_sizes_say_nothing(
    sized: Callable[..., Path], rows: dict[str, tuple[float, float, float]], score: str
) -> None:
    assert best_of_sizes(read_run(sized(rows)), score) == []


def test_the_front_agrees_with_looking_at_every_pair() -> None:
    rng = np.random.default_rng(0)
    costs = pd.Series(rng.integers(0, 12, size=60).astype(float), index=rng.permutation(60))
    scores = pd.Series(rng.integers(0, 12, size=60).astype(float), index=costs.index)
    scores.iloc[3] = float("nan")
    beaten = [
        bool((((costs <= cost) & (scores > score)) | ((costs < cost) & (scores >= score))).any())
        for cost, score in zip(costs, scores, strict=True)
    ]
    wanted = ~np.array(beaten) & scores.notna().to_numpy()
    assert 1 < wanted.sum() < 30
    assert on_front(costs, scores).tolist() == wanted.tolist()
