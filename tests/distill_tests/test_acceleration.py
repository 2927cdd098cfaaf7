"""What `auto` decides, and that it is decided once for a run, said and recorded."""

import dataclasses
import json

import pytest
import torch
from distill_helpers import problem

from distill import acceleration, kernels
from distill.acceleration import CPU_OPERATIONS, Work, decide
from distill.methods import atom
from distill.networks import convnet_operations
from distill.run import distill
from distill.settings import DistillSettings

CPU = torch.device("cpu")
LONG = Work(iterations=500, operations=2 * CPU_OPERATIONS)
SHORT = Work(iterations=500, operations=CPU_OPERATIONS / 2)


@pytest.fixture
def machine(monkeypatch):
    """Pretends what the machine can do."""

    def pretend(missing=None):
        monkeypatch.setattr(acceleration, "why_not_compile", lambda _: missing)

    return pretend


def test_a_long_run_is_compiled_and_a_short_one_is_not(machine):
    machine()
    assert decide("auto", LONG, CPU)[0] is True
    assert decide("auto", SHORT, CPU)[0] is False


def test_a_machine_without_compiler_falls_back_and_says_why(machine):
    machine("no compiler")
    assert decide("auto", LONG, CPU) == (False, "no compiler")
    assert "too short" in decide("auto", SHORT, CPU)[1]


def test_what_was_asked_for_stays_or_is_refused(machine):
    machine()
    assert decide(False, LONG, CPU)[0] is False
    assert decide(True, SHORT, CPU)[0] is True
    machine("no compiler")
    with pytest.raises(ValueError, match="compile=true is not possible here: no compiler"):
        decide(True, SHORT, CPU)


def test_a_missing_compiler_is_found_out(monkeypatch):
    def fail(_):
        raise RuntimeError("\nno g++\nat all")

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    acceleration.why_not_compile.cache_clear()
    assert acceleration.why_not_compile("cpu") == "torch.compile fails here (no g++)"
    acceleration.why_not_compile.cache_clear()


def test_every_shard_decides_as_the_whole_would(machine):
    machine()
    config = atom.Config(iterations=10**8, width=24)  # there are no fused kernels of this width
    whole, shard = problem((12, 7, 12, 4)), problem((12, 7, 12, 4), subset=(2,))
    assert config.suited(shard) == config.suited(whole)
    assert config.suited(whole)[0].compile is True
    short = dataclasses.replace(config, iterations=10)
    assert short.suited(whole)[0].compile is False


@pytest.mark.skipif(kernels.why_unavailable() is not None, reason="no kernels here")
def test_fused_kernels_are_not_compiled(machine):
    machine()
    config, said = atom.Config(iterations=10**8, width=32).suited(problem((12, 7)))
    assert config.compile is False
    assert said == ("computing with fused kernels",)
    assert atom.Config(compile=True, width=32).suited(problem((12, 7)))[0].compile is True


def test_operations_are_those_of_the_network():
    from atom_nas.estimators.measure import network_costs
    from distill.networks import convnet
    from distill.seeding import stream

    network = convnet((3, 32, 32), 10, depth=3, width=128, generator=stream(0))
    network.classifier = torch.nn.Identity()
    assert network_costs(network, (3, 32, 32))["flops"] == convnet_operations((3, 32, 32), 3, 128)


def test_the_card_records_what_was_decided_and_resuming_accepts_it(tmp_path):
    said = []
    config = atom.Config(iterations=2, width=8, batch_real=4)
    settings = DistillSettings(dataset="digits", out=tmp_path / "set", ipc=1, method_config=config)
    distill(settings, on_stage=said.append)
    resolved = json.loads((tmp_path / "set" / "card.json").read_text())["config"]
    assert resolved["compile"] is False
    assert "not compiled: the run is too short for it to pay" in said
    assert "without fused kernels, so slower: they take widths that are multiples of 16, not 8" in said
    assert len(distill(settings, resume=True)) == 10
