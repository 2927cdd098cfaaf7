"""Watching a distillation: what is written, that it survives a kill, and that it changes nothing."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import distill
from distill import environment
from distill.checkpoint import State
from distill.data import Split
from distill.methods import load as load_method
from distill.session import Interrupted, Observer, RecordedSession, Stopwatch
from distill.settings import DistillSettings
from distill.watching import Milestones

CPU = torch.device("cpu")
WATCHED = {"tensorboard": True, "images_every": 8, "evaluate_every": 12}


@pytest.fixture(autouse=True)
def _short_trainings(monkeypatch):
    monkeypatch.setattr("distill.watching.EPOCHS", 4)


def settings(out, **changes):
    config = load_method("atom").Config(iterations=32, width=8, batch_real=4)
    return DistillSettings(**{"dataset": "digits", "out": out, "method_config": config, "ipc": 2, **changes})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_seconds(points):
    return [{k: v for k, v in point.items() if not k.endswith("seconds")} for point in points]


def board(folder):
    """What TensorBoard shows: tag -> events, in the order of its files."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    seen = accumulator.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    seen.Reload()
    tags = seen.Tags()
    scalars = {tag: [(e.step, e.value) for e in seen.Scalars(tag)] for tag in tags["scalars"]}
    images = {tag: [(e.step, e.encoded_image_string) for e in seen.Images(tag)] for tag in tags["images"]}
    return scalars, images


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.watching.EPOCHS", 4)
        return distill.distill(settings(tmp_path_factory.mktemp("watched") / "set", **WATCHED))


def test_watching_changes_nothing(whole, tmp_path):
    alone = distill.distill(settings(tmp_path / "set"))
    for name in ("synthetic.safetensors", "log.jsonl", "images.png"):
        assert (whole.path / name).read_bytes() == (alone.path / name).read_bytes(), name
    assert not (alone.path / "evaluations.jsonl").exists()
    assert not (alone.path / "tensorboard").exists()
    assert "watching" not in alone.card
    # Whether it was watched is no setting that the set depends on.
    assert whole.card["config"] == alone.card["config"]


def test_the_board_shows_every_logged_loss_by_part(whole):
    scalars, _ = board(whole.path / "tensorboard")
    log = lines(whole.path / "log.jsonl")
    assert [point["iteration"] for point in log] == [10, 20, 30, 32]
    for part, tag in (("loss", "loss/total"), *((n, f"loss/{n}") for n in ("spatial", "channel", "mmd"))):
        expected = [(point["iteration"], np.float32(point[part])) for point in log]
        assert scalars[tag] == expected


def test_the_board_shows_the_images_as_they_are_at_the_end(whole):
    from io import BytesIO

    _, images = board(whole.path / "tensorboard")
    assert [step for step, _ in images["images"]] == [8, 16, 24, 32]
    last = np.asarray(Image.open(BytesIO(images["images"][-1][1])).convert("RGB"))
    assert np.array_equal(last, np.asarray(Image.open(whole.path / "images.png").convert("RGB")))
    assert len({content for _, content in images["images"]}) == 4


def test_grids_of_many_images_are_cut_to_a_size_that_can_be_seen(tmp_path):
    from distill_helpers import problem

    from distill.watching import Board

    pytest.importorskip("tensorboard")
    posed = problem((15,) * 25, ipc=12)
    sheet = Board(tmp_path, posed, 1)._sheet(torch.randn(25 * 12, *posed.image_shape))
    assert sheet.shape == (20 * 66, 10 * 66, 3)


def test_accuracies_are_those_of_the_validation_split(whole):
    """Computed again from the finished set alone, by the public evaluator."""
    from distill.evaluation import Evaluator, default_network
    from distill.seeding import derive_seed
    from distill.training import TrainingConfig

    found = lines(whole.path / "evaluations.jsonl")
    real = whole.real_dataset()
    _, validation = whole.split_real(real)
    assert [line["iteration"] for line in found] == [12, 24, 32]
    assert {line["n"] for line in found} == {len(validation)}
    again = Evaluator(
        whole,
        real,
        config=TrainingConfig(epochs=4).suited_to("digits"),
        seed=derive_seed(derive_seed(0, "distill"), "milestones"),
        device=CPU,
        test=validation,
    )
    assert found[-1]["accuracy"] == again.accuracy("synthetic", default_network((1, 8, 8)), 0)
    scalars, _ = board(whole.path / "tensorboard")
    expected = [(line["iteration"], np.float32(line["accuracy"])) for line in found]
    assert scalars["validation/accuracy"] == expected


