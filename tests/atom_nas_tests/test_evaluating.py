"""`atom_nas.evaluate`: the command's numbers from Python, and its errors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import atom_nas
from atom_nas.cli import app
from distill.training import TrainingConfig

QUICK: dict[str, Any] = {"repeats": 1, "training": {"epochs": 2, "batch_size": 16}}


def test_it_returns_what_the_command_prints(digits_set: Path) -> None:
    seen: list[int] = []
    found = atom_nas.evaluate(
        str(digits_set), networks=["convnet2", "alexnet"], **QUICK, on_epoch=seen.append
    )
    assert set(found["networks"]) == {"alexnet", "convnet2"}
    assert found["random_baseline"]["n"] == 2
    assert found["reused"] == 0
    assert seen[-1] == 2 * 2 * 2
    options = "--networks convnet2,alexnet --repeats 1 --epochs 2 --set batch_size=16 --json"
    result = CliRunner().invoke(app, ["evaluate", str(digits_set), *options.split()])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {**found, "reused": 4}


def test_sets_that_are_loaded_and_folders_stand_side_by_side(digits_set: Path, tmp_path: Path) -> None:
    options = {"method": "random", "ipc": 1, "out": tmp_path / "one"}
    other = atom_nas.distill(atom_nas.DistillSettings(dataset="digits", **options))
    found = atom_nas.evaluate([other, digits_set], split="validation", baseline=False, **QUICK)
    assert [entry["name"] for entry in found["sets"]] == ["one", digits_set.name]
    assert found["split"] == "validation"
    assert found["random_baselines"] == []


def test_a_precision_that_the_machine_lacks_is_told(
    digits_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settled(config: TrainingConfig, _: Any) -> tuple[TrainingConfig, str]:
        return config, "no bfloat16 here"

    monkeypatch.setattr(TrainingConfig, "settled", settled)
    with pytest.warns(UserWarning, match="no bfloat16 here"):
        found = atom_nas.evaluate(digits_set, baseline=False, **QUICK)
    assert found["networks"]["convnet2"]["n"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": "convnet2"}, "networks must be a valid list, not 'convnet2'"),
        ({"networks": [1]}, "networks.* must be text, not 1"),
        ({"networks": []}, "name at least one network"),
        ({"workers": 0}, "at least one worker"),
        ({"repeats": "many"}, "repeats must be a whole number, not 'many'"),
        ({"repeats": True}, "repeats must be a number, not true"),
        ({"split": None}, "split must be text, not null"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"training": 3}, "training must be .*, not 3"),
        ({"dataset": 3}, "dataset must be text, not 3"),
        ({"data_dir": 3}, "data_dir must be .*path.*, not 3"),
        ({"on_epoch": 3}, "on_epoch must be callable, not 3"),
        ({"networks": ["convnet22"]}, "unknown network 'convnet22': did you mean 'convnet2'"),
        ({"repeats": 0}, "repeats must be at least 1, not 0"),
        ({"training": {"epoch": 2}}, "epochs"),
        ({"split": "train"}, "unknown split 'train'"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_mistakes_are_errors_of_one_line(digits_set: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        atom_nas.evaluate(digits_set, **{**QUICK, **options})
    assert "\n" not in str(caught.value)


def test_no_sets_are_none() -> None:
    with pytest.raises(ValueError, match="no synthetic set given: name at least one"):
        atom_nas.evaluate([])
    with pytest.raises(ValueError, match="sets are a synthetic set, the folder of one, or a list of them"):
        atom_nas.evaluate(None)  # type: ignore[arg-type]


def test_a_device_and_a_config_may_be_objects(digits_set: Path) -> None:
    options: dict[str, Any] = {"networks": ["convnet2"], "baseline": False}
    plain = atom_nas.evaluate(digits_set, **QUICK, **options, device="cpu")
    config = TrainingConfig(**QUICK["training"])
    again = atom_nas.evaluate(
        digits_set,
        repeats=1,
        training=config,
        **options,
        device=torch.device("cpu"),  # type: ignore[arg-type]
    )
    assert again == {**plain, "reused": 1}
