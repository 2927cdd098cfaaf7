"""The whole report of one run, from a fabricated run folder."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from reports import Report, read_run, write_report
from reports.analysis import analyse

MakeRun = Callable[..., Path]


def report_of(folder: Path) -> Report:
    """The numbers alone, without drawing them."""
    return analyse(read_run(folder))


class Page(HTMLParser):
    """Collects a page's tags and checks that they are balanced."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "report" / "ranking.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_writes_every_file(make_run: MakeRun) -> None:
    folder = make_run()
    written = write_report(folder)
    assert written.page == folder / "report" / "index.html"
    names = {path.relative_to(folder / "report").as_posix() for path in (folder / "report").rglob("*.*")}
    figures = {
        f"figures/{name}.{s}" for name in ("agreement", "top_k", "savings", "scores") for s in ("png", "svg")
    }
    assert (
        names == {"index.html", "report.md", "report.json", "ranking.csv", "figures/synthetic.png"} | figures
    )
    assert not list(folder.rglob(".report-*"))


@pytest.mark.usefixtures("without_drawing")
def test_statistics_are_those_of_the_pairs(make_run: MakeRun) -> None:
    folder = make_run(failed=2, references=15)
    report = write_report(folder).report
    rows = [row for row in rows_of(folder) if row["rank"] and row["reference"]]
    assert len(rows) == report.default.spearman.n == report.counts.pairs == 13
    x, y = [[float(row[column]) for row in rows] for column in ("score", "reference")]
    assert report.default.spearman.value == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert report.default.kendall_tau_b.value == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert report.default.pick is not None
    assert report.default.pick.regret == pytest.approx(max(y) - y[0])
    assert (report.counts.proposed, report.counts.failed, report.counts.without_reference) == (20, 2, 5)
    assert [score.name for score in report.scores] == [
        "validation_accuracy",
        "final_training_loss",
        "mean_of_ranks",
        "seconds",
        "peak_memory_mb",
    ]
    assert report.scores[1].spearman.value == pytest.approx(report.default.spearman.value)


@pytest.mark.usefixtures("without_drawing")
def test_seconds_and_memory_are_rulers_like_any_score(make_run: MakeRun) -> None:
    folder = make_run()
    with closing(sqlite3.connect(folder / "trials.sqlite")) as store, store:
        store.execute(
            "UPDATE trials SET seconds = 40 - position, peak_memory_mb = 100 + position * position % 7"
            " WHERE estimator = 'proxy' AND status = 'done'"
        )
    report = write_report(folder).report
    rows = [row for row in rows_of(folder) if row["rank"] and row["reference"]]
    reference = [float(row["reference"]) for row in rows]
    found = {score.name: score for score in report.scores}
    for name in ("seconds", "peak_memory_mb"):
        values = [float(row[name]) for row in rows]
        assert found[name].spearman.value == pytest.approx(scipy.stats.spearmanr(values, reference).statistic)
        assert found[name].kendall_tau_b.value is not None
    text = (folder / "report" / "report.md").read_text()
    assert "| seconds of the proxy trial |" in text
    assert "| peak memory of the proxy trial |" in text


@pytest.mark.usefixtures("without_drawing")
def test_what_counts_at_the_top_is_told_in_numbers_and_in_words(make_run: MakeRun) -> None:
    folder = make_run()
    report = write_report(folder).report
    rows = [row for row in rows_of(folder) if row["rank"] and row["reference"]]
    x, y = [[float(row[column]) for row in rows] for column in ("score", "reference")]
    tau, interval = report.default.weighted_tau, report.default.weighted_tau_interval
    assert tau is not None
    assert interval is not None
    assert tau.value == pytest.approx(scipy.stats.weightedtau(y, x, rank=None).statistic)
    assert interval.low < tau.value < interval.high
    assert report.regret is not None
    assert report.regret.k == list(range(1, 19))
    assert report.regret.ruler[2] == pytest.approx(max(y) - max(y[:3]))
    kept = next(row for row in report.default.kept if row.percent == 20)
    shown = f"{100 * kept.regret:.1f} points | {100 * kept.random_regret:.1f} points |"
    assert shown in (folder / "report" / "report.md").read_text(encoding="utf-8")
    for name in ("index.html", "report.md"):
        assert "rank=None" in (folder / "report" / name).read_text(encoding="utf-8")


def test_savings_are_measured_on_the_pairs(make_run: MakeRun) -> None:
    """All on a CPU: in core-seconds, of which distillation took 100."""
    savings = report_of(make_run(failed=2, references=15)).savings
    assert (savings.pairs, savings.proxy_trials, savings.reference_trials) == (13, 20, 15)
    assert savings.speedup_search == pytest.approx(6.0)
    assert savings.speedup_total == pytest.approx(13 * 12 / (100 + 13 * 2))
    assert savings.break_even_architectures == pytest.approx(10.0)