def test_the_test_split_is_never_looked_at(whole, tmp_path, monkeypatch):
    """Other test images and labels leave the accuracies as they are; other training labels do not."""
    import distill.run as module

    real = module.load_dataset("digits")

    def told(dataset, out):
        monkeypatch.setattr(module, "load_dataset", lambda *_, **__: dataset)
        found = distill.distill(settings(out, evaluate_every=12))
        return without_seconds(lines(found.path / "evaluations.jsonl"))

    spoiled = Split(255 - real.test.images, real.test.labels.flip(0))
    expected = without_seconds(lines(whole.path / "evaluations.jsonl"))
    assert told(replace(real, test=spoiled), tmp_path / "test") == expected
    moved = Split(real.train.images, (real.train.labels + 1) % 10)
    assert told(replace(real, train=moved), tmp_path / "train") != expected


class Killed(BaseException):
    """Ends a run where it is, with nothing saved that was not saved before."""


def killed_at(iteration, **options):
    def die(progress):
        if progress.done == iteration:
            raise Killed

    with pytest.raises(Killed):
        distill.distill(on_progress=die, **options)


def interrupted_at(iteration, **options):
    count = 0

    def stop():
        nonlocal count
        count += 1
        return count == iteration

    with pytest.raises(Interrupted):
        distill.distill(should_stop=stop, **options)


def assert_same_as_never_stopped(found, whole):
    for name in ("synthetic.safetensors", "log.jsonl", "images.png"):
        assert (found.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    again, expected = (lines(path / "evaluations.jsonl") for path in (found.path, whole.path))
    assert without_seconds(again) == without_seconds(expected)
    assert board(found.path / "tensorboard") == board(whole.path / "tensorboard")


@pytest.mark.parametrize("kept", [True, False], ids=["checkpointed", "lost"])
def test_a_resumed_run_shows_each_step_once_and_in_order(whole, tmp_path, kept):
    """Killed far beyond its last checkpoint: what it showed of later iterations is shown again, once."""
    chosen = settings(tmp_path / "set", **WATCHED)
    interrupted_at(15, settings=chosen)
    killed_at(29, settings=chosen, resume=True)
    if kept:
        killed_at(27, settings=chosen, resume=True, checkpoint_seconds=0.0)
    assert [line["iteration"] for line in lines(tmp_path / "set" / "evaluations.jsonl")][:2] == [12, 24]
    assert_same_as_never_stopped(distill.distill(chosen, resume=True), whole)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(whole, tmp_path):
    chosen = settings(tmp_path / "set", **WATCHED)
    killed_at(26, settings=chosen)
    assert_same_as_never_stopped(distill.distill(chosen, resume=True), whole)


def test_what_a_kill_cut_in_two_is_no_obstacle(whole, tmp_path):
    chosen = settings(tmp_path / "set", **WATCHED)
    interrupted_at(15, settings=chosen)
    with (tmp_path / "set" / "evaluations.jsonl").open("a") as file:
        file.write('{"iteration": 24, "accu')
    (events,) = (tmp_path / "set" / "tensorboard").iterdir()
    with events.open("ab") as file:
        file.write(events.read_bytes()[-20:-7])
    assert_same_as_never_stopped(distill.distill(chosen, resume=True), whole)


def test_overwriting_leaves_nothing_of_the_old_run_to_be_seen(whole, tmp_path):
    distill.distill(settings(tmp_path / "set", seed=3, **WATCHED))
    found = distill.distill(settings(tmp_path / "set", **WATCHED), overwrite=True)
    assert_same_as_never_stopped(found, whole)
    distill.distill(settings(tmp_path / "set", seed=4), overwrite=True)
    assert not (tmp_path / "set" / "evaluations.jsonl").exists()


def test_the_board_goes_where_it_is_told_to(tmp_path):
    found = distill.distill(settings(tmp_path / "set", tensorboard=str(tmp_path / "elsewhere")))
    assert not (found.path / "tensorboard").exists()
    scalars, images = board(tmp_path / "elsewhere")
    assert len(scalars["loss/total"]) == 4
    assert [step for step, _ in images["images"]] == [
        4,
        8,
        12,
        16,
        20,
        24,
        28,
        32,
    ]  # a tenth of 32, rounded up


def test_what_was_seen_is_safe_before_a_checkpoint_says_so(tmp_path):
    seen = []

    class Notes(Observer):
        def look(self, state, total):
            seen.append("look")

        def flush(self):
            seen.append("checkpoint" if (tmp_path / "checkpoint.safetensors").exists() else "flush")

    session = RecordedSession(
        tmp_path, {}, resume=False, observer=Notes(), should_stop=lambda: True, checkpoint_seconds=0.0
    )
    with pytest.raises(Interrupted):
        session.after(State(1, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)), 2)
    assert seen == ["look", "flush"]
    assert (tmp_path / "checkpoint.safetensors").exists()


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_seconds_of_watching_are_counted_apart(tmp_path, monkeypatch):
    def slow(self, images):
        burn(0.4)
        return 0.5

    monkeypatch.setattr(Milestones, "_accuracy", slow)
    last = []
    watch = Stopwatch()
    found = distill.distill(settings(tmp_path / "set", evaluate_every=8), on_progress=last.append)
    whole = watch.wall_seconds
    apart = found.card["watching"]
    assert apart["evaluations"] == 4
    row = f"| `seconds of evaluations on the way, not among those above` | `{apart['wall_seconds']:.1f}` |"
    assert row in (found.path / "README.md").read_text()
    assert 1.6 <= apart["cpu_seconds"] <= apart["wall_seconds"] * 1.5
    assert 0 < found.card["wall_seconds"] <= whole - apart["wall_seconds"]
    assert last[-1].seconds <= whole - 1.6
    assert found.card["cpu_seconds"] <= watch.cpu_seconds - 1.6


