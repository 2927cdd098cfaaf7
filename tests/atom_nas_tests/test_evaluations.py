"""Evaluations: what is compared with what, the same numbers for any number of workers, nothing done twice."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from atom_nas.evaluation.plan import EvaluationPlan, choose_networks
from atom_nas.evaluation.tables import as_record, at_chance, matrix, table, title
from atom_nas.evaluation.trainings import Found, carry_out
from distill.evaluation import Accuracy, Evaluator
from distill.synthetic import SyntheticSet, load
from distill.training import TrainingConfig

CPU = torch.device("cpu")
CONFIG = TrainingConfig(epochs=2, augmentation="none")
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def synthetic(digits_set: Path) -> SyntheticSet:
    return load(digits_set)


def plan(*sets: SyntheticSet, **changes: Any) -> EvaluationPlan:
    options: dict[str, Any] = {"networks": ("convnet2",), "repeats": 2, "config": CONFIG, "seed": 3}
    return EvaluationPlan(sets=sets, device=CPU, **{**options, **changes})


def changed(synthetic: SyntheticSet, path: str, **parts: Any) -> SyntheticSet:
    """The set in another folder, with other entries on its card or on the card's dataset."""
    card = copy.deepcopy(synthetic.card)
    for name, value in parts.items():
        (card["dataset"] if name in card["dataset"] else card)[name] = value
    return replace(synthetic, card=card, path=synthetic.path.parent / path)


def expected(synthetic: SyntheticSet, given: EvaluationPlan, kind: str, network: str) -> tuple[float, ...]:
    """By the evaluator itself, in this process, on one thread."""
    real = synthetic.real_dataset()
    held_out = synthetic.split_real(real)[1] if given.split == "validation" else None
    evaluator = Evaluator(synthetic, real, config=CONFIG, seed=given.seed, device=CPU, test=held_out)
    assert torch.get_num_threads() == 1
    return tuple(evaluator.accuracy(kind, network, repeat) for repeat in range(given.repeats))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_any_number_of_workers_finds_what_one_process_finds(synthetic: SyntheticSet, split: str) -> None:
    given = plan(synthetic, split=split)
    seen: list[int] = []
    one = carry_out(given, workers=1, on_epoch=seen.append)
    two = carry_out(given, workers=2, fresh=True)
    assert one.accuracies == two.accuracies
    assert one.reused == two.reused == 0
    found = {subject.kind: accuracies for subject, accuracies in one.accuracies.items()}
    for kind in ("synthetic", "random"):
        values = expected(synthetic, given, kind, "convnet2")
        assert found[kind]["convnet2"] == Accuracy(values)  # type: ignore[index]
    assert seen == sorted(seen)
    assert seen[-1] == given.total_epochs == 2 * 2 * 2


def test_splits_are_kept_apart(synthetic: SyntheticSet) -> None:
    tuning, final = (plan(synthetic, split=split, baseline=False) for split in ("validation", "test"))
    first = carry_out(tuning)
    assert first.reused == 0
    assert carry_out(final).reused == 0
    held_out = synthetic.split_real(synthetic.real_dataset())[1]
    assert first.guess == int(held_out.labels.bincount().max()) / len(held_out)
    assert tuning.images == pytest.approx(len(held_out), rel=0.05)
    again = carry_out(tuning)
    assert again.reused == 2
    assert again.guess == first.guess
    assert carry_out(final).guess != again.guess
    assert as_record(again)["split"] == "validation"
    assert as_record(carry_out(final))["split"] == "test"


def test_what_bears_on_a_training_tells_it_from_others(synthetic: SyntheticSet) -> None:
    plans = [
        plan(synthetic),
        plan(synthetic, seed=4),
        plan(synthetic, split="validation"),
        plan(synthetic, config=replace(CONFIG, learning_rate=0.02)),
        plan(changed(synthetic, "b", images_sha256="sha256:0", ipc=9)),
    ]
    keys = [each.key(subject, "convnet2", 0) for each in plans for subject in each.subjects]
    itself = plans[0].subjects[0]
    keys += [plans[0].key(itself, "convnet2", 1), plans[0].key(itself, "convnet3", 0)]
    assert len(set(keys)) == len(keys) == 2 * len(plans) + 2


