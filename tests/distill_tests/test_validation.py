"""Types of settings that Python was given."""

from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np
import pytest

from distill.labelling import LabelConfig
from distill.methods import METHODS
from distill.methods import load as load_method
from distill.training import TrainingConfig
from distill.validation import require_types

CONFIGS = {"training": TrainingConfig, "label": LabelConfig} | {
    name: load_method(name).Config for name in METHODS
}
PLAIN = (bool, float, int, str, type(None))


@dataclass(frozen=True, kw_only=True)
class Asked:
    count: int = 1
    rate: float = 1.0
    name: str = "a"
    sure: bool = False
    choice: bool | str = "auto"
    perhaps: int | None = None
    unsaid: int = None  # type: ignore[assignment]
    other: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_types(self)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": "1"}, "count must be a whole number, not '1'"),
        ({"count": 1.0}, r"count must be a whole number, not 1\.0"),
        ({"count": True}, "count must be a whole number, not True"),
        ({"count": None}, "count must be a whole number, not None"),
        ({"rate": "fast"}, "rate must be a number, not 'fast'"),
        ({"rate": False}, "rate must be a number, not False"),
        ({"name": 3}, "name must be text, not 3"),
        ({"sure": "no"}, "sure must be True or False, not 'no'"),
        ({"sure": 1}, "sure must be True or False, not 1"),
        ({"choice": 1}, "choice must be True or False or text, not 1"),
        ({"perhaps": 1.5}, r"perhaps must be a whole number, not 1\.5"),
        ({"unsaid": "x"}, "unsaid must be a whole number, not 'x'"),
    ],
)
def test_a_value_of_another_type_is_refused_in_a_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        Asked(**given)


def test_what_fits_is_kept() -> None:
    fitting = {
        "count": 2,
        "rate": 3,
        "name": "b",
        "sure": True,
        "choice": False,
        "perhaps": 4,
        "other": "any",
    }
    assert {name: getattr(Asked(**fitting), name) for name in fitting} == fitting


def test_numbers_of_numpy_become_pythons() -> None:
    asked = Asked(count=np.int64(2), rate=np.float32(0.5), perhaps=np.int8(3))  # type: ignore[arg-type]
    assert [type(each) for each in (asked.count, asked.rate, asked.perhaps)] == [int, float, int]
    assert (asked.count, asked.rate, asked.perhaps) == (2, 0.5, 3)


@pytest.mark.parametrize("name", CONFIGS)
def test_all_settings_of_plain_types_are_looked_at(name: str) -> None:
    plain = [
        each.name
        for each in fields(CONFIGS[name])
        if all(kind in PLAIN for kind in get_args(each.type) or (each.type,))
    ]
    assert plain
    for setting in plain:
        with pytest.raises(ValueError, match=f"^{setting} must be .*, not \\[\\]$"):
            CONFIGS[name](**{setting: []})
