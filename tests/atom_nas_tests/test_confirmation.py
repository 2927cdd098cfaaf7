"""The best of a ranking trained to be kept, with trials in the test's own process."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trial_helpers import best, failing_first, search_data, small_network, stored

import atom_nas
from atom_nas.confirmed.cards import whole_cards
from atom_nas.confirmed.confirmation import Confirmation
from atom_nas.confirmed.loaded import LoadedArchitecture
from atom_nas.estimators import confirm as estimator
from atom_nas.run_folder import CHECKPOINTS, UNFINISHED, read_record
from atom_nas.search import Progress, SearchSettings, run_search
from distill import leg as legs
from distill.leg import Leg, glance, trained_network
from distill.synthetic import load
from distill.training import TrainingConfig, evaluate
from reports import write_report
from reports.confirmed import FOLDER, of_all, stem, weights_file

Ran = list[tuple[str, str]]
CPU = torch.device("cpu")


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    narrow = {"space_options": {"width": [32], "depth": [1]}, "validation_images": None, "seed": 0}
    return replace(quick, reference="none", confirm=2, confirm_epochs=3, **narrow)


@pytest.fixture
def set_with_zca(tmp_path: Path) -> Path:
    from distill.run import distill
    from distill.settings import DistillSettings

    folder = tmp_path / "zca"
    distill(DistillSettings(dataset="digits", method="random", ipc=2, zca=True, out=folder))
    return folder


def confirmed(ran: Ran) -> list[str]:
    """The architectures that a training was begun for, by the confirmation."""
    return [architecture for name, architecture in ran if name == "confirm"]


def bytes_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / FOLDER).glob("*.safetensors")}


def accuracy_on_test(model: LoadedArchitecture, synthetic: Path) -> float:
    test = load(synthetic).real_dataset().test
    found = evaluate(
        model.network, test.images, test.labels, device=CPU, preprocessing=model.preprocessing
    ).accuracy
    # As a user would: torch alone.
    with torch.no_grad():
        chosen = model.network(model.preprocessing(test.images)).argmax(dim=1)
    assert int((chosen == test.labels).sum()) / len(test) == found
    return found


def test_the_best_of_the_ranking_are_trained_and_kept(settings: SearchSettings, ran: Ran) -> None:
    seen: list[Progress] = []
    summary = run_search(settings, progress=seen.append)
    chosen = best(settings.out)[:2]
    assert {each.architecture for each in stored(settings.out, "confirm")} == {
        each.architecture for each in chosen
    }
    assert (summary.confirmed, summary.confirm_failed, len(confirmed(ran))) == (2, 0, 2)
    files = {weights_file(each.architecture) for each in chosen}
    assert {f"{FOLDER}/{name}" for name in bytes_of(settings.out)} == files
    assert not (settings.out / FOLDER / UNFINISHED).exists()
    told = [(p.done, p.total) for p in seen if p.stage == "confirm (epochs)"]
    assert told == [(0, 6), (3, 6), (6, 6)]
    record = read_record(settings.out)
    assert record["confirm"]["count"] == 2
    assert record["confirm"]["settings"]["training"]["epochs"] == 3
    assert record["confirm_wall_seconds"] > 0


@pytest.mark.usefixtures("ran")
def test_a_card_is_enough_to_rebuild_from(settings: SearchSettings, tmp_path: Path) -> None:
    run_search(settings)
    moved = tmp_path / "elsewhere"
    shutil.move(settings.out / FOLDER, moved)
    model = atom_nas.load_architecture(moved)
    assert not model.network.training
    assert model.classes == tuple(map(str, range(10)))
    card = model.card
    assert (card["space"]["name"], card["space"]["options"]["width"]) == ("convnet", [32])
    assert (card["image_shape"], card["recipe"]["epochs"]) == ([1, 8, 8], 3)
    assert torch.__version__.startswith(card["environment"]["torch"])
    assert "w32-d1-" in repr(model)


def test_loaded_networks_score_as_recorded_the_best_first(
    settings: SearchSettings, ran: Ran, digits_set: Path
) -> None:
    run_search(replace(settings, confirm=3))
    recorded = {each.architecture: each.scores for each in stored(settings.out, "confirm")}
    models = [atom_nas.load_architecture(settings.out, rank) for rank in (1, 2, 3)]
    for model in models:
        scores = recorded[model.card["architecture"]]
        assert accuracy_on_test(model, digits_set) == scores["test_accuracy"] == model.card["test_accuracy"]
    held_out = [model.card["validation_accuracy"] for model in models]
    assert held_out == sorted(held_out, reverse=True)
    last = models[-1].card["architecture"]
    same = atom_nas.load_architecture(settings.out, architecture=last).network.state_dict()
    assert all(torch.equal(same[name], value) for name, value in models[-1].network.state_dict().items())


@pytest.mark.usefixtures("ran")
def test_cells_and_whitening(settings: SearchSettings, set_with_zca: Path) -> None:
    cells = {"cells": 1, "channels": 4}
    of_cells = replace(settings, space="nasbench201", space_options=cells, samples=2)
    with pytest.warns(UserWarning, match=r"zca is whitened \(ZCA\)"):
        run_search(replace(of_cells, synthetic=set_with_zca, unwhiten=False))
    model = atom_nas.load_architecture(settings.out)
    assert model.card["space"] == {"name": "nasbench201", "options": cells}
    assert model.preprocessing.whitening is not None
    assert accuracy_on_test(model, set_with_zca) == model.card["test_accuracy"]
    (settings.out / FOLDER / "whitening.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="changed or damaged"):
        atom_nas.load_architecture(settings.out)


def test_what_is_unwhitened_is_tested_unwhitened(settings: SearchSettings, set_with_zca: Path) -> None:
    run_search(replace(settings, synthetic=set_with_zca, confirm=1))
    model = atom_nas.load_architecture(settings.out)
    assert accuracy_on_test(model, set_with_zca) == model.card["test_accuracy"]


def test_a_finished_run_trains_only_what_is_missing(settings: SearchSettings, ran: Ran) -> None:
    run_search(replace(settings, confirm=None))
    assert not (settings.out / FOLDER).exists()
    ran.clear()
    run_search(replace(settings, confirm=1, resume=True))
    first = bytes_of(settings.out)
    assert len(ran) == len(confirmed(ran)) == 1
    run_search(replace(settings, confirm=3, resume=True))
    assert len(ran) == len(set(confirmed(ran))) == 3
    assert first.items() <= bytes_of(settings.out).items()
    seen: list[Progress] = []
    run_search(replace(settings, confirm=3, resume=True), progress=seen.append)
    assert len(ran) == 3
    assert (seen[-1].done, seen[-1].reused) == (9, 9)
    run_search(replace(settings, confirm=None, resume=True))
    assert read_record(settings.out)["confirm"]["count"] == 3


def test_fewer_images_may_do_and_are_said(settings: SearchSettings) -> None:
    few = replace(settings, confirm_images=100)
    run_search(few)
    ((_, card), *_) = whole_cards(settings.out / FOLDER)
    assert (card.model_extra or {})["training_images"] == 100
    assert "Trained on 100 images of the real data" in write_report(few.out).page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"training_images was 100 there and is [0-9]{4} now"):
        run_search(replace(settings, resume=True))


@pytest.mark.parametrize("survived", [1, 2, 4])
def test_an_interrupted_training_goes_on_to_the_same_bytes(
    settings: SearchSettings, ran: Ran, survived: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = settings.out.with_name("whole")
    run_search(replace(settings, out=other))
    monkeypatch.setattr(estimator, "CHECKPOINT_SECONDS", 0.0)
    really, kept = legs.keep, 0

    def keep_some(*arguments: Any) -> None:
        nonlocal kept
        if kept == survived:
            raise KeyboardInterrupt
        really(*arguments)
        kept += 1

    monkeypatch.setattr(legs, "keep", keep_some)
    with pytest.raises(KeyboardInterrupt):
        run_search(settings)
    assert read_record(settings.out)["complete"] is False
    (checkpoint,) = [p for p in (settings.out / FOLDER / UNFINISHED).iterdir() if glance(p).epochs < 3]
    before = glance(checkpoint)
    assert before.epochs == survived % 3
    monkeypatch.setattr(legs, "keep", lambda *arguments: count(really, *arguments))
    parts: list[int] = []

    def count(keep: Any, leg: Any, network: Any, record: Any, spent: Any) -> None:
        parts.append(len(record.epoch_losses))
        keep(leg, network, record, spent)

    seen: list[Progress] = []
    run_search(replace(settings, resume=True), progress=seen.append)
    assert len(parts) == 6 - survived
    assert bytes_of(settings.out) == bytes_of(other)
    assert [t.scores for t in stored(settings.out, "confirm")] == [t.scores for t in stored(other, "confirm")]
    assert min(t.cpu_seconds for t in stored(settings.out, "confirm")) > 0.0
    assert sum(t.cpu_seconds for t in stored(settings.out, "confirm")) > before.cpu_seconds > 0.0
    told = [(p.done, p.reused) for p in seen if p.stage == "confirm (epochs)"]
    assert told[0][0] == survived % 3
    assert told[-1] == (6, survived)


def test_checkpoints_of_other_trainings_are_left_alone(
    settings: SearchSettings, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimator, "CHECKPOINT_SECONDS", 0.0)
    really, parts = legs.keep, []

    def keep_one_epoch_of_each(leg: Leg, *arguments: Any) -> None:
        really(leg, *arguments)
        parts.append(leg.checkpoint.name)
        raise RuntimeError("out of time")

    with monkeypatch.context() as patch:
        patch.setattr(legs, "keep", keep_one_epoch_of_each)
        patch.setattr(Confirmation, "_clear", lambda _: None)  # as if it had been killed
        assert run_search(settings).confirm_failed == 2
    unfinished = settings.out / FOLDER / UNFINISHED
    (unfinished / "of another recipe.safetensors").touch()
    first = best(settings.out)[:1][0].architecture
    run_search(replace(settings, confirm=1, resume=True))
    left = {path.name for path in unfinished.iterdir()}
    assert len(left) == 2
    assert left <= {*parts, "of another recipe.safetensors"}
    seen: list[Progress] = []
    run_search(replace(settings, confirm=2, resume=True), progress=seen.append)
    assert (seen[-1].done, seen[-1].reused) == (6, 4)  # one whole, one that went on from its first epoch
    assert [path.name for path in unfinished.iterdir()] == ["of another recipe.safetensors"]
    assert confirmed(ran).count(first) == 2


def test_what_is_not_whole_is_trained_again(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    whole, ran[:] = bytes_of(settings.out), []
    names = [each.architecture for each in stored(settings.out, "confirm")]
    damaged = settings.out / weights_file(names[0])
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"oops")
    (settings.out / weights_file(names[1])).with_suffix(".json").unlink()
    half = settings.out / FOLDER / f".{stem(names[0])}.json.1.tmp"
    half.touch()
    run_search(replace(settings, resume=True))
    assert sorted(confirmed(ran)) == sorted(names)
    assert bytes_of(settings.out) == whole
    assert not half.exists()


def test_another_recipe_is_refused_while_there_are_networks_of_the_first(
    settings: SearchSettings, ran: Ran
) -> None:
    run_search(settings)
    other = replace(settings, confirm_epochs=2, confirm_training={"learning_rate": 0.02}, resume=True)
    with pytest.raises(
        ValueError, match=r"confirm\.training\.epochs was 3 there and is 2 now.*confirmed away"
    ):
        run_search(other)
    shutil.move(settings.out / FOLDER, settings.out / "old")
    ran.clear()
    run_search(other)
    assert len(ran) == len(confirmed(ran)) == 2
    assert atom_nas.load_architecture(settings.out).card["recipe"]["learning_rate"] == 0.02


def test_networks_are_known_by_their_own_recipe_not_by_the_record(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    folder, old = settings.out / FOLDER, settings.out.with_name("old")
    shutil.move(folder, old)
    other = replace(settings, confirm=1, confirm_epochs=2, resume=True)
    run_search(other)
    shutil.rmtree(folder)
    shutil.move(old, folder)  # the record says 2 epochs, the cards say 3
    ran.clear()
    with pytest.raises(ValueError, match=r"json is .* confirm\.training\.epochs was 3 there and is 2 now"):
        run_search(other)
    assert ran == []
    before = bytes_of(settings.out)
    run_search(replace(settings, resume=True))  # what the store says is of other networks: trained again
    assert (len(confirmed(ran)), bytes_of(settings.out)) == (2, before)
    recorded = {each.architecture: each.scores for each in stored(settings.out, "confirm")}
    for _, card in whole_cards(folder):
        assert of_all(recorded[card.architecture]).items() <= card.model_dump().items()


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("entry", ["recipe", "seed", "validation_images", "settings"])
def test_a_network_that_was_trained_in_another_way_is_refused(settings: SearchSettings, entry: str) -> None:
    run_search(settings)
    for card in (settings.out / FOLDER).glob("*.json"):
        text, whole = card.read_text(), json.loads(card.read_text())
        value = whole[entry]
        other = dict.fromkeys(value, 0) if isinstance(value, dict) else value + 1
        card.write_text(json.dumps(whole | {entry: other}))
        with pytest.raises(ValueError, match="confirmed with other settings: confirm") as caught:
            run_search(replace(settings, confirm=3, resume=True))
        assert len(str(caught.value).splitlines()) == 1
        card.write_text(text)
    assert run_search(replace(settings, resume=True)).confirmed == 2


@pytest.mark.parametrize("name", [FOLDER, f"{FOLDER}/{UNFINISHED}", CHECKPOINTS])
def test_nothing_is_written_through_a_link(
    settings: SearchSettings, ran: Ran, tmp_path: Path, name: str
) -> None:
    run_search(replace(settings, confirm=None))
    ran.clear()
    (tmp_path / "elsewhere").mkdir()
    (settings.out / name).parent.mkdir(exist_ok=True)
    (settings.out / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{name} is a link: remove it"):
        run_search(replace(settings, samples=5, resume=True))
    assert (ran, list((tmp_path / "elsewhere").iterdir())) == ([], [])


@pytest.mark.usefixtures("ran")
def test_neither_lock_nor_store_is_a_link(settings: SearchSettings, tmp_path: Path) -> None:
    run_search(replace(settings, confirm=None))
    elsewhere = tmp_path / "elsewhere"
    for name in (".lock", "trials.sqlite"):
        shutil.move(settings.out / name, elsewhere)
        elsewhere.write_bytes(before := elsewhere.read_bytes() or b"precious")
        (settings.out / name).symlink_to(elsewhere)
        with pytest.raises(ValueError, match=f"{name} is a link: remove it"):
            run_search(replace(settings, resume=True))
        assert elsewhere.read_bytes() == before
        (settings.out / name).unlink()
        shutil.move(elsewhere, settings.out / name)


def test_the_confirmation_follows_successive_halving(settings: SearchSettings, ran: Ran) -> None:
    halved = replace(settings, strategy="successive-halving", epochs=4, strategy_options={"eta": 2})
    run_search(halved)
    places = {each.architecture: each.scores["halving_place"] for each in stored(settings.out, "proxy")}
    kept = {each.architecture for each in stored(settings.out, "confirm")}
    assert kept == set(sorted(places, key=lambda name: -places[name])[:2])
    ran.clear()
    run_search(replace(halved, confirm=3, resume=True))
    assert len(ran) == 1


def test_a_failed_training_is_said_and_tried_again(
    settings: SearchSettings, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimator, "train", failing_first(estimator.train, "no memory left"))
    summary = run_search(settings)
    assert (summary.confirmed, summary.confirm_failed) == (1, 1)
    assert summary.confirm_reason == "RuntimeError: no memory left"
    assert run_search(replace(settings, resume=True)).confirm_failed == 0
    assert len(confirmed(ran)) == 3


def test_more_than_there_are_confirms_all(settings: SearchSettings, ran: Ran) -> None:
    assert run_search(replace(settings, samples=2, confirm=9)).confirmed == 2


GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.mark.parametrize("name", ["cpu", GPU])
def test_where_a_training_is_cut_changes_no_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # as in workers
    device, training = torch.device(name), TrainingConfig(epochs=30, batch_size=16)
    found = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(estimator, "CHECKPOINT_SECONDS", seconds)
        torch.manual_seed(0)
        leg = Leg(until=30, checkpoint=tmp_path / f"{seconds}.safetensors")
        scores = estimator.estimator(search_data(), training=training).score(
            small_network(), seed=1, device=device, leg=leg
        )
        found.append((scores, trained_network(leg.checkpoint)))
    (first, weights), (second, others) = found
    assert first == second
    assert all(torch.equal(others[key], value) for key, value in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_workers_confirm_side_by_side(settings: SearchSettings, digits_set: Path, device: str) -> None:
    run_search(replace(settings, device=device, workers=2))
    model = atom_nas.load_architecture(settings.out)
    test = load(digits_set).real_dataset().test
    where = {"device": torch.device(device), "preprocessing": model.preprocessing}
    found = evaluate(model.network.to(device), test.images, test.labels, **where)  # type: ignore[arg-type]
    assert found.accuracy == model.card["test_accuracy"]
