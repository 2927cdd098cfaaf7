"""Balanced accuracies, of classes that are far from one size: in every stage the mean over classes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from trial_helpers import stored

import atom_nas
from atom_nas.evaluation.plan import EvaluationPlan
from atom_nas.evaluation.trainings import carry_out
from atom_nas.run_folder import read_record
from atom_nas.search import run_search
from atom_nas.settings import SearchSettings
from atom_nas.terminal.stages import EvaluationOutput, show_evaluation
from distill.data import Split
from distill.run import distill
from distill.settings import DistillSettings
from distill.training import TrainingConfig
from reports import write_report
from reports.chance import imbalance

IMAGES = {0: 160, 1: 40, 2: 40}


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random set of a folder of digits, of which two thirds are zeros."""
    root = tmp_path_factory.mktemp("lopsided")
    digits = load_digits()
    for digit, count in IMAGES.items():
        (root / "images" / f"digit{digit}").mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.target == digit][:count]):
            image = Image.fromarray((pixels * 15).astype("uint8"))
            image.save(root / "images" / f"digit{digit}" / f"{number}.png")
    distill(
        DistillSettings(
            dataset=f"folder:{root / 'images'}",
            method="random",
            ipc=3,
            validation_fraction=0.3,
            out=root / "set",
        )
    )
    return root / "set"


@pytest.fixture
def evaluation(lopsided: Path) -> EvaluationPlan:
    return EvaluationPlan(
        sets=(atom_nas.load(lopsided),),
        networks=("convnet2",),
        repeats=1,
        config=TrainingConfig(epochs=1),
        seed=0,
        device=torch.device("cpu"),
        baseline=False,
    )


@pytest.fixture
def settings(quick: SearchSettings, lopsided: Path) -> SearchSettings:
    return replace(
        quick,
        synthetic=lopsided,
        samples=3,
        validation_images=None,
        confirm=2,
        confirm_epochs=1,
        estimators=("early-stopping",),
        balanced=True,
    )


def accuracies(folder: Path, split: Split, *, balanced: bool) -> dict[str, float]:
    """What scikit-learn makes of what the kept networks say."""
    measure = balanced_accuracy_score if balanced else accuracy_score
    found = {}
    for rank in (1, 2):
        model = atom_nas.load_architecture(folder, rank)
        with torch.no_grad():
            said = model.network(model.preprocessing(split.images)).argmax(dim=1)
        found[model.card["architecture"]] = float(measure(split.labels, said))
    return found


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("balanced", [True, False])
def test_all_accuracies_of_a_search_are_of_one_kind(settings: SearchSettings, balanced: bool) -> None:
    run_search(replace(settings, balanced=balanced))
    synthetic = atom_nas.load(settings.synthetic)
    dataset = synthetic.real_dataset()
    held_out = synthetic.split_real(dataset)[1]
    kept = {each.architecture: each.scores for each in stored(settings.out, "confirm")}
    for split, score in ((dataset.test, "test_accuracy"), (held_out, "validation_accuracy")):
        assert accuracies(settings.out, split, balanced=balanced) == pytest.approx(
            {name: scores[score] for name, scores in kept.items()}
        )
        assert accuracies(settings.out, split, balanced=not balanced) != pytest.approx(
            {name: scores[score] for name, scores in kept.items()}
        )
    for estimator in ("proxy", "early-stopping", "real"):
        scored = [trial.scores for trial in stored(settings.out, estimator)]
        right = [scores["validation_accuracy"] * len(held_out) for scores in scored]
        # By images it is a whole number of them; of all three by classes that would be luck.
        assert all(abs(each - round(each)) < 1e-6 for each in right) is not balanced, estimator


@pytest.mark.usefixtures("ran")
def test_the_record_and_the_report_say_so(settings: SearchSettings) -> None:
    run_search(settings)
    record = read_record(settings.out)
    dataset = record["dataset"]
    counts = atom_nas.load(settings.synthetic).real_dataset().test.labels.bincount()
    assert dataset["balanced_images"]["test"] == pytest.approx(9 / float((1 / counts).sum()))
    assert dataset["class_names"] == ["digit0", "digit1", "digit2"]
    assert "largest_class" not in dataset
    stages = [record["proxy"], record["reference"]["settings"], record["confirm"]["settings"]]
    assert [each["balanced"] for each in stages] == [True] * 3
    write_report(settings.out)
    page = (settings.out / "report" / "report.md").read_text()
    assert "; accuracies are balanced: means over the classes" in page
    assert "the best first, by balanced accuracy on" in page
    assert "balanced test_accuracy 0." in repr(atom_nas.load_architecture(settings.out))
    assert "--balanced" not in page


