"""The folder of a report: what of it stays and what goes when it is written again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import read_run, write_report
from reports.analysis import analyse

MakeRun = Callable[..., Path]


@pytest.mark.usefixtures("without_drawing")
def test_a_failure_leaves_the_old_report_whole(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run()
    write_report(folder)
    before = {path: path.read_bytes() for path in (folder / "report").rglob("*.*")}

    def full_disk(*_: object, **__: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr("reports.writing.render_markdown", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_report(folder, score="final_training_loss")
    assert {path: path.read_bytes() for path in (folder / "report").rglob("*.*")} == before
    assert not list(folder.rglob(".report-*"))


def test_a_first_report_that_fails_leaves_no_folder(make_run: MakeRun, monkeypatch: Any) -> None:
    def full_disk(*_: object, **__: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr("reports.writing.make_section", full_disk)
    folder = make_run()
    with pytest.raises(OSError, match="no space left"):
        write_report(folder)
    assert not (folder / "report").exists()


@pytest.mark.usefixtures("without_drawing")
def test_figures_of_an_earlier_report_go_and_other_files_stay(make_run: MakeRun) -> None:
    folder = make_run()
    write_report(folder)
    (folder / "report" / "mine.txt").write_text("kept")
    (folder / "synthetic.png").unlink()
    write_report(folder)
    assert not (folder / "report" / "figures" / "synthetic.png").exists()
    assert (folder / "report" / "mine.txt").exists()


def test_importing_the_package_is_cheap() -> None:
    heavy = "{'torch', 'pandas', 'numpy', 'matplotlib', 'pydantic', 'jinja2', 'scipy'}"
    code = f"import sys, reports; loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_statistics_do_not_touch_the_global_generator(make_run: MakeRun) -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    analyse(read_run(make_run()))
    assert np.random.get_state()[1].tolist() == before
