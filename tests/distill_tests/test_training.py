"""The training loop: it learns, repeats itself exactly, and refuses or reports what goes wrong."""

import random

import numpy as np
import pytest
import torch
from distill_helpers import CPU, blobs
from torch import nn

from distill.networks import build
from distill.precision import runs_bfloat16
from distill.preprocessing import fit_preprocessing
from distill.seeding import stream
from distill.training import TrainingConfig, evaluate, train

DATA = blobs([20, 20, 20])
SPACE = fit_preprocessing(DATA.images, zca=False)


def network(seed: int = 0) -> nn.Module:
    return build("convnet2", (1, 8, 8), 3, stream(seed))


def trained(config: TrainingConfig, seed: int = 0, **options):
    fresh = network()
    record = train(fresh, SPACE(DATA.images), DATA.labels, config=config, seed=seed, device=CPU, **options)
    return fresh, record


def test_it_learns():
    config = TrainingConfig(epochs=15, batch_size=16)
    before = evaluate(network(), DATA.images, DATA.labels, device=CPU, preprocessing=SPACE)
    fresh, record = trained(config)
    after = evaluate(fresh, DATA.images, DATA.labels, device=CPU, preprocessing=SPACE)
    assert after.accuracy > 0.95 > before.accuracy
    assert after.loss < before.loss
    assert record.final_loss == record.epoch_losses[-1] < record.epoch_losses[0]
    assert record.summed_loss == pytest.approx(sum(record.epoch_losses))
    assert len(record.epoch_losses) == 15


def test_the_seed_decides_everything():
    config = TrainingConfig(epochs=3, batch_size=16)
    (first, a), (second, b), (_, c) = (trained(config, seed) for seed in (1, 1, 2))
    assert a.epoch_losses == b.epoch_losses != c.epoch_losses
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"schedule": "cosine"}, {"schedule": "onecycle"}, {"momentum": 0.0}], ids=str
)
@pytest.mark.parametrize("norm", ["instance", "batch", "dropout"])
def test_a_training_in_parts_ends_in_the_same_bits(options, norm):
    config = TrainingConfig(epochs=5, batch_size=16, **options)

    def fresh():
        torch.manual_seed(0)
        batch = {"batch": [nn.BatchNorm2d(32)], "dropout": [nn.Dropout(0.5)]}.get(norm, [])
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), *batch, nn.ReLU(), nn.Flatten(), nn.Linear(2048, 3)
        )

    def part(model, **where):
        return train(model, SPACE(DATA.images), DATA.labels, config=config, seed=1, device=CPU, **where)

    whole, pieces = fresh(), fresh()
    record = part(whole)
    first = part(pieces, until=2)
    assert len(first.epoch_losses) == 2
    second = part(pieces, until=2, after=first)  # nothing is left to do
    assert second.epoch_losses == first.epoch_losses
    last = part(pieces, until=9, after=second)
    assert last.epoch_losses == record.epoch_losses
    state, expected = pieces.state_dict(), whole.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert len(last.momentum) == (0 if options.get("momentum") == 0.0 else len(list(whole.parameters())))


def test_global_random_state_is_neither_used_nor_moved():
    config = TrainingConfig(epochs=1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = trained(config)[1].epoch_losses
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert trained(config)[1].epoch_losses == first


def test_stored_pixels_and_model_space_train_alike():
    config = TrainingConfig(epochs=2, batch_size=16)
    fresh = network()
    record = train(fresh, DATA.images, DATA.labels, config=config, seed=0, device=CPU, preprocessing=SPACE)
    assert record.epoch_losses == pytest.approx(trained(config)[1].epoch_losses, rel=1e-5)


def test_one_step_equals_sgd_by_hand():
    config = TrainingConfig(
        epochs=1, batch_size=64, augmentation="none", learning_rate=0.1, weight_decay=0.01
    )
    fresh, record = trained(config)
    expected = network()
    loss = nn.functional.cross_entropy(expected(SPACE(DATA.images)), DATA.labels)
    loss.backward()
    assert record.final_loss == pytest.approx(loss.item(), rel=1e-4)
    for moved, start in zip(fresh.parameters(), expected.parameters(), strict=True):
        step = start.grad + 0.01 * start
        assert torch.allclose(moved, start - 0.1 * step, atol=2e-5)


@pytest.mark.parametrize("schedule", ["step", "cosine", "onecycle", "constant"])
def test_schedules_run_to_the_end(schedule):
    _, record = trained(TrainingConfig(epochs=4, batch_size=16, schedule=schedule))
    assert len(record.epoch_losses) == 4


def test_a_cycle_of_one_step_trains_at_the_full_rate():
    """torch's own ends before it begins, at a millionth of it."""
    options = {"epochs": 1, "batch_size": 64, "learning_rate": 0.1}
    one, plain = (trained(TrainingConfig(schedule=each, **options))[0] for each in ("onecycle", "constant"))
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), plain.parameters(), strict=True))


def test_bfloat16_stays_close_or_is_refused():
    if not runs_bfloat16(torch.device("cpu")):
        with pytest.raises(ValueError, match="precision=float32"):
            trained(TrainingConfig(epochs=2, precision="bfloat16"))
        return
    exact = trained(TrainingConfig(epochs=2))[1].epoch_losses
    rounded = trained(TrainingConfig(epochs=2, precision="bfloat16"))[1].epoch_losses
    assert rounded == pytest.approx(exact, rel=0.03)


def test_a_loss_that_explodes_is_reported():
    with pytest.raises(FloatingPointError, match="epoch"):
        trained(TrainingConfig(epochs=30, learning_rate=1e20))


def test_epochs_are_counted():
    seen = []
    trained(TrainingConfig(epochs=3), on_epoch=seen.append)
    assert seen == [1, 2, 3]


def test_evaluation_does_not_depend_on_the_batch_size():
    fresh = network()
    whole, parts = (
        evaluate(fresh, DATA.images, DATA.labels, device=CPU, preprocessing=SPACE, batch_size=size)
        for size in (500, 7)
    )
    assert whole.accuracy == parts.accuracy
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)
    assert whole.n == 60


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 2 * 10**9},
        {"batch_size": 10**23},
        {"learning_rate": -1.0},
        {"schedule": "never"},
        {"precision": "int4"},
        {"augmentation": "x"},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


class Drawing(nn.Module):
    """Scales by what it draws from Python's and NumPy's generators."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, images):
        return self.inner(images) * (random.random() + np.random.rand())


def test_what_layers_draw_from_python_and_numpy_is_the_seeds_and_put_back():
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 3
    losses = []
    for before in (1, 2):
        random.seed(before)
        np.random.seed(before)
        torch.manual_seed(0)
        state = random.getstate(), np.random.get_state()[1].tolist()
        record = train(Drawing(), images, labels, config=TrainingConfig(epochs=3), seed=5, device=CPU)
        losses.append(record.epoch_losses)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == state
    assert losses[0] == losses[1]
