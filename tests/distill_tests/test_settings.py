"""What a distillation can be asked, and what is refused before anything is read."""

import pytest

import distill
from distill.methods import load as load_method
from distill.settings import DistillSettings


@pytest.mark.parametrize("wrong", [-5, 2**63])
@pytest.mark.parametrize("name", ["seed", "validation_seed"])
def test_seeds_out_of_range_are_refused(tmp_path, name, wrong):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number in 0"):
        DistillSettings(**{"dataset": "digits", "out": tmp_path, name: wrong})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("zca", "no", "zca must be True or False, not 'no'"),
        ("seed", 1.5, "seed must be a whole number, not 1.5"),
        ("validation_fraction", "0.1", "validation_fraction must be a number, not '0.1'"),
        ("shard", 2, "shard must be text, not 2"),
        ("deterministic", "no", "deterministic must be True or False, not 'no'"),
        (
            "method_config",
            {"iterations": 5},
            "method_config must be a Config of distill.methods.atom, not a dict",
        ),
    ],
)
def test_settings_of_wrong_types_are_refused(tmp_path, name, value, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        DistillSettings(**{"dataset": "digits", "method": "atom", "out": tmp_path, name: value})


def test_paths_may_be_given_as_text(tmp_path):
    changes = {"out": str(tmp_path / "set"), "data_dir": str(tmp_path)}
    given = DistillSettings(dataset="digits", **changes)
    assert (given.out, given.data_dir) == (tmp_path / "set", tmp_path)


def test_the_config_is_of_the_method(tmp_path):
    asked = {"dataset": "digits", "out": tmp_path, "method_config": load_method("dm").Config()}
    with pytest.raises(
        ValueError, match="method_config is a Config of dm, and the method is atom: give method='dm'"
    ):
        DistillSettings(**asked)
    assert DistillSettings(**asked, method="dm").method_config is asked["method_config"]


def test_only_settings_are_taken():
    with pytest.raises(ValueError, match=r"distill takes DistillSettings, not \{'dataset': 'digits'\}"):
        distill.distill({"dataset": "digits"})
