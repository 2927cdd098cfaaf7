"""The benchmark measures what it says, on tiny numbers; nothing here depends on how fast anything is."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from trial_helpers import fail_turns, note_turns, take_turns_inline
from typer.testing import CliRunner

from atom_nas import bench
from atom_nas.bench import BenchPlan, growth, machine, turns, ways
from atom_nas.bench.profile import OTHER
from atom_nas.bench.turns import Way, take_turns
from atom_nas.bench.ways import Scale
from atom_nas.cli import app
from distill import methods
from distill.matching import matching_loss, statistics
from distill.networks import convnet
from distill.precision import PRECISIONS, runs_bfloat16

CPU = torch.device("cpu")
TINY = Scale(image_shape=(1, 8, 8), classes=2, ipc=1, batch_real=4, batch=8)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is told on Linux alone")
def test_the_memory_of_children_and_theirs_is_counted() -> None:
    hold = "import sys; held = bytearray(b'x' * 200 * 2**20); print('there', flush=True); sys.stdin.read()"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    before = machine._memory_mb()
    with subprocess.Popen(
        [sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
        during = machine._memory_mb()
        child.communicate()
    assert during > before + 150


def test_the_command_prints_and_writes_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(**settings: object) -> BenchPlan:
        return BenchPlan(**settings, methods=("dm",), architectures=("w32-d1-batch-relu-max",), scale=TINY)  # type: ignore[arg-type]

    monkeypatch.setattr(bench, "BenchPlan", small)
    monkeypatch.setattr(bench, "SMALLEST", TINY)
    monkeypatch.setattr(growth, "FACTORS", (1, 2))
    for module in (bench, growth):
        monkeypatch.setattr(module, "take_turns", take_turns_inline)
    monkeypatch.setattr(machine, "gemm_rate", partial(machine.gemm_rate, size=64))
    monkeypatch.setattr(machine, "JOBS_A_WORKER", 50)  # as long as it takes to look at their memory
    monkeypatch.setattr(machine, "_SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(machine, "ROUNDS", 1)
    monkeypatch.setattr(machine, "default_workers", lambda device: 2)
    path = tmp_path / "bench.json"
    picture = tmp_path / "growth.svg"
    result = CliRunner().invoke(
        app,
        ["bench", "--device", "cpu", "--repeats", "1", "--json", str(path), "--growth", str(picture)],
    )
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    kinds = list(PRECISIONS) if runs_bfloat16(torch.device("cpu")) else ["float32"]
    assert list(found["gemm_gflops"]["one"]) == list(found["gemm_gflops"]["all"]) == kinds
    for row in (*found["proxy_image_step"], *found["distillation_iteration"]):
        assert list(row["seconds"]) == ["straightforward", *kinds]
        assert row["ratio"]["straightforward"] == 1.0
        assert row["ratio"]["float32"] == row["seconds"]["straightforward"] / row["seconds"]["float32"]
        assert list(row["share_of_gemm"]) == kinds
    profile = found["step_profile"]
    assert profile["architecture"] == "w32-d1-batch-relu-max"
    assert {"patches_forward", "tail_backward", OTHER} <= profile["seconds"].keys()
    assert all(seconds > 0 for seconds in profile["seconds"].values())
    assert "Where the time of w32-d1-batch-relu-max goes" in result.output
    workers = found["workers"]
    assert workers["identical"] is True
    assert workers["speedup"] == workers["seconds"]["1"] / workers["seconds"]["2"]
    assert list(workers["memory_mb"]) == ["1", "2"]
    assert min(workers["memory_mb"].values()) > 0
    assert workers["overhead_ms"] >= 0
    grown = {row["of"]: row for row in found["growth"]}
    assert {of: row["sizes"] for of, row in grown.items()} == {
        "classes": [2, 4],
        "synthetic images a class": [1, 2],
        "real images a class": [4, 8],
        "training images": [8, 16],
        "architectures": [2, 4],
    }
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in grown.values())
    assert picture.read_text().count("real images a class") >= 1
    assert "w32-d1-batch-relu-max" in result.stdout
    assert "the same scores" in result.stdout


def test_growth_is_drawn_to_pictures_only() -> None:
    result = CliRunner().invoke(app, ["bench", "--growth", "growth.txt"])
    assert result.exit_code == 2
    assert ".png or .svg" in result.output


def test_a_straight_line_is_told_from_a_curve() -> None:
    assert growth.deviation_from_line([1, 2, 4, 8], [3.0, 5.0, 9.0, 17.0]) < 1e-12
    assert growth.deviation_from_line([1, 2, 4, 8], [1.0, 4.0, 16.0, 64.0]) > 0.3


def test_a_failing_matrix_product_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_GEMM", "raise SystemExit(1)")
    assert machine.gemm_rate("bfloat16", CPU, 1) is None


def test_ways_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    compared = {file.stem: Way(note_turns, (CPU, file), threads=1 + k) for k, file in enumerate(files)}
    seconds = take_turns(compared, 3)
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}
    assert all(value > 0 for found in seconds.values() for value in found)
    lines = [file.read_text().splitlines() for file in files]
    assert [len(each) for each in lines] == [3 + turns.UNMEASURED] * 2
    assert [each[0].split()[1] for each in lines] == ["1", "2"]


def test_a_way_that_fails_is_named_with_its_reason() -> None:
    with pytest.raises(RuntimeError, match="'bad' cannot be measured: FloatingPointError: no number"):
        take_turns({"bad": Way(fail_turns, (CPU,), threads=1)}, 1)


def test_the_straightforward_iteration_takes_a_step_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class by class it descends the loss that our engine computes for all classes at once."""
    network = convnet(TINY.image_shape, 2, depth=2, generator=torch.Generator().manual_seed(1))
    seen: list[torch.Tensor] = []

    def look(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images

    monkeypatch.setattr(ways, "convnet", lambda *_, **__: network)
    monkeypatch.setattr(ways, "draw", lambda *_: look)
    start = torch.randn(2, *TINY.image_shape, generator=torch.Generator().manual_seed(0))
    posed = ways.problem(CPU, TINY)
    after = ways.plain_iteration("atom", posed, posed.preprocessing(posed.real.images), start.clone(), 0)

    weights = methods.load("atom").Config().weights
    own = start.clone().requires_grad_(True)
    real = statistics(*network.features(torch.cat(seen[::2])), classes=2, weights=weights)
    synthetic = statistics(*network.features(own), classes=2, weights=weights)
    (gradient,) = torch.autograd.grad(matching_loss(real, synthetic, weights=weights).total, own)
    assert [len(images) for images in seen] == [TINY.batch_real, TINY.ipc] * 2
    assert torch.equal(torch.cat(seen[1::2]), start)
    torch.testing.assert_close(after, start - gradient, rtol=1e-4, atol=1e-6)
    assert not torch.equal(after, start)


def test_operations_are_counted_as_the_tables_say() -> None:
    assert ways.training_operations("w32-d1-none-relu-avg", TINY) == 3 * (18 * 32 * 64 + 2 * 32 * 16 * 2)
    forward = 18 * (1 * 128 * 64 + 128 * 128 * 16)
    assert ways.matching_operations(TINY) == 2 * (4 + 2) * forward
