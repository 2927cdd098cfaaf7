"""What the two estimators train on and score on."""

import pytest
import torch
from torch import Tensor
from trial_helpers import Recorder, search_data, small_network

from atom_nas.estimators import real
from atom_nas.estimators.base import fingerprint, subset
from atom_nas.estimators.proxy import ProxyConfig, ProxyEstimator
from atom_nas.estimators.real import RealConfig, RealEstimator
from distill.training import TrainingConfig, evaluate

CPU = torch.device("cpu")
PLAIN = TrainingConfig(epochs=1, augmentation="none")


def rows(images: Tensor) -> set[tuple[float, ...]]:
    return {tuple(image.flatten().tolist()) for image in images}


def test_the_proxy_trains_on_the_synthetic_images_as_they_are() -> None:
    data, network = search_data(), Recorder()
    ProxyEstimator(data, ProxyConfig(training=PLAIN)).score(network, seed=0, device=CPU)
    assert rows(torch.cat(network.fed)) == rows(data.synthetic_images)


def test_the_reference_trains_on_the_preprocessed_fit_split() -> None:
    data, network = search_data(), Recorder()
    RealEstimator(data, RealConfig(training=PLAIN)).score(network, seed=0, device=CPU)
    assert rows(torch.cat(network.fed)) == rows(data.preprocessing(data.fit.images))


def test_scores_are_those_of_the_trained_network() -> None:
    data, network = search_data(), small_network()
    scores = RealEstimator(data, RealConfig(training=PLAIN)).score(network, seed=0, device=CPU)
    for split, name in ((data.validation, "validation_accuracy"), (data.test, "test_accuracy")):
        logits = network(data.preprocessing(split.images))
        assert scores[name] == (logits.argmax(1) == split.labels).double().mean().item()
    again = evaluate(
        network, data.validation.images, data.validation.labels, device=CPU, preprocessing=data.preprocessing
    )
    assert scores["validation_loss"] == again.loss


def test_the_proxy_never_reads_the_test_split() -> None:
    data = search_data()
    before = ProxyEstimator(data, ProxyConfig(training=PLAIN)).settings()
    data.test.images.zero_()
    assert ProxyEstimator(data, ProxyConfig(training=PLAIN)).settings() == before
    assert "test_accuracy" not in ProxyEstimator(data, ProxyConfig(training=PLAIN)).score(
        small_network(), seed=0, device=CPU
    )


def test_a_reference_on_a_subset_has_equal_shares_per_class() -> None:
    data, network = search_data(), Recorder()
    estimator = real.estimator(data, training=PLAIN, train_images=9)
    estimator.score(network, seed=0, device=CPU)
    fed = rows(torch.cat(network.fed))
    model_space = data.preprocessing(data.fit.images)
    labels = [k for k in range(3) for image in model_space[data.fit.labels == k] if rows(image[None]) <= fed]
    assert labels == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert estimator.settings()["training_images"] == 9


def test_a_subset_larger_than_the_split_is_the_split() -> None:
    data = search_data()
    with pytest.warns(UserWarning, match="1,000 images were asked for, and there are 60: all are used"):
        assert subset(data.fit, 3, 1000, "x") is data.fit
    assert subset(data.fit, 3, None, "x") is data.fit


@pytest.mark.parametrize(
    "other", [torch.zeros(2, 3).int(), torch.zeros(3, 2), torch.tensor([[0.0, 0, 1]] * 2)]
)
def test_fingerprints_tell_types_shapes_and_values(other: Tensor) -> None:
    assert fingerprint(torch.zeros(2, 3)) == fingerprint(torch.zeros(3, 2).T.contiguous())
    assert fingerprint(torch.zeros(2, 3)) != fingerprint(other)
