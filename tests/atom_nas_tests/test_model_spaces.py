"""Searches in model spaces of NNI's: a user's own from a file, and one of the hub's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

import atom_nas
from atom_nas.building import SpaceBuilder
from atom_nas.engines.local import engine
from atom_nas.estimators import confirm as estimator
from atom_nas.resuming import search_settings
from atom_nas.run_folder import read_record
from atom_nas.search import SearchSettings, run_search
from atom_nas.search_plan import prepare
from atom_nas.trials import Trial, TrialStore
from atom_nas.workload import TrialJob, Workload
from reports import write_report

Ran = list[tuple[str, str]]
TIED = """
import nni
from nni.nas.nn.pytorch import ModelSpace, MutableConv2d, MutableLinear
from torch import nn

class Tied(ModelSpace):
    def __init__(self, image_shape, classes):
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.stem = MutableConv2d(image_shape[0], width, 3, padding=1)
        self.first, self.second = (MutableConv2d(width, width, 3, padding=1) for _ in range(2))
        self.second.weight = self.first.weight
        self.register_buffer("glimpse", self.first.bias.detach()[:2])
        self.head = MutableLinear(width, classes)

    def forward(self, images):
        return self.head(self.second(self.first(self.stem(images)).relu()).relu().mean(dim=(2, 3)))
