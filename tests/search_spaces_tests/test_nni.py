"""NNI's side: a real model space that NNI's own machinery explores, and an engine that cannot be hurried."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces import load
from search_spaces._nni import explore, model_space
from search_spaces.base import count_fitting, enumerate_space
from search_spaces.convnet import ConvNetArchitecture

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (1, 8, 8)
SPACE = load("convnet")
FITTING = {str(a) for a in enumerate_space(SPACE) if SPACE.misfit(a, SHAPE) is None}
MISFIT = {"width": 32, "depth": 4, "norm": "none", "activation": "relu", "pooling": "max"}
FIT = {**MISFIT, "depth": 3}


def explored(strategy: str = "random", **settings: Any) -> list[list[str]]:
    """The batches, as strings, in which a strategy's proposals come; wider is better."""
    batches: list[list[str]] = []

    def evaluate(batch: Sequence[ConvNetArchitecture]) -> list[float]:
        batches.append([str(architecture) for architecture in batch])
        return [float(architecture.width) for architecture in batch]

    defaults: dict[str, Any] = {"samples": 20, "seed": 0, "options": {}, "batch": None}
    explore(SPACE, SHAPE, strategy=strategy, evaluate=evaluate, **{**defaults, **settings})
    return batches


def test_it_is_an_nni_model_space() -> None:
    from nni.nas.nn.pytorch import ModelSpace

    space = model_space(SPACE, SHAPE, 10)
    assert isinstance(space, ModelSpace)
    mutables = space.simplify()
    assert {label: tuple(mutables[label].values) for label in SPACE.choices} == SPACE.choices
    assert space.contains(FIT)
    assert not space.contains(MISFIT)
    assert not space.contains({**FIT, "width": 33})
    assert not space.contains({"width": 32})


@pytest.mark.parametrize("form", ["RawFormatModelSpace", "SimplifiedModelSpace"])
def test_nni_freezes_it_to_what_the_space_builds(form: str) -> None:
    import nni.nas.space
    import nni.nas.strategy
    from nni.mutable import ConstraintViolation

    models = getattr(nni.nas.space, form).from_model(model_space(SPACE, SHAPE, 10))
    network = models.freeze(FIT).executable_model()
    assert str(network) == str(SPACE.build(SPACE.architecture(FIT), SHAPE, 10))
    assert network(torch.zeros(2, *SHAPE)).shape == (2, 10)
    with pytest.raises(ConstraintViolation, match="w32-d4-none-relu-max: 4 poolings do not fit"):
        models.freeze(MISFIT)


@pytest.mark.parametrize("form", ["RawFormatModelSpace", "SimplifiedModelSpace"])
@pytest.mark.parametrize("name", ["Random", "GridSearch", "RegularizedEvolution"])
def test_nnis_own_strategies_and_engine_explore_it(name: str, form: str) -> None:
    import nni.nas.space
    import nni.nas.strategy
    from nni.nas.evaluator import FunctionalEvaluator
    from nni.nas.execution import SequentialExecutionEngine

    seen: list[torch.nn.Module] = []

    def evaluate(network: torch.nn.Module) -> None:
        seen.append(network)
        nni.report_final_result(float(network(torch.zeros(1, *SHAPE)).shape[1]))

    strategy = getattr(nni.nas.strategy, name)(seed=0)
    space = model_space(load("convnet", width=[32]), SHAPE, 10)
    models = getattr(nni.nas.space, form).from_model(space, FunctionalEvaluator(evaluate))
    strategy(models, SequentialExecutionEngine(max_model_count=5))
    assert len(seen) == 5
    assert all(model.metric == 10 for model in strategy.list_models())


class Needle:
    """A space of 40,000 of which one fits: NNI's thousand random draws would hardly find it a default."""

    name = "needle"
    choices = {"row": tuple(range(200)), "column": tuple(range(200))}  # noqa: RUF012

    def architecture(self, sample: Mapping[str, int]) -> tuple[int, int]:
        return sample["row"], sample["column"]

    def sample_of(self, architecture: tuple[int, int]) -> dict[str, int]:
        return dict(zip(self.choices, architecture, strict=True))

    def misfit(self, architecture: tuple[int, int], _: tuple[int, int, int]) -> str | None:
        return None if architecture == (150, 90) else "hay"


def test_a_space_of_which_hardly_anything_fits_still_has_a_default() -> None:
    space: Any = Needle()
    assert model_space(space, SHAPE, 10).contains({"row": 150, "column": 90})


def test_nothing_fits() -> None:
    deep = load("convnet", depth=[4], pooling=["max"])
    with pytest.raises(ValueError, match="no architecture of the space 'convnet' fits images of shape"):
        model_space(deep, SHAPE, 10)
    with pytest.raises(ValueError, match="no architecture"):
        explore(
            deep, SHAPE, strategy="grid", samples=1, seed=0, options={}, batch=None, evaluate=lambda _: [1.0]
        )