def test_what_a_compiler_complains_of_does_not_tell_trainings_apart(
    synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may name a temporary file, another each time."""
    one = plan(synthetic, baseline=False)
    keys = set()
    for complaint in ("g++ fails (/tmp/cc1.s: error)", "g++ fails (/tmp/cc2.s: error)", None):
        monkeypatch.setattr("distill.kernels.why_unavailable", lambda complaint=complaint: complaint)
        keys.add(one.key(one.subjects[0], "convnet2", 0))
    assert len(keys) == 2


def test_what_was_finished_before_an_interruption_is_kept(synthetic: SyntheticSet) -> None:
    given = plan(synthetic, repeats=3, baseline=False)
    whole = carry_out(given)
    given.record.unlink()

    def interrupt(done: int) -> None:
        if given.record.exists() and "network" in given.record.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(given, workers=1, on_epoch=interrupt)
    kept = sum("network" in line for line in given.record.read_text().splitlines())
    assert kept >= 1
    rest = carry_out(given)
    assert rest.accuracies == whole.accuracies
    assert rest.reused == kept


def test_failed_trainings_are_one_error_and_the_others_kept(
    synthetic: SyntheticSet,
) -> None:
    carry_out(plan(synthetic, repeats=1, baseline=False))
    broken = plan(synthetic, repeats=1, config=replace(CONFIG, epochs=9, learning_rate=1e30))
    message = r"2 of 2 trainings failed, e\.g\. convnet2 on synthetic \(FloatingPointError: training loss is"
    with pytest.raises(ValueError, match=message):
        carry_out(broken)
    assert carry_out(plan(synthetic, repeats=1, baseline=False)).reused == 1


def test_random_images_are_trained_on_once_for_all_sets_that_have_as_many(synthetic: SyntheticSet) -> None:
    same = changed(synthetic, "same", images_sha256="0" * 64)
    given = plan(synthetic, same)
    assert [(s.label, s.place, s.kind) for s in given.subjects] == [
        ("random", 0, "synthetic"),
        ("same", 1, "synthetic"),
        ("random real", 0, "random"),
    ]
    alone = plan(same)
    assert [s.label for s in alone.subjects] == ["synthetic", "random real"]
    assert alone.key(alone.subjects[1], "convnet2", 0) == given.key(given.subjects[2], "convnet2", 0)
    assert alone.key(alone.subjects[0], "convnet2", 0) != given.key(given.subjects[0], "convnet2", 0)
    assert [s.kind for s in plan(synthetic, same, baseline=False).subjects] == ["synthetic"] * 2
    # The same file cut into smaller images is another set, beside as many random ones.
    cut = plan(changed(synthetic, "cut", factor=2))
    whole = plan(synthetic)
    assert cut.key(cut.subjects[0], "convnet2", 0) != whole.key(whole.subjects[0], "convnet2", 0)
    assert cut.key(cut.subjects[1], "convnet2", 0) == whole.key(whole.subjects[1], "convnet2", 0)


def test_random_images_of_other_kinds_have_names_of_their_own(synthetic: SyntheticSet) -> None:
    fewer = changed(synthetic, "fewer", ipc=1)
    labels = [subject.label for subject in plan(synthetic, fewer).subjects]
    assert labels == ["random", "fewer", "random real, 10 per class", "random real, 1 per class"]
    other = changed(synthetic, "other", validation_seed=9)
    labels = [subject.label for subject in plan(synthetic, other).subjects]
    assert labels[2:] == ["random real as for random", "random real as for other"]


def test_sets_of_the_same_name_are_told_apart(synthetic: SyntheticSet) -> None:
    twin = changed(synthetic, f"twin/{synthetic.path.name}")
    assert [s.label for s in plan(synthetic, twin, baseline=False).subjects] == [
        str(synthetic.path),
        str(twin.path),
    ]


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ({"fingerprint": "sha256:0"}, {}, "other was not distilled from the same data as .*one by one"),
        ({"classes": ["a"] * 10}, {}, "not distilled from the same data"),
        ({"validation_seed": 5}, {"split": "validation"}, r"hold out different images .*\(0\.1, 5\)"),
        (
            {"validation_fraction": 0.0},
            {"split": "validation"},
            "other was distilled with validation_fraction=0",
        ),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(
    synthetic: SyntheticSet, parts: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(synthetic, changed(synthetic, "other", **parts), **options)


def test_other_plans_that_cannot_work_are_refused(synthetic: SyntheticSet) -> None:
    with pytest.raises(ValueError, match="given twice"):
        plan(synthetic, synthetic)
    with pytest.raises(ValueError, match="unknown split 'tset': did you mean 'test'"):
        plan(synthetic, split="tset")
    with pytest.raises(ValueError, match="no synthetic set"):
        plan()
    # Said before any network is trained.
    with pytest.raises(ValueError, match="resnet18 needs images of at least 16x16 pixels, not 8x8"):
        plan(synthetic, networks=("convnet2", "resnet18"))
    with pytest.raises(ValueError, match="workers must be at least 1"):
        carry_out(plan(synthetic), workers=-1)


def test_networks_are_chosen_by_name_once_each(synthetic: SyntheticSet) -> None:
    assert choose_networks(None, synthetic) == {"convnet2": None}
    assert list(choose_networks(["vit", " alexnet", "vit"], synthetic)) == ["vit", "alexnet"]
    with pytest.raises(ValueError, match="did you mean 'resnet18"):
        choose_networks(["resnet8"], synthetic)


def test_a_strangers_fingerprint_names_no_file_outside_the_cache(synthetic: SyntheticSet) -> None:
    folder = plan(synthetic).record.parent
    evil = plan(changed(synthetic, "evil", fingerprint="../../../../x")).record
    assert evil.parent == folder
    assert evil.resolve().parent == folder.resolve()


def found(given: EvaluationPlan) -> Found:
    accuracies = {
        subject: {name: Accuracy((0.5 + place / 10, 0.7 + place / 10)) for name in given.networks}
        for place, subject in enumerate(given.subjects)
    }
    return Found(given, accuracies, reused=1, guess=0.1, smallest=0.1, images=given.images)


@pytest.mark.parametrize(
    ("own", "other", "guess", "idle"),
    [
        (0.1, 0.128, 0.1, {"convnet2": []}),  # of 450 images, with luck: .1283
        (0.1, 0.129, 0.1, {"convnet2": ["random"]}),
        (0.2, 0.1, 0.1, {"convnet2": ["b"]}),
        (0.2, 0.2, 0.1, {}),
        (0.2, 0.5, 0.4, {"convnet2": ["random"]}),
        (0.2, 0.5, 0.9999, {}),  # of so few others none could be told from guessing
    ],
)
def test_networks_that_do_no_better_than_guessing_are_named(
    synthetic: SyntheticSet, own: float, other: float, guess: float, idle: dict[str, list[str]]
) -> None:
    given = plan(synthetic, changed(synthetic, "b"))
    means = [own, other, 0.9]  # the last of random real images, which do not count
    by_subject = {
        subject: {"convnet2": Accuracy((mean,))} for subject, mean in zip(given.subjects, means, strict=True)
    }
    found_it = Found(given, by_subject, reused=0, guess=guess, smallest=0.1, images=given.images)
    assert at_chance(found_it) == idle


def seeded(synthetic: SyntheticSet, path: str, seed: int, **settings: Any) -> SyntheticSet:
    config = {**synthetic.card["config"], **settings, "seed": seed}
    return changed(synthetic, path, seed=seed, config=config)


def test_sets_that_differ_in_the_seed_alone_are_shown_together(synthetic: SyntheticSet) -> None:
    others = [
        seeded(synthetic, "b", 1, dataset="digits, elsewhere"),
        seeded(synthetic, "c", 1),  # again: one of a seed is enough
        seeded(synthetic, "d", 2, ipc=11),
    ]
    given = plan(synthetic, *others, baseline=False)
    _, rows = table(found(given))
    # .5 and .7 of the first set, .6 and .8 of the second.
    assert rows[-1] == ["convnet2", "2 seeds: random, b", "65.00", "12.91", "4"]
    assert len(rows) == 5
    (entry,) = as_record(found(given))["seeds"]
    assert entry["sets"] == ["random", "b"]
    soft = {"teachers": 1, "network": "convnet2", "temperature": 1.0}
    labelled = [
        changed(
            each, f"soft-{each.path.name}", soft_labels={**soft, "seed": seed, "wall_seconds": 1.0 + seed}
        )
        for seed, each in enumerate((synthetic, others[0]))
    ]
    harder = changed(labelled[0], "harder", soft_labels={**soft, "temperature": 2.0}, seed=1)
    (of_soft,) = as_record(found(plan(*labelled, harder, baseline=False)))["seeds"]
    assert of_soft["sets"] == [each.path.name for each in labelled]
    pooled = entry["networks"]["convnet2"]
    assert (pooled["n"], pooled["mean"]) == (4, pytest.approx(0.65))
    assert pooled["std_of_sets"] == pytest.approx(0.1 / 2**0.5)


def test_several_sets_stand_side_by_side(synthetic: SyntheticSet) -> None:
    given = plan(synthetic, changed(synthetic, "b"), networks=("convnet2", "vit"))
    header, rows = table(found(given))
    assert header == ["network", "trained on", "mean", "std", "n"]
    assert rows[0] == ["convnet2", "random", "60.00", "14.14", "2"]
    assert [row[:3] for row in rows[-2:]] == [
        ["convnet2", "random real", "80.00"],
        ["vit", "random real", "80.00"],
    ]
    record = json.loads(json.dumps(as_record(found(given))))
    assert [entry["name"] for entry in record["sets"]] == ["random", "b"]
    assert record["sets"][1]["path"] == str(synthetic.path.parent / "b")
    assert record["sets"][1]["networks"]["vit"]["values"] == [0.6, 0.7 + 0.1]
    (baseline,) = record["random_baselines"]
    assert (baseline["name"], baseline["ipc"]) == ("random real", 10)
    assert (record["dataset"], record["split"], record["reused"]) == ("digits", "test", 1)
    assert (TrainingConfig(**record["training"]), record["seed"]) == (CONFIG, 3)
    assert [name for name, _ in matrix(found(given))] == ["random", "b", "random real"]


def test_of_one_set_the_accuracies_are_at_hand_too(synthetic: SyntheticSet) -> None:
    record = as_record(found(plan(synthetic)))
    (entry,), (baseline,) = record["sets"], record["random_baselines"]
    assert entry["networks"] == record["networks"]
    assert baseline["networks"] == record["random_baseline"]["networks"]
    assert record["seeds"] == []
    assert (record["dataset"], record["split"]) == ("digits", "test")
    assert record["networks"]["convnet2"]["values"] == [0.5, 0.7]
    assert record["random_baseline"]["networks"]["convnet2"]["values"] == [0.6, 0.7 + 0.1]
    assert as_record(found(plan(synthetic, baseline=False)))["random_baseline"] is None


def test_titles_say_how_long_was_trained_and_what_was_tested_on(synthetic: SyntheticSet) -> None:
    given = plan(synthetic, config=replace(CONFIG, epochs=1))
    assert title(given) == "Accuracy on the 450 images of the real test split, after 1 epoch (%)"
    held_out = plan(synthetic, config=replace(CONFIG, epochs=20), split="validation")
    assert title(held_out) == (
        "Accuracy on the validation split, 10% of the real training images, after 20 epochs (%)"
    )
