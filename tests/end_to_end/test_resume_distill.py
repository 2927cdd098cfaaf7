"""`distill --resume` without the settings: they are the folder's."""

import json
from pathlib import Path

import pytest
from cli_helpers import QUICK, done, refused

from atom_nas.config import assigned, distill_settings, with_preset
from distill.run import distill
from distill.session import Interrupted

OPTIONS = {"dataset": "digits", "method": "dm", "preset": "fast", "ipc": 2, "iterations": 6, "seed": 5}


def started(out: Path, after: int, **more: object) -> None:
    """Distill until so many iterations are done."""
    seen: list[int] = []
    values = {**OPTIONS, **assigned(QUICK[1::2], {}), "out": out, "device": "cpu", **more}
    with pytest.raises(Interrupted):
        distill(
            distill_settings(with_preset(values).values),
            on_progress=lambda progress: seen.append(progress.done),
            should_stop=lambda: len(seen) >= after,
        )


def test_an_unfinished_run_knows_its_settings(tmp_path: Path) -> None:
    words = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    done("distill", *words, *QUICK, "--out", tmp_path / "whole", "--device", "cpu")
    started(tmp_path / "cut", after=3)
    cut = ["--out", tmp_path / "cut", "--resume", "--device", "cpu"]
    assert refused("distill", *cut, "--method", "atom") == (
        f"atom-nas: {tmp_path / 'cut'} was begun with dm: leave --method out, or name another --out"
    )
    assert "was begun with the preset fast: leave --preset out" in refused(
        "distill", *cut, "--preset", "paper"
    )
    assert "seed was 5 and is now 6" in refused("distill", *cut, "--seed", "6")
    done("distill", *cut)
    images = [(tmp_path / name / "synthetic.safetensors").read_bytes() for name in ("whole", "cut")]
    assert images[0] == images[1]
    cards = [json.loads((tmp_path / name / "card.json").read_text()) for name in ("whole", "cut")]
    assert cards[0]["config"] == cards[1]["config"]
    assert cards[0]["preset"] == cards[1]["preset"] == "fast"
    done("distill", *cut)  # and a finished one is left as it is
    assert (tmp_path / "cut" / "synthetic.safetensors").read_bytes() == images[1]


def test_settings_that_undo_a_preset_are_kept(tmp_path: Path) -> None:
    """As earlier versions had them, they are not written down."""
    started(tmp_path / "cut", after=2, schedule="constant", factor=1)
    done("distill", "--out", tmp_path / "cut", "--resume", "--device", "cpu")
    config = json.loads((tmp_path / "cut" / "card.json").read_text())["config"]
    assert (config["schedule"], config["factor"]) == ("constant", 1)


def test_what_was_not_begun_or_is_damaged_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no checkpoint yet: give the whole command" in refused(
        "distill", "--out", tmp_path / "empty", "--resume"
    )
    started(tmp_path / "cut", after=1)
    (tmp_path / "cut" / "checkpoint.safetensors").write_bytes(b"nothing")
    assert "is no checkpoint of this program" in refused("distill", "--out", tmp_path / "cut", "--resume")


def test_a_set_does_not_say_what_is_no_setting_of_a_result(tmp_path: Path) -> None:
    """As where to write, or to download to: a stranger's would be followed."""
    out = tmp_path / "set"
    done("distill", "--dataset", "digits", "--method", "random", "--ipc", 1, "--out", out)
    card = json.loads((out / "card.json").read_text())
    card["config"]["tensorboard"] = str(tmp_path / "elsewhere")
    (out / "card.json").write_text(json.dumps(card))
    said = refused("distill", "--out", out, "--resume")
    assert "card.json is damaged or of a newer version: 'tensorboard' is no setting of a result" in said
    assert not (tmp_path / "elsewhere").exists()