@pytest.mark.usefixtures("without_drawing")
def test_savings_on_a_gpu_are_wall_seconds(make_run: MakeRun) -> None:
    folder = make_run(failed=2, references=15)
    info = json.loads((folder / "run.json").read_text())
    info["synthetic"]["device"] = "cuda"
    (folder / "run.json").write_text(json.dumps(info))
    savings = report_of(folder).savings
    assert savings.speedup_total == pytest.approx(13 * 12 / (60 + 13 * 2))
    assert savings.break_even_architectures == pytest.approx(6.0)


@pytest.mark.usefixtures("without_drawing")
def test_ranking_is_sorted_with_failures_last(make_run: MakeRun) -> None:
    folder = make_run()
    write_report(folder)
    rows = rows_of(folder)
    assert list(rows[0]) == [
        *("rank", "architecture", "score", "reference", "validation_accuracy", "final_training_loss"),
        *(
            "mean_of_ranks",
            "seconds",
            "cpu_seconds",
            "peak_memory_mb",
            "status",
            "reason",
            "reference_reason",
        ),
    ]
    assert [row["rank"] for row in rows] == [*(str(rank) for rank in range(1, 19)), "", ""]
    scores = [float(row["score"]) for row in rows[:18]]
    assert scores == sorted(scores, reverse=True)
    assert {(row["status"], row["reason"], row["score"]) for row in rows[18:]} == {
        ("failed", "out of memory", "")
    }


@pytest.mark.usefixtures("without_drawing")
def test_a_loss_is_turned_so_that_higher_is_better(make_run: MakeRun) -> None:
    folder = make_run()
    report = write_report(folder, score="final_training_loss").report
    first = rows_of(folder)[0]
    assert float(first["score"]) == -float(first["final_training_loss"])
    assert report.score == report.default.name == "final_training_loss"
    assert report.default.spearman.value is not None
    assert report.default.spearman.value > 0.5


