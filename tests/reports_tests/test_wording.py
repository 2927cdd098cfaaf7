"""What a report says: only what applies to the run, in the right number, and as text that can be copied."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atom_nas.terminal.summary import show_essence
from reports import formatting, read_run, write_report
from reports.analysis import analyse
from reports.selection import precision_and_recall
from reports.verdict import judge

MakeRun = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("without_drawing")


def pages_of(folder: Path) -> list[str]:
    return [(folder / "report" / name).read_text(encoding="utf-8") for name in ("index.html", "report.md")]


def small_run(fabricated: Any, trial: Any, info: Any, folder: Path, n: int, **changes: Any) -> Path:
    """A run of n architectures, ranked as the reference ranks them."""
    proxy = [trial(f"a{i}", {"validation_accuracy": (i + 1) / 20}) for i in range(n)]
    real = [trial(f"a{i}", {"test_accuracy": (i + 2) / 20}) for i in range(n)]
    path: Path = fabricated(proxy, real, info(**changes)).write(folder)
    return path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("p < 0.001, n > 3", "p < 0.001, n > 3"),
        ("a<b> <!-- </i> <?php < 3", "a\\<b> \\<!-- \\</i> \\<?php < 3"),
        ("x_1 | [a](b) *c* `d`", "x\\_1 \\| \\[a\\](b) \\*c\\* \\`d\\`"),
        ("> quote", "\\> quote"),
        ("R&D &lt;", "R&D \\&lt;"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_is_escaped_where_it_could_be_markup(text: str, shown: str) -> None:
    assert formatting.markdown_cell(text) == shown


@pytest.mark.parametrize(
    ("text", "in_table", "shown"),
    [
        ("search --set x=[1,2] <SET> | y_z", False, "`search --set x=[1,2] <SET> | y_z`"),
        ("a|b", True, "`a\\|b`"),
        ("say `x`", False, "`` say `x` ``"),
        ("a ``b`` c", False, "```a ``b`` c```"),
        ("two\n  lines", False, "`two lines`"),
    ],
)
def test_code_spans_hold_text_as_it_is(text: str, in_table: bool, shown: str) -> None:
    assert formatting.markdown_code(text, in_table=in_table) == shown


def test_counts_agree_with_their_nouns(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> None:
    assert [formatting.plural(n, "row") for n in (0, 1, 2, 1211)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1,211 rows",
    ]
    assert formatting.break_even(0.5, None) == "1 architecture"
    settings = {"training_images": 1, "validation_images": 1, "training": {"epochs": 1}}
    synthetic = {"method": "dm", "images": 1, "ipc": 1, "iterations": 1}
    reference = {"kind": "real", "score": "test_accuracy", "foreign": 1, "settings": settings}
    folder = small_run(
        fabricated,
        trial,
        info,
        tmp_path / "one",
        1,
        **{"proxy": settings, "synthetic": synthetic, "reference": reference, "workers": 1},
    )
    write_report(folder)
    for text in pages_of(folder):
        for word in ("1 architectures", "1 images", "1 rows", "1 epochs", "1 iterations", "1 workers"):
            assert word not in text
        assert "1 row of the reference table names an architecture that this space" in text
        assert "trained on 1 image for 1 epoch and scored on 1 real validation image" in text


@pytest.mark.parametrize(("n", "cut"), [(10, False), (11, True)])
def test_ten_places_are_called_so_only_where_there_are_more(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path, n: int, cut: bool
) -> None:
    folder = small_run(fabricated, trial, info, tmp_path / "run", n)
    write_report(folder)
    assert [("The first ten places" in text) for text in pages_of(folder)] == [cut, cut]


def test_ties_name_only_those_there_are(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> None:
    proxy = [trial(name, {"validation_accuracy": x}) for name, x in zip("abc", (0.5, 0.5, 0.1), strict=True)]
    real = [trial(name, {"test_accuracy": x}) for name, x in zip("abc", (0.5, 0.7, 0.6), strict=True)]
    ties = [
        next(note for note in analyse(read_run(folder)).notes if note.startswith("Ties"))
        for folder in (
            fabricated(proxy, real, info()).write(tmp_path / "real"),
            fabricated(proxy, (), info("none")).write(tmp_path / "none"),
        )
    ]
    assert "reference score" not in ties[0]
    assert "Correlations" in ties[0]
    assert ties[1].endswith("share their score with another and so the best rank of their group.")


def test_scores_are_listed_by_their_spearman(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> None:
    values = np.arange(12) / 12
    proxy = [
        trial(f"a{i}", {"validation_accuracy": (i * 5) % 12 / 12, "flops": -x, "parameters": x, "flat": 1})
        for i, x in enumerate(values)
    ]
    real = [trial(f"a{i}", {"test_accuracy": x}) for i, x in enumerate(values)]
    report = analyse(read_run(fabricated(proxy, real, info()).write(tmp_path / "run")))
    names = [score.name for score in report.scores]
    assert names[:3] == ["validation_accuracy", "parameters", "flops"]
    assert {*names[3:]} == {"flat", "seconds", "peak_memory_mb"}


def test_failed_references_are_said_with_their_reason(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(references=3)
    fail_references(folder, "estimator = 'real'")
    written = write_report(folder)
    assert written.report.counts.failed_references == 3
    assert (
        "3 of 3 reference trials failed (e.g. ValueError: too wide): these architectures have no reference "
        "score."
    ) in written.report.notes
    assert "No ranked architecture has a reference score" in " ".join(written.report.notes)
    ranking = written.sections[0].ranking.set_index("architecture")["reference_reason"]
    assert ranking[["w0-d1", "w1-d1", "w2-d1"]].tolist() == ["ValueError: too wide"] * 3
    assert ranking.notna().sum() == 3
    show_essence(written)
    assert "3 of 3 reference trials failed: their architectures have no" in capsys.readouterr().out


def test_one_failed_reference_is_one(make_run: MakeRun) -> None:
    folder = make_run(references=3)
    fail_references(folder, "estimator = 'real' AND position = 2")
    assert any(
        note == "1 of 3 reference trials failed (e.g. ValueError: too wide): this architecture has no "
        "reference score."
        for note in analyse(read_run(folder)).notes
    )


def fail_references(folder: Path, where: str) -> None:
    with closing(sqlite3.connect(folder / "trials.sqlite")) as store, store:
        store.execute(
            "UPDATE trials SET status = 'failed', scores = '{}', reason = 'ValueError: too wide' WHERE "
            + where
        )


def test_the_terminal_says_that_a_search_is_under_way(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    show_essence(write_report(make_run("whole")))
    assert "not finished" not in capsys.readouterr().out
    show_essence(write_report(make_run("begun", complete=False)))
    assert "the search has not finished: this is what is stored so far" in capsys.readouterr().out


def test_the_terminal_shows_scores_as_the_page_does(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(references=15)
    show_essence(write_report(folder))
    shown = capsys.readouterr().out
    assert "The best 10 of 18" in shown
    assert "validation accuracy" in shown.splitlines()[2]
    assert "test accuracy" in shown.splitlines()[2]
    place = write_report(folder).sections[0].places()[0]
    assert place.score.endswith("%")
    assert place.score in shown
    show_essence(write_report(folder, score="final_training_loss"))
    shown = capsys.readouterr().out
    assert "final training loss" in shown
    assert "higher is better" not in shown
    assert not any(cell.startswith("-0.") for line in shown.splitlines()[4:14] for cell in line.split())


def test_the_terminal_writes_what_is_unknown_as_a_dash(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    show_essence(write_report(make_run(references=0)))
    cells = [cell.strip() for line in capsys.readouterr().out.splitlines() for cell in line.split("│")]
    assert formatting.UNKNOWN in cells
    assert "-" not in cells


def test_the_terminal_shows_no_column_that_does_not_apply(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_essence(write_report(small_run(fabricated, trial, info, tmp_path / "run", 3, kind="none")))
    shown = capsys.readouterr().out
    assert "The ranking" in shown
    assert "test accuracy" not in shown
    assert shown.splitlines()[-1] == judge(None).sentence


def test_the_terminal_calls_runs_by_their_labels(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    show_essence(write_report([make_run("a/run"), make_run("b/run")]))
    shown = capsys.readouterr().out
    assert "│ a/run" in shown
    assert [line.startswith(("a/run: ", "b/run: ")) for line in shown.splitlines()[-2:]] == [True, True]


def test_the_terminal_shows_no_agreement_of_runs_without_a_reference(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    show_essence(write_report([make_run(name, reference={"kind": "none"}) for name in ("one", "two")]))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name}: {judge(None).sentence}" for name in ("one", "two")]


def test_a_written_report_is_shown_in_one_line(make_run: MakeRun) -> None:
    shown = repr(write_report([make_run("atom"), make_run("dm")]))
    assert len(shown.splitlines()) == 1
    assert len(shown) < 300
    assert "index.html" in shown


def test_statistics_are_plain_numbers() -> None:
    kept = precision_and_recall([1, 2, 3], [1, 3, 2], 20)
    assert kept is not None
    assert (type(kept.precision), type(kept.recall)) == (float, float)


@pytest.mark.parametrize(("factor", "said"), [(1, "20 dm images, 2 a class,"), (2, "2 a class, 4 in one,")])
def test_stored_images_that_hold_several_are_said_to(make_run: MakeRun, factor: int, said: str) -> None:
    synthetic = {"method": "dm", "images": 20, "ipc": 2, "iterations": 5, "factor": factor}
    write_report([folder := make_run(synthetic=synthetic)])
    for page in pages_of(folder):
        assert said in page
        assert ("in one" in page) == (factor > 1)
