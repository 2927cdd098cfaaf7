"""The commands as a user types them: the whole path, and one clear line for every mistake."""

import csv
import json

import pytest
import torch
import typer
from cli_helpers import call, done, refused

from atom_nas import recipes
from atom_nas.cli import app
from atom_nas.commands import quickstart
from atom_nas.commands.guard import spread_settings
from distill.settings import DistillSettings

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def run(synthetic):
    out = synthetic.parent / "run"
    listed = synthetic.parent / "list.csv"
    names = ("d1-none-relu-none", "d2-batch-relu-max", "d1-layer-sigmoid-avg", "d2-none-sigmoid-avg")
    listed.write_text("architecture\n" + "".join(f"w32-{name}\n" for name in names))
    done("search", synthetic, "--architectures", listed, "--epochs", 5, "--reference-epochs", 1,
         "--reference-images", 100, "--validation-images", 50, "--workers", 2, "--out", out)  # fmt: skip
    return out


def test_a_list_can_be_narrowed():
    shown = done("list", "settings", "learning_rate").stdout
    assert "learning_rate" in shown
    assert "temperature" not in shown
    whole = done("list", "settings", "atom").stdout
    assert "spatial_power" in whole
    assert "evaluate (--set)" not in whole
    assert "nothing there is called 'nonsense': leave it out" in refused("list", "settings", "nonsense")
    assert "did you mean atom? Or leave it out" in refused("list", "methods", "atm")
    assert "did you mean weight_decay? Or leave it out" in refused("list", "settings", "wd")


def test_distill_writes_the_artifact(synthetic):
    names = {path.name for path in synthetic.iterdir()} - {".lock"}
    assert names == {"synthetic.safetensors", "card.json", "images.png", "log.jsonl", "README.md"}


@pytest.mark.parametrize(("kind", "name"), [("folder", "export"), ("npz", "export.npz"), ("pt", "export.pt")])
def test_export(synthetic, tmp_path, kind, name):
    done("export", synthetic, "--to", kind, "--out", tmp_path / name)
    assert (tmp_path / name).exists()


def test_search_writes_the_report(run):
    report = run / "report"
    rows = list(csv.DictReader((report / "ranking.csv").open()))
    assert list(rows[0])[:4] == ["rank", "architecture", "score", "reference"]
    assert {"validation_accuracy", "validation_loss", "final_training_loss", "summed_training_loss",
            "parameters", "flops", "seconds", "peak_memory_mb"} <= set(rows[0])  # fmt: skip
    assert len(rows) == 4
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    numbers = json.loads((report / "report.json").read_text())
    assert numbers["counts"]["pairs"] == 4
    assert numbers["verdict"]["sentence"]
    page = (report / "index.html").read_text()
    assert "<img" in page or "<svg" in page
    assert (report / "report.md").exists()


def test_several_runs_are_reported_side_by_side(run, synthetic):
    other = run.parent / "other"
    reference = ("--reference-epochs", 1, "--reference-images", 100, "--validation-images", 50)
    listed = synthetic.parent / "list.csv"
    done("search", synthetic, "--architectures", listed, "--epochs", 2, *reference, "--out", other)
    shown = done("report", run, other).stdout
    assert "other" in shown
    assert "side by side" in (run / "comparison" / "index.html").read_text()
    done("report", run, "--score", "parameters")
    assert json.loads((run / "report" / "report.json").read_text())["score"] == "parameters"
    done("report", run, "--combine", "parameters, tail_training_loss", "--score", "mean_of_ranks")
    numbers = json.loads((run / "report" / "report.json").read_text())
    assert numbers["combinations"][0]["components"] == ["parameters", "tail_training_loss"]
    assert "no score 'paramters': did you mean parameters" in refused(
        "report", run, "--combine", "paramters,flops"
    )
    assert "names no score" in refused("report", run, "--combine", ",")
    plain = done("report", run, "--combine", "none", "--score", "validation_accuracy")
    assert "combination" not in plain.stdout
    alone = (run / "report" / "index.html").read_bytes()
    beside = run.parent / "new" / "compared"
    assert str(beside / "index.html") in done("report", run, other, "--out", beside).stdout
    assert "side by side" in (beside / "index.html").read_text()
    assert (beside / "figures" / "comparison.png").exists()
    assert (run / "report" / "index.html").read_bytes() == alone
    done("report", other, run, "--out", beside)
    assert "holds no report" in refused("report", run, other, "--out", synthetic)


