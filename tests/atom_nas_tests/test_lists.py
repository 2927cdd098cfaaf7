"""Lists of architectures that a search is confined to, and tables of references."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from trial_helpers import stored

from atom_nas.run_folder import read_record
from atom_nas.search import Progress, SearchSettings, run_search
from atom_nas.search_plan import prepare
from reports import read_run, write_report
from search_spaces import load
from search_spaces.base import enumerate_space

Ran = list[tuple[str, str]]
FITTING, OTHER, MISFIT = "w32-d1-none-relu-avg", "w32-d2-batch-relu-max", "w32-d4-none-relu-avg"


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    return replace(quick, reference_samples=3)


def test_a_list_is_scored_with_its_misfits_as_failures(
    settings: SearchSettings, ran: Ran, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(f"architecture\n{OTHER}\n{MISFIT}\n{FITTING}\n{OTHER}\n")
    listed = replace(settings, architectures=tmp_path / "list.csv", samples=None, reference="none")
    summary = run_search(listed)
    assert (summary.proposed, summary.failed, summary.duplicates) == (3, 1, 1)
    found = {t.architecture: (t.position, t.status) for t in stored(settings.out, "proxy")}
    assert found == {OTHER: (0, "done"), MISFIT: (1, "failed"), FITTING: (2, "done")}
    assert "does not fit the images" in str(stored(settings.out, "proxy")[1].reason)
    assert len(ran) == 2
    assert read_record(settings.out)["strategy"]["name"] == "list"


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(
    "strategy", ["random", "grid", "evolution", "tpe", "successive-halving", "hyperband"]
)
def test_a_strategy_may_draw_among_a_list(settings: SearchSettings, tmp_path: Path, strategy: str) -> None:
    names = [str(each) for each in enumerate_space(load("convnet", width=[32], depth=[1], norm=["batch"]))]
    (tmp_path / "list.csv").write_text("\n".join(["architecture", *names, MISFIT]))
    listed = replace(settings, architectures=tmp_path / "list.csv", reference="none", strategy=strategy)
    summary = run_search(listed)
    assert (summary.asked, summary.proposed, summary.failed) == (4, 4, 0)
    assert {each.architecture for each in stored(settings.out, "proxy")} <= set(names)
    record = read_record(settings.out)
    assert record["strategy"]["name"] == strategy
    assert record["strategy"]["among"].startswith("sha256:")
    page = write_report([settings.out]).page.read_text()
    assert re.search(rf"\b{strategy}( \([^)]*\))? among listed architectures", page)
    (tmp_path / "list.csv").write_text("\n".join(["architecture", MISFIT, *reversed(names), names[0]]))
    run_search(replace(listed, resume=True))  # order and repetitions do not matter
    (tmp_path / "list.csv").write_text("\n".join(["architecture", *names[1:]]))
    with pytest.raises(ValueError, match=r"list\.csv does not list what it did"):
        run_search(replace(listed, resume=True))


def test_a_resumed_list_is_the_one_that_was_begun(settings: SearchSettings, ran: Ran, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"architecture\n{OTHER}\n{FITTING}\n{OTHER}\n")
    listed = replace(settings, architectures=tmp_path / "list.csv", samples=None, reference="none")
    run_search(listed)
    (tmp_path / "list.csv").write_text(f"architecture\n{OTHER}\n{FITTING}\n")
    ran.clear()
    run_search(replace(listed, resume=True))  # a repeated line is left out, as it was in effect before
    assert ran == []
    with pytest.raises(ValueError, match=r"run ranks all of its list: leave --samples out"):
        run_search(replace(listed, resume=True, samples=2))
    (tmp_path / "list.csv").write_text(f"architecture\n{OTHER}\n")
    with pytest.raises(ValueError, match=r"list\.csv does not list what it did when .*run was begun"):
        run_search(replace(listed, resume=True))


@pytest.mark.usefixtures("ran")
def test_a_run_of_the_whole_space_cannot_go_on_with_a_list(settings: SearchSettings, tmp_path: Path) -> None:
    run_search(replace(settings, reference="none"))
    (tmp_path / "list.csv").write_text(f"architecture\n{OTHER}\n{FITTING}\n")
    listed = replace(settings, architectures=tmp_path / "list.csv", reference="none", resume=True)
    with pytest.raises(ValueError, match="was begun without --architectures"):
        run_search(listed)


@pytest.mark.usefixtures("ran")
def test_no_more_are_drawn_than_are_listed_and_fit(settings: SearchSettings, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"architecture\n{OTHER}\n{MISFIT}\n{FITTING}\n")
    seen: list[Progress] = []
    listed = replace(settings, architectures=tmp_path / "list.csv", reference="none")
    summary = run_search(listed, progress=seen.append)
    assert (summary.asked, summary.proposed) == (4, 2)
    assert {progress.total for progress in seen} == {2}


def test_a_list_of_which_none_fits_is_refused(settings: SearchSettings, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"architecture\n{MISFIT}\n")
    listed = replace(settings, architectures=tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"none of the architectures of .*list\.csv fits images of shape"):
        run_search(listed)


def test_a_strategy_that_learns_is_told_how_many(settings: SearchSettings, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"architecture\n{OTHER}\n{FITTING}\n")
    listed = replace(settings, architectures=tmp_path / "list.csv", samples=None, strategy="tpe")
    with pytest.raises(ValueError, match=r"say by --samples how many of the 2 architectures of .*list\.csv"):
        run_search(listed)


@pytest.mark.usefixtures("ran")
def test_gaps_of_a_table_are_told_before_the_search(settings: SearchSettings, tmp_path: Path) -> None:
    names = [str(each) for each in enumerate_space(load("convnet")) if "w32" in str(each)]
    published = tmp_path / "published.csv"
    published.write_text("\n".join(["architecture,score", *(f"{name},{k}" for k, name in enumerate(names))]))
    sampled = replace(settings, reference=str(published), samples=30)
    with pytest.warns(UserWarning, match=r"scores 150 of the 600 .* 25% .*--architectures .*--samples 30"):
        assert prepare(sampled).expected == 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare(replace(sampled, architectures=published)).expected == 30
        assert prepare(replace(sampled, resume=True)).expected == 30  # what it drew has been drawn
    published.write_text(f"architecture,score\n{names[0]},1\n")
    with pytest.warns(UserWarning, match=r"scores 1 of the 600 .* so that less than 1% of the samples"):
        prepare(sampled)


@pytest.mark.usefixtures("ran")
def test_a_table_is_filtered_to_what_was_scored(settings: SearchSettings, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"architecture\n{OTHER}\n{FITTING}\n")
    (tmp_path / "published.csv").write_text(f"architecture,score\n{MISFIT},1\n{FITTING},93.25\n")
    listed = replace(settings, architectures=tmp_path / "list.csv", samples=None)
    summary = run_search(replace(listed, reference=str(tmp_path / "published.csv")))
    assert summary.matched == 1
    assert (settings.out / "reference.csv").read_text() == f"architecture,score\n{FITTING},93.25\n"
    record = read_record(settings.out)["reference"]
    assert (record["kind"], record["table"], record["score"]) == ("table", "published.csv", "score")


@pytest.mark.usefixtures("ran")
def test_the_column_of_a_table_is_recorded_and_can_be_changed(
    settings: SearchSettings, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(f"architecture,early,late\n{OTHER},80,92\n{FITTING},81,91\n")
    table = tmp_path / "list.csv"
    listed = replace(
        settings, architectures=table, samples=None, reference=str(table), reference_column="early"
    )
    run_search(listed)
    assert read_record(settings.out)["reference"]["column"] == "early"
    assert read_run(settings.out).info.reference.column == "early"
    run_search(replace(listed, reference_column="late", resume=True))
    assert read_record(settings.out)["reference"]["column"] == "late"
    found = set((settings.out / "reference.csv").read_text().splitlines())
    assert found == {"architecture,score", f"{FITTING},91.0", f"{OTHER},92.0"}


def test_a_column_without_a_table_is_refused(settings: SearchSettings) -> None:
    with pytest.raises(
        ValueError, match="--reference-column names a column of a CSV file, and --reference real"
    ):
        prepare(replace(settings, reference="real", reference_column="late"))


@pytest.mark.filterwarnings("ignore:.*of the samples will have a reference")
@pytest.mark.parametrize(("strategy", "trained"), [("random", 0), ("successive-halving", 0), ("tpe", 4)])
def test_a_table_without_a_match_is_an_error_that_keeps_the_run(
    settings: SearchSettings, ran: Ran, tmp_path: Path, strategy: str, trained: int
) -> None:
    """All that are drawn at once are looked up before any is trained."""
    settings = replace(settings, strategy=strategy)
    (tmp_path / "published.csv").write_text(f"architecture,score\n{MISFIT},1\n")
    with pytest.raises(
        ValueError, match=r"none of the 4 architectures of this search is among the 1 of .*published"
    ):
        run_search(replace(settings, reference=str(tmp_path / "published.csv")))
    assert len(ran) == trained
    assert run_search(replace(settings, reference="none", resume=True)).proposed == 4
    assert len(ran) >= 4 if trained == 0 else len(ran) == trained
