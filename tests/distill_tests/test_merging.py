"""From shards to a set: what must agree, what is refused, and what the card says."""

import json
import shutil

import pytest
import torch

import distill
from distill.merging import merge, summed
from distill.methods import load as load_method
from distill.session import Interrupted
from distill.settings import DistillSettings
from distill.synthetic import load_shard


def settings(out, **changes):
    config = load_method("dm").Config(iterations=20, width=8, batch_real=4, depth=2)
    defaults = {"dataset": "digits", "out": out, "method": "dm", "method_config": config, "ipc": 1}
    return DistillSettings(**{**defaults, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Shards of 3, and some that do not go with them; tests must not change them."""
    folder = tmp_path_factory.mktemp("shards")
    other = load_method("dm").Config(iterations=20, width=8, batch_real=5, depth=2)
    variants = {
        "1": {"shard": "1/3"},
        "2": {"shard": "2/3"},
        "3": {"shard": "3/3"},
        "of-2": {"shard": "1/2"},
        "seed": {"shard": "3/3", "seed": 1},
        "ipc": {"shard": "3/3", "ipc": 2},
        "setting": {"shard": "3/3", "method_config": other},
        "split": {"shard": "3/3", "validation_seed": 7},
        "zca": {"shard": "3/3", "zca": True},
        "deterministic": {"shard": "3/3", "deterministic": True},
        "method": {"shard": "3/3", "method": "random", "method_config": None},
        "whole": {},
    }
    for name, changes in variants.items():
        distill.distill(settings(folder / name, **changes))
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(made, names, out, message):
    before = contents(made)
    with pytest.raises(ValueError, match=message) as error:
        merge([made / name for name in names], out)
    assert "\n" not in str(error.value)
    assert contents(made) == before
    return str(error.value)


def test_merged_shards_are_the_whole(made, tmp_path):
    merged = merge([made / name for name in "312"], tmp_path / "set")
    whole = distill.load(made / "whole")
    assert torch.allclose(merged.images, whole.images, atol=1e-4)
    assert torch.equal(merged.labels, whole.labels)
    found = distill.load(tmp_path / "set")
    assert torch.equal(found.images, merged.images)
    assert found.card["config"] == whole.card["config"]
    assert found.card["dataset"] == whole.card["dataset"]
    assert found.card["preprocessing"] == whole.card["preprocessing"]
    assert not (tmp_path / "set" / "shard.json").exists()
    again = distill.distill(
        settings(tmp_path / "set"), resume=True
    )  # It is the finished set of these settings.
    assert torch.equal(again.images, merged.images)


def test_the_card_sums_what_adds_up(made, tmp_path):
    card = merge([made / name for name in "123"], tmp_path / "set").card
    parts = [load_shard(made / name).card for name in "123"]
    for key in ("wall_seconds", "cpu_seconds"):
        assert card[key] == pytest.approx(sum(part[key] for part in parts))
    assert card["longest_wall_seconds"] == max(part["wall_seconds"] for part in parts)
    assert "sum over the shards" in card["wall_seconds_note"]
    assert card["peak_memory_mb"] == max(part["peak_memory_mb"] for part in parts)
    assert [(s["index"], s["count"]) for s in card["shards"]] == [(1, 3), (2, 3), (3, 3)]
    assert [k for s in card["shards"] for k in s["classes"]] == list(range(10))
    curve = distill.load(made / "whole").card["loss_curve"]
    assert [point["iteration"] for point in card["loss_curve"]] == [10, 20]
    for mine, whole in zip(card["loss_curve"], curve, strict=True):
        assert mine == pytest.approx(whole, rel=1e-4)
    logged = [json.loads(line) for line in (tmp_path / "set" / "log.jsonl").read_text().splitlines()]
    assert logged == card["loss_curve"]


def test_the_card_names_the_preset_that_all_shards_are_of(tmp_path):
    coreset = {"method": "random", "method_config": None}
    for number, preset in ((1, "fast"), (2, "fast"), (3, None)):
        part = "2/2" if number == 3 else f"{number}/2"
        distill.distill(settings(tmp_path / str(number), shard=part, preset=preset, **coreset))
    assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "set").card["preset"] == "fast"
    assert merge([tmp_path / "1", tmp_path / "3"], tmp_path / "other").card["preset"] is None


def test_curves_are_summed_where_all_have_points():
    first = [{"iteration": i, "loss": 1.0 * i, "mmd": 0.5} for i in (10, 20, 30)]
    second = [{"iteration": i, "loss": 2.0 * i, "mmd": 0.25} for i in (20, 30, 35)]
    assert list(summed([first, second])) == [
        {"iteration": 20, "loss": 60.0, "mmd": 0.75},
        {"iteration": 30, "loss": 90.0, "mmd": 0.75},
    ]
    assert list(summed([first, []])) == []


DIFFERENT = {
    "seed": r"not of one distillation: seed is 0 in the first and 1 in the second",
    "ipc": r"ipc is 1 in the first and 2 in the second",
    "setting": r"batch_real is 4 in the first and 5 in the second",
    "split": r"validation_seed is 0 in the first and 7 in the second",
    "zca": r"zca is False in the first and True in the second",
    "deterministic": r"deterministic is False in the first and True in the second",
    "method": r"not of one distillation: \w+ is ",
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_shards_of_other_distillations_are_refused(made, tmp_path, name):
    text = refused(made, ["1", "2", name], tmp_path / "set", DIFFERENT[name])
    assert str(made / "1") in text
    assert str(made / name) in text
    assert not (tmp_path / "set").exists()


def test_missing_and_repeated_classes_are_refused(made, tmp_path):
    out = tmp_path / "set"
    text = refused(made, ["1", "3"], out, r"3 of 10 classes are in no shard given \(3, 4, 5\)")
    assert text.endswith("missing 2/3")
    refused(made, ["1", "2", "2", "3"], out, r"both hold class 3 and 2 more")
    refused(
        made,
        ["of-2", "2", "3"],
        out,
        r"of-2 \(shard 1/2\) and .*2 \(shard 2/3\) both hold class 3 and 1 more",
    )
    refused(made, [], out, "no shards were named")
    assert not out.exists()


def test_what_is_no_shard_is_refused(made, tmp_path):
    out = tmp_path / "set"
    refused(made, ["1", "whole"], out, "holds no shard .*it is a whole synthetic set")
    refused(made, ["1", "nowhere"], out, "nowhere holds no shard")
    with pytest.raises(ValueError, match=r"give a list of shards, not .*1' alone"):
        merge(str(made / "1"), out)
    with pytest.raises(Interrupted):
        distill.distill(settings(tmp_path / "cut", shard="2/3"), should_stop=lambda: True)
    with pytest.raises(ValueError, match="has not finished: go on with --resume"):
        merge([made / "1", tmp_path / "cut", made / "3"], out)
    assert not out.exists()


def test_other_data_and_preprocessing_are_refused(made, tmp_path):
    def changed(name, change):
        shutil.copytree(made / "3", tmp_path / name)
        card = json.loads((tmp_path / name / "shard.json").read_text())
        change(card)
        (tmp_path / name / "shard.json").write_text(json.dumps(card))
        return [made / "1", made / "2", tmp_path / name]

    data = changed("data", lambda card: card["dataset"].update(fingerprint="sha256:0"))
    with pytest.raises(ValueError, match="fingerprint is 'sha256:"):
        merge(data, tmp_path / "set")
    mean = changed("mean", lambda card: card["preprocessing"].update(mean=[0.75]))
    with pytest.raises(ValueError, match="differ in the mean of their preprocessing"):
        merge(mean, tmp_path / "set")
    where = changed("where", lambda card: (card["dataset"].update(name="folder:/elsewhere"),
                                           card["config"].update(dataset="folder:/elsewhere")))  # fmt: skip
    assert len(merge(where, tmp_path / "moved")) == 10


def test_preprocessing_of_deterministic_shards_agrees_to_the_bit(tmp_path):
    folders = [tmp_path / name for name in "12"]
    for index, folder in enumerate(folders, start=1):
        distill.distill(settings(folder, shard=f"{index}/2", deterministic=True))
    card = json.loads((folders[1] / "shard.json").read_text())
    card["preprocessing"]["mean"][0] *= 1 + 1e-6
    (folders[1] / "shard.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="differ in the mean"):
        merge(folders, tmp_path / "set")
    for folder in folders:
        card = json.loads((folder / "shard.json").read_text())
        card["config"]["deterministic"] = False
        (folder / "shard.json").write_text(json.dumps(card))
    assert len(merge(folders, tmp_path / "set")) == 10


def test_targets_are_not_overwritten_unasked(made, tmp_path):
    shards = [made / name for name in "123"]
    before = contents(made)
    for target, message in (("1", "is one of the shards"), ("whole", "holds a synthetic set already")):
        with pytest.raises(ValueError, match=message):
            merge(shards, made / target)
    with pytest.raises(ValueError, match="is one of the shards"):
        merge(shards, made / "1", overwrite=True)
    assert contents(made) == before
    old = distill.distill(settings(tmp_path / "old", seed=5))
    merged = merge(shards, tmp_path / "old", overwrite=True)
    assert not torch.equal(merged.images, old.images)
    assert distill.load(tmp_path / "old").card["seed"] == 0


BAD_PARTS = [
    {"classes": [6, 7, 8, 10]},
    {"classes": [6, 6, 7, 8]},
    {"classes": []},
    {"classes": [-1, 6, 7, 8]},
    {"index": 4},
    {"count": 0},
    {"classes": [0, 1, 2, 3]},
]


@pytest.mark.parametrize("bad", BAD_PARTS, ids=str)
def test_a_shards_card_from_a_stranger_is_checked(made, tmp_path, bad):
    shutil.copytree(made / "3", tmp_path / "bad")
    card = json.loads((tmp_path / "bad" / "shard.json").read_text())
    card["shard"].update(bad)
    (tmp_path / "bad" / "shard.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"not a card of a shard|images a class") as error:
        load_shard(tmp_path / "bad")
    assert "\n" not in str(error.value)


def test_a_shard_is_resumable_like_any_distillation(made, tmp_path):
    out = tmp_path / "cut"
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        distill.distill(settings(out, shard="2/3"), should_stop=lambda: next(steps) == 3)
    refusals = [
        ({"shard": "1/3"}, "shard was '2/3' and is now '1/3'"),
        ({}, "shard was '2/3' and is now None"),
        ({"shard": "2/3", "deterministic": True}, "deterministic was None and is now True"),
    ]
    for wrong, message in refusals:
        with pytest.raises(ValueError, match=message):
            distill.distill(settings(out, **wrong), resume=True)
    with pytest.raises(ValueError, match="--resume"):
        distill.distill(settings(out, shard="2/3"))
    found = distill.distill(settings(out, shard="2/3"), resume=True)
    assert torch.equal(found.images, load_shard(made / "2").images)
    assert found.labels.tolist() == [3, 4, 5]
    stamp = (out / "shard.json").stat().st_mtime_ns
    distill.distill(settings(out, shard="2/3"), resume=True)
    assert (out / "shard.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="shard differ"):
        distill.distill(settings(out), resume=True)
    with pytest.raises(ValueError, match="holds a shard already"):
        distill.distill(settings(out, shard="2/3"))
    distill.distill(settings(out), overwrite=True)
    assert not (out / "shard.json").exists()
    assert len(distill.load(out)) == 10


def test_a_shard_refuses_what_the_whole_would_refuse(tmp_path):
    """Class 8 of the digits has the fewest images; it is not in the first shard."""
    with pytest.raises(ValueError, match="ipc 158 is more than class 8 has"):
        distill.distill(settings(tmp_path / "set", shard="1/3", ipc=158))
    with pytest.raises(ValueError, match="10 classes make at most 10 shards"):
        distill.distill(settings(tmp_path / "set", shard="1/11"))
    with pytest.raises(ValueError, match="parts of 3 are"):
        settings(tmp_path / "set", shard="4/3")


def test_sets_of_earlier_versions_are_still_found_finished(tmp_path):
    out = tmp_path / "set"
    distill.distill(settings(out))
    card = json.loads((out / "card.json").read_text())
    for later in ("shard", "deterministic", "classes_at_once"):
        del card["config"][later]
    (out / "card.json").write_text(json.dumps(card))
    assert len(distill.distill(settings(out), resume=True)) == 10
    with pytest.raises(ValueError, match="deterministic differ"):
        distill.distill(settings(out, deterministic=True), resume=True)
