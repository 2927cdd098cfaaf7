"""`atom-nas plan`, as a user types it."""

import json

import pytest
from cli_helpers import done, refused


def test_a_width_becomes_numbers_of_architectures():
    shown = done("plan", "--width", 0.2).stdout
    assert "95% interval of Spearman's rho at most 0.2 wide" in shown
    row = next(line for line in shown.splitlines() if line.startswith("│              0.8 "))
    assert [cell.strip() for cell in row.split("│")[2:4]] == ["72", "0.68 to 0.88"]
    assert "bivariate normal" in shown


def test_a_number_becomes_an_interval_as_json():
    found = json.loads(
        done("plan", "--samples", 48, "--correlation", 0.8, "--correlation", 0.5, "--json").stdout
    )
    assert [(row["correlation"], row["samples"]) for row in found["rows"]] == [(0.8, 48), (0.5, 48)]
    assert found["rows"][0]["low"] == pytest.approx(0.643, abs=1e-3)
    assert found["confidence"] == 0.95
    assert "bivariate normal" in found["assumptions"]


def test_several_trainings_of_each_can_be_planned_for():
    shown = done("plan", "--width", 0.2, "--agreement", 0.8).stdout
    (row,) = [line for line in shown.splitlines() if line.startswith("│         0.8 ")]
    cells = [cell.strip() for cell in row.split("│")[2:-1]]
    assert cells == ["72 (0.80)", "51 (0.84)", "43 (0.86)", "38 (0.87)", "33 (0.88)"]
    assert "Spearman and Brown" in shown
    said = done("plan", "--samples", 48, "--correlation", 0.8, "--agreement", 0.8, "--json").stdout
    assert "Spearman and Brown" in json.loads(said)["assumptions"]
    rows = json.loads(said)["rows"]
    assert [(row["by_one"], row["seeds"], row["trainings"]) for row in rows][:2] == [
        (0.8, 1, 48),
        (0.8, 2, 96),
    ]


def test_more_confidence_takes_more():
    takes = [
        json.loads(done("plan", "--width", 0.2, "--confidence", c, "--json").stdout) for c in (0.8, 0.95)
    ]
    assert all(a["samples"] < b["samples"] for a, b in zip(takes[0]["rows"], takes[1]["rows"], strict=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either the width"),
        (("--width", 0.2, "--samples", 48), "give either the width"),
        (("--width", 3), "a width of 3 cannot be planned for"),
        (("--samples", 4), "at least 10 are needed"),
        (("--width", 0.2, "--correlation", 1), "the formula holds from -0.95 to 0.95"),
        (("--width", 0.2, "--confidence", 95), "give one between 0 and 1"),
        (("--width", 0.2, "--agreement", 2), "an agreement of 2 between two seeds cannot be planned with"),
        (("--width", "wide"), "--width"),
    ],
)
def test_mistakes_are_one_line(arguments, said):
    assert said in refused("plan", *arguments)


def test_it_is_found_from_the_help():
    assert "plan " in done("--help").stdout
    assert "atom-nas plan --samples 48" in done("plan", "--help").stdout
