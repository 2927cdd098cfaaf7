"""Run folders from strangers: nothing of theirs is run, followed or passed on, and each fault is named."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from reports import read_run, write_report
from reports.ranking import ranking_csv
from reports.scores import RANKING_COLUMNS
from reports.store import TRIAL_COLUMNS

MakeRun = Callable[..., Path]


def refusal(folder: Path) -> str:
    """The one line with which the run is refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        write_report(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "http" not in message
    return message


def change_store(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "trials.sqlite")) as store, store:
        for statement in statements:
            store.execute(statement)


def change_info(folder: Path, text: str, by: str) -> None:
    path = folder / "run.json"
    content = path.read_text()
    assert text in content
    path.write_text(content.replace(text, by))


@pytest.mark.usefixtures("without_drawing")
def test_a_picture_that_is_a_link_is_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    folder, secret = make_run(), tmp_path / "secret.png"
    (folder / "synthetic.png").replace(secret)
    (folder / "synthetic.png").symlink_to(secret)
    write_report(folder)
    assert not (folder / "report" / "figures" / "synthetic.png").exists()


@pytest.mark.usefixtures("without_drawing")
@pytest.mark.parametrize("content", [b"root:x:0:0", b"\x89PNG\r\n\x1a\nnothing of the kind", b""])
def test_a_picture_that_is_none_is_left_out(make_run: MakeRun, content: bytes) -> None:
    folder = make_run()
    (folder / "synthetic.png").write_bytes(content)
    write_report(folder)
    assert not (folder / "report" / "figures" / "synthetic.png").exists()


@pytest.mark.usefixtures("without_drawing")
def test_only_the_pixels_of_a_picture_are_passed_on(make_run: MakeRun) -> None:
    folder, text = make_run(), PngImagePlugin.PngInfo()
    text.add_text("Comment", "smuggled")
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", pnginfo=text, icc_profile=b"smuggled too")
    (folder / "synthetic.png").write_bytes(encoded.getvalue() + b"smuggled")
    write_report(folder)
    copy = folder / "report" / "figures" / "synthetic.png"
    assert b"smuggled" not in copy.read_bytes()
    with Image.open(copy) as found:
        assert found.tobytes() == image.tobytes()


def test_a_report_that_leads_elsewhere_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    folder, elsewhere = make_run(), tmp_path / "pictures"
    elsewhere.mkdir()
    (elsewhere / "mine.png").write_bytes(b"mine")
    (folder / "report").symlink_to(elsewhere)
    assert "report is a link" in refusal(folder)
    (folder / "report").unlink()
    (folder / "report").mkdir()
    (folder / "report" / "figures").symlink_to(elsewhere)
    assert "figures is a link" in refusal(folder)
    assert [path.name for path in elsewhere.iterdir()] == ["mine.png"]


def test_no_cell_of_the_ranking_is_a_formula() -> None:
    table = pd.DataFrame(
        {
            "architecture": ["=cmd()", "+1", "-w8", "@x", "\tx", "\rx", "w-8=\r=evil", None],
            "score": [-1.5] * 8,
            "=evil": [-2.0] * 8,
            **dict.fromkeys(("status", "reason", "reference_reason"), ["done"] * 8),
        }
    )
    text = ranking_csv(table)
    found = pd.read_csv(io.StringIO(text), keep_default_na=False)
    assert found["architecture"].tolist() == [
        *("'=cmd()", "'+1", "'-w8", "'@x", "'\tx", "'\nx", "w-8=\n=evil", ""),
    ]
    assert found["score"].tolist() == [-1.5] * 8
    assert found["'=evil"].tolist() == [-2.0] * 8


@pytest.mark.parametrize("name", RANKING_COLUMNS)
def test_a_score_cannot_take_a_column_of_the_ranking(make_run: MakeRun, name: str) -> None:
    folder = make_run()
    change_store(folder, f"UPDATE trials SET scores = '{{\"{name}\": 1}}' WHERE position = 3")
    message = refusal(folder)
    assert f"a score named {name!r}, which is a column of ranking.csv" in message
    assert "trials.sqlite" in message


COLUMNS = ", ".join(TRIAL_COLUMNS)


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE VIEW trials AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        f"SELECT 'proxy' AS estimator, {COLUMNS} FROM old, n WHERE i < 0",
        f"CREATE TABLE trials (estimator, {COLUMNS.replace('scores', 'scores AS (hex(seed))')})",
    ],
)
def test_a_store_that_would_compute_is_refused(make_run: MakeRun, schema: str) -> None:
    folder = make_run()
    change_store(folder, "ALTER TABLE trials RENAME TO old", schema)
    assert "not a plain table" in refusal(folder)


