"""Loss curves that a refactor must reproduce.

`python tests/golden/test_golden.py` prints new ones, for the day when the numerics change on purpose.
"""

import json
from pathlib import Path

import pytest

from distill.checkpoint import State
from distill.data import RealDataset
from distill.methods import load
from distill.methods.base import Problem
from distill.preprocessing import fit_preprocessing
from distill.session import Session
from distill.sources import load_dataset

CURVES = Path(__file__).with_name("curves.json")


class _Recording(Session):
    log_every = 4

    def after(self, state: State, total: int) -> None:
        self.curve = state.curve


def curve(method: str) -> list[float]:
    """Losses of a short run on digits."""
    import torch

    dataset: RealDataset = load_dataset("digits")
    fit, _ = dataset.carve_validation(0.1, 0)
    problem = Problem(
        real=fit,
        classes=dataset.classes,
        preprocessing=fit_preprocessing(fit.images, zca=True),
        ipc=2,
        seed=0,
        device=torch.device("cpu"),
    )
    session = _Recording()
    module = load(method)
    module.distill(problem, module.Config(iterations=20, width=16, batch_real=16), session)
    return [point["loss"] for point in session.curve]


@pytest.mark.parametrize("method", ["atom", "datadam", "dm"])
def test_losses_are_those_on_record(method):
    # Threads and instruction sets change the order of sums; 1e-3 is far above that and far below a change.
    assert curve(method) == pytest.approx(json.loads(CURVES.read_text())[method], rel=1e-3)


if __name__ == "__main__":
    print(json.dumps({method: curve(method) for method in ("atom", "datadam", "dm")}, indent=1))