@pytest.mark.usefixtures("without_drawing")
def test_tied_scores_share_the_lowest_rank(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> None:
    proxy = [
        trial(name, {"validation_accuracy": x}) for name, x in zip("abcd", (0.5, 0.7, 0.5, 0.1), strict=True)
    ]
    real = [trial(name, {"test_accuracy": x}) for name, x in zip("abcd", (0.5, 0.7, 0.6, 0.1), strict=True)]
    folder = fabricated(proxy, real, info()).write(tmp_path / "tied")
    report = write_report(folder).report
    assert [(row["rank"], row["architecture"]) for row in rows_of(folder)] == [
        ("1", "b"),
        ("2", "a"),
        ("2", "c"),
        ("4", "d"),
    ]
    assert (report.counts.tied_scores, report.counts.tied_references) == (2, 0)
    assert any(note.startswith("Ties: 2 of 4") for note in report.notes)


def test_page_is_self_contained_and_accessible(make_run: MakeRun) -> None:
    text = write_report(make_run()).page.read_text(encoding="utf-8")
    page = Page(text)
    images = page.of("img")
    assert len(images) == 5
    assert all((image["src"] or "").startswith("data:image/") and image["alt"] for image in images)
    assert not page.of("script")
    assert not page.of("link")
    assert not re.search(r"(?:src|href)=\"(?!data:|#|ranking\.csv)", text)
    assert "@import" not in text
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert all("scope" in header for header in page.of("th"))
    assert "prefers-color-scheme: dark" in text
    assert page.of("html")[0]["lang"] == "en"


@pytest.mark.usefixtures("without_drawing")
def test_text_from_the_run_cannot_become_markup(make_run: MakeRun) -> None:
    folder = make_run(command="search <script>alert(1)</script> | `x`")
    write_report(folder)
    text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    markdown = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "- Command: `` search <script>alert(1)</script> | `x` ``\n" in markdown


def test_json_is_strict_and_reports_are_repeatable(make_run: MakeRun) -> None:
    folder = make_run()
    texts = []
    for _ in range(2):
        write_report(folder)
        texts.append({path: path.read_bytes() for path in (folder / "report").rglob("*.*")})
    assert texts[0] == texts[1]
    report = strict_json(folder / "report" / "report.json")
    assert report["format_version"] == 1
    assert report["comparison"] is None
    assert report["wall_seconds"] == {"distill": 60.0, "search": 21.0, "reference": 110.0, "confirm": None}
    assert report["cpu_seconds"] == {"distill": 100.0, "search": 40.0, "reference": 240.0, "confirm": None}


@pytest.mark.usefixtures("without_drawing")
def test_without_a_reference_it_only_ranks(make_run: MakeRun) -> None:
    folder = make_run(reference={"kind": "none"})
    report = write_report(folder).report
    assert report.verdict.level == "no reference"
    assert report.reference_score is None
    assert report.savings.reason == "the run has no reference to compare with"
    assert {path.name for path in (folder / "report" / "figures").iterdir()} == {
        *("savings.png", "savings.svg", "synthetic.png"),
    }
    assert {row["reference"] for row in rows_of(folder)} == {""}
    for name in ("index.html", "report.md"):
        text = (folder / "report" / name).read_text(encoding="utf-8")
        for word in ("Spearman", "share their reference", "Speed-up", "Break-even", "test accuracy"):
            assert word not in text
    Page((folder / "report" / "index.html").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("without_drawing")
def test_a_table_has_no_cost(make_run: MakeRun) -> None:
    table = {"kind": "table", "score": "test_accuracy", "table": "bench.csv", "column": "epochs_12"}
    folder = make_run(reference=table)
    lines = [f"w{i}-d1,{90 + 0.1 * i}" for i in range(20)]
    (folder / "reference.csv").write_text("architecture,score\n" + "\n".join(lines), encoding="utf-8")
    report = write_report(folder).report
    assert report.default.spearman.n == 18
    assert report.savings.reference_seconds is None
    assert "published table" in (report.savings.reason or "")
    assert "points" not in report.verdict.sentence
    markdown = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert r"table bench.csv, column epochs\_12" in markdown
    assert "nothing in it says that they are of digits" in markdown


@pytest.mark.usefixtures("without_drawing")
@pytest.mark.parametrize(
    ("failed", "pairs"),
    [(18, "only 2 architectures have"), (19, "only 1 architecture has"), (20, "no architecture has")],
)
def test_too_few_pairs_are_said_not_crashed_on(make_run: MakeRun, failed: int, pairs: str) -> None:
    folder = make_run(failed=failed)
    report = write_report(folder).report
    assert report.verdict.level == "not enough data"
    assert f"{pairs} both a score and a reference score" in report.verdict.sentence
    assert report.default.spearman.value is None
    strict_json(folder / "report" / "report.json")
    Page((folder / "report" / "index.html").read_text(encoding="utf-8"))


def test_equal_scores_are_said(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> None:
    proxy = [trial(f"a{i}", {"validation_accuracy": 0.1}) for i in range(12)]
    real = [trial(f"a{i}", {"test_accuracy": i / 12}) for i in range(12)]
    report = report_of(fabricated(proxy, real, info()).write(tmp_path / "equal"))
    assert report.verdict.sentence == "No verdict: all scores are equal."
    assert report.default.pick is not None
    assert report.default.pick.tied == 12


def test_few_validation_images_are_warned_of_where_their_luck_matters(make_run: MakeRun) -> None:
    few, many = (
        " ".join(report_of(make_run(f"v{images}", proxy={"validation_images": images})).notes)
        for images in (10, 1_000_000)
    )
    assert "An accuracy on 10 validation images has a standard error of" in few
    assert "validation images" not in many


@pytest.mark.usefixtures("without_drawing")
def test_a_measurement_can_rank_and_an_unknown_score_lists_it(make_run: MakeRun) -> None:
    folder = make_run()
    assert write_report(folder, score="seconds").report.score == "seconds"
    with pytest.raises(ValueError, match=r"choose from validation_accuracy, .*, seconds, peak_memory_mb"):
        write_report(folder, score="nonsense")


def test_how_it_was_made_counts_images_and_epochs(make_run: MakeRun) -> None:
    settings = {
        "training_images": 2000,
        "test_images": 5000,
        "training": {"epochs": 8, "learning_rate": 0.01, "schedule": "step", "precision": "bfloat16"},
    }
    folder = make_run(
        proxy={
            "training_images": 100,
            "validation_images": 1000,
            "training": {"epochs": 40, "batch_size": 32, "augmentation": "dsa"},
        },
        reference={"kind": "real", "score": "test_accuracy", "settings": settings},
    )
    write_report(folder)
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "trained on 100 images for 40 epochs and scored on 1,000 real validation images" in text
    assert "trained on real data on 2,000 images for 8 epochs, test accuracy on 5,000 images" in text
    assert "- Proxy training: batches of 32, dsa augmentation\n" in text
    assert "- Reference training: learning rate 0.01, step schedule, bfloat16\n" in text
    assert "- By another score: `atom-nas report RUN --score NAME` with `" in text
    assert "`mean_of_ranks` (combination: mean of ranks)" in text
    assert "600 of its 720 architectures fit images of 8x8 pixels" in text


def test_notes_state_reuse_devices_and_unfinished_runs(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path
) -> None:
    proxy = [trial(f"a{i}", {"validation_accuracy": i / 12}) for i in range(12)]
    real = [trial(f"a{i}", {"test_accuracy": i / 12}, cached=i % 2, device="cuda") for i in range(12)]
    folder = fabricated(proxy, real, info(complete=False)).write(tmp_path / "noted")
    notes = " ".join(report_of(folder).notes)
    assert "has not finished" in notes
    assert "6 of 12 reference trials were reused" in notes
    assert "different devices (cpu, cuda)" in notes


def test_unknown_score_names_those_there_are(make_run: MakeRun) -> None:
    folder = make_run()
    near = r"did you mean validation_accuracy\? choose from validation_accuracy, final_training_loss"
    with pytest.raises(ValueError, match=f"no score 'acc': {near}"):
        write_report(folder, score="acc")
    assert not (folder / "report").exists()