def test_batches_are_full_until_the_last() -> None:
    assert [len(batch) for batch in explored(batch=8)] == [8, 8, 4]
    assert [len(batch) for batch in explored(batch=None)] == [20]
    assert [len(batch) for batch in explored(batch=1, samples=3)] == [1, 1, 1]
    assert sum(explored(batch=8), []) == explored(batch=None)[0]  # noqa: RUF017


@pytest.mark.parametrize("seed", range(4))
def test_random_search_finds_every_architecture(seed: int) -> None:
    (batch,) = explored(samples=720, seed=seed)
    assert len(batch) == len(FITTING)
    assert set(batch) == FITTING


def test_scores_go_to_the_architectures_that_earned_them() -> None:
    """Of one batch only the last proposal scores; its descendants must dominate, not another's."""
    proposed: list[ConvNetArchitecture] = []

    def evaluate(batch: Sequence[ConvNetArchitecture]) -> list[float]:
        proposed.extend(batch)
        return [0.0] * (len(batch) - 1) + [1.0] if len(proposed) == len(batch) else [-1.0] * len(batch)

    options = {"population_size": 40, "sample_size": 40, "mutation_prob": 0.2}
    explore(
        SPACE, SHAPE, strategy="evolution", samples=48, seed=1, options=options, batch=16, evaluate=evaluate
    )

    def shared(other: ConvNetArchitecture, parent: ConvNetArchitecture) -> int:
        a, b = SPACE.sample_of(other), SPACE.sample_of(parent)
        return sum(a[choice] == b[choice] for choice in a)

    children = proposed[40:]
    kinship = [sum(shared(child, parent) for child in children) for parent in proposed[:16]]
    assert kinship[15] == max(kinship)
    assert kinship[15] >= 3 * len(children)


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("strategy", ["random", "grid", "evolution", "tpe"])
def test_failed_architectures_are_survived(strategy: str, bad: float | None) -> None:
    """Even if all of them fail, in a batch as large as the population."""
    for every in (1, 2):
        count = 0

        def evaluate(batch: Sequence[ConvNetArchitecture], every: int = every) -> list[float | None]:
            nonlocal count
            count += len(batch)
            return [bad if place % every == 0 else 1.0 for place in range(len(batch))]

        options = {"population_size": 4, "sample_size": 2} if strategy == "evolution" else {}
        explore(
            SPACE, SHAPE, strategy=strategy, samples=24, seed=0, options=options, batch=4, evaluate=evaluate
        )
        assert count == 24


@pytest.mark.parametrize("error", [RuntimeError("worker died"), KeyboardInterrupt()])
@pytest.mark.parametrize("strategy", ["random", "grid", "evolution", "tpe"])
def test_what_evaluate_raises_passes_through(strategy: str, error: BaseException) -> None:
    def evaluate(_: Sequence[ConvNetArchitecture]) -> list[float]:
        raise error

    with pytest.raises(type(error)) as caught:
        explore(SPACE, SHAPE, strategy=strategy, samples=20, seed=0, options={}, batch=4, evaluate=evaluate)
    assert caught.value is error


def test_scores_must_match_the_batch() -> None:
    with pytest.raises(ValueError, match="zip"):
        explore(
            SPACE, SHAPE, strategy="grid", samples=3, seed=0, options={}, batch=None, evaluate=lambda _: [1.0]
        )


@pytest.mark.parametrize("strategy", ["random", "grid", "evolution", "tpe"])
def test_nothing_sleeps(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: float) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr(time, "sleep", forbidden)
    assert len(explored(strategy, batch=4)) == 5


def test_nnis_loggers_are_muted_and_restored(capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("nni").level
    explored("evolution", batch=4)
    explored("grid", samples=10_000)
    assert logging.getLogger("nni").level == level
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_importing_is_silent_needs_no_lightning_and_leaves_nnis_framework_alone() -> None:
    program = (
        "import os, sys, nni.common.framework as framework\n"
        "before = dict(os.environ)\n"
        "sys.modules['pytorch_lightning'] = None\n"
        "import search_spaces._nni\n"
        "assert framework.get_default_framework() == 'pytorch' and dict(os.environ) == before"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_one_file_alone_touches_nni() -> None:
    touching = set()
    for package in ("atom_nas", "search_spaces", "distill", "reports"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                touching |= {
                    path.relative_to(ROOT).as_posix() for name in names if name.split(".")[0] == "nni"
                }
    assert touching == {"search_spaces/_nni.py"}


def test_counts_agree_with_nni() -> None:
    from nni.nas.space import SimplifiedModelSpace

    models = SimplifiedModelSpace.from_model(model_space(SPACE, SHAPE, 10))
    assert len(list(models.grid())) == count_fitting(SPACE, SHAPE)[0] == len(FITTING)