def test_the_same_search_with_another_seed_is_a_repeat(run, synthetic, tmp_path):
    listed = run / "report" / "ranking.csv"
    done("search", synthetic, "--architectures", listed, "--epochs", 5, "--reference-epochs", 1, "--seed", 1,
         "--reference-images", 100, "--validation-images", 50, "--out", tmp_path / "again")  # fmt: skip
    done("report", run, tmp_path / "again", "--out", tmp_path / "both")
    (noise,) = json.loads((tmp_path / "both" / "report.json").read_text())["noise"]
    assert (noise["reference"]["seeds"], noise["reference"]["single"]["n"]) == (2, 4)
    assert [proxy["runs"] for proxy in noise["proxies"]] == [["run", "again"]]
    assert "on 4 architectures in common" in (tmp_path / "both" / "index.html").read_text()


def test_a_published_ranking_serves_as_reference(synthetic, tmp_path):
    names = ["w32-d1-none-relu-none", "w32-d1-batch-relu-none", "w32-d1-layer-relu-none"]
    table = tmp_path / "table.csv"
    table.write_text("architecture,score\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names)))
    out = tmp_path / "run"
    done("search", synthetic, "--architectures", table, "--reference", table, "--epochs", 2, "--out", out)
    rows = list(csv.DictReader((out / "report" / "ranking.csv").open()))
    assert {row["architecture"]: float(row["reference"]) for row in rows} == dict(
        zip(names, [0, 1, 2], strict=True)
    )


def test_settings_come_from_defaults_then_the_file_then_options_and_set(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "dataset: digits\nmethod: dm\niterations: 9\nipc: 3\nwidth: 8\nbatch_real: 8\nmomentum: 0.1\n"
    )
    out = tmp_path / "set"
    done("distill", "--config", config, "--ipc", 1, "--set", "iterations=2", "--out", out)
    resolved = json.loads((out / "card.json").read_text())["config"]
    assert (resolved["method"], resolved["ipc"], resolved["iterations"]) == ("dm", 1, 2)
    assert (resolved["momentum"], resolved["learning_rate"]) == (0.1, 1.0)


def test_list_shows_every_registry():
    shown = done("list").stdout
    for name in (
        "digits",
        "tinyimagenet",
        "atom",
        "kcenter",
        "convnet",
        "evolution",
        "proxy",
        "convnet3",
        "npz",
    ):
        assert name in shown


def test_list_settings_shows_every_key_that_a_set_option_takes():
    shown = done("list", "settings").stdout
    for key in (
        "lambda_channel",
        "validation_fraction",
        "schedule",
        "population_size",
        "gamma",
        "activation",
    ):
        assert key in shown
    assert "float32 | bfloat16" in shown
    assert "None" not in shown, "what is typed on a command line is null"


def test_one_set_takes_several_assignments(tmp_path):
    out = tmp_path / "set"
    done(*BASE, "--iterations", 1, "--set", "width=8", "batch_real=8", "--out", out)
    resolved = json.loads((out / "card.json").read_text())["config"]
    assert (resolved["width"], resolved["batch_real"]) == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "spread"),
    [
        ("--set a=1 b=2 --out c=3", "--set a=1 --set b=2 --out c=3"),
        ("--set=a=1 b=2", "--set=a=1 --set b=2"),
        ("--set-space a=1 b=2 --set c=3", "--set-space a=1 --set-space b=2 --set c=3"),
        ("--set a=1 folder", "--set a=1 folder"),
        ("--out a=1 b=2", "--out a=1 b=2"),
    ],
)
def test_spreading_assignments(arguments, spread):
    assert list(spread_settings(arguments.split())) == spread.split()


def test_every_option_has_help_and_every_command_an_example():
    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        assert command.help, name
        assert f"atom-nas {name}" in (command.epilog or ""), name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