def test_processor_seconds_hold_those_of_compilers():
    watch, before = Stopwatch(), os.times()
    subprocess.run([sys.executable, "-c", "sum(i * i for i in range(10**6))"], check=True)
    after = os.times()
    child = after.children_user + after.children_system - before.children_user - before.children_system
    assert watch.cpu_seconds >= child > 0


def test_the_memory_of_watching_is_counted_apart(tmp_path, monkeypatch):
    def large(self, images):
        assert float(torch.ones(150 * 2**20).sum()) > 0  # 600 MiB
        return 0.5

    monkeypatch.setattr(Milestones, "_accuracy", large)
    before = environment.begin_measuring(CPU)
    if before is None:
        pytest.skip("peaks cannot be reset here")
    found = distill.distill(settings(tmp_path / "set", evaluate_every=16))
    assert before < found.card["peak_memory_mb"] < before + 450


def test_a_training_that_diverges_does_not_end_the_run(tmp_path, monkeypatch):
    def diverge(*_, **__):
        raise FloatingPointError("training loss is nan in epoch 1")

    monkeypatch.setattr("distill.evaluation.train", diverge)
    found = distill.distill(settings(tmp_path / "set", evaluate_every=32))
    assert [line["accuracy"] for line in lines(found.path / "evaluations.jsonl")] == [None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images_every": 0, "tensorboard": True}, "images_every must be at least 1"),
        ({"evaluate_every": -1}, "evaluate_every must be at least 1"),
        ({"images_every": 5}, "add --tensorboard"),
        ({"evaluate_every": 5, "validation_fraction": 0.0}, "validation_fraction=0 holds out none"),
        ({"tensorboard": True, "method": "random", "method_config": None}, "random has no iterations"),
        ({"evaluate_every": 5, "method": "herding", "method_config": None}, "herding has no iterations"),
    ],
    ids=str,
)
def test_what_cannot_be_watched_is_said_at_once(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path / "set", **changes)


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError, match=r"^TensorBoard is not installed: pip install 'atom-nas\[tensorboard\]'"
    ):
        distill.distill(settings(tmp_path / "set", tensorboard=True))
    assert not (tmp_path / "set").exists()
    # Accuracies need no TensorBoard.
    found = distill.distill(settings(tmp_path / "set", evaluate_every=32))
    assert (found.path / "evaluations.jsonl").exists()
