"""The matching engine: classes are independent, the family is one code, and a run can be cut anywhere."""

import math
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from distill_helpers import problem
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distill.checkpoint import LARGEST, largest, read
from distill.methods import atom, datadam, dm, load
from distill.methods._matching import MatchingConfig, match
from distill.methods._pixels import draw_batch
from distill.precision import runs_bfloat16
from distill.seeding import stream
from distill.session import Interrupted, RecordedSession, Session

QUICK = {"iterations": 6, "width": 8, "batch_real": 5}
MATCHING = ["atom", "datadam", "dm"]
Change = Callable[[dict[str, Any]], dict[str, Any]]


def run(method: str, session: Session | None = None, *, subset=None, counts=(12, 7, 12, 4), **config):
    module = load(method)
    settings = module.Config(**{**QUICK, **config})
    return module.distill(problem(counts, subset=subset), settings, session or Session())


@pytest.mark.parametrize("method", MATCHING)
@pytest.mark.parametrize("partition", [[(0, 1), (2, 3)], [(3,), (0, 2), (1,)]])
def test_any_partition_of_the_classes_gives_the_same_set(method, partition):
    whole = run(method).unflatten(0, (4, 2))
    for subset in partition:
        part = run(method, subset=subset).unflatten(0, (len(subset), 2))
        assert torch.allclose(part, whole[list(subset)], atol=1e-4)


def test_members_of_the_family_are_weights_of_one_code():
    assert torch.equal(run("atom", lambda_channel=0.0), run("datadam"))
    alone = run("atom", lambda_channel=0.0, lambda_spatial=0.0, loss_scale=1.0, lambda_mmd=1.0)
    assert torch.equal(alone, run("dm"))
    scaled = run("atom", lambda_channel=0.0, loss_scale=1.0, lambda_mmd=1.0)
    assert not torch.equal(scaled, run("dm"))
    p, session = problem((12, 7, 12, 4)), Session()
    settings = MatchingConfig(**QUICK)
    assert torch.equal(match(p, settings, session), run("dm"))
    assert issubclass(atom.Config, MatchingConfig)
    assert dm.match is datadam.match is atom.match


def test_the_learning_rate_may_fall_to_zero():
    config = atom.Config(schedule="cosine", iterations=8, learning_rate=2.0)
    assert [config.rate(i) for i in (0, 4)] == pytest.approx([2.0, 1.0])
    assert config.rate(7) == pytest.approx(2.0 * math.sin(math.pi / 16) ** 2)
    assert atom.Config(iterations=8).rate(7) == 1.0
    assert torch.equal(run("atom", iterations=1, schedule="cosine"), run("atom", iterations=1))
    assert not torch.equal(run("atom", schedule="cosine"), run("atom"))
    with pytest.raises(ValueError, match="schedule must be constant or cosine"):
        atom.Config(schedule="linear")


@pytest.mark.parametrize("method", MATCHING)
def test_the_loss_goes_down_and_images_move(method):
    class Recording(Session):
        log_every = 1

        def after(self, state, total):
            self.curve = state.curve

    session = Recording()
    start = run(method, iterations=1, learning_rate=1e-12, initialization="noise")
    end = run(method, session, iterations=40, initialization="noise", counts=(12, 12, 12, 12), width=16)
    losses = [point["loss"] for point in session.curve]
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert not torch.allclose(start, end)
    for point in session.curve:
        assert point["loss"] == pytest.approx(point["spatial"] + point["channel"] + point["mmd"], rel=1e-5)


@pytest.mark.parametrize("method", MATCHING)
@pytest.mark.parametrize("stop", [1, 4])
def test_an_interrupted_run_goes_on_to_the_same_bits(method, stop, tmp_path):
    steps = 0

    def stop_now() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop

    identity = {"method": method}
    with pytest.raises(Interrupted):
        run(method, RecordedSession(tmp_path, identity, resume=False, should_stop=stop_now))
    resumed = run(method, RecordedSession(tmp_path, identity, resume=True))
    assert torch.equal(resumed, run(method))


