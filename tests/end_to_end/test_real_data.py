"""On real CIFAR-10 and a published ranking, where the folder named by ATOM_NAS_DATA holds them."""

import csv
import os
import tarfile
from pathlib import Path

import pytest
import scipy.stats

DATA = Path(os.environ.get("ATOM_NAS_DATA", "/nonexistent"))
ARCHIVE, TABLE = DATA / "cifar10-jpeg.tar.xz", DATA / "nats-bench-tss-cifar10.csv"
PER_CLASS = 40

needs_images = pytest.mark.skipif(not ARCHIVE.exists(), reason="ATOM_NAS_DATA names no folder with CIFAR-10")
needs_table = pytest.mark.skipif(not TABLE.exists(), reason="ATOM_NAS_DATA names no folder with NATS-Bench")


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    """The first images of each class of both splits."""
    root = tmp_path_factory.mktemp("cifar")
    taken: dict[Path, int] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            folder = Path(member.name).parent
            if member.isfile() and taken.get(folder, 0) < PER_CLASS:
                taken[folder] = taken.get(folder, 0) + 1
                target = root / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    return root / "cifar10"


@needs_images
@pytest.mark.slow
def test_atom_on_cifar(cifar, tmp_path):
    import torch

    import distill
    from distill.evaluation import Evaluator
    from distill.methods.atom import Config
    from distill.settings import DistillSettings
    from distill.training import TrainingConfig

    settings = DistillSettings(
        dataset=f"folder:{cifar}",
        out=tmp_path / "set",
        method_config=Config(iterations=25, width=32, batch_real=16),
        ipc=1,
        zca=False,
    )
    found = distill.distill(settings)
    assert found.images.shape == (10, 3, 32, 32)
    assert found.classes[0] == "airplane"
    losses = [point["loss"] for point in found.card["loss_curve"]]
    assert losses[-1] < losses[0]
    evaluator = Evaluator(
        found,
        found.real_dataset(),
        config=TrainingConfig(epochs=40),
        seed=0,
        device=torch.device("cpu"),
    )
    # Chance is 0.10; on 400 test images its standard error is 0.015.
    assert evaluator.accuracy("synthetic", "convnet3", 0) > 0.145


@needs_table
def test_our_spearman_on_a_published_ranking():
    from reports.correlation import spearman

    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    short = [float(row["cifar10_test_accuracy_12_epochs"]) for row in rows]
    full = [float(row["cifar10_test_accuracy_200_epochs"]) for row in rows]
    ours = spearman(short, full)
    assert ours.n == 5000
    assert ours.value == pytest.approx(scipy.stats.spearmanr(short, full).statistic, abs=1e-12)
    assert ours.value == pytest.approx(0.870, abs=0.005)
