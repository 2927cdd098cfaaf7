"""Progress as plain lines: speed and remaining time are those of work that was really done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atom_nas.terminal import console
from atom_nas.terminal.stages import require_picture, show_bench


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_few_seconds_and_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress_bar("work", 100) as bar:
        for done in range(101):
            clock[0] = done * 0.25
            bar(done, f"loss {done}")
    assert capsys.readouterr().err.splitlines() == [
        "work: 0/100  loss 0",
        "work: 40/100  4.00/s, ETA 0:15  loss 40",
        "work: 80/100  4.00/s, ETA 0:05  loss 80",
        "work: 100/100  4.00/s, ETA 0:00  loss 100",
    ]


def test_tables_in_pipes_are_wider_than_a_terminal_may_be() -> None:
    program = "from atom_nas.terminal.console import stdout, table; table('t', ['x'], [['y' * 110]])"
    plain = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    for environment, whole in ((plain, True), ({**plain, "COLUMNS": "60"}, False)):
        command = [sys.executable, "-c", program]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        assert ("y" * 110 in shown) == whole


def test_a_slow_start_is_forgotten(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar("work", 1000) as bar:
        bar(0)
        for done in range(1, 101):
            clock[0] = 100.0 + done
            bar(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "work: 1/1000  101.00 s each, ETA 28:01:39"
    assert lines[-1].startswith("work: 91/1000  1.00/s, ETA 15:09")


def test_names_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("names", ["name"], [["a\x1b[2Jb"]])
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "a [2Jb" in shown


def test_what_is_known_from_before_does_not_count_as_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress_bar("work", 50) as bar:
        bar(0)
        for done, free, seconds in ((30, 30, 20.0), (32, 30, 40.0), (40, 36, 60.0)):
            clock[0] = seconds
            bar(done, free=free)
    assert capsys.readouterr().err.splitlines() == [
        "work: 0/50",
        "work: 30/50",
        "work: 32/50  20.00 s each, ETA 6:00",
        "work: 40/50  15.00 s each, ETA 2:30",
    ]


def test_pieces_of_unlike_length_count_by_their_length(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress_bar("work", 4) as bar:
        bar(0, pieces=0.0)
        clock[0] = 30.0
        bar(1, pieces=3.0)  # the longest: three quarters of all
        clock[0] = 40.0
        bar(4, pieces=4.0 + 1e-9)
    assert capsys.readouterr().err.splitlines() == [
        "work: 0/4",
        "work: 1/4  10.00 s each, ETA 0:10",
        "work: 4/4  10.00 s each, ETA 0:00",
    ]


def test_the_end_is_said_once(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar("work", 2) as bar:
        for clock[0], done in ((0.0, 0), (20.0, 2), (40.0, 2), (60.0, 2)):
            bar(done)
    assert capsys.readouterr().err.splitlines() == ["work: 0/2", "work: 2/2  10.00 s each, ETA 0:00"]


def test_a_total_that_grows_and_shrinks(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar("work", 2) as bar:
        for clock[0], done, total in ((0.0, 0, 2), (20.0, 2, 2), (40.0, 2, 4), (60.0, 3, 4), (60.0, 3, 3)):
            bar(done, total=total)
    assert capsys.readouterr().err.splitlines() == [
        "work: 0/2",
        "work: 2/2  10.00 s each, ETA 0:00",
        "work: 2/4  20.00 s each, ETA 0:40",
        "work: 3/4  20.00 s each, ETA 0:20",
        "work: 3/3  20.00 s each, ETA 0:00",
    ]


def test_lines_are_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"[bold]runs/a:car:b{' and a word' * 40}"
    console.say(line)
    assert capsys.readouterr().err == f"{line}\n"


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_picture("--picture", tmp_path / "a.png")
    (tmp_path / "d.png").mkdir()
    with pytest.raises(ValueError, match=r"--picture: .*d\.png is a folder; name a file"):
        require_picture("--picture", tmp_path / "d.png")
    with pytest.raises(ValueError, match=r"--json: .*d\.png is a folder; name a file"):
        show_bench("cpu", 1, None, tmp_path / "d.png")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match=f"--picture: the folder {tmp_path} cannot be written to"):
        require_picture("--picture", tmp_path / "a.png")