@pytest.mark.usefixtures("ran")
def test_where_classes_are_of_other_sizes_the_report_says_what_to_do(settings: SearchSettings) -> None:
    run_search(replace(settings, balanced=False))
    written = write_report(settings.out).report
    (said,) = [caution for caution in written.cautions if "imbalanced" in caution]
    assert said.startswith("Classes are imbalanced: the largest has 65.5% of the images ")
    assert said.endswith("the smallest 17.2%; a new search with --balanced counts all classes alike.")


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(("balanced", "was"), [(True, "was True"), (False, "was not set")])
def test_a_run_keeps_its_kind(settings: SearchSettings, balanced: bool, was: str) -> None:
    run_search(replace(settings, balanced=balanced))
    with pytest.raises(ValueError, match=rf"with other settings: .*balanced {was}"):
        run_search(replace(settings, balanced=not balanced, resume=True, samples=4))


@pytest.mark.usefixtures("ran")
def test_each_class_of_a_final_model_has_its_accuracy(settings: SearchSettings) -> None:
    run_search(settings)
    best = atom_nas.load_architecture(settings.out)
    shares = best.card["class_accuracy"]
    test = atom_nas.load(settings.synthetic).real_dataset().test
    with torch.no_grad():
        said = best.network(best.preprocessing(test.images)).argmax(dim=1)
    for k, name in enumerate(best.classes):
        assert shares[name] == float((said[test.labels == k] == k).double().mean())
    assert best.card["test_accuracy"] == pytest.approx(sum(shares.values()) / 3)
    confirmed = write_report(settings.out).report.confirmed
    assert confirmed is not None
    lowest = min(shares, key=lambda name: shares[name])
    assert confirmed.rows[0].lowest_class == (lowest, shares[lowest])


def test_sets_are_evaluated_by_it(lopsided: Path) -> None:
    how = {"repeats": 2, "training": {"epochs": 2}, "baseline": False, "workers": 1}
    by_images, by_classes, again = (
        atom_nas.evaluate(lopsided, balanced=balanced, **how) for balanced in (False, True, True)
    )
    assert (by_images["balanced"], by_classes["balanced"]) == (False, True)
    assert by_images["sets"] != by_classes["sets"] == again["sets"]
    assert [each["reused"] for each in (by_images, by_classes, again)] == [0, 2, 2]
    assert json.loads(json.dumps(by_classes)) == by_classes


def test_an_evaluation_says_what_to_do(
    evaluation: EvaluationPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    show_evaluation(evaluation, EvaluationOutput(as_json=True), workers=1)
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "classes are imbalanced: the largest has 66.7% of the images that accuracies are of, the smal" in said
    )
    show_evaluation(replace(evaluation, balanced=True), EvaluationOutput(as_json=True))
    assert "no better than" not in said
    shown = capsys.readouterr()
    assert "imbalanced" not in shown.err
    assert json.loads(shown.out)["balanced"] is True


@pytest.mark.parametrize(
    ("largest", "smallest", "said"),
    [(0.74, 0.26, True), (0.6, 0.4, False), (0.105, 0.005, True), (0.5, 0.25, False), (0.1, 0.1, False)],
)
def test_classes_are_imbalanced_by_the_smallest(largest: float, smallest: float, said: bool) -> None:
    assert (imbalance(largest, smallest) is not None) == said


def test_what_was_measured_by_one_accuracy_alone_is_measured_anew(evaluation: EvaluationPlan) -> None:
    given = evaluation
    whole = carry_out(replace(given, balanced=True), workers=1, fresh=True)
    lines = [json.loads(line) for line in given.record.read_text().splitlines()]
    later = ("balanced_accuracy", "smallest_class", "telling_images")
    plain = [{name: each[name] for name in each if name not in later} for each in lines]
    given.record.write_text("".join(json.dumps(each) + "\n" for each in plain))
    known = carry_out(given)
    assert (known.reused, known.smallest) == (1, None)
    again = carry_out(replace(given, balanced=True), workers=1)
    assert again.reused == 0
    assert again.accuracies == whole.accuracies
    assert carry_out(replace(given, balanced=True)).reused == 1


def test_what_guessing_gets_of_balanced_accuracies(evaluation: EvaluationPlan) -> None:
    counts = evaluation.sets[0].real_dataset().test.labels.bincount().double()
    guesses = []
    for balanced in (True, False):
        found = carry_out(replace(evaluation, balanced=balanced), workers=1)
        again = carry_out(replace(evaluation, balanced=balanced), workers=1)
        assert (found.guess, found.images) == (again.guess, again.images)
        guesses += [found.guess, found.images]
    even = 9 / float((1 / counts).sum())
    assert guesses == pytest.approx([1 / 3, even, float(counts.max() / counts.sum()), float(counts.sum())])
