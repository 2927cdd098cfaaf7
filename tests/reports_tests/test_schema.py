"""Reading run folders: what is wrong is said in one line, and a run that was killed is still read."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import write_report
from reports.runs import read_run

MakeRun = Callable[..., Path]


def one_line(folder: Path) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        read_run(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_info(folder: Path, **changes: object) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}), encoding="utf-8")


def test_reads_what_the_search_wrote(make_run: MakeRun) -> None:
    run = read_run(make_run("mine", extra_key="kept"))
    assert run.name == "mine"
    assert run.score_names == ["validation_accuracy", "final_training_loss"]
    assert len(run.trials) == len(run.reference) == 20
    assert run.trials["status"].value_counts().to_dict() == {"done": 18, "failed": 2}
    assert run.trials["score:validation_accuracy"].isna().sum() == 2
    assert run.info.synthetic.distill_seconds == 60.0


def test_leaves_no_trace_in_the_folder(make_run: MakeRun) -> None:
    folder = make_run()
    before = sorted(path.name for path in folder.iterdir())
    read_run(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_missing_folder_and_files(make_run: MakeRun, tmp_path: Path) -> None:
    assert "no run folder at" in one_line(tmp_path / "absent")
    folder = make_run()
    (folder / "trials.sqlite").unlink()
    assert "has no trials.sqlite" in one_line(folder)
    (folder / "run.json").unlink()
    assert "it has no run.json" in one_line(folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (rb'{"format_version": 1, "command": "\ud800"}', "is not valid JSON"),
        (b"[]", "was not written by atom-nas search"),
        (b'{"a": 1}', "was not written by atom-nas search"),
        (b'{"format_version": 2}', "has format_version 2, this version reads 1"),
        (b'{"format_version": 1}', "is not a valid run description: dataset: Field required"),
    ],
)
def test_damaged_run_json(make_run: MakeRun, content: bytes, problem: str) -> None:
    folder = make_run()
    (folder / "run.json").write_bytes(content)
    message = one_line(folder)
    assert problem in message
    assert "run.json" in message


def test_a_record_that_is_too_large_is_not_read(make_run: MakeRun) -> None:
    folder = make_run()
    os.truncate(folder / "run.json", 2**26 + 1)
    assert "run.json is not valid JSON (more than 67,108,864 bytes)" in one_line(folder)


def test_an_impossible_value_is_named(make_run: MakeRun) -> None:
    folder = make_run()
    change_info(folder, reference={"kind": "guess"})
    assert "reference.kind" in one_line(folder)


def test_a_weight_that_is_none_is_named(make_run: MakeRun) -> None:
    folder = make_run()
    change_info(folder, combine=["validation_accuracy=0", "zico"])
    assert "combine: " in one_line(folder)
    assert "the weight of validation_accuracy must be a number from" in one_line(folder)


def test_damaged_store(make_run: MakeRun) -> None:
    folder = make_run()
    store = folder / "trials.sqlite"
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE trials SET scores = '{\"validation_accuracy\": NaN}' WHERE position = 3")
    connection.close()
    assert "the scores of 'w3-d1' are not a JSON object of finite numbers" in one_line(folder)
    store.write_bytes(b"this is no database at all" * 100)
    assert "is not a readable trial store" in one_line(folder)
    store.write_bytes(b"")
    assert "no such table: trials" in one_line(folder)


def test_reference_table(make_run: MakeRun) -> None:
    folder = make_run(reference={"kind": "table", "score": None, "table": "bench.csv"})
    assert "its reference is a table" in one_line(folder)
    table = folder / "reference.csv"
    table.write_text("architecture,accuracy\nw1-d1,0.3\n")
    assert "needs columns architecture, score" in one_line(folder)
    table.write_text("architecture,score\nw1-d1,high\n")
    assert "needs columns architecture, score" in one_line(folder)
    table.write_text("architecture,score\nw1-d1,0.3\nw1-d1,0.4\n")
    assert "scores 'w1-d1' more than once" in one_line(folder)
    table.write_text("architecture,score\nw1-d1,93.5\n")
    run = read_run(folder)
    assert run.reference_score == "score"
    assert run.reference["score:score"].tolist() == [93.5]


def test_a_search_under_way_has_no_table_yet(make_run: MakeRun) -> None:
    folder = make_run(reference={"kind": "table", "score": None, "table": "bench.csv"}, complete=False)
    run = read_run(folder)
    assert list(run.reference.columns) == ["architecture", "status", "reason", "score:score"]
    assert run.reference.empty
    report = write_report(folder).report
    assert report.counts.ranked == report.counts.without_reference > 0
    assert "has not finished" in (folder / "report" / "report.md").read_text()
    (folder / "reference.csv").write_text("architecture,score\nw1-d1,93.5\n")
    assert read_run(folder).reference["score:score"].tolist() == [93.5]


KILLED_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("DELETE FROM trials WHERE position >= 15")
connection.commit()
connection.execute("DELETE FROM trials WHERE position >= 10")  # never committed
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_run_is_read_up_to_its_last_commit(make_run: MakeRun) -> None:
    folder = make_run()
    store = folder / "trials.sqlite"
    with subprocess.Popen([sys.executable, "-c", KILLED_WRITER, store], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == b"ready"
        assert len(read_run(folder).trials) == 15
        os.kill(writer.pid, signal.SIGKILL)
    assert store.with_name("trials.sqlite-wal").stat().st_size > 0
    assert len(read_run(folder).trials) == 15
    store.with_name("trials.sqlite-shm").unlink()
    assert len(read_run(folder).trials) == 15


def test_a_run_without_trials_is_read(make_run: MakeRun) -> None:
    folder = make_run()
    with sqlite3.connect(folder / "trials.sqlite") as connection:
        connection.execute("DELETE FROM trials")
    connection.close()
    run = read_run(folder)
    assert len(run.trials) == 0
    assert run.score_names == []
