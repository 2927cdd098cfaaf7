"""A training-free estimator of one's own, as the guide shows it, and the lines that mistakes get."""

import csv
import json
import sqlite3

import pytest
import torch
from cli_helpers import done, file_of_guide, refused

import atom_nas
import search_spaces

QUICK = ["--epochs", 1, "--reference", "none", "--workers", 1, "--device", "cpu", "--set-space", "width=[32]"]
MISTAKES = """
import multiprocessing
import torch

def smallest(network, images, labels):
    if sum(1 for _ in network.parameters()) > 6:
        raise RuntimeError("too deep for me")
    return min(len(p) for p in network.parameters())

def nothing(network, images, labels):
    return None if multiprocessing.parent_process() else 7.0

def never(network, images, labels):
    return None

def undefined(network, images, labels):
    return float("nan")

def synflow(network, images, labels):
    return 1.0

NUMBER = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the guide's file in it, and one of mistakes."""
    (tmp_path / "my_scores.py").write_text(file_of_guide("my_scores.py"))
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ranking(run):
    with (run / "report" / "ranking.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_guide(synthetic, here):
    run = here / "run"
    done("search", synthetic, "--samples", 4, *QUICK, "--estimators", "my_scores.py:spread", "--out", run)
    rows = ranking(run)
    assert len({row["spread"] for row in rows}) == 4
    assert min(float(row["spread"]) for row in rows) > 0
    record = json.loads((run / "run.json").read_text())
    assert record["estimators"]["spread"]["code"].startswith("sha256:")
    # The code runs only where it is named, and what it has scored stays.
    (here / "my_scores.py").write_text("raise SystemExit('run')")
    with pytest.warns(UserWarning, match="spread is an estimator of your own"):
        done("search", synthetic, "--resume", "--samples", 5, "--estimators", "snip", "--out", run)
    later = {row["architecture"]: row for row in ranking(run)}
    assert [later[row["architecture"]]["spread"] for row in rows] == [row["spread"] for row in rows]
    assert sum(row["spread"] == "" for row in later.values()) == 1
    assert all(row["snip"] for row in later.values())


def test_it_can_be_ranked_by(synthetic, here):
    run, own = here / "run", ["--estimators", "my_scores.py:spread"]
    combined = ["--score", "mean_of_ranks", "--combine", "final_training_loss,spread"]
    words = ["search", synthetic, "--out", run]
    shown = done(*words, "--samples", 4, *QUICK, *own, *combined).stderr
    assert f"--estimators {here / 'my_scores.py'}:spread --resume --confirm 3" in shown.replace("\n", "")
    with pytest.raises(ValueError, match=r"my_scores.py:spread --resume --confirm 3"):
        atom_nas.load_architecture(run)
    rows = ranking(run)

    def place(name, sign):
        return [sum(sign * float(other[name]) >= sign * float(row[name]) for other in rows) for row in rows]

    places = [a + b for a, b in zip(place("final_training_loss", -1), place("spread", 1), strict=True)]
    assert places == sorted(places)
    assert len(set(places)) > 1
    # To go on takes its code again, which the command has to name.
    said = refused(*words, "--resume", "--samples", 5)
    assert f"add --estimators {here / 'my_scores.py'}:spread" in said
    done(*words, "--resume", "--samples", 5, *own)
    assert all(row["spread"] and row["mean_of_ranks"] for row in ranking(run))
    said = refused("search", synthetic, *QUICK, *combined, "--out", here / "other")
    assert "unknown score to combine 'spread'" in said
    assert "one of your own has to be named too: --estimators FILE.py:NAME" in said


def test_it_is_given_a_fresh_network_and_the_minibatch(synthetic, here):
    (here / "look.py").write_text(
        "import torch\n"
        "def look(network, images, labels):\n"
        "    assert images.shape == (20, 1, 8, 8) and labels.tolist() == [*range(10)] * 2\n"
        "    weights = torch.nn.utils.parameters_to_vector(network.parameters())\n"
        "    return float(weights.detach().double().sum())\n"
    )
    own = ["--estimators", "look:look", "--out", here / "run"]
    said = done("search", synthetic, "--samples", 1, *QUICK, *own).stderr
    assert "validation accuracy 0." in " ".join(said.split())  # progress says what its numbers are
    with sqlite3.connect(here / "run" / "trials.sqlite") as store:
        query = "SELECT architecture, seed, scores FROM trials WHERE estimator = 'look'"
        ((architecture, seed, scores),) = store.execute(query).fetchall()
    store.close()
    space = search_spaces.load("convnet")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = space.build(space.parse(architecture), (1, 8, 8), 10)
    weights = torch.nn.utils.parameters_to_vector(network.parameters())
    assert json.loads(scores)["look"] == float(weights.detach().double().sum())


def test_what_it_fails_on_is_said(synthetic, here):
    estimators = ["--estimators", "mistakes.py:smallest,mistakes.py:nothing"]
    deep = ["--set-space", "depth=[1, 4]", "--set-space", "norm=[none]", "--samples", 6]
    run = done("search", synthetic, *QUICK, *deep, *estimators, "--out", here / "run")
    said = " ".join(run.stderr.split())
    assert "nothing failed for 6 architectures (TypeError: it returns NoneType, not a number)" in said
    failed = sum("-d4-" in row["architecture"] for row in ranking(here / "run"))
    assert 0 < failed < 6
    assert f"smallest failed for {failed} architecture" in said
    assert "(RuntimeError: too deep for me)" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("never", "it returns NoneType, not a number"),
        ("undefined", "FloatingPointError: undefined is nan"),
    ],
)
def test_what_scores_nothing_is_refused_before_anything_is_trained(synthetic, here, name, said):
    line = refused("search", synthetic, *QUICK, "--estimators", f"mistakes.py:{name}", "--out", here / "run")
    assert f"{name} scores none of the networks that were tried: " in line
    assert said in line
    assert not (here / "run").exists()


