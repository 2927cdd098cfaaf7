"""What bears on a verdict is said with it: accuracies of luck, time that was not saved; and every cost."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atom_nas.terminal.summary import show_essence
from reports import write_report
from reports.analysis import analyse
from reports.chance import telling
from reports.costs import measured_costs
from reports.document import Report
from reports.guessing import Guesses
from reports.runs import read_run


def report_of(folder: Path) -> Report:
    return analyse(read_run(folder))


def test_accuracies_no_better_than_guessing_are_counted(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path
) -> None:
    """Of 10 classes on 900 images: 10% and twice the standard error of 1 point, so up to 12%."""
    proxy = [trial(f"a{i}", {"validation_accuracy": 0.1 + i / 50}) for i in range(12)]
    real = [
        trial(f"a{i}", {"test_accuracy": x}) for i, x in enumerate([0.08, 0.1, 0.119, 0.1201, *[0.3] * 8])
    ]
    settings = {"kind": "real", "score": "test_accuracy", "settings": {"test_images": 900}}

    def notes(name: str, **changes: Any) -> str:
        run = info(**{"reference": settings, "proxy": {"validation_images": 900}, **changes})
        report = report_of(fabricated(proxy, real, run).write(tmp_path / name))
        return " ".join([report.verdict.sentence, *report.cautions])

    assert (
        "3 of 12 reference accuracies are no better than guessing one of 10 classes (10%, with luck on 900 "
        "images 12%): their order is luck. More epochs (--reference-epochs) may help."
    ) in notes("known")
    one = notes("one", proxy={"validation_images": 10**6})
    assert "1 of 12 proxy accuracies is no better than guessing" in one
    assert "%): its place is luck. More epochs (--epochs) may help." in one
    assert "proxy accuracies are" not in notes("few", proxy={})
    lopsided = {"name": "digits", "classes": 10, "largest_class": {"test": 0.28, "validation": 0.1}}
    said = "12 of 12 reference accuracies are no better than always naming the largest of 10 classes (28%, "
    assert notes("lopsided", dataset=lopsided).count(said) == 1
    assert "guessing" not in notes("unknown", dataset={"name": "digits"})
    assert "guessing" not in notes("losses", reference={**settings, "score": "validation_loss"}, proxy={})


def test_of_few_images_nothing_can_be_told(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> None:
    proxy = [trial(f"a{i}", {"validation_accuracy": i / 12}) for i in range(12)]
    changes = {"proxy": {"validation_images": 2}, "dataset": {"name": "two", "classes": 2}}
    report = report_of(fabricated(proxy, [], info("none", **changes)).write(tmp_path / "few"))
    assert report.cautions == [
        "2 images are too few to tell 12 proxy accuracies from guessing one of 2 classes."
    ]


def test_what_was_confirmed_may_have_learnt_nothing(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path
) -> None:
    proxy = [trial(f"a{i}", {"validation_accuracy": 0.5 + i / 50}) for i in range(12)]
    kept = [trial("a11", {"validation_accuracy": 0.3, "test_accuracy": 0.11}), trial("a10", None)]
    changed = info("none", confirm={"count": 2, "settings": {"test_images": 900}})
    report = report_of(fabricated(proxy, [], changed, confirmed=kept).write(tmp_path / "run"))
    assert report.cautions == [
        "1 of 1 confirmed accuracy is no better than guessing one of 10 classes (10%, with luck on 900 "
        "images 12%): its place is luck. More epochs (--confirm-epochs) may help."
    ]


@pytest.mark.usefixtures("without_drawing")
def test_proxies_that_guess_matter_where_they_rank(make_run: Any) -> None:
    run = make_run(proxy={"validation_images": 2}, estimators={"zico": {}})
    with sqlite3.connect(run / "trials.sqlite") as store:
        store.execute(ADD, {"name": "zico", "each": 3.0})
    store.close()
    by_proxy, by_other = (report_of_score(run, score) for score in ("validation_accuracy", "zico"))
    assert sum("proxy accuracies are no better" in caution for caution in by_proxy.cautions) == 1
    assert not any("proxy accuracies" in caution for caution in by_other.cautions)


def report_of_score(folder: Path, score: str) -> Report:
    return analyse(read_run(folder), score=score)


@pytest.mark.usefixtures("without_drawing")
def test_no_verdict_is_given_by_a_reference_at_chance(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = [trial(f"a{i}", {"validation_accuracy": 0.5 - i / 50}) for i in range(20)]
    settings = {"kind": "real", "score": "test_accuracy", "settings": {"test_images": 900}}
    for low, level in ((9, "moderate"), (10, "moderate"), (20, "reference at chance")):
        learnt = [0.5 - i / 99 for i in range(20 - low)]
        luck = [0.08 + (7 * i % 20) / 1000 for i in range(low)]
        real = [trial(f"a{i}", {"test_accuracy": x}) for i, x in enumerate([*learnt, *luck])]
        run = info(reference=settings)
        written = write_report(fabricated(proxy, real, run).write(tmp_path / str(low)))
        assert written.report.verdict.level == level
        show_essence(written)
        said = f"{low} of 20 reference accuracies are no better than guessing"
        assert said in " ".join(capsys.readouterr().out.split())
        page, text = (written.page.with_name(name).read_text() for name in ("index.html", "report.md"))
        assert [said in page, said in text] == [True, True]


def test_time_that_was_not_saved_is_said(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> None:
    proxy = [trial(f"a{i}", {"validation_accuracy": i / 12}, seconds=5.0) for i in range(12)]
    for each, said in ((50.0, False), (10.0, True)):
        real = [trial(f"a{i}", {"test_accuracy": i / 12}, seconds=each) for i in range(12)]
        cautions = report_of(fabricated(proxy, real, info()).write(tmp_path / str(each))).cautions
        assert any(caution.startswith("No time was saved") for caution in cautions) == said


ADD = """
INSERT INTO trials SELECT :name, architecture, position, 'done', NULL,
json_object(:name, position % 7), :each, :each, NULL, 0, seed, device FROM trials WHERE estimator = 'proxy'
"""


@pytest.mark.usefixtures("without_drawing")
def test_all_estimators_are_in_the_table_of_costs(make_run: Any) -> None:
    run = make_run(estimators={"synflow": {}, "zico": {}})
    with sqlite3.connect(run / "trials.sqlite") as store:
        store.execute(ADD, {"name": "synflow", "each": 2.0})
        store.execute(ADD, {"name": "zico", "each": 3.0})
    store.close()
    report = write_report(run, score="mean_of_ranks", combine=["validation_accuracy", "synflow"]).report
    assert report.ranked_by == ["proxy", "synflow"]
    assert report.others is not None
    assert (report.others.names, report.others.trials) == (["zico"], 20)
    assert report.others.cpu_seconds == pytest.approx(3.0 * 20)
    text = (run / "report" / "report.md").read_text()
    assert "| ranking (proxy, SynFlow) | 20 | 1 min 20 s |" in text
    assert "| other rulers (ZiCo) | 20 | 1 min 0 s | 1 min 0 s | with the ranking |" in text


@pytest.mark.usefixtures("without_drawing")
def test_distilling_counts_for_rulers_that_look_at_its_images(
    make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(estimators={"synflow": {"images": "real"}, "zico": {"images": "synthetic"}})
    with sqlite3.connect(run / "trials.sqlite") as store:
        store.execute(ADD, {"name": "synflow", "each": 2.0})
        store.execute(ADD, {"name": "zico", "each": 2.0})
    store.close()
    real, synthetic = (write_report(run, score=score) for score in ("synflow", "zico"))
    distilled = synthetic.report.cpu_seconds.distill
    assert distilled == synthetic.report.savings.distill_seconds
    assert distilled > 0
    looked = "Training-free scores look at 64 synthetic images each, but for SynFlow at real images."
    assert looked in synthetic.report.notes
    costs = real.report
    assert costs.savings.distill_seconds == costs.cpu_seconds.distill == costs.wall_seconds.distill == 0
    said = "This ranking looks at no synthetic image, so that distilling counts for nothing here."
    assert [said in written.report.notes for written in (real, synthetic)] == [True, False]
    show_essence(real)
    assert "core-seconds: synflow 40.0 s, reference" in capsys.readouterr().out
    show_essence(synthetic)
    assert "s, zico 40.0 s, reference" in capsys.readouterr().out


def test_distilling_counts_for_nothing_where_only_the_shape_of_images_counts(make_run: Any) -> None:
    run = make_run(estimators={"synflow": {"images": "synthetic"}, "zico": {"images": "synthetic"}})
    with sqlite3.connect(run / "trials.sqlite") as store:
        store.execute(ADD, {"name": "synflow", "each": 2.0})
        store.execute(ADD, {"name": "zico", "each": 2.0})
    store.close()
    found = [measured_costs(read_run(run), score).distill_seconds for score in ("synflow", "zico")]
    assert found == [0.0, 100.0]


@pytest.mark.usefixtures("without_drawing")
def test_costs_are_shown_where_there_is_nothing_to_compare_with(
    make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    show_essence(write_report(make_run(kind="none")))
    shown = capsys.readouterr().out
    assert "Agreement" not in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("core-seconds: distilling")]
    assert line.endswith(", proxy 40.0 s")


@pytest.mark.usefixtures("without_drawing")
def test_each_split_has_a_largest_class_of_its_own(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path
) -> None:
    proxy = [trial(f"a{i}", {"validation_accuracy": 0.1 + i / 50}) for i in range(12)]
    lopsided = {"name": "digits", "classes": 10, "largest_class": {"test": 0.28, "validation": 0.1}}
    run = info("none", dataset=lopsided, proxy={"validation_images": 900})
    (caution,) = analyse(read_run(fabricated(proxy, [], run).write(tmp_path / "run"))).cautions
    assert caution.startswith("2 of 12 proxy accuracies are no better than guessing one of 10 classes (10%, ")


@pytest.mark.usefixtures("without_drawing")
@pytest.mark.parametrize(("reference", "said"), [("none", False), ("real", True)])
def test_classes_far_from_one_size_are_told_of_where_images_of_theirs_count(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path, reference: str, said: bool
) -> None:
    proxy = [trial(f"a{i}", {"validation_accuracy": 0.5 + i / 50}) for i in range(12)]
    lopsided = {
        "name": "digits",
        "classes": 10,
        "largest_class": {"test": 0.28, "validation": 0.1},
        "smallest_class": {"test": 0.08, "validation": 0.1},
    }
    run = info(reference, dataset=lopsided)
    cautions = analyse(read_run(fabricated(proxy, [], run).write(tmp_path / "run"))).cautions
    assert (
        cautions
        == [
            "Classes are imbalanced: the largest has 28% of the images that accuracies are of, the smallest "
            "8%; a new search with --balanced counts all classes alike."
        ]
        * said
    )


@pytest.mark.usefixtures("without_drawing")
def test_luck_of_balanced_accuracies_is_that_of_the_rare_classes(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path
) -> None:
    """Twice the deviation of what guessing gets of few images: here what 900 of classes of one size tell."""
    proxy = [trial(f"a{i}", {"validation_accuracy": x}) for i, x in enumerate([0.119, 0.1201, *[0.3] * 10])]
    dataset = {"name": "digits", "classes": 10, "balanced_images": {"validation": 900}}
    run = info("none", dataset=dataset, proxy={"validation_images": 5000})
    (caution,) = analyse(read_run(fabricated(proxy, [], run).write(tmp_path / "run"))).cautions
    assert caution.startswith("1 of 12 balanced proxy accuracies is no better than guessing one of 10 ")


def test_unequal_classes_tell_as_much_as_fewer_images_of_equal_ones() -> None:
    assert telling([90] * 10) == pytest.approx(900)
    rng = np.random.default_rng(0)
    counts = [400, 25, 50, 0]
    balanced = np.mean([rng.binomial(n, 0.25, 40_000) / n for n in counts if n], axis=0)
    assert np.var(balanced) == pytest.approx(0.25 * 0.75 / telling(counts), rel=0.03)


def test_half_of_them_is_most() -> None:
    assert [Guesses(count=count, known=20, sentence="").most for count in (9, 10)] == [False, True]