def test_to_go_on_with_what_rounds_otherwise_is_told_and_kept(tmp_path):
    old = {"torch": "2.13.0", "kernels": "fused", "cores": "2"}
    now = {"torch": "2.14.1", "kernels": "eager", "cores": "8"}
    steps = iter([False, True, False, True])

    def begun(made_with, *, resume):
        session = RecordedSession(
            tmp_path, {}, resume=resume, made_with=made_with, should_stop=lambda: next(steps, False)
        )
        with suppress(Interrupted):
            run("dm", session)
        return session

    assert begun(old, resume=False).made_with == old
    said = "torch 2.13.0 (2.14.1 now) and kernels fused (eager now)"
    with pytest.warns(
        UserWarning, match=re.escape(f"was begun with {said}: the set may differ, by rounding")
    ):
        assert begun(now, resume=True).made_with == now | {"begun_with": said}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert begun(now, resume=True).made_with == now | {"begun_with": said}


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        run("dm", RecordedSession(tmp_path, {"a": {"b": 1}}, resume=False, should_stop=lambda: True))
    with pytest.raises(ValueError, match=r"a\.b was 1 and is now 2"):
        run("dm", RecordedSession(tmp_path, {"a": {"b": 2}}, resume=True))
    (tmp_path / "checkpoint.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="no checkpoint"):
        run("dm", RecordedSession(tmp_path, {"a": {"b": 1}}, resume=True))


def test_a_loss_that_explodes_names_iteration_and_class():
    with pytest.raises(ValueError, match=r"not finite at iteration \d+ \(class class-\d\)"):
        run("dm", learning_rate=1e30, iterations=10)


@pytest.mark.parametrize("width", [8, 32])
def test_images_that_diverge_are_refused_though_norms_keep_the_loss_finite(width):
    with pytest.raises(ValueError, match=r"diverged at iteration 10: .* smaller learning_rate|not finite"):
        run("dm", learning_rate=1e6, iterations=30, width=width)


def test_a_checkpoint_of_the_run_with_other_images_is_refused(tmp_path):
    def stopped() -> dict[str, torch.Tensor]:
        with pytest.raises(Interrupted):
            run("dm", RecordedSession(tmp_path, {}, resume=False, should_stop=lambda: True))
        with safe_open(file, framework="pt") as content:
            metadata.update(content.metadata())
        return load_file(file)

    def with_images(images: torch.Tensor) -> Change:
        return lambda tensors: tensors | {"images": images}

    def with_entry(**entries: str) -> Change:
        return lambda tensors: metadata.update(entries) or tensors

    file, metadata = tmp_path / "checkpoint.safetensors", {}
    foreign = "no checkpoint of this program"
    for changed, message in (
        (lambda tensors: {name: each[:-1] for name, each in tensors.items()}, "the checkpoint is damaged"),
        (lambda tensors: tensors | {"momentum": tensors["momentum"][:-1]}, "its momentum is of shape"),
        (with_entry(curve='[{"iteration": 99, "loss": 1.0}]'), "its curve is of other iterations"),
        (with_entry(iteration="999999"), "after 999999 iterations"),
        (with_entry(iteration="-5"), rf"{foreign} \(iteration: "),
        (with_entry(curve="5"), rf"{foreign} \(curve: "),
        (with_entry(curve='[{"loss": 1.0}]'), rf"{foreign} \(its curve has a point without iteration"),
        (with_entry(wall_seconds="abc"), rf"{foreign} \(wall_seconds: "),
        (with_entry(wall_seconds="nan"), rf"{foreign} \(wall_seconds: "),
        (with_entry(cpu_seconds="-1"), rf"{foreign} \(cpu_seconds: "),
        (with_entry(identity='[["method", "dm"]]'), rf"{foreign} \(identity: "),
        (with_entry(identity='{"a": ' * 5000 + "1" + "}" * 5000), foreign),
        (with_images(torch.tensor(1.0)), rf"{foreign} \(its images are torch.float32 of shape \(\)"),
        (
            with_images(torch.zeros(12, 1, 8, 8, dtype=torch.float64)),
            rf"{foreign} \(its images are torch.float64",
        ),
        (
            with_images(torch.full((12, 1, 8, 8), torch.nan)),
            rf"{foreign} \(its images hold what is no number",
        ),
        (with_images(torch.full((12, 1, 8, 8), 2e3)), rf"{foreign} \(its images hold values up to 2e\+03"),
    ):
        metadata.clear()
        save_file(changed(stopped()), file, metadata)
        with pytest.raises(ValueError, match=message):
            run("dm", RecordedSession(tmp_path, {}, resume=True))


def test_images_that_have_diverged_are_not_kept(tmp_path):
    """Not even where every iteration is: a run could never go on from them."""
    session = RecordedSession(tmp_path, {}, resume=False, checkpoint_seconds=0.0)
    with pytest.raises(ValueError, match=r"smaller learning_rate helps, from the start \(--overwrite\)"):
        run("dm", session, learning_rate=4e3, iterations=30)  # 620, 933, 1089, ...
    state, _ = read(tmp_path / "checkpoint.safetensors")
    assert state.iteration == 2
    assert 100 < largest(state.images) <= LARGEST


def test_initial_images_are_the_random_baseline():
    still = run("dm", iterations=1, learning_rate=1e-30)
    assert torch.equal(
        still, load("random").distill(problem((12, 7, 12, 4)), load("random").Config(), Session())
    )


def test_bfloat16_changes_rounding_only_or_is_refused():
    if not runs_bfloat16(torch.device("cpu")):
        with pytest.raises(ValueError, match="precision=float32"):
            run("atom", iterations=2, precision="bfloat16")
        return
    exact = run("atom", iterations=2)
    assert torch.allclose(run("atom", iterations=2, precision="bfloat16"), exact, atol=0.15)


@pytest.mark.slow
def test_compiled_matching_is_the_same_matching():
    exact = run("atom", iterations=2)
    assert torch.allclose(run("atom", iterations=2, compile=True), exact, atol=1e-3)


def test_small_classes_go_round_again():
    pool = torch.tensor([3, 5, 9])
    drawn = draw_batch(pool, 8, stream(0))
    assert len(drawn) == 8
    assert torch.bincount(drawn, minlength=10)[pool].tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
    assert sorted(draw_batch(pool, 3, stream(0)).tolist()) == pool.tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"iterations": 0}, "iterations"), ({"momentum": 1.0}, "momentum"), ({"depth": 1}, "depth"),
     ({"augmentation": "blur"}, "blur")],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        atom.Config(**wrong)


def test_ipc_larger_than_a_class_names_the_class():
    with pytest.raises(ValueError, match=r"ipc 5 is more than class class-3 has: 4"):
        problem((12, 7, 12, 4), ipc=5)
    assert problem((12, 7, 12, 4), ipc=5, subset=(0, 1)).ipc == 5