def test_a_score_that_most_networks_have_is_not_refused(synthetic, here):
    (here / "own.py").write_text(
        "import math\nfrom torch import nn\n"
        "def gains(network, images, labels):\n"
        "    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]\n"
        "    return float(norms[0].weight.detach().sum())\n"
    )
    words = ["search", synthetic, *QUICK, "--samples", 3, "--estimators", "own.py:gains"]
    done(*words, "--out", here / "run")
    (here / "list.csv").write_text("architecture\nw32-d1-none-relu-avg\nw32-d1-layer-relu-avg\n")
    listed = [
        "search",
        synthetic,
        *QUICK,
        "--estimators",
        "own.py:gains",
        "--architectures",
        here / "list.csv",
    ]
    assert "gains scores none of the networks" in refused(*listed, "--out", here / "listed")


def test_reasons_of_failures_are_counted(synthetic, here):
    (here / "spaces.py").write_text(
        "import nni\n"
        "from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear\n"
        "from torch import nn\n"
        "class Fails(nn.Module):\n"
        "    def forward(self, images):\n"
        "        if len(images) > 2:\n"
        "            raise RuntimeError('too many')\n"
        "        return images\n"
        "class Net(ModelSpace):\n"
        "    def __init__(self, image_shape, classes):\n"
        "        super().__init__()\n"
        "        width = nni.choice('width', [8, 16])\n"
        "        self.one = MutableLinear(image_shape[1] * image_shape[2], width)\n"
        "        self.act = LayerChoice({'relu': nn.ReLU(), 'fails': Fails()}, label='act')\n"
        "        self.two = MutableLinear(width, classes)\n"
        "    def forward(self, images):\n"
        "        return self.two(self.act(self.one(images.flatten(1))))\n"
    )
    own = ["--space", "spaces.py:Net", "--strategy", "grid", "--samples", 4, *QUICK[:-2]]
    said = " ".join(done("search", synthetic, *own, "--out", here / "run").stderr.split())
    assert "2 of 4 architectures failed: 2 by RuntimeError: too many (ranking.csv has all)" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_scores.py:spred", "did you mean 'spread'?"),
        ("mistakes.py:synflow", "synflow is a name that atom-nas itself uses: rename the function"),
        ("mistakes.py:NUMBER", "unknown function or class of"),
        ("others.py:spread", "there is no file"),
        ("no_module_of_mine:spread", "there is no module"),
        ("my_scores.py:spread,copy.py:spread", "have one name: rename one of them"),
        ("my_scores.py", "name one by my_scores.py:FUNCTION"),
    ],
)
def test_mistakes(synthetic, here, name, said):
    (here / "copy.py").write_text((here / "my_scores.py").read_text())
    assert said in refused("search", synthetic, *QUICK, "--estimators", name, "--out", here / "run")
    assert not (here / "run").exists()


def test_other_code_does_not_go_on_with_its_scores(synthetic, here):
    words = ["search", synthetic, "--estimators", "my_scores.py:spread", "--out", here / "run"]
    done(*words, "--samples", 1, *QUICK)
    file = here / "my_scores.py"
    file.write_text(file.read_text() + "\n# another\n")
    said = refused(*words, "--resume", "--samples", 2)
    assert "the code of spread has changed since" in said
    assert "rename the function" in said


def test_code_that_only_failed_may_be_mended(synthetic, here):
    words = ["search", synthetic, "--estimators", "mistakes.py:nothing", "--out", here / "run"]
    assert "nothing failed for 2 arch" in done(*words, "--samples", 2, *QUICK).stderr
    file = here / "mistakes.py"
    file.write_text(file.read_text().replace("return None if", "return 7.0 if"))
    done(*words, "--resume")
    assert [row["nothing"] for row in ranking(here / "run")] == ["7.0", "7.0"]


def test_what_is_new_has_no_score_of_code_that_is_not_named(synthetic, here):
    words = ["search", synthetic, "--out", here / "run"]
    done(*words, "--estimators", "my_scores.py:spread", "--samples", 1, *QUICK)
    with pytest.warns(UserWarning, match=r"spread is an estimator .* \(--estimators FILE.py:spread\)"):
        done(*words, "--resume", "--samples", 2)
    with pytest.warns(UserWarning, match="what is new here is not scored by it"):
        done(*words, "--resume", "--samples", 3)
    done(*words, "--resume", "--estimators", "my_scores.py:spread")
    assert all(row["spread"] for row in ranking(here / "run"))
