"""Model spaces of NNI's as our spaces: forms that parse back, constraints, networks, and what goes wrong."""

from __future__ import annotations

import copy
import itertools
import random
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from space_helpers import CONSTRAINED, SHAPE, refused, written
from torch import nn

import search_spaces
from search_spaces._nni import explore
from search_spaces.base import count_fitting, enumerate_space, first_fitting, some_architectures
from search_spaces.foreign import NniSpace, _texts, probe

ODD = """
class Odd(ModelSpace):
    def __init__(self, classes, image_shape, depth: int = 1, ratio: float = 1.0, **more):
        super().__init__()
        side = nni.choice("ké .y+=,%", [(3, 3), (1, 3)])
        act = nni.choice("act", ["re lu", "si,lu", "'~\\n"])
        self.add_mutable(act)
        self.act = {"re lu": nn.ReLU, "si,lu": nn.SiLU}.get(ensure_frozen(act), nn.Identity)()
        width = nni.choice("width", [4, 8])
        sizes = [MutableConv2d(image_shape[0], width, side) for side in (3, 1)]
        self.first = LayerChoice(sizes, label="first")
        self.inputs = InputChoice(3, 2, label="inputs")
        self.mixed = nni.choice("mixed", [None, True, 0, 1.5, "1.5"])
        self.add_mutable(self.mixed)
        self.add_mutable(side)
        self.head = MutableLinear(width, classes)

    def forward(self, x):
        x = self.act(self.first(x))
        return self.head(self.inputs([x, 2 * x, 3 * x]).mean((2, 3)))
"""


@pytest.fixture
def odd(tmp_path: Path) -> NniSpace:
    space = search_spaces.load(f"{written(tmp_path, ODD)}:Odd", image_shape=SHAPE, classes=3)
    assert isinstance(space, NniSpace)
    return space


def test_labels_are_in_order_and_values_are_texts_or_places(odd: NniSpace) -> None:
    assert odd.choices == {
        "act": ("re%20lu", "si%2Clu", "%27%7E%0A"),
        "first": ("0", "1"),
        "inputs": ("0~1", "0~2", "1~2"),
        "k%C3%A9%20%2Ey%2B%3D%2C%25": ("3x3", "1x3"),
        "mixed": ("0", "1", "2", "3", "4"),  # 1.5 and "1.5" have the same text
        "width": ("4", "8"),
    }
    assert count_fitting(odd, SHAPE) == (360, 360)


def test_every_form_parses_back_and_holds_nothing_that_a_table_would_mind(odd: NniSpace) -> None:
    forms = [str(architecture) for architecture in enumerate_space(odd)]
    assert len(set(forms)) == 360
    assert all(re.fullmatch(r"[^\s,'\"]+", form) for form in forms)
    for architecture, form in zip(enumerate_space(odd), forms, strict=True):
        assert odd.parse(form) == architecture
        assert odd.architecture(odd.sample_of(architecture)) == architecture
    parts = forms[7].split("+")
    assert str(odd.parse("+".join(reversed(parts)))) == forms[7]


@limits(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.text(max_size=200),
            # Code that older versions of torch compile leaves a process without subnormal numbers.
            st.floats(allow_nan=False, allow_subnormal=False),
            st.tuples(st.integers(), st.text()), st.lists(st.integers(), max_size=3), st.sets(st.integers()),
        ),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_texts_of_any_values_are_distinct_and_stand_for_them(values: list[Any]) -> None:
    texts = _texts(values)
    assert list(texts.values()) == values
    assert all(re.fullmatch(r"[^\s,'\"+=]+", text) for text in texts)


