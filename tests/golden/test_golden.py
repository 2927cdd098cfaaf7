"""Losses and images that a refactor must reproduce.

`python tests/golden/test_golden.py` prints new ones, for the day when the numerics change on purpose.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import search_spaces
from distill.checkpoint import State
from distill.methods import load
from distill.methods.base import Problem
from distill.preprocessing import fit_preprocessing
from distill.session import Session
from distill.sources import load_dataset
from distill.training import TrainingConfig, train

CURVES = Path(__file__).with_name("curves.json")
CPU = torch.device("cpu")
CLOSE = 1e-4
"""Threads, instruction sets and kernels change the order of sums, by less than 1e-6 here."""
_MATCHED: dict[str, Any] = {"iterations": 20, "width": 16, "batch_real": 16}
_BILEVEL: dict[str, Any] = {
    "iterations": 3,
    "width": 16,
    "batch_real": 16,
    "pixel_steps": 2,
    "network_epochs": 2,
}
DISTILLED: dict[str, tuple[str, dict[str, Any]]] = {
    "atom": ("atom", _MATCHED),
    "datadam": ("datadam", _MATCHED),
    "dm": ("dm", _MATCHED),
    "atom, small images in a stored one": ("atom", {**_MATCHED, "factor": 2, "schedule": "cosine"}),
    "dc": ("dc", _BILEVEL),
    "dsa": ("dsa", _BILEVEL),
    "cafe": ("cafe", _BILEVEL),
    "random": ("random", {}),
    "herding": ("herding", {"feature_epochs": 1, "width": 16}),
    "kcenter": ("kcenter", {"feature_epochs": 0, "width": 16}),
}
TRAINED: dict[str, dict[str, Any]] = {
    "w32-d2-batch-relu-max": {"schedule": "onecycle", "learning_rate": 0.02},
    "w32-d2-layer-sigmoid-avg": {"schedule": "cosine"},
    "w64-d1-instance-leaky_relu-none": {},
}


class _Recording(Session):
    log_every = 4

    def __init__(self) -> None:
        self.curve: list[Any] = []

    def after(self, state: State, total: int) -> None:
        self.curve = state.curve


def problem() -> Problem:
    dataset = load_dataset("digits")
    fit, _ = dataset.carve_validation(0.1, 0)
    return Problem(
        real=fit,
        classes=dataset.classes,
        preprocessing=fit_preprocessing(fit.images, zca=True),
        ipc=2,
        seed=0,
        device=CPU,
    )


def distilled(method: str, settings: dict[str, Any]) -> list[float]:
    """Losses of a short run on digits, then each class's mean magnitude of the pixels that it ends in."""
    session, module, posed = _Recording(), load(method), problem()
    images = module.distill(posed, module.Config(**settings), session)
    sizes = images.abs().mean(dim=(1, 2, 3)).view(len(posed.classes), -1).mean(dim=1)
    return [*(point["loss"] for point in session.curve), *sizes.tolist()]


def trained(architecture: str, settings: dict[str, Any]) -> list[float]:
    """The loss of every epoch of a training on 20 digits of each class, as the proxy's."""
    torch.manual_seed(0)
    space, posed = search_spaces.load("convnet"), problem()
    few = torch.cat([pool[:20] for pool in posed.pools()])
    record = train(
        space.build(space.parse(architecture), (1, 8, 8), 10),
        posed.prepare(few),
        posed.real.labels[few],
        config=TrainingConfig(epochs=5, batch_size=32, **settings),
        seed=0,
        device=CPU,
    )
    return list(record.epoch_losses)


@pytest.mark.parametrize("case", DISTILLED)
def test_distillations_are_those_on_record(case: str) -> None:
    assert distilled(*DISTILLED[case]) == pytest.approx(json.loads(CURVES.read_text())[case], rel=CLOSE)


@pytest.mark.parametrize("architecture", TRAINED)
def test_trainings_are_those_on_record(architecture: str) -> None:
    found = trained(architecture, TRAINED[architecture])
    assert found == pytest.approx(json.loads(CURVES.read_text())[architecture], rel=CLOSE)


if __name__ == "__main__":
    curves = {case: distilled(*given) for case, given in DISTILLED.items()}
    curves |= {name: trained(name, settings) for name, settings in TRAINED.items()}
    print(json.dumps(curves, indent=1))
