"""What every registered estimator keeps to."""

import json
import math

import pytest
import torch
from torch import Tensor, nn

import reports.scores
from atom_nas import estimators
from atom_nas.estimators import ESTIMATORS, SCORES, TRAINING_FREE
from atom_nas.estimators.base import Estimator, SearchData
from distill.data import Split
from distill.preprocessing import fit_preprocessing
from distill.seeding import stream
from distill.training import TrainingConfig
from reports.confirmed import of_all

CPU = torch.device("cpu")
TRAINING = TrainingConfig(epochs=2, batch_size=16)
OF_THE_ENGINE = {"parameters", "flops"}


def split(count: int, name: str) -> Split:
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 60, (count, 1, 8, 8), generator=stream(0, name))
    return Split((noise + 90 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


@pytest.fixture
def data() -> SearchData:
    fit = split(60, "fit")
    preprocessing = fit_preprocessing(fit.images, zca=False)
    return SearchData(
        synthetic_images=preprocessing(fit.images[:12]),
        synthetic_labels=fit.labels[:12],
        fit=fit,
        validation=split(30, "validation"),
        test=split(33, "test"),
        preprocessing=preprocessing,
        classes=3,
    )


@pytest.fixture(params=sorted(set(ESTIMATORS) - set(TRAINING_FREE)))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def estimator(name: str, data: SearchData) -> Estimator:
    made: Estimator = estimators.load(name).estimator(data, training=TRAINING)
    return made


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


def snapshot(data: SearchData) -> list[Tensor]:
    splits = (data.fit, data.validation, data.test)
    tensors = [data.synthetic_images, data.synthetic_labels]
    return [tensor.clone() for tensor in (*tensors, *(t for s in splits for t in (s.images, s.labels)))]


def test_it_knows_its_name(name: str, estimator: Estimator) -> None:
    assert estimator.name == name


def test_scores_are_the_agreed_ones_and_finite(estimator: Estimator) -> None:
    scores = estimator.score(network(), seed=0, device=CPU)
    assert scores.keys() >= set(SCORES) - OF_THE_ENGINE
    whole = of_all(scores)
    assert whole.keys() <= reports.scores.SCORES.keys(), "the report does not know which way is better"
    assert all(math.isfinite(value) for value in scores.values())
    assert 0.0 <= scores["validation_accuracy"] <= 1.0
    assert scores["summed_training_loss"] > scores["final_training_loss"] > 0.0


def test_the_seed_decides_and_the_global_generator_is_left_alone(estimator: Estimator) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (estimator.score(network(), seed=seed, device=CPU) for seed in (5, 5, 6))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_images_are_left_alone(estimator: Estimator, data: SearchData) -> None:
    before = snapshot(data)
    estimator.score(network(), seed=0, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(data), strict=True))


def test_a_network_that_cannot_learn_is_an_error(estimator: Estimator) -> None:
    broken = network()
    nn.init.constant_(broken[3].weight, float("nan"))  # type: ignore[index,arg-type]
    with pytest.raises(FloatingPointError):
        estimator.score(broken, seed=0, device=CPU)


def test_settings_are_json_and_the_same_for_the_same_estimator(name: str, data: SearchData) -> None:
    one, two = (estimators.load(name).estimator(data, training=TRAINING).settings() for _ in range(2))
    assert json.loads(json.dumps(one, allow_nan=False)) == one == two


def test_settings_tell_whatever_changes_scores(name: str, data: SearchData) -> None:
    make = estimators.load(name).estimator
    plain = make(data, training=TRAINING).settings()
    assert make(data, training=TrainingConfig(epochs=3, batch_size=16)).settings() != plain
    assert make(data, training=TRAINING, validation_images=9).settings() != plain
    data.validation.images[0, 0, 0, 0] += 1
    assert make(data, training=TRAINING).settings() != plain


def test_validation_can_be_capped(name: str, data: SearchData) -> None:
    capped = estimators.load(name).estimator(data, training=TRAINING, validation_images=9)
    accuracy = capped.score(network(), seed=0, device=CPU)["validation_accuracy"]
    assert accuracy * 9 == pytest.approx(round(accuracy * 9))
    with pytest.raises(ValueError, match="a subset of 2 images cannot hold 3 classes"):
        estimators.load(name).estimator(data, training=TRAINING, validation_images=2)


def test_an_unknown_option_is_named(name: str, data: SearchData) -> None:
    with pytest.raises(ValueError, match=rf"unknown {name} option 'trainin': did you mean 'training'"):
        estimators.load(name).estimator(data, trainin=TRAINING)


@pytest.fixture(params=sorted(TRAINING_FREE))
def untrained(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def active() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3)
        )