@given(st.text())
def test_any_text_is_refused_in_one_line(text: str) -> None:
    space = test_any_text_is_refused_in_one_line.space
    with pytest.raises(ValueError, match=r".") as caught:
        space.parse(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture(autouse=True)
def space_for_texts(own_space: Path) -> None:
    test_any_text_is_refused_in_one_line.space = search_spaces.load(f"{own_space}:Blocks")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("depth=2", "depth=3"), "unknown depth '3': allowed: 1, 2"),
        (("+depth=2", ""), "does not say 'depth', a choice of my_spaces.py:Blocks"),
        (("depth=2", "deep=2"), "unknown choice of my_spaces.py:Blocks 'deep': did you mean 'depth'?"),
        (("depth=2", "depth=2+depth=2"), "is not of the form"),
        (("depth=2", "depth"), "such as 'block0=conv3x3+block1=conv3x3+depth=1+width=8'"),
    ],
)
def test_what_does_not_parse(own_space: Path, change: tuple[str, str], said: str) -> None:
    space = search_spaces.load(f"{own_space}:Blocks")
    right = "block0=pool+block1=pool+depth=2+width=8"
    assert str(space.parse(right)) == right
    with pytest.raises(ValueError, match=re.escape(said)):
        space.parse(right.replace(*change))


def test_long_labels_and_values_round_trip(tmp_path: Path) -> None:
    code = "class Long(ModelSpace):\n    def __init__(self):\n        super().__init__()\n"
    code += "        self.add_mutable(nni.choice('é' * 50, [[1] * 90, 'a' * 200, 'b']))\n"
    space = search_spaces.load(f"{written(tmp_path, code)}:Long")
    name = "%C3%A9" * 50
    assert [str(each) for each in enumerate_space(space)] == [f"{name}={place}" for place in range(3)]
    assert [space.parse(str(each)) for each in enumerate_space(space)] == list(enumerate_space(space))
    with pytest.raises(ValueError, match=r"unknown choice of .* '%C3.*\.\.\.'"):
        space.parse(f"{name}{name}=1")


def test_networks_are_what_was_chosen(odd: NniSpace) -> None:
    for architecture in itertools.islice(enumerate_space(odd), 0, 360, 31):
        sample = odd.sample_of(architecture)
        network = odd.build(architecture, SHAPE, 5)
        first: Any = network.first
        assert type(first) is nn.Conv2d
        assert (first.out_channels, first.kernel_size[0]) == (
            int(sample["width"]),
            3 - 2 * int(sample["first"]),
        )
        assert network.inputs.chosen == [int(each) for each in sample["inputs"].split("~")]  # type: ignore[union-attr]
        logits = copy.deepcopy(network)(torch.rand(2, *SHAPE))
        assert logits.shape == (2, 5)
        logits.sum().backward()


