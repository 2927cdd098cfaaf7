"""From settings to a folder: fresh, resumed, refused."""

import json
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import distill
from distill.files import lock_folder
from distill.methods import load as load_method
from distill.session import Interrupted, Stopwatch
from distill.settings import DistillSettings, resolve_device
from distill.target import settings_in


def settings(out, **changes):
    config = load_method("dm").Config(iterations=8, width=8, batch_real=8)
    defaults = {"dataset": "digits", "out": out, "method": "dm", "method_config": config, "ipc": 1}
    return DistillSettings(**{**defaults, **changes})


def interrupted_after(steps, **options):
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count == steps

    with pytest.raises(Interrupted):
        distill.distill(should_stop=stop, **options)


def test_resuming_gives_the_same_bytes_and_log(tmp_path):
    whole = distill.distill(settings(tmp_path / "whole"))
    interrupted_after(3, settings=settings(tmp_path / "cut"))
    interrupted_after(2, settings=settings(tmp_path / "cut"), resume=True)
    cut = distill.distill(settings(tmp_path / "cut"), resume=True)
    assert torch.equal(whole.images, cut.images)
    for name in ("synthetic.safetensors", "images.png", "log.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()


def test_a_finished_run_is_returned_by_resume_and_not_repeated(tmp_path):
    first = distill.distill(settings(tmp_path / "set"))
    stamp = (tmp_path / "set" / "card.json").stat().st_mtime_ns
    told = []
    again = distill.distill(settings(tmp_path / "set"), resume=True, on_stage=told.append)
    assert told == ["it is finished already"]
    assert torch.equal(first.images, again.images)
    assert (tmp_path / "set" / "card.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="seed differ"):
        distill.distill(settings(tmp_path / "set", seed=1), resume=True)


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    distill.distill(settings(tmp_path / "set"))
    with pytest.raises(ValueError, match="--overwrite"):
        distill.distill(settings(tmp_path / "set"))
    replaced = distill.distill(settings(tmp_path / "set", seed=1), overwrite=True)
    assert replaced.card["seed"] == 1
    interrupted_after(1, settings=settings(tmp_path / "cut"))
    with pytest.raises(ValueError, match="--resume"):
        distill.distill(settings(tmp_path / "cut"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not empty"):
        distill.distill(settings(tmp_path / "mine"))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        distill.distill(settings(tmp_path / "file"))


def test_unfinished_runs_are_no_artifacts(tmp_path):
    interrupted_after(1, settings=settings(tmp_path / "cut"))
    told = "another distillation is writing to .*cut: wait"
    with lock_folder(tmp_path / "cut", "distillation"), pytest.raises(ValueError, match=told):
        distill.distill(settings(tmp_path / "cut"))
    with pytest.raises(ValueError, match="go on with --resume"):
        distill.load(tmp_path / "cut")


def test_other_settings_cannot_resume(tmp_path):
    interrupted_after(1, settings=settings(tmp_path / "cut"))
    with pytest.raises(ValueError, match="ipc was 1 and is now 2"):
        distill.distill(settings(tmp_path / "cut", ipc=2), resume=True)


def test_kernels_are_compiled_at_no_sets_cost(tmp_path, monkeypatch):
    """Once a machine: whichever set is the first would look dear."""
    clock, asked = [], []
    standing = Stopwatch.standing_still

    @contextmanager
    def watched(self):
        with standing(self):
            clock.append("stands")
            yield
            clock.append("goes")

    def kernels(self, device):
        asked.append(clock[-1:] == ["stands"])
        return "eager"

    monkeypatch.setattr(Stopwatch, "standing_still", watched)
    monkeypatch.setattr(load_method("dm").Config, "kernels", kernels)
    distill.distill(settings(tmp_path / "set"))
    assert asked[0]


def test_validation_images_are_never_distilled_from(tmp_path):
    """Random selection draws real images, so a leak would show as a validation picture in the set."""
    found = distill.distill(settings(tmp_path / "set", method="random", method_config=None, ipc=20))
    dataset = found.real_dataset()
    fit, validation = found.split_real(dataset)
    stored = {bytes(image.flatten().tolist()) for image in fit.images}
    held = {bytes(image.flatten().tolist()) for image in validation.images} - stored
    drawn = {bytes(image.flatten().tolist()) for image in found.pictures()}
    assert len(drawn & stored) == len(drawn)
    assert not drawn & held


def test_the_seed_decides_the_set(tmp_path):
    a, b, c = (
        distill.distill(settings(tmp_path / name, seed=seed)).images
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_whitening_follows_the_papers_unless_told(tmp_path):
    assert settings(tmp_path, dataset="cifar10").whitens
    assert not settings(tmp_path, dataset="digits").whitens
    assert not settings(tmp_path, dataset="cifar10", zca=False).whitens


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="allowed: auto, cpu, cuda"):
        resolve_device("tpu")
    for name in ("cpu:", "cpu:3", "cuda:", "cuda:x", "cuda:\N{SUPERSCRIPT TWO}", "auto:0", ""):
        with pytest.raises(ValueError, match="allowed: auto, cpu, cuda"):
            resolve_device(name)
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="--device cpu"):
            resolve_device("cuda")


def test_the_card_is_plain_json_without_surprises(tmp_path):
    card = json.loads((distill.distill(settings(tmp_path / "set")).path / "card.json").read_text())
    assert card["images"] == 10
    assert card["config"]["zca"] is False
    assert card["preprocessing"]["zca"] is None
    assert "NaN" not in (tmp_path / "set" / "card.json").read_text()


def test_one_folder_takes_one_distillation_at_a_time(tmp_path):
    out = tmp_path / "set"
    out.mkdir()
    with lock_folder(out, "distillation"), pytest.raises(ValueError, match="another distillation is writing"):
        distill.distill(settings(out))
    assert len(distill.distill(settings(out))) == 10


@pytest.mark.parametrize("left", ["log.jsonl", ".card.json.77.tmp", "synthetic.safetensors", ".lock"])
def test_what_a_kill_leaves_behind_does_not_stop_the_next_attempt(tmp_path, left):
    """Killed before the first checkpoint, or while the artifact was being written."""
    out = tmp_path / "set"
    out.mkdir()
    (out / left).write_bytes(b"half")
    assert torch.equal(
        distill.distill(settings(out), resume=True).images, distill.distill(settings(tmp_path / "new")).images
    )


def test_overwriting_removes_only_an_old_set_and_only_when_the_new_one_can_be_made(tmp_path):
    old = distill.distill(settings(tmp_path / "set"))
    with pytest.raises(ValueError, match="ipc 999"):
        distill.distill(settings(tmp_path / "set", ipc=999), overwrite=True)
    assert torch.equal(distill.load(tmp_path / "set").images, old.images)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="no synthetic set"):
        distill.distill(settings(tmp_path / "mine"), overwrite=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


BAD = [
    {"lambda_mmd": -1.0},
    {"lambda_mmd": float("inf")},
    {"depth": 9},
    {"spatial_power": 0.5},
    {"spatial_power": float("nan")},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_settings_that_cannot_work_leave_the_old_set_as_it_was(tmp_path, bad):
    out = tmp_path / "set"
    distill.distill(settings(out))
    before = contents(out)

    def replace_it() -> None:
        config = load_method("atom").Config(**{"iterations": 2, "width": 8, "batch_real": 4, **bad})
        distill.distill(settings(out, method="atom", method_config=config), overwrite=True)

    with pytest.raises(ValueError, match=r"weights|powers|shallower"):
        replace_it()
    assert contents(out) == before


def test_a_precision_that_the_machine_lacks_is_replaced_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.precision.runs_bfloat16", lambda device: False)
    told = []
    config = load_method("atom").Config(iterations=2, width=8, batch_real=4, precision="bfloat16")
    chosen = settings(tmp_path / "set", method="atom", method_config=config)
    card = distill.distill(chosen, on_stage=told.append).card
    assert card["config"]["precision"] == "float32"
    assert sum("no bfloat16" in each for each in told) == 1
    assert distill.distill(chosen, resume=True).card == card  # the same command finds it finished


def test_the_old_set_stays_whole_until_the_new_one_is_written(tmp_path):
    out = tmp_path / "set"
    old = distill.distill(settings(out))
    interrupted_after(3, settings=settings(out, seed=1), overwrite=True)
    assert torch.equal(distill.load(out).images, old.images)
    with pytest.raises(ValueError, match=r"a synthetic set and an unfinished run .*--resume.*--overwrite"):
        distill.distill(settings(out, seed=1))
    with pytest.raises(ValueError, match=r"another run \(seed was 1 and is now 2\)"):
        distill.distill(settings(out, seed=2), resume=True)
    new = distill.distill(settings(out, seed=1), resume=True)
    assert torch.equal(new.images, distill.distill(settings(tmp_path / "new", seed=1)).images)
    assert contents(out)["log.jsonl"] == contents(tmp_path / "new")["log.jsonl"]
    assert sorted(contents(out)) == sorted(contents(tmp_path / "new"))


@pytest.mark.parametrize("way", ["resume", "overwrite"])
@pytest.mark.parametrize("method", ["dm", "random"])
def test_an_overwrite_killed_before_its_first_checkpoint_goes_on(tmp_path, monkeypatch, way, method):
    out = tmp_path / "set"
    distill.distill(settings(out))
    (out / "export").mkdir()
    (out / "export.npz").touch()
    (out / "notes.txt").touch()
    wanted = {"seed": 1, "method": method, **({"method_config": None} if method == "random" else {})}
    with monkeypatch.context() as patch:
        patch.setattr(load_method(method), "distill", lambda *_: {}["killed"])
        with pytest.raises(KeyError):
            distill.distill(settings(out, **wanted), overwrite=True)
    found = distill.distill(settings(out, **wanted), **{way: True})
    assert torch.equal(found.images, distill.distill(settings(tmp_path / "new", **wanted)).images)
    assert (out / "export").exists()
    assert (out / "notes.txt").exists()


def test_from_its_first_second_a_run_is_resumed_by_its_folder(tmp_path, monkeypatch):
    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(load_method("dm"), "distill", lambda *_: {}["killed"])
        with pytest.raises(KeyError):
            distill.distill(settings(out))
    assert settings_in(out)["ipc"] == 1
    assert distill.distill(settings(out), resume=True).card["method"] == "dm"


def test_what_cannot_work_leaves_nothing_to_resume_but_an_older_set(tmp_path):
    out = tmp_path / "set"
    bad = load_method("dm").Config(iterations=30, width=8, batch_real=8, learning_rate=1e30)
    with pytest.raises(ValueError, match="learning_rate"):
        distill.distill(settings(out, method_config=bad))
    old = distill.distill(settings(out))
    with pytest.raises(ValueError, match="learning_rate"):
        distill.distill(settings(out, method_config=bad), overwrite=True)
    assert distill.distill(settings(out), resume=True).card == old.card


def test_a_run_that_fails_keeps_its_checkpoint(tmp_path, monkeypatch):
    out = tmp_path / "set"
    interrupted_after(3, settings=settings(out))
    kept = (out / "checkpoint.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("distill.methods._matching.require_finite", refuse)
        with pytest.raises(ValueError, match="out of luck"):
            distill.distill(settings(out), resume=True)
    assert (out / "checkpoint.safetensors").read_bytes() == kept
    assert torch.equal(
        distill.distill(settings(out), resume=True).images, distill.distill(settings(tmp_path / "new")).images
    )


def refuse(*_):
    raise ValueError("out of luck")


@pytest.mark.parametrize("way", ["resume", "overwrite"])
def test_what_commands_leave_beside_a_set_is_not_strange(tmp_path, way):
    out = tmp_path / "set"
    (out / "export").mkdir(parents=True)
    for name in ("log.jsonl", ".lock"):
        (out / name).touch()
    assert len(distill.distill(settings(out), **{way: True})) == 10


def test_overwriting_holds_the_one_lock_throughout(tmp_path):
    out = tmp_path / "set"
    distill.distill(settings(out))
    tried = []

    def another_tries(_: object) -> None:
        with pytest.raises(ValueError, match="another distillation is writing"):
            lock_folder(out, "distillation")
        tried.append(True)

    distill.distill(settings(out, seed=1), overwrite=True, on_progress=another_tries)
    assert tried


def test_temporary_files_of_killed_processes_are_removed_and_those_of_others_kept(tmp_path):
    out = tmp_path / "set"
    distill.distill(settings(out))
    for name in (".card.json.99.tmp", ".checkpoint.safetensors.7.tmp", ".thesis.tex.99.tmp", "mine.tmp"):
        (out / name).touch()
    distill.distill(settings(out), overwrite=True)
    assert {path.name for path in out.iterdir() if path.suffix == ".tmp"} == {
        ".thesis.tex.99.tmp",
        "mine.tmp",
    }


def test_seconds_count_preparation_in_every_session(tmp_path, monkeypatch):
    from distill.run import load_dataset

    def slow(*args, **kwargs):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return load_dataset(*args, **kwargs)

    monkeypatch.setattr("distill.run.load_dataset", slow)
    interrupted_after(2, settings=settings(tmp_path / "set"))
    card = distill.distill(settings(tmp_path / "set"), resume=True).card
    assert card["wall_seconds"] >= 0.6
    assert card["cpu_seconds"] >= 0.6


def test_what_computes_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("distill.methods._pixels.runs_fused", lambda width, device: True)
    distill.distill(settings(tmp_path / "set"), on_stage=said.append)
    assert "computing with fused kernels" in said
    assert not any("compil" in text for text in said)


def test_digits_are_not_mirrored(tmp_path):
    assert "flip" not in settings(tmp_path).config.augmentation
    assert settings(tmp_path, dataset="cifar10").config.augmentation == "dsa"


def test_the_card_names_the_code_that_ran_not_what_was_checked_out_later(tmp_path, monkeypatch):
    commits = iter(["at the start", "at the end"])
    monkeypatch.setattr("distill.run.environment.describe", lambda: {"commit": next(commits)})
    assert distill.distill(settings(tmp_path / "set")).card["environment"]["commit"] == "at the start"


def test_a_finished_set_of_other_data_is_no_success(tmp_path):
    for place, name in enumerate(("cat", "dog")):
        for number in range(5):
            file = tmp_path / "photos" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 100 * place + number, dtype=np.uint8)).save(file)
    photos = f"folder:{tmp_path / 'photos'}"
    asked = DistillSettings(dataset=photos, method="random", ipc=1, out=tmp_path / "set")
    made = distill.distill(asked)
    assert torch.equal(distill.distill(asked, resume=True).images, made.images)
    Image.fromarray(np.full((8, 8), 250, dtype=np.uint8)).save(file)
    with pytest.raises(ValueError, match=r"is not the data that .* was distilled from"):
        distill.distill(asked, resume=True)


def test_what_was_read_is_said(tmp_path):
    said = []
    distill.distill(
        DistillSettings(dataset="digits", out=tmp_path / "set", method="random"), on_stage=said.append
    )
    assert "10 classes, 1,347 training and 450 test images of 1x8x8" in said
