"""Early stopping: real images at the proxy's budget, no image more and no step less."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trial_helpers import Recorder, search_data, small_network, stored

from atom_nas.estimators import early_stopping
from atom_nas.estimators.proxy import ProxyConfig, ProxyEstimator
from atom_nas.search import SearchSettings, run_search
from distill.leg import Leg
from distill.passes import epoch_order
from distill.training import TrainingConfig
from reports import read_run, write_report

CPU = torch.device("cpu")
Ran = list[tuple[str, str]]


def times_seen(batches: list[Tensor]) -> Counter[tuple[float, ...]]:
    return Counter(tuple(image.flatten().tolist()) for image in torch.cat(batches))


@pytest.mark.parametrize("epochs", [1, 4, 10, 13])
def test_it_takes_the_proxys_steps_and_looks_at_no_more_images(epochs: int) -> None:
    """12 synthetic images in batches of 5, 5, 2; of 60 real ones each is seen before any is seen again."""
    data, training = search_data(), TrainingConfig(epochs=epochs, batch_size=5, augmentation="none")
    networks = Recorder(), Recorder()
    scores = [
        made.score(network, seed=3, device=CPU)
        for made, network in zip(
            (
                ProxyEstimator(data, ProxyConfig(training=training)),
                early_stopping.estimator(data, training=training),
            ),
            networks,
            strict=True,
        )
    ]
    sizes = [[len(batch) for batch in network.fed] for network in networks]
    assert sizes[0] == sizes[1] == [5, 5, 2] * epochs
    seen = times_seen(networks[1].fed)
    pool = times_seen([data.preprocessing(data.fit.images)])
    assert seen.keys() <= pool.keys()
    assert len(seen) == min(60, 12 * epochs)
    assert max(seen.values()) - min(seen.values()) <= (12 * epochs > 60)
    assert scores[0].keys() == scores[1].keys()
    assert scores[0] != scores[1]


def test_the_order_is_passes_cut_into_epochs() -> None:
    orders = [
        epoch_order(7, 5, seed=1, epoch=epoch, generator=torch.Generator()).tolist() for epoch in range(14)
    ]
    row = [position for order in orders for position in order]
    for start in range(0, 70, 7):
        assert sorted(row[start : start + 7]) == list(range(7))
    assert row[:7] != row[7:14]
    wide = epoch_order(3, 8, seed=1, epoch=1, generator=torch.Generator()).tolist()
    assert len(wide) == 8
    assert max(Counter(wide).values()) <= 4


def test_all_images_in_an_epoch_are_in_the_epochs_own_order() -> None:
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    order = epoch_order(9, None, seed=0, epoch=4, generator=generators[0])
    assert torch.equal(order, torch.randperm(9, generator=generators[1]))


def test_a_training_in_parts_ends_in_the_same_scores(tmp_path: Path) -> None:
    data, training = search_data(), TrainingConfig(epochs=7, batch_size=5)
    made = early_stopping.estimator(data, training=training)
    torch.manual_seed(0)
    whole = made.score(small_network(), seed=1, device=CPU)
    for until in (3, 7):
        torch.manual_seed(0)
        leg = Leg(until=until, checkpoint=tmp_path / "leg.safetensors")
        parts = made.score(small_network(), seed=1, device=CPU, leg=leg)
    assert parts == whole


def test_settings_name_the_budget_and_the_images() -> None:
    data = search_data()
    before = early_stopping.estimator(data).settings()
    assert (before["training_images"], before["images_an_epoch"]) == (60, 12)
    fewer = replace(
        data, synthetic_images=data.synthetic_images[:6], synthetic_labels=data.synthetic_labels[:6]
    )
    assert early_stopping.estimator(fewer).settings()["images_an_epoch"] == 6
    data.test.images.zero_()
    assert early_stopping.estimator(data).settings() == before
    data.fit.images[0] += 1
    assert early_stopping.estimator(data).settings() != before


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    return replace(quick, training={"batch_size": 50}, estimators=("early-stopping", "synflow"))


def test_a_search_stores_it_and_reports_every_score(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    proxies, beside = (stored(settings.out, name) for name in ("proxy", "early-stopping"))
    assert [t.architecture for t in proxies] == [t.architecture for t in beside]
    assert [t.scores.keys() for t in proxies] == [t.scores.keys() for t in beside]
    run = read_run(settings.out)
    for trial, found in zip(beside, run.trials["score:early-stopping:final_training_loss"], strict=True):
        assert trial.scores["final_training_loss"] == found
    assert "early-stopping:parameters" not in run.score_names
    report = write_report(settings.out).report
    by_name = {score.name: score for score in report.scores}
    loss = by_name["early-stopping:validation_loss"]
    assert (loss.label, loss.higher_is_better) == ("early-stopping: validation loss", False)
    spent = sum(trial.cpu_seconds for trial in beside) / 4
    assert loss.seconds_each == pytest.approx(spent)
    assert by_name["synflow"].seconds_each != pytest.approx(spent)


def test_it_can_be_asked_for_later(settings: SearchSettings, ran: Ran) -> None:
    run_search(replace(settings, estimators=()))
    before = len(ran)
    run_search(replace(settings, estimators=("early-stopping",), resume=True))
    assert ran[before:] == [("early-stopping", t.architecture) for t in stored(settings.out, "proxy")]
    with pytest.raises(ValueError, match=r"proxy\.training\.epochs was 2 there and is 3 now"):
        run_search(replace(settings, estimators=("early-stopping",), epochs=3, resume=True))


@pytest.mark.parametrize("options", [{}, {"strategy": "successive-halving"}], ids=str)
def test_a_rate_cannot_rank_trainings_of_one_epoch(settings: SearchSettings, options: dict[str, str]) -> None:
    wrong = replace(settings, epochs=2 if options else 1, score="training_loss_decay", **options)
    with pytest.raises(ValueError, match="a rate over epochs, and trainings stop after 1 of"):
        run_search(wrong)
    assert not settings.out.exists()
