"""What is set on a command line: twice, as text, or to values of the wrong type."""

import re
from typing import Any

import pytest

from atom_nas.config import assigned, choose_dataset, construct, distill_settings, parse_assignments
from distill.training import TrainingConfig


def test_the_same_value_may_be_given_twice() -> None:
    assert assigned(["epochs=3.0"], {"epochs": 3}) == {"epochs": 3.0}
    assert assigned(["epochs=3", "epochs = 3.0"], {"epochs": None}) == {"epochs": 3}
    assert assigned(["data_dir=here"], {"data_dir": "here"}) == {"data_dir": "here"}


def test_two_values_are_refused_by_the_options_own_names() -> None:
    with pytest.raises(
        ValueError, match="by --reference-epochs 3 and by --set-reference epochs=4: leave one"
    ):
        assigned(["epochs=4"], {"epochs": 3}, "reference")
    with pytest.raises(ValueError, match="by --set-proxy-space cells=1 and cells=2: leave one out"):
        parse_assignments(["cells=1", "cells=2"], "proxy-space")


@pytest.mark.parametrize("text", ["eta", "=3", " =3"])
def test_an_assignment_names_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ValueError, match="--set-strategy takes KEY=VALUE"):
        parse_assignments([text], "strategy")


def test_values_are_read_as_yaml_or_else_as_text() -> None:
    texts = ["a=2.5", "b=true", "c=[1, 2]", "d=2020-99-99", "e={"]
    assert parse_assignments(texts) == {"a": 2.5, "b": True, "c": [1, 2], "d": "2020-99-99", "e": "{"}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"epochs": "many"}, "epochs must be a whole number, not 'many'"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, not 2.5"),
        ({"learning_rate": [1]}, "learning_rate must be a number, not [1]"),
        ({"augmentation": 3}, "augmentation must be text, not 3"),
        ({"precision": 16}, "precision must be 'float32' or 'bfloat16', not 16"),
        ({"epochs": True}, "epochs must be a number, not true"),
        ({"learning_rate": True}, "learning_rate must be a number, not true"),
        ({"batch_size": None}, "batch_size must be a whole number, not null"),
        ({"epochs": float("nan")}, "epochs must be a finite number, not nan"),
        ({"learning_rate": -1}, "learning_rate must be positive and finite, not -1.0"),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_what_would_be_right(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        construct(TrainingConfig, values)


def test_so_are_those_of_a_distillation() -> None:
    with pytest.raises(ValueError, match=r"^zca must be true or false, not 'maybe'$"):
        distill_settings({"dataset": "digits", "out": "set", "zca": "maybe"})
    with pytest.raises(ValueError, match=r"^tensorboard must be .*, not nan$"):
        distill_settings({"dataset": "digits", "out": "set", "tensorboard": float("nan")})
    with pytest.raises(ValueError, match=r"^width must be at most 8192, not 10000000000000000000000$"):
        distill_settings({"dataset": "digits", "out": "set", "width": 10**22})
    with pytest.raises(ValueError, match=r"^no dataset given; add --dataset NAME"):
        distill_settings({"dataset": "", "out": "set"})
    with pytest.raises(ValueError, match=r"^data_dir must be a path, not 3$"):
        distill_settings({"dataset": "digits", "out": "set", "data_dir": 3})
    with pytest.raises(ValueError, match=r"^compile must be .*true or false.*'auto'.*, not 'maybe'$"):
        distill_settings({"dataset": "digits", "out": "set", "compile": "maybe"})


def test_a_folder_without_its_prefix_is_told_how_to_be_named(tmp_path):
    (tmp_path / "photos").mkdir()
    folder = str(tmp_path / "photos")
    with pytest.raises(ValueError, match=f"for the images in that folder give folder:{folder}"):
        choose_dataset(folder)