def test_a_seed_draws_a_network_and_loading_draws_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "torch.manual_seed(3)\n" + ODD)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    space = search_spaces.load(f"{path}:Odd", image_shape=SHAPE, classes=3)
    probe(space, SHAPE, 3)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(space.build(next(enumerate_space(space)), SHAPE, 3).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_constraints_make_misfits(tmp_path: Path) -> None:
    space = search_spaces.load(f"{written(tmp_path, CONSTRAINED)}:Constrained", classes=3)
    assert count_fitting(space, SHAPE) == (3, 9)
    assert str(first_fitting(space, SHAPE)) == "a=1+b=3"
    misfit = space.parse("a=3+b=3")
    assert "'four' does not hold" in str(space.misfit(misfit, SHAPE))
    with pytest.raises(ValueError, match=re.escape("a=3+b=3 does not fit")):
        space.build(misfit, SHAPE, 3)
    found: list[str] = []
    for strategy in ("random", "grid", "evolution", "tpe"):
        options = {"population_size": 2, "sample_size": 1} if strategy == "evolution" else {}
        found.clear()

        def evaluate(batch: Any) -> list[float]:
            found.extend(map(str, batch))
            return [1.0] * len(batch)

        explore(
            space, SHAPE, strategy=strategy, samples=9, seed=0, options=options, batch=1, evaluate=evaluate
        )
        assert sorted(found) == ["a=1+b=3", "a=2+b=2", "a=3+b=1"]


@pytest.mark.parametrize("strategy", ["random", "grid", "evolution", "tpe"])
@pytest.mark.parametrize("name", ["hub:darts", "hub:mobilenetv3"])
def test_strategies_in_a_space_too_large_to_list(name: str, strategy: str) -> None:
    space = search_spaces.load(name)
    assert count_fitting(space, SHAPE)[0] is None
    runs = []
    for _ in range(2):
        proposed: list[str] = []

        def evaluate(batch: Any, proposed: list[str] = proposed) -> list[float]:
            proposed.extend(map(str, batch))
            return [float(len(str(each))) for each in batch]

        options = {"population_size": 3, "sample_size": 2} if strategy == "evolution" else {}
        explore(
            space, SHAPE, strategy=strategy, samples=9, seed=0, options=options, batch=3, evaluate=evaluate
        )
        assert len(set(proposed)) == 9
        runs.append(proposed)
    assert runs[0] == runs[1]


def test_some_architectures_of_a_large_space_are_always_the_same() -> None:
    space = search_spaces.load("hub:darts")
    first, again = (list(itertools.islice(some_architectures(space), 20)) for _ in range(2))
    assert first == again
    assert len(set(first)) == 20


def test_what_is_not_a_space_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, ODD + "class Net(nn.Module):\n    pass\nvalue = 3\n")
    assert "there is no file" in refused("nowhere.py:Odd")
    assert "there is no module 'no_such.module'" in refused("no_such.module:Odd")
    assert "names no class" in refused("spaces.py:")
    assert "names no class" in refused(":Odd")
    assert "did you mean 'Odd'?" in refused(f"{path}:Od")
    for other in ("Net", "value", "torch"):
        assert f"spaces.py:{other} is not a ModelSpace of NNI" in refused(f"{path}:{other}")
    assert "hub:NAME, FILE.py:CLASS or module:CLASS" in refused("convnets")
    for code, said in {
        "def broken(:": "cannot be run: SyntaxError",
        "import no_such_module": "cannot be run: ModuleNotFoundError: No module named 'no_such_module'",
        "raise SystemExit(3)": "cannot be run: SystemExit: 3",
    }.items():
        assert said in refused(f"{written(tmp_path, code, 'bad.py')}:Odd")


def test_what_fails_in_a_constructor_is_told_in_one_line(tmp_path: Path) -> None:
    def constructor(body: str) -> str:
        code = f"class S(ModelSpace):\n    def __init__(self):\n        super().__init__()\n        {body}\n"
        return refused(f"{written(tmp_path, code)}:S")

    assert "fails: ZeroDivisionError: division by zero" in constructor("1 / 0")
    assert "fails: Label must be specified" in constructor("self.a = LayerChoice([nn.ReLU(), nn.Tanh()])")
    assert "leaves nothing to choose" in constructor("self.a = nn.ReLU()")
    assert "'rate' is not among listed values" in constructor("self.add_mutable(nni.uniform('rate', 0, 1))")
    assert "among more than 4096 subsets" in constructor("self.a = InputChoice(20, None, label='a')")
    assert "different" in constructor(
        "self.a, self.b = (MutableLinear(nni.choice('a', [1, other]), 3) for other in (2, 4))"
    )


