"""`atom-nas bench`: what this machine makes of our loops, beside what a straightforward script would do.

All of it runs on random images of CIFAR-10's shape, in one go. Ways that are compared take turns, each in a
process of its own, and medians are reported, since a machine's speed changes from minute to minute.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from atom_nas.bench import machine, ways
from atom_nas.bench.growth import SMALLEST, measure_growth
from atom_nas.bench.profile import step_profile
from atom_nas.bench.turns import Way, take_turns
from atom_nas.bench.ways import Scale
from distill import kernels
from distill.environment import describe
from distill.precision import PRECISIONS, Precision, runs_bfloat16

__all__ = ["SMALLEST", "BenchPlan", "Scale", "bench", "table"]

PIECES_ON_A_GPU = 50
"""Iterations or steps a turn there, so that waiting for the GPU and what is prepared ahead count little."""
METHODS = ("atom", "datadam", "dm")
ARCHITECTURES = (
    "w128-d3-instance-relu-avg",
    "w64-d3-batch-relu-max",
    "w256-d3-none-leaky_relu-max",
    "w128-d2-group-sigmoid-avg",
    "w32-d2-layer-relu-avg",
)


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What is measured.

    Attributes:
        device: where to compute.
        repeats: turns a way, of which the median counts.
        methods, architectures: whose iterations and training steps.
        scale: sizes of both.
        growth: whether to measure growth too, from which sizes.
    """

    device: torch.device
    repeats: int = 7
    methods: tuple[str, ...] = METHODS
    architectures: tuple[str, ...] = ARCHITECTURES
    scale: Scale = field(default_factory=Scale)
    growth: Scale | None = None


def bench(plan: BenchPlan, *, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure everything; JSON values. `tell` is told in a few words what is being measured."""
    device = plan.device
    result: dict[str, Any] = {
        "environment": describe(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "kernels": kernels.why_unavailable() or "fused",
    }
    tell("matrix products")
    kinds = PRECISIONS if runs_bfloat16(device) else PRECISIONS[:1]
    threads = {"one": 1, "all": torch.get_num_threads()}
    result["gemm_gflops"] = {
        name: {kind: machine.gemm_rate(kind, device, count) for kind in kinds}
        for name, count in threads.items()
    }
    result["proxy_image_step"] = []
    for architecture in plan.architectures:
        tell(f"training steps of {architecture}")
        row = _turns(architecture, _training(architecture, plan, kinds), plan.repeats, plan.scale.batch)
        operations = ways.training_operations(architecture, plan.scale)
        result["proxy_image_step"].append(_with_rates(row, operations, result["gemm_gflops"]["one"]))
    result["distillation_iteration"] = []
    for method in plan.methods:
        tell(f"iterations of {method}")
        row = _turns(method, _matching(method, plan, kinds), plan.repeats, 1)
        operations = ways.matching_operations(plan.scale)
        result["distillation_iteration"].append(_with_rates(row, operations, result["gemm_gflops"]["all"]))
    if device.type == "cpu":
        tell("where a training step's time goes")
        result["step_profile"] = {
            "architecture": plan.architectures[0],
            "images": plan.scale.batch,
            "seconds": step_profile(plan.architectures[0], plan.scale, 5 * plan.repeats),
        }
    tell("workers")
    result["workers"] = machine.scaling(plan.architectures[0], plan.scale, device)
    if plan.growth:
        result["growth"] = measure_growth(
            plan.methods[0], plan.architectures[0], device, plan.repeats, smallest=plan.growth, tell=tell
        )
    return result


def _training(architecture: str, plan: BenchPlan, kinds: Sequence[Precision]) -> dict[str, Way]:
    common = (architecture, plan.device, plan.scale)
    pieces = _pieces(plan.device)
    fast: dict[str, Way] = {
        kind: Way(ways.train, (*common, kind), threads=1, pieces=pieces) for kind in kinds
    }
    if pieces > 1:
        eager = {
            f"eager {kind}": Way(ways.train, (*common, kind, False), threads=1, pieces=pieces)
            for kind in kinds
        }
        fast = {**eager, **fast}
    plainly = Way(ways.train_plainly, common, threads=1, pieces=_fewer(pieces), plain=True)
    return {"straightforward": plainly, **fast}


def _matching(method: str, plan: BenchPlan, kinds: Sequence[Precision]) -> dict[str, Way]:
    common = (method, plan.device, plan.scale)
    threads, pieces = torch.get_num_threads(), _pieces(plan.device)

    def way(**options: Any) -> Way:
        return Way(ways.match, (*common, options), threads=threads, pieces=pieces)

    fast: dict[str, Way] = {kind: way(precision=kind) for kind in kinds}
    if pieces > 1:
        fast = {**{f"not compiled {kind}": way(precision=kind, compile=False) for kind in kinds}, **fast}
    plainly = Way(ways.match_plainly, common, threads=threads, pieces=_fewer(pieces), plain=True)
    return {"straightforward": plainly, **fast}


def _fewer(pieces: int) -> int:
    """Of the straightforward ways, whose pieces take long enough."""
    return max(1, pieces // 5)


def _pieces(device: torch.device) -> int:
    return PIECES_ON_A_GPU if device.type == "cuda" else 1


def _turns(what: str, compared: Mapping[str, Way], repeats: int, share: int) -> dict[str, Any]:
    """Median seconds of each way, divided by `share`, and how many times faster it is than the first."""
    found = take_turns(compared, repeats)
    seconds = {name: statistics.median(turns) / share for name, turns in found.items()}
    first = next(iter(seconds.values()))
    return {"what": what, "seconds": seconds, "ratio": {name: first / each for name, each in seconds.items()}}


def _with_rates(row: dict[str, Any], operations: float, gemm: Mapping[str, float | None]) -> dict[str, Any]:
    """The row with the share of the matrix product's rate that each way in a known precision reaches."""
    rates = {name: operations / row["seconds"][name] / 1e9 for name in row["seconds"] if name in gemm}
    shares = {name: rate / (gemm[name] or 0.0) for name, rate in rates.items() if gemm[name]}
    return {**row, "gflops": rates, "share_of_gemm": shares}


def table(rows: Sequence[Mapping[str, Any]], unit: str, factor: float) -> tuple[list[str], list[list[str]]]:
    """Ways as a table: times in `unit` (seconds x factor), how many times faster, share of the GEMM rate."""
    names = list(rows[0]["seconds"])
    cells = [[_cell(row, name, unit, factor) for name in names] for row in rows]
    return ["", *names], [[row["what"], *line] for row, line in zip(rows, cells, strict=True)]


def _cell(row: Mapping[str, Any], name: str, unit: str, factor: float) -> str:
    share = row["share_of_gemm"].get(name)
    of = "" if share is None else f", {share:.0%}"
    return f"{factor * row['seconds'][name]:.3g} {unit} ({row['ratio'][name]:.1f}x{of})"
