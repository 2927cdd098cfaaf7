"""What networks are trained on when a set is judged."""

from dataclasses import replace

import pytest
import torch

import distill
from distill.evaluation import Evaluator
from distill.settings import DistillSettings
from distill.training import TrainingConfig


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "random"
    return distill.distill(DistillSettings(dataset="digits", out=out, method="random", ipc=5))


@pytest.mark.parametrize("subject", ["synthetic", "random"])
def test_the_order_of_a_set_does_not_mislabel_what_is_trained_on(synthetic, subject):
    order = torch.arange(len(synthetic)).view(10, 5).T.flatten()
    shuffled = replace(synthetic, stored=synthetic.stored[order], stored_labels=synthetic.labels[order])
    evaluator = Evaluator(
        shuffled,
        synthetic.real_dataset(),
        config=TrainingConfig(epochs=40, augmentation="none"),
        seed=0,
        device=torch.device("cpu"),
    )
    assert evaluator.accuracy(subject, "convnet2", 0) > 0.6


def test_no_images_to_test_on_are_not_the_test_split(synthetic):
    """Whoever tunes on held-out images must not end up on the others because there are none."""
    real = synthetic.real_dataset()
    empty = real.test.take(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match="there are no images to test on"):
        Evaluator(synthetic, real, config=TrainingConfig(), seed=0, device=torch.device("cpu"), test=empty)


def test_repeats_differ_in_seed_and_random_images_and_see_none_that_were_held_out(synthetic, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "distill.evaluation.train",
        lambda _, images, labels, *, seed, **__: seen.append((images, labels, seed)),
    )
    real = synthetic.real_dataset()
    evaluator = Evaluator(
        synthetic, real, config=TrainingConfig(epochs=1), seed=0, device=torch.device("cpu")
    )
    for repeat in (0, 1, 1):
        evaluator.accuracy("random", "convnet2", repeat)
    (first, _, one), (second, _, two), (again, labels, _) = seen
    assert one != two
    assert not torch.equal(first, second)
    assert torch.equal(second, again)
    fit, _ = synthetic.split_real(real)
    images = [tuple(image.flatten().tolist()) for image in synthetic.preprocessing(fit.images)]
    known = dict(zip(images, fit.labels.tolist(), strict=True))
    assert [known.get(tuple(image.flatten().tolist())) for image in again] == labels.tolist()
