"""Several trainings of each architecture: what is averaged, kept, and said of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from trial_helpers import stored

from atom_nas.repeating import averaged, leg_of, seed_of
from atom_nas.run_folder import read_record
from atom_nas.search import SearchSettings, run_search
from distill.leg import Leg
from reports import write_report
from reports.scores import mean_of

COSTS = {"parameters", "flops"}


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    return replace(quick, reference="none", repeats=2)


def test_one_training_is_as_it_is() -> None:
    assert averaged([{"a": 1.0}]) == {"a": 1.0}
    assert averaged([{"a": 1.0}, {"a": 4.0}]) == {"a": 2.5, "a#1": 1.0, "a#2": 4.0}
    leg = Leg(until=3, checkpoint=Path("folder/abc.safetensors"))
    assert seed_of(7, 0) == 7
    assert len({seed_of(7, number) for number in range(4)}) == 4
    assert leg_of(None, 1) is None
    legs = [leg_of(leg, number) for number in range(3)]
    assert legs[0] == leg
    assert {each.until for each in legs if each} == {3}
    assert len({each.checkpoint for each in legs if each}) == 3


@pytest.mark.usefixtures("ran")
def test_scores_are_means_of_trainings_of_which_the_first_is_that_of_one_alone(
    settings: SearchSettings,
) -> None:
    run_search(settings)
    alone = replace(settings, repeats=1, out=settings.out.with_name("alone"))
    run_search(alone)
    for twice, once in zip(stored(settings.out, "proxy"), stored(alone.out, "proxy"), strict=True):
        assert twice.architecture == once.architecture
        assert twice.scores.keys() - once.scores.keys() == {
            f"{name}#{number}" for name in once.scores.keys() - COSTS for number in (1, 2)
        }
        for name, value in once.scores.items():
            if name in COSTS:
                assert twice.scores[name] == value
                continue
            parts = twice.scores[f"{name}#1"], twice.scores[f"{name}#2"]
            assert parts[0] == value
            assert twice.scores[name] == pytest.approx(np.mean(parts))
        assert twice.scores["final_training_loss#1"] != twice.scores["final_training_loss#2"]
    assert read_record(settings.out)["proxy"]["repeats"] == 2
    assert "repeats" not in read_record(alone.out)["proxy"]
    with pytest.raises(ValueError, match="repeats was 2 there"):
        run_search(replace(settings, repeats=3, resume=True))


@pytest.mark.usefixtures("ran")
def test_halved_trainings_are_the_whole_ones_in_every_repeat(settings: SearchSettings) -> None:
    space: dict[str, Any] = {"width": [32], "depth": [1], "activation": ["relu"], "pooling": ["avg"]}
    narrow = replace(settings, epochs=2, samples=3, space_options=space)
    run_search(replace(narrow, strategy="successive-halving", strategy_options={"eta": 2, "rungs": 2}))
    whole = replace(narrow, out=settings.out.with_name("whole"))
    run_search(whole)
    expected = {trial.architecture: trial.scores for trial in stored(whole.out, "proxy")}
    ended = stored(settings.out, "proxy after 2 epochs")
    assert ended
    assert all(trial.scores == expected[trial.architecture] for trial in ended)


@pytest.mark.usefixtures("ran")
def test_early_stopping_trains_as_often_and_the_rest_does_not(settings: SearchSettings) -> None:
    more = replace(settings, estimators=("early-stopping", "synflow"), reference="real", samples=2)
    run_search(more)
    scores = {name: stored(settings.out, name)[0].scores for name in ("early-stopping", "synflow", "real")}
    counts = {name: sum(name != mean_of(name) for name in each) for name, each in scores.items()}
    assert counts["synflow"] == counts["real"] == 0
    means = [name for name in scores["early-stopping"].keys() - COSTS if name == mean_of(name)]
    assert counts["early-stopping"] == 2 * len(means) > 0
    record = read_record(settings.out)
    assert record["estimators"]["early-stopping"]["repeats"] == 2
    assert "repeats" not in record["estimators"]["synflow"]


@pytest.mark.usefixtures("ran")
def test_the_report_says_how_far_the_trainings_agree(settings: SearchSettings) -> None:
    space: dict[str, Any] = {"width": [32], "depth": [1], "pooling": ["max", "avg"]}
    run_search(replace(settings, samples=12, epochs=1, repeats=3, space_options=space))
    written = write_report([settings.out], score="final_training_loss")
    (report,) = written.reports
    trials = [trial.scores for trial in stored(settings.out, "proxy")]
    table = np.array([[each[f"final_training_loss#{number}"] for number in (1, 2, 3)] for each in trials])
    expected = np.mean(
        [scipy.stats.spearmanr(table[:, a], table[:, b])[0] for a, b in ((0, 1), (0, 2), (1, 2))]
    )
    assert report.repeats is not None
    assert report.repeats.seeds == 3
    assert report.repeats.single.value == pytest.approx(expected)
    assert not any(score.name != mean_of(score.name) for score in report.scores)
    text = written.page.read_text()
    assert "Scores are means of 3 trainings." in text
    assert "trained 3 times on" in text
    assert "#1" not in (settings.out / "report" / "ranking.csv").read_text()
