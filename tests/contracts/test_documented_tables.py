"""The tables of rulers in the documents are what their scripts make of the scores that are committed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
DECAY, ACCURACY = "training_loss_decay", "validation_accuracy"
HALVED, FEWER_HALVED = (
    f"{file}.csv:successive_halving" for file in ("convnets-halved", "convnets-trainings-halved")
)
RECIPE = (
    "loss decay five times, validation accuracy, SynFlow, NASWOT, Jacobian covariance, ZiCo: mean of ranks"
)
FOUR = "the recipe: validation accuracy, final training loss, SynFlow, Jacobian covariance, mean of ranks"
FOUR_PARTS = (ACCURACY, "final_training_loss", "synflow", "jacov")


def rows(script: str, *arguments: str) -> list[str]:
    """What a script prints, less the marks of what stands out in the document."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=DOCS / "ranking",
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent)},
    )
    return [line for line in done.stdout.splitlines() if line.startswith("|")]


def documented(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8").replace("**", "")


@pytest.mark.parametrize(
    "rulers",
    [
        {
            FOUR: "+".join(f"convnets-random.csv:{part}" for part in FOUR_PARTS),
            "random, validation accuracy": f"convnets-random.csv:{ACCURACY}",
            "ATOM, not whitened, validation accuracy": f"convnets-atom-no-zca.csv:{ACCURACY}",
            "early stopping, validation accuracy": f"convnets-random.csv:early_stopping_{ACCURACY}",
            "CAFE, not whitened, validation accuracy": f"convnets-cafe-no-zca.csv:{ACCURACY}",
            "SynFlow": "convnets-random.csv:synflow",
            "parameters": "convnets-random.csv:parameters",
        },
        {
            FOUR: "+".join(f"convnets-narrow.csv:{part}" for part in FOUR_PARTS),
            "validation accuracy": f"convnets-narrow.csv:{ACCURACY}",
            "NASWOT": "convnets-narrow.csv:naswot",
        },
        {
            "100 random": f"convnets-random-10.csv:{ACCURACY}",
            "100 by ATOM": f"convnets-atom-10.csv:{ACCURACY}",
            "100 by DM": f"convnets-dm-10.csv:{ACCURACY}",
            "400 small random": f"convnets-random-10-f2.csv:{ACCURACY}",
        },
        {
            "all to the end": "+".join(f"convnets-random.csv:{part}" for part in FOUR_PARTS),
            "`successive-halving`": f"{HALVED}_recipe_place",
            "`asha`": "convnets-halved.csv:asha_recipe_place",
            "`hyperband`": "convnets-halved.csv:hyperband_recipe_place",
            "100 images, all to the end": "+".join(
                f"convnets-random{'' if part in ('synflow', 'jacov') else '-10'}.csv:{part}"
                for part in FOUR_PARTS
            ),
            "`successive-halving` on 100 images": f"{HALVED}_100_recipe_place",
            "all to the end, by validation accuracy alone": f"convnets-random.csv:{ACCURACY}",
            "`successive-halving`, by validation accuracy alone": f"{HALVED}_place",
            "`asha`, by validation accuracy alone": "convnets-halved.csv:asha_place",
            "`hyperband`, by validation accuracy alone": "convnets-halved.csv:hyperband_place",
        },
        {
            "all to the end": "convnets-trainings.csv:random50_epochs20_batch32_rate0.02",
            "`successive-halving`": f"{FEWER_HALVED}_onecycle_place",
            "`successive-halving`, rate by a cosine": f"{FEWER_HALVED}_cosine_place",
        },
    ],
)
def test_convnets(rulers: dict[str, str]) -> None:
    made = rows("convnets.py", *(f"{name}={where}" for name, where in rulers.items()))
    assert len(made) == 2 + len(rulers)
    assert [row for row in made if row not in documented("convnets.md")] == []


def test_cells() -> None:
    published = Path(os.environ.get("ATOM_NAS_DATA", ""), "nats-bench-tss-cifar10.csv")
    if not published.is_file():
        pytest.skip("needs the published accuracies of NAS-Bench-201 below ATOM_NAS_DATA")
    parts = (f"{DECAY}=5", ACCURACY, "synflow", "naswot", "jacov", "zico")
    rulers = {
        RECIPE: "+".join(f"sixth.csv:{part}" for part in parts),
        "training loss decay, three trainings": f"sixth.csv:{DECAY}",
        "SynFlow": "sixth.csv:synflow",
    }
    made = rows("table.py", str(published), *(f"{name}={where}" for name, where in rulers.items()))
    assert len(made) == 2 + len(rulers) + 1  # the published twelve epochs, too
    assert [row for row in made if row not in documented("ranking.md")] == []
