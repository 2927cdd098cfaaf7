"""What the settings of a search make of what Python gives them."""

from dataclasses import replace
from pathlib import Path

import pytest

from atom_nas.search import SearchSettings, run_search
from distill.synthetic import load


def test_epochs_among_the_settings_of_a_training_are_its_epochs(tmp_path: Path) -> None:
    asked = SearchSettings(
        synthetic=tmp_path, out=tmp_path, training={"epochs": 5}, reference_training={"epochs": 7}
    )
    assert (asked.epochs, asked.reference_epochs) == (5, 7)
    assert replace(asked, epochs=6).epochs == 6
    assert replace(asked, epochs=6, training={"epochs": 4, "momentum": 0.5}).epochs == 4


def test_a_set_may_be_given_in_place_of_its_folder(quick: SearchSettings) -> None:
    assert replace(quick, synthetic=load(quick.synthetic)) == quick


def test_only_settings_are_taken() -> None:
    with pytest.raises(ValueError, match=r"run_search takes SearchSettings, not 'run': resumed\(RUN\) gives"):
        run_search("run")  # type: ignore[arg-type]


def test_ranges_of_options_are_lists(tmp_path: Path) -> None:
    asked = SearchSettings(synthetic=tmp_path, out=tmp_path, space_options={"depth": range(1, 3)})
    assert asked.space_options == {"depth": [1, 2]}
