"""Which runs are repeats of one another, and what is said of the noise between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from reports import read_run, write_report
from reports.analysis import analyse
from reports.combinations import combine
from reports.document import Noise
from reports.noise import measure_noise

pytestmark = pytest.mark.usefixtures("without_drawing")
Make = Callable[..., Path]


@pytest.fixture
def repeat(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> Make:
    """A run of 30 architectures whose proxy and reference differ from seed to seed by noise."""

    def make(name: str, seed: int, *, first: int = 0, **changes: Any) -> Path:
        quality = np.random.default_rng(0).normal(size=60)
        kind = changes.pop("kind", "real")
        proxy_noise = np.random.default_rng([1, seed, *name.encode()]).normal(size=60)
        noise = np.random.default_rng([2, seed]).normal(size=60)
        used = range(first, first + 30)
        values = {i: (quality[i] + proxy_noise[i]) / 30 for i in used}
        proxy = [
            trial(
                f"a{i}",
                {
                    "validation_accuracy": 0.5 + value,
                    "validation_loss": 1 - value,
                    "final_training_loss": 2 - value,
                },
            )
            for i, value in values.items()
        ]
        real = [trial(f"a{i}", {"test_accuracy": 0.8 + (quality[i] + 0.4 * noise[i]) / 30}) for i in used]
        run = fabricated(proxy, real if kind == "real" else (), info(kind, seed=seed, **changes))
        path: Path = run.write(tmp_path / name)
        return path

    return make


def noise_of(folders: Sequence[Path]) -> list[Noise]:
    runs = [read_run(folder) for folder in folders]
    return measure_noise(runs, [analyse(run) for run in runs], [folder.name for folder in folders])


def scores(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    run = read_run(folder)
    return (
        run.trials["score:validation_accuracy"].to_numpy(),
        run.reference["score:test_accuracy"].to_numpy(),
    )


def test_two_seeds_give_the_ceiling_of_both(repeat: Make) -> None:
    folders = [repeat("one", 0), repeat("two", 1)]
    (noise,) = noise_of(folders)
    proxies, references = zip(*map(scores, folders), strict=True)
    r_proxy, r_reference = (float(scipy.stats.spearmanr(*pair).statistic) for pair in (proxies, references))
    assert noise.references == ["one", "two"]
    assert noise.reference is not None
    assert noise.ceiling is not None
    assert noise.reference.single.value == pytest.approx(r_reference)
    assert noise.ceiling.value.value == pytest.approx(np.sqrt(r_reference))
    (proxy,) = noise.proxies
    assert (proxy.runs, proxy.score) == (["one", "two"], "validation_accuracy")
    assert proxy.reliability.single.value == pytest.approx(r_proxy)
    assert proxy.ceiling is not None
    assert proxy.ceiling.value.value == pytest.approx(np.sqrt(r_reference * r_proxy))
    assert proxy.ceiling_alone.value.value == pytest.approx(np.sqrt(r_proxy))
    said = " ".join(noise.sentences)
    assert f"agrees with itself at Spearman {r_reference:.2f} (" in said
    assert f"No ruler, however good, can be expected to reach more than {np.sqrt(r_reference):.2f}" in said
    assert f"it cannot be expected to reach more than {np.sqrt(r_reference * r_proxy):.2f}" in said


def test_one_seed_says_nothing(repeat: Make) -> None:
    assert noise_of([repeat("one", 0), repeat("again", 0)]) == []
    assert analyse(read_run(repeat("alone", 0))).noise is None


def test_other_settings_are_no_repeat(repeat: Make) -> None:
    longer = {"kind": "real", "score": "test_accuracy", "settings": {"epochs": 50}}
    other = {"method": "dm", "directory": "OTHER", "fingerprint": "sha256:cd"}
    assert noise_of([repeat("one", 0), repeat("longer", 1, proxy={"epochs": 40}, reference=longer)]) == []
    (noise,) = noise_of([repeat("atom", 0), repeat("dm", 1, synthetic=other)])
    assert noise.reference is not None  # the same reference, with two seeds
    assert noise.proxies == []  # of two sets


def test_means_of_ranks_of_other_scores_are_other_rulers(repeat: Make) -> None:
    parts = {
        "one": ["validation_accuracy", "validation_loss"],
        "again": ["validation_loss", "validation_accuracy"],
        "other": ["validation_accuracy", "final_training_loss"],
    }
    runs = [combine(read_run(repeat(name, seed)), names) for seed, (name, names) in enumerate(parts.items())]
    reports = [analyse(run, score="mean_of_ranks") for run in runs]
    (noise,) = measure_noise(runs, reports, list(parts))
    assert [proxy.runs for proxy in noise.proxies] == [["one", "again"]]


def test_halving_repeats_halving_of_the_same_kind(repeat: Make) -> None:
    def halved(name: str, seed: int, strategy: str, eta: int, **options: Any) -> Path:
        described = {"name": strategy, "options": {"eta": eta, "rungs": 3, **options}}
        return repeat(name, seed, score="halving_place", strategy=described)

    first = halved("one", 0, "successive-halving", 3)
    listed = halved("listed", 1, "list", 3, fingerprint="sha256:ab", duplicates=0)
    other = halved("other", 2, "successive-halving", 2)
    banded = halved("banded", 3, "hyperband", 3)
    all_banded = halved("all", 4, "list", 3, halving="hyperband", fingerprint="sha256:ab", duplicates=0)
    (noise,) = noise_of([first, listed, other, banded, all_banded])
    assert noise.references == ["one", "listed", "other", "banded", "all"]
    assert [proxy.runs for proxy in noise.proxies] == [["one", "listed"], ["banded", "all"]]


def test_a_table_is_the_same_one_if_its_column_was_not_written_down(repeat: Make) -> None:
    """Runs of earlier versions read `score`."""
    table = {"kind": "table", "score": "score", "table": "t.csv"}
    columns = ({}, {"column": "score"}, {"column": "late"})
    folders = [repeat(f"r{i}", i, kind="table", reference=table | more) for i, more in enumerate(columns)]
    for folder in folders:
        (folder / "reference.csv").write_text("architecture,score\na1,1\n")
    (noise,) = noise_of(folders)
    assert [proxy.runs for proxy in noise.proxies] == [["r0", "r1"]]


def test_four_runs_have_two_rulers_and_one_reference(repeat: Make) -> None:
    other = {"method": "dm", "directory": "OTHER"}
    folders = [repeat(f"atom{seed}", seed) for seed in (0, 1)]
    folders += [repeat(f"dm{seed}", seed, synthetic=other) for seed in (0, 1)]
    (noise,) = noise_of(folders)
    assert noise.references == ["atom0", "atom1"]
    assert [proxy.runs for proxy in noise.proxies] == [["atom0", "atom1"], ["dm0", "dm1"]]


@pytest.mark.parametrize("kind", ["none", "table"])
def test_without_a_second_reference_only_the_ruler_is_known(repeat: Make, kind: str) -> None:
    reference = {"kind": kind, "score": "test_accuracy", "table": "t.csv" if kind == "table" else None}
    folders = [repeat(name, seed, kind=kind, reference=reference) for name, seed in (("one", 0), ("two", 1))]
    for folder in folders:
        lines = [f"a{i},{i % 7}" for i in range(30)]
        (folder / "reference.csv").write_text("architecture,score\n" + "\n".join(lines))
    (noise,) = noise_of(folders)
    assert (noise.reference, noise.ceiling, noise.references) == (None, None, [])
    assert noise.proxies[0].ceiling is None
    said = " ".join(noise.sentences)
    assert "No ruler" not in said
    assert "against any reference, even one without noise" in said


def test_too_few_in_common_is_said_with_the_way_to_mend_it(repeat: Make) -> None:
    (noise,) = noise_of([repeat("one", 0), repeat("two", 1, first=25)])
    assert len(noise.sentences) == 2
    assert all("on 5 architectures in common" in line and "ranking.csv" in line for line in noise.sentences)


def test_the_pages_and_the_numbers_hold_it(repeat: Make, tmp_path: Path) -> None:
    folders = [repeat("one", 0), repeat("two", 1)]
    out = tmp_path / "compared"
    report = write_report(folders, out=out).report
    assert report.noise is not None
    for name in ("index.html", "report.md"):
        text = (out / name).read_text(encoding="utf-8")
        assert "How far any ruler could go" in text
        assert "agrees with itself at Spearman" in text
        assert "follows by Spearman and Brown" in text
    numbers = json.loads((out / "report.json").read_text())
    assert numbers["noise"][0]["reference"]["single"]["value"] == pytest.approx(
        report.noise[0].reference.single.value if report.noise[0].reference else None
    )
    write_report(folders[0], out=tmp_path / "alone")
    assert "How far any ruler" not in (tmp_path / "alone" / "index.html").read_text()
    assert json.loads((tmp_path / "alone" / "report.json").read_text())["noise"] is None


SPACE = {"name": "convnet", "options": {}, "size": 720, "fitting": 600}
DATA = {"name": "digits", "fingerprint": "sha256:ab", "classes": 10, "image_shape": [1, 8, 8]}


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": DATA | {"name": "mnist"}},
        {"space": SPACE | {"options": {"width": [32]}}},
        {"space": SPACE | {"digest": "sha256:cd"}},
    ],
    ids=str,
)
def test_other_data_and_other_spaces_are_no_repeat(repeat: Make, changes: dict[str, Any]) -> None:
    assert noise_of([repeat("one", 0), repeat("other", 1, **changes)]) == []


@pytest.mark.parametrize("changes", [{"proxy": {"epochs": 40}}, {"score": "validation_loss"}], ids=str)
def test_of_one_reference_other_proxies_and_scores_are_other_rulers(
    repeat: Make, changes: dict[str, Any]
) -> None:
    (noise,) = noise_of([repeat("one", 0), repeat("other", 1, **changes)])
    assert noise.references == ["one", "other"]
    assert noise.proxies == []