"""
FORM = "block0=conv3x3+block1=pool+depth=2+width=8"


@pytest.fixture
def file(own_space: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    path = tmp_path / "mine.py"
    path.write_text(own_space.read_text())
    return path


@pytest.fixture
def settings(quick: SearchSettings, file: Path) -> SearchSettings:
    own = {"space": f"{file}:Blocks", "samples": 3, "training": {"augmentation": "none"}, "seed": 0}
    return replace(quick, confirm=1, confirm_epochs=1, **own)


def changed(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def proxies(path: Path) -> list[Trial]:
    with TrialStore.open(path / "trials.sqlite") as store:
        return store.trials("proxy")


def test_a_search_records_the_space_and_its_file(settings: SearchSettings, ran: Ran, file: Path) -> None:
    run_search(replace(settings, space_options={"deepest": 1}))
    record = read_record(settings.out)
    space = record["space"]
    assert space.pop("digest").startswith("sha256:")
    assert space.pop("code").startswith("sha256:")
    assert space == {
        "name": "mine.py:Blocks",
        "options": {"deepest": 1},
        "choices": {"block0": ["conv3x3", "conv5x5", "pool"], "depth": ["1"], "width": ["8", "16"]},
        "file": str(file),
        "size": 6,
        "fitting": 6,
    }
    assert record["settings"]["space"] == f"{file}:Blocks"
    assert all(trial.done for trial in proxies(settings.out))
    written = write_report([settings.out])
    assert "mine.py:Blocks" in written.page.read_text()
    assert str(file.parent / "mine") not in written.page.read_text().replace(str(settings.out), "")


def test_an_option_called_like_a_choice_is_kept_as_given(settings: SearchSettings) -> None:
    plan = prepare(replace(settings, space="hub:darts", space_options={"width": [4, 8], "num_cells": 3}))
    assert plan.space_options == {"num_cells": 3, "width": [4, 8]}
    assert (plan.fitting, plan.expected) == (None, 3)


def test_another_definition_is_refused_on_resuming(settings: SearchSettings, ran: Ran, file: Path) -> None:
    run_search(settings)
    before = proxies(settings.out)
    ran.clear()
    changed(file, "[8, 16]", "[8, 32]")
    said = r"space\.choices\.width was \['8', '16'\] there and is \['8', '32'\] now"
    with pytest.raises(ValueError, match=said) as caught:
        run_search(replace(settings, resume=True))
    assert len(str(caught.value).splitlines()) == 1
    changed(file, "[8, 32]", "[8, 16]")
    run_search(replace(settings, resume=True))
    assert (ran, proxies(settings.out)) == ([], before)


def test_no_folder_has_code_run(settings: SearchSettings, ran: Ran, file: Path) -> None:
    run_search(settings)
    again = {"synthetic": settings.synthetic, "out": settings.out, "resume": True, "command": ""}
    with pytest.raises(ValueError, match="of your own, whose code runs only if you name it: add --space /"):
        search_settings({"synthetic", "out", "resume"}, **again)
    said = {"synthetic", "out", "resume", "space"}
    assert search_settings(said, space=settings.space, **again).space == settings.space
    for weights in (True, False):
        with pytest.raises(ValueError, match=f"space='{file}:Blocks'"):
            atom_nas.load_architecture(settings.out, weights=weights)


def test_confirmed_networks_load_with_the_space_named(
    settings: SearchSettings, ran: Ran, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_search(settings)
    monkeypatch.chdir(file.parent)
    model = atom_nas.load_architecture(settings.out, space="mine:Blocks")
    assert model.network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert model.card["space"]["name"] == "mine.py:Blocks"
    ranked = atom_nas.load_architecture(settings.out, rank=3, weights=False, space="mine.py:Blocks")
    assert ranked.network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    (row,) = [each for each in write_report([settings.out]).reports[0].confirmed.rows if each.load]
    assert "space='mine.py:Blocks'" in row.load
    changed(file, "[8, 16]", "[8, 32]")
    with pytest.raises(ValueError, match="offers other choices"):
        atom_nas.load_architecture(settings.out, space="mine:Blocks")


@pytest.mark.parametrize("strategy", ["random", "successive-halving"])
def test_tied_weights_are_kept_once_and_stay_tied(
    settings: SearchSettings, ran: Ran, tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tied.py").write_text(TIED)
    monkeypatch.setattr(estimator, "CHECKPOINT_SECONDS", 0.0)
    trained: list[nn.Module] = []
    really = estimator.read_scores

    def read_scores(network: nn.Module, *arguments: Any, **options: Any) -> dict[str, float]:
        trained.append(network)
        return really(network, *arguments, **options)

    monkeypatch.setattr(estimator, "read_scores", read_scores)
    tied = replace(settings, space=f"{tmp_path / 'tied.py'}:Tied", samples=2, confirm_epochs=2)
    halved = {"eta": 2, "rungs": 2} if strategy != "random" else {}
    summary = run_search(replace(tied, strategy=strategy, strategy_options=halved, reference="none"))
    assert (summary.failed, summary.confirmed, summary.confirm_failed) == (0, 1, 0)
    network: Any = atom_nas.load_architecture(settings.out, space=tied.space).network
    assert network.first.weight is network.second.weight
    images, expected = torch.rand(5, 1, 8, 8), trained[0].eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    assert torch.equal(network(images), expected(images))
    (file,) = (settings.out / "confirmed").glob("*.safetensors")
    with safe_open(file, framework="pt") as kept:
        assert {"first.weight", "second.weight"} & set(kept.keys()) == {"first.weight"}


def test_references_of_other_code_are_not_taken(settings: SearchSettings, ran: Ran, file: Path) -> None:
    assert run_search(replace(settings, confirm=None)).cached == 0
    assert run_search(replace(settings, confirm=None, out=settings.out.with_name("b"))).cached == 3
    changed(file, "nn.ReLU()", "nn.Tanh()")
    assert run_search(replace(settings, confirm=None, out=settings.out.with_name("c"))).cached == 0


@pytest.fixture
def split(settings: SearchSettings, file: Path) -> SearchSettings:
    """The same space, of which one function is in a file beside it."""
    (file.parent / "shapes.py").write_text("from torch import nn\n\ndef bend():\n    return nn.ReLU()\n")
    changed(file, "nn.ReLU()", "bend()")
    changed(file, "import nni\n", "import nni\nfrom shapes import bend\n")
    return settings


def test_a_change_in_a_file_that_a_space_imports_is_noticed(
    split: SearchSettings, ran: Ran, file: Path, recwarn: pytest.WarningsRecorder
) -> None:
    second, third = (replace(split, confirm=None, out=split.out.with_name(name)) for name in ("b", "c"))
    run_search(split)
    assert run_search(replace(second, seed=1)).cached == 0
    assert run_search(third).cached == 3
    record = read_record(split.out)["space"]
    assert set(record["sources"]) == {"mine.py", "shapes.py"}
    assert atom_nas.load_architecture(split.out, space=split.space).card["space"]["code"] == record["code"]
    (noise,) = write_report([split.out, second.out], out=split.out.with_name("one")).report.noise or [None]
    assert noise is not None
    assert not [each for each in recwarn if "changed" in str(each.message)]

    changed(file.with_name("shapes.py"), "nn.ReLU()", "nn.Tanh()")
    assert run_search(replace(third, out=split.out.with_name("d"))).cached == 0
    said = r"^shapes\.py has changed since block.* as it is now.* put the code back$"
    for weights in (True, False):
        with pytest.warns(UserWarning, match=said):
            atom_nas.load_architecture(split.out, weights=weights, space=split.space)
    with pytest.warns(UserWarning, match=r"^shapes\.py has changed since .*the file as it was.* new run$"):
        run_search(replace(second, seed=1, samples=4, resume=True))
    now = read_record(second.out)["space"]
    assert (now["earlier_code"], now["code"] != record["code"]) == ([record["code"]], True)
    with pytest.warns(UserWarning, match=r"no repeats of one another: the code of .* mine\.py:Blocks"):
        written = write_report([split.out, second.out], out=split.out.with_name("two"))
    assert not written.report.noise


def test_workers_notice_a_change_in_a_file_that_a_space_imports(split: SearchSettings, file: Path) -> None:
    code = prepare(split).space.code  # type: ignore[attr-defined]
    built = {"space": split.space, "options": {}, "image_shape": (1, 8, 8), "classes": 10, "code": code}
    SpaceBuilder(**built).warm_up()
    changed(file.with_name("shapes.py"), "nn.ReLU()", "nn.Tanh()")
    with pytest.raises(ValueError, match=r"mine\.py or a module that it imports has changed while"):
        SpaceBuilder(**{**built, "classes": 11}).warm_up()


def test_an_architecture_that_fails_on_the_images_is_one_row(
    settings: SearchSettings, ran: Ran, file: Path
) -> None:
    changed(file, "MutableConv2d(width, width, 5, padding=2)", "MutableConv2d(width, width, 11)")
    summary = run_search(replace(settings, samples=6, space_options={"deepest": 1}, confirm=None))
    assert (summary.proposed, summary.failed) == (6, 2)
    failed = [trial for trial in proxies(settings.out) if not trial.done]
    assert {trial.architecture for trial in failed} == {f"block0=conv5x5+depth=1+width={w}" for w in (8, 16)}
    assert all("Kernel size can't be greater" in (trial.reason or "") for trial in failed)


def test_a_space_that_fails_altogether_is_refused_before_anything(
    settings: SearchSettings, ran: Ran, file: Path
) -> None:
    changed(file, "image_shape[0], width, 3", "2, width, 3")
    with pytest.raises(ValueError, match=r"no architecture of mine\.py:Blocks that was tried works"):
        run_search(settings)
    assert (ran, settings.out.exists()) == ([], False)


@pytest.mark.parametrize("option", ["classes", "image_shape"])
def test_what_the_dataset_says_is_no_option(settings: SearchSettings, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is no option of a space"):
        prepare(replace(settings, space_options={option: 3}))


def test_a_space_of_the_hub(settings: SearchSettings, ran: Ran) -> None:
    small = {"width": 4, "num_cells": 3}
    run_search(replace(settings, space="hub:darts", space_options=small, samples=2))
    record = read_record(settings.out)
    assert record["space"]["name"] == "hub:darts"
    assert record["space"]["fitting"] is None
    assert all(trial.done for trial in proxies(settings.out))
    assert atom_nas.load_architecture(settings.out).network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    page = write_report([settings.out]).page.read_text()
    assert f"hub:darts, {record['space']['size']:.1e} architectures" in page


def test_workers_build_it_wherever_they_are(
    settings: SearchSettings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    relative = replace(settings, space="mine:Blocks")
    assert relative.space == settings.space
    monkeypatch.chdir("/")
    plan = prepare(relative)
    build = SpaceBuilder(space=relative.space, options={}, image_shape=(1, 8, 8), classes=10)
    work = Workload(build=build, estimators=(plan.proxy,), image_shape=(1, 8, 8))
    jobs = [TrialJob(estimator="proxy", architecture=FORM, seed=seed) for seed in (1, 2)]
    with engine(work, workers=1, device="cpu") as workers:
        together = {outcome.job.seed: outcome for outcome in workers.run(jobs)}
    with engine(work, workers=1, device="cpu") as workers:
        (alone,) = workers.run(jobs[1:])
    assert together[1].reason is together[2].reason is None
    # What a worker did before, reading the space among it, does not matter.
    assert together[2].scores == alone.scores
    assert os.getcwd() == "/"  # noqa: PTH109


def test_a_file_that_changes_meanwhile_changes_no_network(
    settings: SearchSettings, ran: Ran, file: Path, tmp_path: Path
) -> None:
    code = prepare(settings).space.code  # type: ignore[attr-defined]
    built = {"space": settings.space, "options": {}, "image_shape": (1, 8, 8), "classes": 10, "code": code}
    before = str(SpaceBuilder(**built)(FORM))
    changed(file, "nn.ReLU()", "nn.Tanh()")
    assert str(SpaceBuilder(**built)(FORM)) == before
    with pytest.raises(ValueError, match=r"mine\.py has changed while the search ran"):
        SpaceBuilder(**{**built, "classes": 11}).warm_up()  # as a worker that starts now
    changed(file, "nn.Tanh()", "nn.ReLU()")
    run_search(settings)
    changed(file, "nn.ReLU()", "nn.Tanh()")
    with pytest.warns(UserWarning, match="has changed since .* trials from before are of the file as it was"):
        run_search(replace(settings, samples=4, resume=True))
    assert len(proxies(settings.out)) == 4
