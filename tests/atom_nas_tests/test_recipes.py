"""Recipes of spaces, and proxies that are smaller than what they stand for."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import atom_nas
from atom_nas import recipes
from atom_nas.config import construct
from atom_nas.estimators.confirm import ConfirmConfig
from atom_nas.estimators.proxy import even_batch
from atom_nas.estimators.real import RealConfig
from atom_nas.resuming import search_settings
from atom_nas.run_folder import read_record
from atom_nas.search import run_search
from atom_nas.search_plan import prepare
from atom_nas.settings import SearchSettings
from atom_nas.terminal.searching import _show_recipe
from atom_nas.trials import TrialStore
from atom_nas.workload import TrialJob, Workload
from distill.training import TrainingConfig
from search_spaces import SPACES
from search_spaces.nasbench201 import CellSpace

CELL = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"


def settled(tmp_path: Path, said: set[str], **values: object) -> SearchSettings:
    given = {"synthetic": tmp_path, "out": tmp_path / "run", "resume": False, "command": "", **values}
    return search_settings(said | {"space"}, **{"space": "nasbench201", **given})


@pytest.mark.parametrize("space", recipes.names())
def test_recipes_are_of_spaces_and_settings_that_there_are(space: str, tmp_path: Path) -> None:
    assert space in SPACES or space == recipes.OTHERS
    assert recipes.summary(space)
    own = recipes.settings(space)
    made = construct(SearchSettings, {"synthetic": tmp_path, "out": tmp_path, "space": space, **own})
    assert {name: getattr(made, name) for name in own} == own


def test_what_is_not_said_is_as_in_the_recipe(tmp_path: Path) -> None:
    own = recipes.settings("nasbench201")
    plain = settled(tmp_path, set(), epochs=None, score="validation_accuracy", training={})
    assert {name: getattr(plain, name) for name in own} == own
    said = settled(
        tmp_path,
        {"score", "epochs", "training"},
        score="validation_loss",
        epochs=7,
        training={"learning_rate": 0.5},
    )
    assert (said.score, said.epochs) == ("validation_loss", 7)
    assert said.training == {**own["training"], "learning_rate": 0.5}


def test_where_stopping_early_is_known_to_harm_that_is_told(
    quick: SearchSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    for space, strategy, told in (
        ("nasbench201", "successive-halving", True),
        ("nasbench201", "asha", True),
        ("nasbench201", "random", False),
        ("convnet", "hyperband", False),
        ("hub:darts", "hyperband", False),
    ):
        _show_recipe(replace(quick, space=space, strategy=strategy, space_options={}))
        assert (f"{strategy} does not suit {space}: the first epochs" in capsys.readouterr().err) == told
    _show_recipe(replace(quick, space="nasbench201", strategy="asha", space_options={}, resume=True))
    assert "suit" not in capsys.readouterr().err


def test_from_python_it_is_taken_by_name(tmp_path: Path) -> None:
    where: dict[str, Any] = {"synthetic": tmp_path, "out": tmp_path / "run"}
    own = recipes.settings("nasbench201")
    made = SearchSettings(**where, space="nasbench201", epochs=7, training={"learning_rate": 0.5})
    training = {**own["training"], "learning_rate": 0.5}
    whole = {**own, "epochs": 7, "training": training}
    plain = SearchSettings(**where, space="nasbench201", **whole, recipe=False)
    assert replace(made, recipe=False) == plain
    assert replace(made, samples=3).training == training
    bare = SearchSettings(**where, recipe=False)
    assert (bare.training, bare.proxy_space, bare.epochs, bare.repeats) == ({}, {}, 100, 1)
    wrong: dict[str, Any] = {"training": "fast", "combine": 5, "estimators": 5, "score": 5, "space": None}
    wrong |= {"recipe": "no", "unwhiten": "no", "resume": 1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=rf"^{name} .*{value!r}"):
            SearchSettings(**where, **{name: value})
    with pytest.raises(ValueError, match="leave out recipe"):
        atom_nas.resumed(tmp_path, recipe=True)


@pytest.mark.parametrize("space", ["hub:darts", "hub:mobilenetv3", "my_spaces.py:Blocks"])
def test_spaces_without_a_recipe_of_their_own_share_one(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_spaces.py").touch()
    plain = settled(tmp_path, set(), space=space, score="validation_accuracy")
    where = {"synthetic": tmp_path, "out": tmp_path / "run", "space": space}
    assert plain == SearchSettings(**where, **recipes.settings(recipes.OTHERS))


@pytest.mark.parametrize(
    ("images", "batch_size", "even"),
    [(500, 32, 32), (100, 32, 25), (100, 256, 256), (10, 32, 32), (33, 32, 17), (64, 32, 32), (65, 1, 1)],
)
def test_batches_are_as_even_as_can_be(images: int, batch_size: int, even: int) -> None:
    assert even_batch(images, batch_size) == even
    assert -(-images // even) == -(-images // batch_size)


def test_the_proxy_trains_as_was_said(quick: SearchSettings) -> None:
    halved: dict[str, Any] = {"reference": "none", "strategy": "successive-halving", "samples": 9}
    plain = prepare(replace(quick, epochs=20, training={"batch_size": 32}))
    assert plain.epochs == 20
    trained = plain.proxy.settings()
    assert trained["training"]["batch_size"] == even_batch(trained["training_images"], 32) < 32
    for own in ({"epochs": 7}, {"training": {"epochs": 7}}, {"epochs": 9, "training": {"epochs": 7}}):
        plan = prepare(replace(quick, **{"training": {}, **halved, **own}))
        assert plan.epochs == plan.proxy.settings()["training"]["epochs"] == 7


def test_real_images_are_trained_on_by_a_recipe_of_their_own(quick: SearchSettings) -> None:
    recipe = {"batch_size": 32, "learning_rate": 0.02, "schedule": "onecycle"}
    for given in ({}, {"schedule": "cosine", "momentum": 0.5}):
        plan = prepare(replace(quick, confirm=1, reference_training=given))
        assert plan.reference
        assert plan.confirm
        trained, kept = (each.settings()["training"] for each in (plan.reference, plan.confirm))
        assert {**trained, **recipe, **given} == trained
        assert {**kept, **recipe} == kept
    assert asdict(RealConfig().training) == asdict(TrainingConfig(epochs=30, **recipe))
    assert asdict(ConfirmConfig().training) == asdict(TrainingConfig(epochs=100, **recipe))


def test_networks_of_the_proxy_are_smaller_and_counted_whole() -> None:
    class Watching:
        name = "proxy"

        def settings(self) -> dict[str, str]:
            return {}

        def score(self, network, **_):  # type: ignore[no-untyped-def]
            return {"own": float(sum(p.numel() for p in network.parameters()))}

    def builder(cells: int):  # type: ignore[no-untyped-def]
        space = CellSpace(cells=cells, channels=4)
        return lambda text: space.build(space.parse(text), (3, 8, 8), 10)

    import torch

    job = TrialJob(estimator="proxy", architecture=CELL, seed=0)
    common = {"estimators": (Watching(),), "image_shape": (3, 8, 8)}
    cpu = torch.device("cpu")
    whole = Workload(build=builder(3), **common).scores(job, cpu)  # type: ignore[arg-type]
    small = Workload(build=builder(1), **common).scores(job, cpu)  # type: ignore[arg-type]
    mixed = Workload(build=builder(3), proxies={"proxy": builder(1)}, **common).scores(job, cpu)  # type: ignore[arg-type]
    assert mixed == {**whole, "own": small["own"]}
    assert small["own"] < whole["own"] == whole["parameters"]


def test_what_is_said_again_is_added_to_what_a_run_has(quick: SearchSettings) -> None:
    """Whatever recipe there is now."""
    few = {"samples": 1, "reference": "none", "epochs": 1}
    run_search(replace(quick, **few, training={"batch_size": 50, "learning_rate": 0.3}))
    where = {"synthetic": quick.synthetic, "out": quick.out, "resume": True, "command": ""}
    again = search_settings({"training", "samples"}, **where, training={"batch_size": 50}, samples=2)
    assert again.training == {"batch_size": 50, "learning_rate": 0.3}
    assert run_search(replace(again, workers=1)).proposed == 2


@pytest.fixture
def settings(quick: SearchSettings, tmp_path: Path) -> SearchSettings:
    listed = tmp_path / "cells.csv"
    listed.write_text(f"architecture\n{CELL}\n")
    cells = {
        "space": "nasbench201",
        "space_options": {"cells": 2, "channels": 4},
        "proxy_space": {"cells": 1},
    }
    few = {"epochs": 1, "reference_images": 20, "validation_images": 20}
    return replace(quick, architectures=listed, samples=None, **cells, **few)


def test_a_search_with_a_smaller_proxy(settings: SearchSettings) -> None:
    run_search(settings)
    run_search(replace(settings, proxy_space={}, out=settings.out.parent / "whole", reference="none"))
    stored = {}
    for name in ("run", "whole"):
        with TrialStore.open(settings.out.parent / name / "trials.sqlite") as store:
            stored[name] = {each: store.get(each, CELL) for each in ("proxy", "real")}
    small, whole, reference = stored["run"]["proxy"], stored["whole"]["proxy"], stored["run"]["real"]
    assert small is not None
    assert whole is not None
    assert reference is not None
    assert small.scores["parameters"] == whole.scores["parameters"] == reference.scores["parameters"]
    assert small.scores["validation_loss"] != whole.scores["validation_loss"]
    record = read_record(settings.out)
    assert record["proxy"]["space_options"] == {"cells": 1}
    assert record["space"]["options"] == {"cells": 2, "channels": 4}
    assert "space_options" not in record["reference"]["settings"]
    with pytest.raises(ValueError, match="proxy"):
        run_search(replace(settings, proxy_space={"channels": 2}, resume=True))


def test_options_that_change_which_architectures_there_are_are_refused(settings: SearchSettings) -> None:
    narrowed = replace(
        settings, space="convnet", space_options={}, proxy_space={"width": [32]}, architectures=None
    )
    with pytest.raises(ValueError, match="width has other architectures than convnet"):
        prepare(narrowed)
    with pytest.raises(ValueError, match="cells"):
        prepare(replace(settings, proxy_space={"cells": 0}))


def test_the_command_says_what_the_recipe_brings(settings: SearchSettings) -> None:
    words = ["search", str(settings.synthetic), "--out", str(settings.out), "--space", "nasbench201"]
    more = ["--architectures", str(settings.architectures), "--reference", "none", "--epochs", "2"]
    smaller = ["--set-space", "channels=2", "--set-space", "cells=2", "--validation-images", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "atom_nas.cli", *words, *more, *smaller, "--workers", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = " ".join(done.stderr.partition("recipe of nasbench201: ")[2].partition("(what")[0].split())
    own = recipes.settings("nasbench201")
    assert told.startswith("proxy_space.cells 1, repeats 3, training.batch_size ")
    assert told.endswith(f", score {own['score']}, combine {' + '.join(own['combine'])}")
    assert "epochs" not in told
    record = read_record(settings.out)
    assert record["score"] == recipes.settings("nasbench201")["score"]
    assert record["proxy"]["space_options"] == {"cells": 1}
    assert "networks built with cells=1" in (settings.out / "report" / "index.html").read_text()
