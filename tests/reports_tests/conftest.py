"""Fabricates run folders exactly as the search writes them, without training anything."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CREATE_TABLE = """
CREATE TABLE trials (
  estimator TEXT NOT NULL, architecture TEXT NOT NULL, position INTEGER NOT NULL, status TEXT NOT NULL,
  reason TEXT, scores TEXT NOT NULL, seconds REAL NOT NULL, cpu_seconds REAL NOT NULL, peak_memory_mb REAL,
  cached INTEGER NOT NULL DEFAULT 0, seed INTEGER NOT NULL, device TEXT NOT NULL,
  PRIMARY KEY (estimator, architecture))
"""
PNG_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    + "1f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)


@dataclass
class Trial:
    """One row of the store; a None among the scores stands for a failure."""

    architecture: str
    scores: Mapping[str, float] | None
    seconds: float = 2.0
    cached: int = 0
    device: str = "cpu"


@dataclass
class Fabricated:
    """A run folder to be written."""

    proxy: Sequence[Trial]
    real: Sequence[Trial] = ()
    info: dict[str, Any] = field(default_factory=dict)
    picture: bool = True
    confirmed: Sequence[Trial] = ()

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        with_store(folder / "trials.sqlite", self.proxy, self.real, self.confirmed)
        (folder / "run.json").write_text(json.dumps(self.info), encoding="utf-8")
        if self.picture:
            (folder / "synthetic.png").write_bytes(PNG_PIXEL)
        return folder


def with_store(
    path: Path, proxy: Sequence[Trial], real: Sequence[Trial], confirmed: Sequence[Trial] = ()
) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(CREATE_TABLE)
    for estimator, trials in (("proxy", proxy), ("real", real), ("confirm", confirmed)):
        for position, trial in enumerate(trials):
            connection.execute(
                "INSERT INTO trials VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", row(estimator, position, trial)
            )
    connection.commit()
    connection.close()


def row(estimator: str, position: int, trial: Trial) -> tuple[Any, ...]:
    failed = trial.scores is None
    return (
        estimator,
        trial.architecture,
        position,
        "failed" if failed else "done",
        "out of memory" if failed else None,
        json.dumps({} if failed else trial.scores),
        trial.seconds,
        trial.seconds,
        None if failed else 100.5,
        trial.cached,
        position,
        trial.device,
    )


def run_info(kind: str = "real", **changes: Any) -> dict[str, Any]:
    reference = {
        "kind": kind,
        "score": "test_accuracy",
        "settings": {"epochs": 5},
        "table": None,
        "matched": 20,
    }
    info: dict[str, Any] = {
        "format_version": 1,
        "atom_nas_version": "0.1.0",
        "command": "atom-nas search SET --space convnet",
        "seed": 0,
        "dataset": {"name": "digits", "fingerprint": "sha256:ab", "classes": 10, "image_shape": [1, 8, 8]},
        "synthetic": {
            "directory": "SET",
            "method": "atom",
            "ipc": 10,
            "images": 100,
            "distill_seconds": 60.0,
            "distill_cpu_seconds": 100.0,
            "device": "cpu",
        },
        "space": {"name": "convnet", "options": {}, "size": 720, "fitting": 600},
        "strategy": {"name": "random", "options": {}, "samples": 20},
        "score": "validation_accuracy",
        "proxy": {"epochs": 20},
        "reference": reference,
        "workers": 2,
        "device": "cpu",
        "search_wall_seconds": 21.0,
        "reference_wall_seconds": 110.0,
        "complete": True,
        "environment": {"python": "3.11"},
    }
    return {**info, **changes}


@pytest.fixture
def info() -> Callable[..., dict[str, Any]]:
    return run_info


@pytest.fixture
def trial() -> type[Trial]:
    return Trial


@pytest.fixture
def fabricated() -> type[Fabricated]:
    return Fabricated


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run of 20 architectures; further keyword arguments replace parts of run.json."""

    def make(
        name: str = "run",
        *,
        noise: float = 0.3,
        failed: int = 2,
        references: int = 20,
        kind: str = "real",
        **changes: Any,
    ) -> Path:
        quality = np.random.default_rng(1).normal(size=20)
        measured = quality + noise * np.random.default_rng([2, *name.encode()]).normal(size=20)
        proxy = [
            Trial(
                f"w{i}-d1",
                None
                if i < failed
                else {"validation_accuracy": 0.5 + x / 20, "final_training_loss": 1 - x / 10},
                seconds=2.0,
            )
            for i, x in enumerate(measured)
        ]
        real = [
            Trial(f"w{i}-d1", {"test_accuracy": 0.8 + q / 50}, seconds=12.0) for i, q in enumerate(quality)
        ]
        used = real[:references] if kind == "real" else []
        return Fabricated(proxy, used, run_info(kind, **changes)).write(tmp_path / name)

    return make


@pytest.fixture
def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are still built but not rendered: for tests that look at anything but the pictures."""

    def save(_: object, folder: Path, name: str) -> None:
        for suffix in (".png", ".svg"):
            (folder / f"{name}{suffix}").write_bytes(PNG_PIXEL)

    monkeypatch.setattr("reports.section.save_figure", save)
    monkeypatch.setattr("reports.writing.save_figure", save)