def test_a_view_that_hides_as_a_table_is_stopped(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.store.MAX_CALLS", 3)
    monkeypatch.setattr("reports.store._check_table", lambda *_: None)
    folder = make_run()
    view = (
        "CREATE VIEW trials AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        f"SELECT 'proxy' AS estimator, {COLUMNS} FROM old, n WHERE i < 0"
    )
    change_store(folder, "ALTER TABLE trials RENAME TO old", view)
    assert "is not a readable trial store (interrupted)" in refusal(folder)


def test_more_trials_than_a_report_reads_are_refused(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    monkeypatch.setattr("reports.store.MAX_TRIALS", 40)
    read_run(folder)
    monkeypatch.setattr("reports.store.MAX_TRIALS", 39)
    assert "holds more than 39 trials" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("seconds = 'abc'", "seconds of the proxy trial of 'w3-d1' is 'abc', it must be a finite number"),
        ("seconds = -1", "seconds of the proxy trial of 'w3-d1' is -1.0"),
        ("cpu_seconds = 9e999", "cpu_seconds of the proxy trial of 'w3-d1' is inf"),
        ("peak_memory_mb = x'00'", "peak_memory_mb of the proxy trial of 'w3-d1'"),
        ("reason = x'00'", "reason of the proxy trial of 'w3-d1'"),
        ("device = x'00'", "device of the proxy trial of 'w3-d1'"),
        (f"scores = '{{\"validation_accuracy\": {10**400}}}'", "the scores of 'w3-d1' are not"),
        ('scores = \'{"validation_accuracy": "1"}\'', "the scores of 'w3-d1' are not"),
        ("scores = '{\"validation_accuracy\": 1e301}'", "the scores of 'w3-d1' are not"),
        (f"scores = '{'[' * 100_000}'", "the scores of 'w3-d1' are not"),
        (f"scores = '{{\"a\": {'1' * 5000}}}'", "the scores of 'w3-d1' are not"),
    ],
)
def test_a_value_that_cannot_be_is_named(make_run: MakeRun, change: str, problem: str) -> None:
    folder = make_run()
    change_store(folder, f"UPDATE trials SET {change} WHERE position = 3 AND estimator = 'proxy'")
    message = refusal(folder)
    assert problem in message
    assert "trials.sqlite" in message


def test_a_trial_stored_twice_is_named(make_run: MakeRun) -> None:
    folder = make_run()
    change_store(
        folder,
        "ALTER TABLE trials RENAME TO old",
        f"CREATE TABLE trials AS SELECT estimator, {COLUMNS} FROM old UNION ALL "
        f"SELECT estimator, {COLUMNS} FROM old WHERE position = 3",
    )
    assert "it holds 2 proxy trials of 'w3-d1'" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"proxy": {"training": "abc"}}, "proxy.training"),
        ({"proxy": {"validation_images": -5}}, "proxy.validation_images"),
        ({"proxy": {"validation_images": 10**400}}, "proxy.validation_images"),
        ({"reference": {"kind": "real", "settings": {"training": {"epochs": "x"}}}}, "epochs"),
        ({"synthetic": {"method": "dm", "distill_seconds": float("inf")}}, "synthetic.distill_seconds"),
        ({"environment": {"cores": [float("nan")]}}, "environment.cores.0"),
    ],
)
def test_an_impossible_description_is_named(make_run: MakeRun, changes: dict[str, Any], field: str) -> None:
    message = refusal(make_run(**changes))
    assert field in message
    assert "run.json" in message


def test_json_beyond_what_can_be_read_is_named(make_run: MakeRun) -> None:
    for value in ("1" * 5000, "[" * 100_000):
        folder = make_run(f"run{len(value)}")
        change_info(folder, '"seed": 0', f'"seed": {value}')
        assert "run.json is not valid JSON" in refusal(folder)


def test_a_table_with_a_number_too_large_is_named(make_run: MakeRun) -> None:
    folder = make_run(reference={"kind": "table"})
    (folder / "reference.csv").write_text("architecture,score\nw1-d1,1e309\n")
    assert "score of 'w1-d1' must be a finite number" in refusal(folder)


@pytest.mark.usefixtures("without_drawing")
def test_a_space_may_be_larger_than_any_integer_of_the_machine(make_run: MakeRun) -> None:
    folder = make_run(space={"name": "darts", "size": 10**30, "fitting": 10**30})
    write_report(folder)
    assert json.loads((folder / "report" / "report.json").read_text())["run"]["space"]["size"] == 10**30