BASE = ("distill", "--dataset", "digits", "--ipc", "1")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("distill", "--dataset", "digit"), "did you mean 'digits'"),
        (("distill", "--dataset", "folder:nowhere"), "there is no folder"),
        (("distill", "--ipc", "1"), "no dataset given"),
        ((*BASE, "--method", "atm"), "did you mean 'atom'"),
        (("distill", "--dataset", "digits", "--ipc", "500"), "ipc 500 is more than class"),
        (("distill", "--dataset", "digits", "--ipc", "0"), "ipc must be at least 1"),
        ((*BASE, "--set", "learning_rat=1"), "did you mean 'learning_rate'"),
        ((*BASE, "--set", "lr=1"), "did you mean 'learning_rate'?"),
        ((*BASE, "--set", "learning_rate=fast"), "learning_rate"),
        ((*BASE, "--set", "learning_rate"), "KEY=VALUE"),
        ((*BASE, "--set", "precision=int8"), "precision"),
        ((*BASE, "--iterations", "-3"), "iterations must be positive"),
        ((*BASE, "--iterations", "3", "--method", "herding"), "a setting of atom, datadam, dm"),
        ((*BASE, "--iterations", "many"), "--iterations"),
        ((*BASE, "--iteration", "3"), "--iterations"),
        (
            (*BASE, "--iterations", "3", "--set", "iterations=4"),
            "twice, by --iterations 3 and by --set",
        ),
        ((*BASE, "digits"), "see 'atom-nas distill --help'"),
        ((*BASE, "--device", "tpu"), "allowed: auto, cpu, cuda"),
        ((*BASE, "--config", "missing.yaml"), "cannot read the config file"),
        ((*BASE, "--image-size", "16"), "one size"),
        ((*BASE, "--resume"), "nothing to resume"),
        ((*BASE, "--set", "learning_rate=2001-99-99"), "learning_rate"),
        ((*BASE, "--set", "method=5"), "unknown method '5'"),
        ((*BASE, "--set", "method=null"), "unknown method 'None'"),
        (("distill", "--dataset", "folder:~nobody-of-that-name/x"), "there is no folder"),
        ((*BASE, "--set", "learning_rate=3e38", "--set", "width=8"), "learning_rate"),
    ],
)
def test_wrong_distillations_are_refused_and_leave_nothing(tmp_path, command, message):
    out = tmp_path / "out"
    assert message in refused(*command, "--out", out)
    assert not (out / "card.json").exists()


def test_a_config_file_of_the_wrong_shape_is_refused(tmp_path):
    config = tmp_path / "atom.yaml"
    config.write_text("out: [a]\ndataset: digits\n")
    assert "name one folder" in refused("distill", "--config", config, "--resume")
    config.write_text("2001-99-99: 3\n")
    assert "not valid YAML" in refused("distill", "--config", config)


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    assert "\x1b" not in refused("evaluate", tmp_path / "a\x1b[2Jb")


