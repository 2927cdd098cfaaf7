"""A set judged by a network of one's own, as the guide shows it, and the lines that mistakes get."""

import json
import subprocess
import sys

import pytest
import torch
from cli_helpers import done, file_of_guide, refused

from distill.seeding import stream

pytestmark = pytest.mark.usefixtures("own_cache")
QUICK = ["--repeats", 2, "--epochs", 2, "--no-baseline", "--json"]
OTHERS = """
import torch
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, image_shape, classes):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(image_shape[1] * image_shape[2], classes))
        Path("made.txt").open("a").write(f"{float(self.weights.detach().sum())}\\n")

    def forward(self, images):
        return images.flatten(1) @ self.weights

def too_few(image_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes - 1))

def too_small(image_shape, classes):
    return nn.Sequential(nn.Conv2d(1, 2, 9), nn.Flatten(), nn.Linear(2, classes))

def nothing(image_shape, classes):
    return None

def none(image_shape, classes):
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.ConstantPad1d((0, classes - 1), 0.0))

def endless(image_shape, classes):
    layer = nn.Linear(64, classes)
    nn.init.constant_(layer.bias, float("inf"))
    return nn.Sequential(nn.Flatten(), layer)

def sure(image_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.Softmax(1))

def fails(image_shape, classes):
    raise RuntimeError("not today\\nnor tomorrow")
"""


LOUD = """
import atexit
import os
from torch import nn

print("imported here")
atexit.register(print, "left here")


class Loud(nn.Module):
    def __init__(self, image_shape, classes):
        super().__init__()
        print("made here")
        os.write(1, b"written here\\n")
        os.system("echo echoed here")
        self.head = nn.Linear(image_shape[1] * image_shape[2], classes)

    def forward(self, images):
        print("called here")
        return self.head(images.flatten(1))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the guide's file in it, and another."""
    (tmp_path / "my_networks.py").write_text(file_of_guide("my_networks.py"))
    (tmp_path / "others.py").write_text(OTHERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_guide(synthetic, here):
    command = ["evaluate", synthetic, *QUICK]
    both = done(*command, "--networks", "convnet2,my_networks.py:perceptron")
    networks = json.loads(both.stdout)["networks"]
    assert list(networks) == ["convnet2", "my_networks.py:perceptron"]
    assert len(set(networks["my_networks.py:perceptron"]["values"])) == 2
    # By the module's name it is the same network, by other code another.
    again = json.loads(done(*command, "--networks", "my_networks:perceptron").stdout)
    assert again["networks"] == {name: networks[name] for name in networks if name != "convnet2"}
    assert (again["random_baseline"], again["reused"]) == (None, 2)
    file = here / "my_networks.py"
    file.write_text(file.read_text().replace("256", "8"))
    changed = json.loads(done(*command, "--networks", "my_networks.py:perceptron").stdout)
    assert changed["reused"] == 0
    # Somewhere else it is the same again.
    (here / "there").mkdir()
    moved = file.rename(here / "there" / "my_networks.py")
    assert json.loads(done(*command, "--networks", f"{moved}:perceptron").stdout) == changed | {"reused": 2}


def test_weights_are_as_it_draws_them_by_the_seed_alone(synthetic, here):
    done("evaluate", synthetic, *QUICK, "--networks", "others.py:Net", "--workers", 1)
    made = [float(line) for line in (here / "made.txt").read_text().splitlines()]
    expected = []
    for repeat in range(2):
        generator = stream(0, "evaluation", "others.py:Net", repeat)
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            expected.append(float(torch.randn(64, 10).sum()))
    assert made[1:] == expected  # the first was tried in advance


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_networks.py:perceptrn", "did you mean 'perceptron'?"),
        ("my_networks.py", "name one by my_networks.py:FUNCTION"),
        ("none.py:Net", "there is no file"),
        ("others.py:nothing", "others.py:nothing returns NoneType, not a torch.nn.Module"),
        ("others.py:fails", "others.py:fails fails: RuntimeError: not today"),
        ("others.py:too_few", "others.py:too_few makes (2, 9) of 2 images of 10 classes, not (2, 10)"),
        ("others.py:too_small", "others.py:too_small fails on 1x8x8 images: RuntimeError"),
        ("others.py:none", "others.py:none has no parameters to train"),
        ("others.py:endless", "others.py:endless makes logits of blank images that are not finite"),
        ("package:tiny,others.py:Ne", "unknown function or class of"),
        ("others.py:Net,there/others.py:Net", "has the name of another network"),
    ],
)
def test_mistakes(synthetic, here, name, said):
    (here / "there").mkdir()
    (here / "there" / "others.py").write_text(OTHERS)
    (here / "package").mkdir()
    (here / "package" / "__init__.py").write_text("def tiny(image_shape, classes): ...")
    assert said in refused("evaluate", synthetic, *QUICK, "--networks", name)


def test_a_network_that_ends_in_a_softmax_is_told(synthetic, here):
    with pytest.warns(UserWarning, match=r"seems to end in a softmax") as caught:
        done("evaluate", synthetic, *QUICK, "--networks", "others.py:sure,others.py:Net")
    told = [str(each.message).split()[0] for each in caught if "softmax" in str(each.message)]
    assert told == ["others.py:sure"]


def test_what_a_network_prints_is_not_in_the_output(synthetic, here):
    """Neither where it is tried, in the command's own process, nor where it is trained, in others."""
    (here / "loud.py").write_text(LOUD)
    options = ["evaluate", synthetic, *QUICK, "--networks", "loud.py:Loud", "--fresh", "--json"]
    said = subprocess.run(
        [sys.executable, "-m", "atom_nas", *map(str, options)], capture_output=True, text=True, check=True
    )
    assert list(json.loads(said.stdout)["networks"]) == ["loud.py:Loud"]
    for place in ("imported", "made", "called", "written", "echoed", "left"):
        assert f"{place} here" in said.stderr
