"""The section on what was trained on the real images to be kept."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atom_nas.terminal.summary import show_essence
from reports import write_report
from reports.confirmed import stem, weights_file

pytestmark = pytest.mark.usefixtures("without_drawing")
SETTINGS = {"training": {"epochs": 7}, "training_images": 90, "validation_images": 20, "test_images": 30}


@pytest.fixture
def run(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> Path:
    """Four ranked architectures, of which the best three were confirmed; the second's training failed."""
    proxy = [trial(f"a{i}", {"validation_accuracy": (9 - i) / 10}, seconds=1.0) for i in range(4)]
    confirmed = [
        trial("a0", {"validation_accuracy": 0.80, "validation_loss": 0.7, "test_accuracy": 0.99}, 100.0),
        trial("a1", None, 50.0),
        trial("a2", {"validation_accuracy": 0.80, "validation_loss": 0.6, "test_accuracy": 0.75}, 300.0),
    ]
    changed = info("none", confirm={"count": 3, "settings": SETTINGS}, confirm_wall_seconds=400.0)
    made: Path = fabricated(proxy, (), changed, confirmed=confirmed).write(tmp_path / "run")
    for name in ("a0", "a2"):
        file = made / weights_file(name)
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return made


def pages_of(folder: Path) -> list[str]:
    return [(folder / "report" / name).read_text(encoding="utf-8") for name in ("index.html", "report.md")]


def test_the_best_by_held_out_images_comes_first_and_the_test_split_has_no_say(run: Path) -> None:
    report = write_report(run).report
    assert report.confirmed is not None
    rows = report.confirmed.rows
    assert [(row.rank, row.proxy_rank, row.architecture) for row in rows] == [
        *((1, 3, "a2"), (2, 1, "a0"), (None, 2, "a1"))
    ]
    assert rows[0].weights == "confirmed/a2.safetensors"
    assert rows[1].load == f"atom_nas.load_architecture({str(run)!r}, rank=2)"
    assert (rows[2].load, rows[2].validation_accuracy, rows[2].reason) == (None, None, "out of memory")


def test_costs_are_counted_apart(run: Path) -> None:
    report = write_report(run).report
    assert report.confirmed is not None
    assert report.confirmed.seconds == 450.0
    assert report.savings.proxy_seconds == 4.0
    assert (report.wall_seconds.confirm, report.cpu_seconds.confirm) == (400.0, 450.0)
    for page in pages_of(run):
        assert "confirmation" in page
        assert "7 min 30 s" in page


def test_pages_show_the_table_and_how_to_load(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = write_report(run)
    for page in pages_of(run):
        assert "Confirmed on real data" in page
        assert "Trained on 90 images of the real data for 7 epochs" in page
        assert "20 held-out validation images" in page
        assert "confirmed/a2.safetensors" in page
        assert "rank=1)" in page
        assert "75.0%" in page
    found = json.loads((run / "report" / "report.json").read_text())["confirmed"]
    assert [row["test_accuracy"] for row in found["rows"]] == [0.75, 0.99, None]
    show_essence(written)
    shown = capsys.readouterr().out
    assert "Confirmed on real data" in shown
    assert "without weights: a1 (out of memory)" in shown
    assert f"load the best with its weights: atom_nas.load_architecture({str(run)!r}, rank=1)" in shown


def test_the_printed_line_works_when_pasted(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / """it's "mine" :smile: """
    odd.mkdir()
    file = odd / "spaces.py"
    file.touch()
    shutil.move(run, odd / "run")
    record = json.loads((odd / "run" / "run.json").read_text())
    record["space"] |= {"name": "spaces.py:Blocks", "file": str(file)}
    (odd / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(odd)
    written = write_report(Path("run"))
    show_essence(written)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "load_architecture" in line]
    call = ast.parse(line.partition(": ")[2], mode="eval").body
    assert isinstance(call, ast.Call)
    assert ast.literal_eval(call.args[0]) == str(odd / "run")
    named = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    assert named == {"rank": 1, "space": f"{file}:Blocks"}
    assert str(odd) not in (odd / "run" / "report" / "index.html").read_text()


def test_where_a_file_is_gone_the_others_are_loaded_by_name(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / weights_file("a2")).unlink()
    written, line = write_report(run), f"atom_nas.load_architecture({str(run)!r}, architecture='a0')"
    assert written.report.confirmed is not None
    assert written.report.confirmed.load == line
    show_essence(written)
    assert f"load the best with its weights: {line}" in capsys.readouterr().out


def test_weights_that_are_gone_are_not_promised(run: Path) -> None:
    for name in ("a0", "a2"):
        (run / weights_file(name)).unlink()
    report = write_report(run).report
    assert report.confirmed is not None
    assert report.confirmed.load is None
    for page in pages_of(run):
        assert "missing" in page
        assert "load_architecture" not in page


def test_a_run_without_has_no_section(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    assert write_report(folder).report.confirmed is None
    for page in pages_of(folder):
        assert "onfirm" not in page


def test_names_of_files() -> None:
    assert stem("w64-d3-instance-relu-avg") == "w64-d3-instance-relu-avg"
    cells = [f"|{operation}~0|+|none~0|none~1|" for operation in ("none", "skip_connect")]
    assert len({stem(cell) for cell in cells}) == 2
    for odd in (*cells, "../../x", "", "a" * 300, "A/b", "\udc80"):
        assert re.fullmatch(r"[A-Za-z0-9_-]+", stem(odd))
        assert len(stem(odd)) < 80