def test_usage_errors_have_a_traceback_on_demand():
    result = call("--debug", "distill", "--ipc", "x")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--space", "convnett"), "did you mean 'convnet'"),
        (("--strategy", "evolutoin"), "did you mean 'evolution'"),
        (("--reference", "missing.csv"), "missing.csv"),
        (("--score", "accuracy"), "validation_accuracy"),
        (("--set", "epoch=3"), "did you mean 'epochs'"),
        (("--set", "batch_size=2.5"), "batch_size"),
        (("--set", "momentum=-1"), "momentum"),
        (("--dataset", "cifar1O"), "did you mean 'cifar10'"),
        (("--set-strategy", "population=3", "--strategy", "evolution"), "population_size"),
        (("--architectures", "missing.csv"), "missing.csv"),
        (("--device", "tpu"), "allowed: auto, cpu, cuda"),
        (("--resume",), "--resume"),
        (("--epochs", "5", "--set", "epochs=6"), "given twice, by --epochs 5 and by --set epochs=6"),
        (("--reference-epochs", "5", "--set-reference", "epochs=6"), "--reference-epochs 5 and by --set-ref"),
        (("--confirm-epochs", "5", "--set-confirm", "epochs=6"), "--confirm-epochs 5 and by --set-confirm"),
        (("--set", "epochs=5", "--set", "epochs=6"), "given twice, by --set epochs=5 and epochs=6"),
        (("--set-strategy", "eta"), "--set-strategy takes KEY=VALUE"),
        (("--set-strategy", "eta=2"), "unknown option of the strategy 'random' 'eta': there are none"),
        (("--space", "mine.py"), "name one by mine.py:CLASS"),
    ],
)
def test_wrong_searches_are_refused_before_any_work(synthetic, tmp_path, options, message):
    assert message in refused("search", synthetic, "--samples", 2, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run" / "trials.sqlite").exists()


def test_a_search_in_which_everything_fails_says_why(synthetic, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("architecture\nw32-d4-none-relu-max\n")
    line = refused(
        "search", synthetic, "--architectures", listed, "--reference", "none", "--out", tmp_path / "run"
    )
    assert "none of the 1 architectures could be scored" in line
    assert "4 poolings do not fit" in line


def test_a_reference_that_shares_nothing_with_the_list_is_refused_before_any_work(synthetic, tmp_path):
    listed, table = tmp_path / "list.csv", tmp_path / "table.csv"
    listed.write_text("architecture\nw32-d1-none-relu-none\n")
    table.write_text("architecture,score\nw32-d1-none-relu-max,1\n")
    out = tmp_path / "run"
    line = refused("search", synthetic, "--architectures", listed, "--reference", table, "--out", out)
    assert "scores none of the 1 architectures" in line
    assert not (out / "trials.sqlite").exists()


def test_fewer_architectures_than_asked_for_are_said(synthetic, tmp_path):
    narrow = ("--set-space", "width=[32]", "depth=[1]", "norm=[none]", "activation=[relu]")
    command = ("search", synthetic, "--reference", "none", "--epochs", 1, *narrow)
    assert (
        "the space has 3 architectures for these images: all were ranked"
        in done(*command, "--out", tmp_path / "run").stderr
    )


def test_an_old_set_survives_a_mistake_in_the_command_that_would_replace_it(synthetic):
    before = (synthetic / "card.json").read_bytes()
    assert "ipc 500" in refused(
        "distill", "--dataset", "digits", "--ipc", 500, "--overwrite", "--out", synthetic
    )
    assert (synthetic / "card.json").read_bytes() == before


def test_a_quickstart_goes_on_as_it_began_whatever_the_recipe_says_now(tmp_path, monkeypatch):
    images = {"dataset": "digits", "method": "random"}
    monkeypatch.setattr(
        quickstart, "distill_plan", lambda out, **_: DistillSettings(**images, ipc=10, out=out / "synthetic")
    )
    monkeypatch.setattr(quickstart, "SAMPLES", 1)
    with monkeypatch.context() as earlier:
        earlier.setattr(recipes, "settings", lambda _: {"epochs": 3, "training": {"learning_rate": 0.01}})
        done("quickstart", "--out", tmp_path / "first", "--workers", 1)
    done("quickstart", "--out", tmp_path / "first", "--resume", "--workers", 1)
    ran = json.loads((tmp_path / "first" / "search" / "run.json").read_text())
    assert (ran["settings"]["epochs"], ran["settings"]["training"]) == (3, {"learning_rate": 0.01})


def test_other_wrong_commands(synthetic, tmp_path):
    assert "no synthetic set" in refused("evaluate", tmp_path)
    assert "no synthetic set" in refused("search", tmp_path / "none", "--out", tmp_path / "run")
    assert "did you mean 'convnet3'" in refused("evaluate", synthetic, "--networks", "convnet33")
    assert "unknown format 'nzp'" in refused("export", synthetic, "--to", "nzp")
    assert "run.json" in refused("report", tmp_path)
    assert "did you mean 'methods'" in refused("list", "method")
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "file").touch()
    assert "not empty" in refused("quickstart", "--out", tmp_path / "busy")


def test_a_set_can_be_used_after_its_folder_has_moved(tmp_path):
    from PIL import Image

    for part in ("train", "test"):
        for k, name in enumerate(("dark", "light")):
            (tmp_path / "a" / part / name).mkdir(parents=True)
            for i in range(6):
                Image.new("L", (8, 8), 40 + 120 * k + 3 * i).save(tmp_path / "a" / part / name / f"{i}.png")
    done(
        "distill",
        "--dataset",
        f"folder:{tmp_path / 'a'}",
        "--method",
        "random",
        "--ipc",
        1,
        "--out",
        tmp_path / "s",
    )
    (tmp_path / "a").rename(tmp_path / "b")
    command = ("evaluate", tmp_path / "s", "--epochs", 1, "--repeats", 1, "--json")
    assert "--dataset folder:PATH" in refused(*command)
    moved = (*command, "--dataset", f"folder:{tmp_path / 'b'}")
    found = json.loads(done(*moved).stdout)
    assert json.loads(done(*moved).stdout) == {**found, "reused": 2}
    (tmp_path / "b" / "train" / "dark" / "5.png").unlink()
    assert "is not the data that" in refused(*moved)  # though nothing is left to train on it


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("out of words"),
        torch.OutOfMemoryError("out of words on the GPU"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`, out of words"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] out of words.\nException raised from alloc at x.cpp"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_want_of_memory_is_no_defect(error, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("distill.run.distill", fails)
    said = refused("distill", "--dataset", "digits", "--out", tmp_path / "set")
    assert "too little memory for it; smaller images" in said
    assert "out of words" in said
    assert "Exception" not in said
