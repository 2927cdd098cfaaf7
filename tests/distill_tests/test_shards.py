"""Which classes a shard has, what stays in memory for it, and the groups that classes are computed in."""

import pytest
import torch
from distill_helpers import blobs, problem

from distill.methods import load
from distill.methods.base import Problem
from distill.methods.dm import Config
from distill.preprocessing import fit_preprocessing
from distill.session import Session
from distill.shards import Shard


@pytest.mark.parametrize(("classes", "count"), [(10, 1), (10, 3), (10, 10), (200, 8), (7, 4)])
def test_shards_partition_the_classes_into_contiguous_nearly_equal_parts(classes, count):
    parts = [Shard(index, count).class_numbers(classes) for index in range(1, count + 1)]
    assert [number for part in parts for number in part] == list(range(classes))
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("0/8", "parts of 8 are 1/8 to 8/8"), ("9/8", "parts of 8 are 1/8 to 8/8"), ("1/0", "at least 1"),
     ("2", "e.g. 2/8"), ("", "e.g. 2/8"), ("a/b", "e.g. 2/8"), ("-1/3", "e.g. 2/8"), ("1/2/3", "e.g. 2/8"),
     ("1.0/2", "e.g. 2/8")],
)  # fmt: skip
def test_what_is_no_shard_is_refused(text, message):
    with pytest.raises(ValueError, match=message) as error:
        Shard.parse(text)
    assert "\n" not in str(error.value)


def test_a_shard_is_written_as_it_is_read():
    assert str(Shard.parse(" 02/8 ")) == "2/8"
    with pytest.raises(ValueError, match="10 classes make at most 10 shards"):
        Shard.parse("3/11").class_numbers(10)


def test_a_narrowed_problem_holds_the_images_of_its_classes_only():
    whole = problem((12, 7, 12, 4))
    part = whole.narrowed((1, 3))
    assert len(part.real) == 7 + 4
    assert part.classes == whole.classes
    for mine, k in zip(part.pools(), (1, 3), strict=True):
        assert torch.equal(part.real.images[mine], whole.real.images[whole.pools()[k]])
    assert len(whole.narrowed((1, 3), keep_others=True).real) == len(whole.real)


def whitened(counts=(9, 9, 9, 9, 9), *, ipc=1, **changes):
    real = blobs(list(counts), side=6, channels=3)
    return Problem(
        real=real,
        classes=tuple(map(str, range(len(counts)))),
        preprocessing=fit_preprocessing(real.images, zca=True),
        ipc=ipc,
        seed=0,
        device=torch.device("cpu"),
        **changes,
    )


def distilled(chosen, **config):
    settings = load("atom").Config(**{"iterations": 4, "batch_real": 5, "compile": False, **config})
    return load("atom").distill(chosen, settings, Session()).unflatten(0, (-1, chosen.ipc))


@pytest.mark.parametrize("width", [8, 16], ids=["eager", "fused"])
@pytest.mark.parametrize("ipc", [1, 3])
def test_deterministic_classes_do_not_depend_on_one_another_by_a_bit(width, ipc):
    whole = whitened(ipc=ipc, deterministic=True)
    images = distilled(whole, width=width)
    for subset in ((0,), (1, 2), (4, 3, 0)):
        assert torch.equal(distilled(whole.narrowed(subset), width=width), images[list(subset)])


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_groups_of_classes_change_rounding_only(at_once):
    p = whitened(ipc=2)
    assert torch.allclose(distilled(p, width=8, classes_at_once=at_once), distilled(p, width=8), atol=1e-4)


def test_groups_of_classes_cover_the_classes_and_bound_the_first_map():
    large = problem((2,) * 7, side=64, ipc=1)
    config = Config(batch_real=63, width=512)  # 512 MiB of float32 for each class
    assert config.class_groups(large) == [slice(k, k + 1) for k in range(7)]
    assert Config(batch_real=63, width=64).class_groups(large) == [slice(0, 7)]
    assert Config(classes_at_once=3).class_groups(large) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    assert Config(classes_at_once=99).class_groups(large.narrowed((1, 2))) == [slice(0, 2)]
    # Of images that hold several the enlarged ones count, or those that are matched.
    assert len(Config(batch_real=60, width=512, factor=2).class_groups(large)) == 7
    assert len(Config(batch_real=30, width=512, factor=2).class_groups(large)) == 7
    assert len(Config(batch_real=30, width=512, factor=2, batch_synthetic=2).class_groups(large)) == 4
    with pytest.raises(ValueError, match="classes_at_once must be 0"):
        Config(classes_at_once=-1)


def test_deterministic_runs_are_not_compiled():
    p = whitened(deterministic=True)
    assert Config(width=8, iterations=10**9).suited(p)[0].compile is False
    with pytest.raises(ValueError, match="compile=true and deterministic"):
        Config(compile=True).suited(p)