def test_options_are_held_against_the_constructor(tmp_path: Path, own_space: Path) -> None:
    blocks = f"{own_space}:Blocks"
    assert search_spaces.load(blocks, deepest=1).choices["depth"] == ("1",)
    assert "unknown option of my_spaces.py:Blocks 'deep'" in refused(blocks, deep=3)
    assert "deepest is '3': my_spaces.py:Blocks takes int" in refused(blocks, deepest="3")
    assert "deepest is True" in refused(blocks, deepest=True)
    assert "neither text, number, list nor mapping" in refused(blocks, deepest={3})
    odd = f"{written(tmp_path, ODD)}:Odd"
    assert search_spaces.load(odd, ratio=2, anything=[1]).choices
    heir = ODD + "class Heir(Odd):\n    pass\nclass Needy(Odd):\n"
    heir += (
        "    def __init__(self, need, classes):\n        super().__init__(classes, (1, 8, 8), depth=need)\n"
    )
    path = written(tmp_path, heir, "heirs.py")
    assert "depth is 'x'" in refused(f"{path}:Heir", depth="x")
    assert "needs need: add --set-space need=VALUE" in refused(f"{path}:Needy")
    assert search_spaces.load(f"{path}:Needy", need=2).choices


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        ("return self.head(x)", "RuntimeError: mat1 and mat2"),
        ("return [self.head(x.flatten(1))]", "gives list for two images"),
        ("return self.head(x.flatten(1))[:, :2]", "gives [2, 2] for two images, not logits of shape [2, 3]"),
        ("return self.head(x.flatten(1)).detach()", "does not require grad"),
    ],
)
def test_a_space_of_which_nothing_works_is_told_at_once(tmp_path: Path, forward: str, said: str) -> None:
    code = "class S(ModelSpace):\n    def __init__(self, classes):\n        super().__init__()\n"
    code += "        first = MutableLinear(64, nni.choice('w', [4, 8]))\n"
    code += "        self.head = nn.Sequential(first, nn.LazyLinear(classes))\n"
    space = search_spaces.load(
        f"{written(tmp_path, code + f'    def forward(self, x): {forward}')}:S", classes=3
    )
    with pytest.raises(ValueError, match=r"no architecture of spaces\.py:S that was tried works") as caught:
        probe(space, SHAPE, 3)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("end", "warned"),
    [
        (".softmax(1)", True),
        (".softmax(1).double()", True),
        (".log_softmax(1)", False),
        (".relu().half()", False),
        ("", False),
    ],
)
def test_networks_that_end_in_a_softmax_are_told(tmp_path: Path, end: str, warned: bool) -> None:
    code = "class S(ModelSpace):\n    def __init__(self, classes):\n        super().__init__()\n"
    code += "        self.first = MutableLinear(64, nni.choice('w', [4, 8]))\n"
    code += "        self.last = nn.LazyLinear(classes)\n"
    code += f"    def forward(self, x): return self.last(self.first(x.flatten(1))){end}"
    space = search_spaces.load(f"{written(tmp_path, code)}:S", classes=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        probe(space, SHAPE, 3)  # type: ignore[arg-type]
    assert any("w=4 seems to end in a softmax" in str(each.message) for each in caught) == warned


def test_native_code_that_ends_the_process_is_located(tmp_path: Path) -> None:
    code = (
        "import ctypes\nclass S(ModelSpace):\n    def __init__(self, classes):\n        super().__init__()\n"
    )
    code += "        self.head = MutableLinear(64, nni.choice('w', [4, 8]))\n"
    path = written(tmp_path, f"{code}    def forward(self, x):\n        return ctypes.string_at(0)")
    script = (
        "import search_spaces\nfrom search_spaces.foreign import probe\n"
        f"probe(search_spaces.load({str(path) + ':S'!r}, classes=3), {SHAPE!r}, 3)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert re.search(r'File ".*spaces\.py", line \d+ in forward', done.stderr)


def test_a_choice_left_open_is_refused(tmp_path: Path) -> None:
    code = "class S(ModelSpace):\n    def __init__(self, classes):\n        super().__init__()\n"
    code += "        self.a = LayerChoice([nn.ReLU(), nn.Tanh()], label='a')\n"
    code += "        self.late = KEPT.setdefault('late', self.a)\n"
    space = search_spaces.load(f"{written(tmp_path, 'KEPT = {}' + chr(10) + code)}:S")
    with pytest.raises(ValueError, match="the choice of 'late' stays open"):
        space.build(first_fitting(space, SHAPE), SHAPE, 3)


def test_random_samples_of_large_spaces_parse_back() -> None:
    generator = random.Random(1)
    for name in ("hub:darts", "hub:mobilenetv3", "hub:nasbench101"):
        space = search_spaces.load(name)
        for _ in range(100):
            sample = {choice: generator.choice(values) for choice, values in space.choices.items()}
            architecture = space.architecture(sample)
            assert space.parse(str(architecture)) == architecture
            assert space.sample_of(architecture) == sample
