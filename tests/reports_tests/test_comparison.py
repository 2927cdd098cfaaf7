"""Several runs side by side."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from atom_nas.terminal.summary import show_essence
from reports import read_run, write_report
from reports.analysis import analyse
from reports.comparison import compare_runs
from reports.document import ComparisonRow
from reports.writing import run_labels

MakeRun = Callable[..., Path]


def rows_of(folders: list[Path]) -> list[ComparisonRow]:
    """The comparison alone, without drawing it."""
    runs = [read_run(folder) for folder in folders]
    return compare_runs(runs, [analyse(run) for run in runs], run_labels(runs))


def test_side_by_side_page_goes_to_the_first_run(make_run: MakeRun) -> None:
    runs = [make_run(name, noise=noise) for name, noise in (("atom", 0.2), ("dm", 0.5), ("random", 3.0))]
    alone = write_report(runs[0])
    before = alone.page.read_bytes()
    written = write_report(runs)
    assert written.page == runs[0] / "comparison" / "index.html"
    assert alone.page.read_bytes() == before
    page = written.page.read_text(encoding="utf-8")
    assert page.count("<img ") == 1 + 3 * 5
    assert [f'id="run-{i}"' in page for i in (1, 2, 3)] == [True] * 3
    markdown = (written.folder / "report.md").read_text(encoding="utf-8")
    for image in ("comparison.png", "agreement.png", "2-dm-agreement.png", "3-random-top_k.png"):
        assert f"(figures/{image})" in markdown
        assert (written.folder / "figures" / image).stat().st_size > 0


def test_rows_hold_each_run_and_its_difference(make_run: MakeRun) -> None:
    runs = [make_run("atom", noise=0.2), make_run("random", noise=3.0)]
    rows = rows_of(runs)
    assert [row.name for row in rows] == ["atom", "random"]
    assert rows[0].difference is None
    difference = rows[1].difference
    assert difference is not None
    assert difference.value == pytest.approx(rows[1].spearman.value - rows[0].spearman.value)
    assert difference.n == 18
    assert difference.interval is not None
    assert difference.interval.high < 0


@pytest.mark.usefixtures("without_drawing")
def test_only_the_folder_of_the_report_is_written_to(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("atom"), make_run("dm")]
    write_report(runs[1])
    alone = {path: path.read_bytes() for run in runs for path in run.rglob("*.*") if path.is_file()}
    write_report(runs, score="final_training_loss", out=tmp_path / "both")
    write_report([runs[1], runs[0]], out=tmp_path / "both")
    assert {path: path.read_bytes() for run in runs for path in run.rglob("*.*") if path.is_file()} == alone
    assert json.loads((tmp_path / "both" / "report.json").read_text())["run"]["name"] == "dm"
    write_report(runs)
    assert len(json.loads((runs[0] / "comparison" / "report.json").read_text())["comparison"]) == 2
    assert {path: path.read_bytes() for path in alone} == alone
    assert not list(tmp_path.rglob(".report-*"))


@pytest.mark.usefixtures("without_drawing")
def test_a_comparison_folder_of_something_else_is_left_alone(make_run: MakeRun) -> None:
    runs = [make_run("atom"), make_run("dm")]
    (runs[0] / "comparison").mkdir()
    (runs[0] / "comparison" / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="comparison is not empty and holds no report"):
        write_report(runs)
    assert (runs[0] / "comparison" / "index.html").read_text() == "mine"


@pytest.mark.usefixtures("without_drawing")
def test_every_section_has_its_own_ranking(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("atom"), make_run("d m"), make_run("third")]
    out = write_report(runs, out=tmp_path / "all").folder
    names = ["ranking.csv", "2-d-m-ranking.csv", "3-third-ranking.csv"]
    assert sorted(path.name for path in out.glob("*.csv")) == sorted(names)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"]*csv)"', page) == names
    assert re.findall(r"\]\(([^)]*csv)\)", (out / "report.md").read_text(encoding="utf-8")) == names
    for run, name in zip(runs, names, strict=True):
        alone = write_report(run).folder
        assert (out / name).read_bytes() == (alone / "ranking.csv").read_bytes()
    (out / "2-mine.csv").write_text("kept")
    write_report(runs[:1], out=out)
    assert sorted(path.name for path in out.glob("*.csv")) == ["2-mine.csv", "ranking.csv"]
    assert not list((out / "figures").glob("2-*"))


def test_runs_with_different_references_are_not_subtracted(make_run: MakeRun) -> None:
    runs = [make_run("atom"), make_run("table", reference={"kind": "table", "score": None, "table": "t.csv"})]
    lines = [f"w{i}-d1,{i}" for i in range(20)]
    (runs[1] / "reference.csv").write_text("architecture,score\n" + "\n".join(lines), encoding="utf-8")
    rows = rows_of(runs)
    assert rows[1].difference is not None
    assert rows[1].difference.reason == "the runs have different references"


@pytest.mark.usefixtures("without_drawing")
def test_runs_without_a_reference_stand_side_by_side(make_run: MakeRun) -> None:
    runs = [make_run(name, reference={"kind": "none"}) for name in ("one", "two")]
    written = write_report(runs)
    rows = written.report.comparison
    assert rows is not None
    assert [(row.difference, row.baseline) for row in rows] == [(None, False), (None, False)]
    assert not (written.folder / "figures" / "comparison.png").exists()
    for name in ("index.html", "report.md"):
        assert "Spearman" not in (written.folder / name).read_text(encoding="utf-8")


def test_the_first_run_with_a_reference_is_the_baseline(make_run: MakeRun) -> None:
    runs = [
        make_run("alone", reference={"kind": "none"}),
        make_run("atom", noise=0.2),
        make_run("dm", noise=0.5),
    ]
    rows = rows_of(runs)
    assert [row.baseline for row in rows] == [False, True, False]
    assert rows[0].difference is not None
    assert rows[0].difference.reason == "no reference"
    assert rows[2].difference is not None
    assert rows[2].difference.value is not None
    page = write_report(runs).page.read_text(encoding="utf-8")
    assert "Spearman minus that of atom on" in page


@pytest.mark.usefixtures("without_drawing")
def test_runs_on_different_datasets_are_called_so(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run("atom"), make_run("other", dataset={"name": "cifar10"})]
    written = write_report(runs)
    show_essence(written)
    said = " ".join(capsys.readouterr().out.split())
    assert "These runs are on different datasets (digits, cifar10): their correlations are with" in said
    for name in ("index.html", "report.md"):
        text = (written.folder / name).read_text(encoding="utf-8")
        assert "These runs are on different datasets (digits, cifar10)" in text
        assert "cifar10: 100 atom images" in text


@pytest.mark.usefixtures("without_drawing")
def test_runs_of_different_spaces_are_called_so(make_run: MakeRun) -> None:
    narrow = {"name": "convnet", "options": {"width": [32, 64]}}
    written = write_report([make_run("all"), make_run("narrow", space=narrow)])
    for name in ("index.html", "report.md"):
        text = (written.folder / name).read_text(encoding="utf-8").replace("\\", "")
        assert "These runs are of different spaces (convnet, convnet with width [32, 64]): their" in text
        assert "100 atom images, convnet with width [32, 64]" in text
        assert "on different datasets" not in text
    both = make_run("both", space=narrow, dataset={"name": "cifar10"})
    text = (write_report([both, make_run("one")]).folder / "report.md").read_text(encoding="utf-8")
    assert "on different datasets (cifar10, digits) and of different spaces (convnet with" in text
    alike = write_report([make_run("a"), make_run("b")]).folder / "report.md"
    assert "These runs are" not in alike.read_text(encoding="utf-8")


def test_runs_of_one_name_are_told_apart(make_run: MakeRun) -> None:
    runs = [make_run("a/run"), make_run("b/run")]
    rows = rows_of(runs)
    assert [row.name for row in rows] == ["a/run", "b/run"]


@pytest.mark.usefixtures("without_drawing")
def test_labels_grow_until_they_differ(make_run: MakeRun) -> None:
    runs = [make_run(name) for name in ("x/seed/run", "y/seed/run", "z/other/run", "solo")]
    labels = ("x/seed/run", "y/seed/run", "other/run", "solo")
    written = write_report(runs)
    assert written.labels == labels
    page = written.page.read_text(encoding="utf-8")
    assert [f">{label}</h2>" in page for label in labels] == [True] * 4
    assert (written.folder / "2-y-seed-run-ranking.csv").exists()


@pytest.mark.usefixtures("without_drawing")
def test_a_long_label_makes_no_longer_file_names_than_there_may_be(make_run: MakeRun) -> None:
    written = write_report([make_run("first"), make_run("n" * 240)])
    names = [path.name for path in written.folder.rglob("*") if path.is_file()]
    assert sum(name.startswith("2-nnn") for name in names) > 1
    assert max(map(len, names)) < 130


def test_no_run_and_one_run_twice_are_refused(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match="at least one run folder"):
        write_report([])
    folder = make_run()
    with pytest.raises(ValueError, match="run run is given 2 times"):
        write_report([folder, folder / ".." / "run"])


@pytest.mark.usefixtures("without_drawing")
def test_runs_of_different_architectures_are_not_subtracted(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run("atom"), make_run("elsewhere")]
    store = sqlite3.connect(runs[1] / "trials.sqlite")
    with store:
        store.execute("UPDATE trials SET architecture = 'other-' || architecture")
    store.close()
    rows = rows_of(runs)
    assert rows[1].spearman.n == 18
    assert rows[1].difference is not None
    assert rows[1].difference.reason == "no architectures in common"
    show_essence(write_report(runs))
    assert "elsewhere is not compared: no architectures in common" in capsys.readouterr().out
