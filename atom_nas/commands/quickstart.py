"""The settings of `atom-nas quickstart`: the whole path on digits, sized for minutes on two CPU cores."""

from pathlib import Path

from atom_nas.settings import SearchSettings
from distill.methods.atom import Config
from distill.settings import DistillSettings

SAMPLES = 20


def distill_plan(out: Path, *, seed: int, device: str) -> DistillSettings:
    """An ATOM set of 10 images per digit."""
    return DistillSettings(
        dataset="digits",
        out=out / "synthetic",
        method="atom",
        method_config=Config(iterations=100),
        ipc=10,
        seed=seed,
        device=device,
    )


def search_plan(out: Path, *, seed: int, device: str, workers: int | None, command: str) -> SearchSettings:
    """A random sample of ConvNets, each also trained on all real training digits for the reference."""
    return SearchSettings(
        synthetic=out / "synthetic",
        out=out / "search",
        space="convnet",
        samples=SAMPLES,
        strategy="random",
        reference="real",
        reference_epochs=6,
        workers=workers,
        seed=seed,
        device=device,
        command=command,
    )