class TestEveryTrainingFreeEstimator:
    def test_gives_the_score_of_its_name_and_knows_it(self, untrained: str, data: SearchData) -> None:
        made = estimators.load(untrained).estimator(data)
        scores = made.score(active(), seed=0, device=CPU)
        assert scores.keys() == {untrained}
        assert made.name == untrained
        assert untrained in reports.scores.SCORES
        assert math.isfinite(scores[untrained])

    def test_leaves_network_images_and_the_global_generator_alone(
        self, untrained: str, data: SearchData
    ) -> None:
        network, before, state = active(), snapshot(data), torch.random.get_rng_state()
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        made = estimators.load(untrained).estimator(data)
        assert made.score(network, seed=0, device=CPU) == made.score(network, seed=1, device=CPU)
        assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
        assert all(torch.equal(a, b) for a, b in zip(before, snapshot(data), strict=True))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_tells_one_initialisation_from_another(self, untrained: str, data: SearchData) -> None:
        made = estimators.load(untrained).estimator(data)
        other = active()
        with torch.no_grad():
            other[0].weight.mul_(torch.linspace(-2, 2, 9).view(3, 3))  # type: ignore[union-attr,operator]
        assert made.score(other, seed=0, device=CPU) != made.score(active(), seed=0, device=CPU)

    def test_a_broken_network_is_an_error(self, untrained: str, data: SearchData) -> None:
        broken = active()
        nn.init.constant_(broken[4].weight, float("nan"))  # type: ignore[index,arg-type]
        nn.init.constant_(broken[0].weight, float("nan"))  # type: ignore[index,arg-type]
        with pytest.raises((FloatingPointError, torch.linalg.LinAlgError)):
            estimators.load(untrained).estimator(data).score(broken, seed=0, device=CPU)

    def test_settings_tell_whatever_changes_scores(self, untrained: str, data: SearchData) -> None:
        make = estimators.load(untrained).estimator
        plain = make(data).settings()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain == make(data).settings()
        assert make(data, images="real").settings() != plain
        assert make(data, batch_size=6).settings() != plain
        data.synthetic_images[0, 0, 0, 0] += 1
        assert make(data).settings() != plain

    def test_options_are_checked(self, untrained: str, data: SearchData) -> None:
        make = estimators.load(untrained).estimator
        for options in ({"batch_size": 1}, {"images": "fake"}, {"batch_sizes": 8}):
            with pytest.raises(ValueError, match=next(iter(options))):
                make(data, **options)


def test_names_of_estimators_beside_the_proxy() -> None:
    assert estimators.beside("") == ()
    assert estimators.beside(" snip, synflow,snip") == ("snip", "synflow")
    assert estimators.beside("training-free") == tuple(TRAINING_FREE)
    assert estimators.beside("early-stopping,training-free") == ("early-stopping", *TRAINING_FREE)
    for wrong, near in (("synflo", "synflow"), ("early_stopping", "early-stopping")):
        with pytest.raises(ValueError, match=f"proxy '{wrong}': did you mean '{near}'"):
            estimators.beside(wrong)
    with pytest.raises(ValueError, match="unknown estimator to score with beside the proxy 'real'"):
        estimators.beside("real")


def test_an_unknown_estimator_is_named() -> None:
    with pytest.raises(ValueError, match="unknown estimator 'proxi': did you mean 'proxy'"):
        estimators.load("proxi")
