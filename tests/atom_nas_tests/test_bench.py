"""The benchmark measures what it says, on tiny numbers; nothing here depends on how fast anything is."""

import json

import pytest
import torch
from typer.testing import CliRunner

from atom_nas import bench
from atom_nas.cli import app

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two architectures, one method, no compiler, and a matrix product that is not worth waiting for."""
    monkeypatch.setattr(bench, "ARCHITECTURES", ("w32-d1-batch-relu-max", "w32-d1-none-relu-avg"))
    monkeypatch.setattr(bench, "METHODS", ("dm",))
    monkeypatch.setattr(bench, "why_not_compile", lambda _: "there is no compiler")
    monkeypatch.setattr(bench, "_GEMM", bench._GEMM.replace("2048", "64"))
    monkeypatch.setattr(bench, "BATCH_REAL", 8)
    monkeypatch.setattr(bench, "SCALING_JOBS", 1)
    monkeypatch.setattr(bench, "usable_cores", lambda: 2)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_command_prints_and_writes_every_number(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bench.json"
    result = CliRunner().invoke(
        app, ["bench", "--device", "cpu", "--repeats", "1", "--iterations", "1", "--json", str(path)]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    assert found["gemm_gflops"]["float32"] > 0
    assert [row["what"] for row in found["proxy_image_step"]] == list(bench.ARCHITECTURES)
    (row,) = found["distillation_iteration"]
    assert list(row["seconds"]) == ["straightforward", "eager"]
    assert row["ratio"]["straightforward"] == 1.0
    assert row["ratio"]["eager"] == pytest.approx(row["seconds"]["straightforward"] / row["seconds"]["eager"])
    assert found["workers"]["identical"] is True
    assert found["workers"]["peak_memory_mb"] > 0
    assert "w32-d1-batch-relu-max" in result.stdout
    assert "the same scores" in result.stdout


def test_a_failing_matrix_product_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_GEMM", "raise SystemExit(1)")
    assert bench.gemm_rate("bfloat16", CPU) is None


def test_the_straightforward_iteration_descends_the_same_loss() -> None:
    problem = bench._problem(CPU)
    assert bench.METHODS == ("atom", "datadam", "dm")
    assert len(bench._plain_iterations("atom", problem, 1)) == 1
    assert len(problem.real) == bench.CLASSES * 2 * bench.BATCH_REAL
