"""The dataset card: valid metadata, code that works, and names that cannot become markup."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import load_file, save_file

import distill
from distill.labelling import LabelConfig, label, teacher_training
from distill.markdown import LONGEST, cell, code, harmless
from distill.methods import METHODS
from distill.methods import load as load_method
from distill.pictures import as_pictures
from distill.readme import readme, shared_name
from distill.settings import DistillSettings
from reports.formatting import markdown_code

# Of https://github.com/huggingface/hub-docs/blob/main/datasetcard.md, as far as they are used here.
KEYS = {
    "pretty_name", "license", "task_categories", "size_categories", "source_datasets", "tags", "viewer"
}  # fmt: skip
EVIL = [
    "<script>alert(1)</script>",
    "`</code><img src=x onerror=alert(1)>",
    "a|b\\|<b>c</b>",
    "[click](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "x\n\n# heading\n\n---\nlicense: mit\n---\n",
    "``` \n```python\nimport os",
    "https://example.org/phishing",
    "--- !!python/object/apply:os.system [ls]",
    "'\"}{: - &a *a !!str %TAG",
    "\u202eevil\u2028\x1b[2J\x00",
    "",
    " ",
    "|",
    "\\",
    "`",
]


def settings(out, method="dm", **changes):
    config = None
    if hasattr(load_method(method).Config, "iterations"):
        config = load_method(method).Config(iterations=3, width=8, batch_real=4)
    return DistillSettings(
        **{"dataset": "digits", "out": out, "method": method, "method_config": config, "ipc": 1, **changes}
    )


@pytest.fixture(
    scope="module",
    params=[(False, 1, False), (True, 1, False), (True, 2, False), (False, 2, True)],
    ids=["plain", "zca", "factor", "soft"],
)
def artifact(request, tmp_path_factory):
    zca, factor, soft = request.param
    config = load_method("dm").Config(iterations=3, width=8, batch_real=4, factor=factor)
    out = tmp_path_factory.mktemp("sets") / "set"
    made = distill.distill(settings(out, ipc=2, zca=zca, method_config=config))
    return labelled(made, out.with_name("soft")) if soft else made


def labelled(made, out):
    config = LabelConfig(training=teacher_training(epochs=1))
    return label(made, made.real_dataset(), out, config, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return distill.distill(settings(tmp_path_factory.mktemp("cards") / "set")).card


def metadata(text):
    return yaml.safe_load(re.match(r"---\n(.*?)^---$", text, re.DOTALL | re.MULTILINE)[1])


def body(text):
    return text.split("\n---\n", 1)[1]


def flat(tokens):
    for token in tokens:
        yield token
        yield from flat(token.children or [])


def parsed(text):
    """Every token a Markdown parser finds below the metadata, with tables and HTML switched on."""
    return list(flat(MarkdownIt("commonmark", {"html": True}).enable("table").parse(body(text))))


def structure(tokens):
    """What a page is made of, less the text and how many names there are."""
    kinds = {"heading_open", "link_open", "image", "html_block", "html_inline", "fence", "hr", "tr_open"}
    return [(t.type, t.attrGet("href"), t.attrGet("src")) for t in tokens if t.type in kinds]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_a_card_with_valid_metadata(tmp_path, method):
    found = distill.distill(settings(tmp_path / "set", method))
    text = (found.path / "README.md").read_text()
    block = metadata(text)
    assert set(block) == KEYS
    assert block["task_categories"] == ["image-classification"]
    assert block["size_categories"] == ["n<1K"]
    assert block["license"] == "unknown"
    assert f"`{method}`" in text
    for paper in re.findall(r"arXiv:(\d{4}\.\d{5})", load_method(method).__doc__.splitlines()[0]):
        assert f"https://arxiv.org/abs/{paper}" in text
    for name in found.card["config"]:
        assert f"| `{name}` |" in text
    assert found.card["dataset"]["fingerprint"] in text


def test_the_hubs_own_parser_reads_it(artifact):
    hub = pytest.importorskip("huggingface_hub")
    found = hub.DatasetCard.load(artifact.path / "README.md")
    assert found.data.to_dict() == metadata((artifact.path / "README.md").read_text())
    assert found.data.task_categories == ["image-classification"]


def test_the_code_block_works_with_safetensors_and_json_alone(artifact, tmp_path):
    text = (artifact.path / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    pixels = artifact.real_dataset().test.images[:20]
    save_file({"pixels": pixels}, tmp_path / "real.safetensors")
    script = blocks[0] + (
        "import sys\n"
        "from safetensors.torch import save_file\n"
        "real = load_file(sys.argv[1])['pixels']\n"
        "save_file({'real': to_model_space(real), 'back': to_pixels(to_model_space(real)),\n"
        "           'pictures': to_pixels(images), 'images': images, 'labels': labels,\n"
        "           **({'targets': targets} if 'targets' in globals() else {})}, sys.argv[2])\n"
        "assert not {'distill', 'atom_nas', 'yaml'} & set(sys.modules)\n"
        "print(json.dumps(classes))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "real.safetensors"), str(tmp_path / "got.safetensors")],
        cwd=artifact.path,
        capture_output=True,
        text=True,
        check=True,
    )
    got = load_file(tmp_path / "got.safetensors")
    assert json.loads(said.stdout) == list(artifact.classes)
    assert torch.equal(got["images"], artifact.images)
    assert torch.equal(got["labels"], artifact.labels)
    assert torch.equal(got.get("targets", got["labels"]), artifact.targets)
    assert torch.allclose(got["real"], artifact.preprocessing(pixels), atol=1e-4)
    assert torch.equal(got["back"], pixels)
    assert int((got["pictures"].int() - artifact.pictures().int()).abs().max()) <= 1
    # On the sheet the first picture stands enlarged 8 times, within a frame of one pixel.
    with Image.open(artifact.path / "images.png") as sheet:
        first = np.asarray(sheet.convert("L"))[1:65:8, 1:65:8]
    assert np.array_equal(
        first, as_pictures(artifact.preprocessing, artifact.stored, artifact.factor)[0, 0].numpy()
    )


def evil_card(card, names, dataset):
    changed = copy.deepcopy(card)
    changed["dataset"].update(name=dataset, classes=names)
    changed["config"].update(dataset=dataset, augmentation=dataset)
    changed["environment"].update(processor=dataset)
    changed["soft_labels"] = {"teachers": 2, "wall_seconds": 1.0, "cpu_seconds": 1.0, "network": dataset}
    changed["soft_labels"]["training"] = {dataset: dataset}
    changed["soft_labels"]["validation_accuracy"] = [dataset]
    return changed


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("prefix", ["folder:/srv/", ""])
def test_names_are_never_markup(card, evil, prefix):
    good = readme(evil_card(card, ["cat", "dog"], f"{prefix}good"))
    text = readme(evil_card(card, ["cat", evil], prefix + evil))
    tokens = parsed(text)
    assert structure(tokens) == structure(parsed(good))
    assert not [t for t in tokens if t.type.startswith("html")]
    assert [t.type for t in tokens].count("td_open") == [t.type for t in parsed(good)].count("td_open")
    assert set(metadata(text)) == KEYS
    assert metadata(text)["license"] == "unknown"
    shown = [t.content for t in tokens if t.type == "code_inline"]
    if evil.strip():
        assert harmless(evil).strip() in [each.strip() for each in shown]


@limits(max_examples=60, deadline=None)
@given(names=st.lists(st.text(max_size=30), min_size=2, max_size=5), dataset=st.text(max_size=30))
def test_no_text_whatever_becomes_markup(card, names, dataset):
    usual = structure(parsed(readme(evil_card(card, ["cat", "dog"], "digits"))))
    text = readme(evil_card(card, names, dataset))
    assert structure(parsed(text)) == usual
    assert set(metadata(text)) == KEYS


@limits(max_examples=100, deadline=None)
@given(text=st.text(max_size=LONGEST))
def test_code_spans_are_those_of_the_reports(text):
    line = harmless(text)
    assert code(text) == (markdown_code(line) if line.strip() else "(no name)")


def test_table_cells_are_json_without_bars():
    for value in ("a|b", "\\|", 3, None, [1, "x|y"], True, 0.1):
        shown = cell(value)
        assert "|" not in shown
        assert json.loads(shown.strip("`").strip()) == value


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("digits", "digits"),
        ("folder:/home/someone/photos", "folder:photos"),
        ("folder:/home/someone/photos/", "folder:photos"),
        ("folder:C:\\Users\\someone\\photos", "folder:photos"),
        ("folder:~/photos", "folder:photos"),
        ("folder:/", "folder:images"),
        ("/data/set", "set"),
        ("Linux/x86 w/ glibc", "Linux/x86 w/ glibc"),
    ],
)
def test_shared_names_are_last_parts(name, shared):
    assert shared_name(name) == shared


def test_no_path_of_the_machine_is_shown(tmp_path):
    source = tmp_path / "someone" / "photos"
    for k, name in enumerate(("<b>cat</b>", "dog|cow")):
        (source / name.replace("/", "")).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 100 * k + 5 * i).save(source / name.replace("/", "") / f"{i}.png")
    found = distill.distill(settings(tmp_path / "set", "random", dataset=f"folder:{source}", image_size=8))
    text = (found.path / "README.md").read_text()
    assert str(tmp_path) not in text
    assert "someone" not in text
    assert "`folder:photos`" in text
    assert "`<b>cat<b>`" in text
    assert metadata(text)["source_datasets"] == ["extended|other"]


def test_many_classes_are_cut_short(card):
    text = readme(evil_card(card, [f"class {k}" for k in range(1000)], "digits"))
    assert "`class 199` and 800 more" in text
    assert metadata(text)["size_categories"] == ["1K<n<10K"]


def test_cards_of_strangers_may_lack_and_hold_what_they_like(card):
    bare = {k: v for k, v in card.items() if k not in ("environment", "peak_memory_mb", "loss_curve")}
    assert "## How it was made" in readme(bare)
    strange = {
        **card,
        "method": "<b>mine</b>",
        "environment": {"a|b": [1], "": "x"},
        "peak_memory_mb": "much",
    }
    assert not [t for t in parsed(readme(strange)) if t.type.startswith("html")]


def test_the_card_comes_last(tmp_path, monkeypatch):
    """Killed between README.md and card.json, there is no set; the next attempt makes it whole."""
    out, real = tmp_path / "set", Path.replace

    def die(path, target):
        if path.name == "card.json":
            raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            distill.distill(settings(out, "random"))
    assert (out / "README.md").exists()
    assert not (out / "card.json").exists()
    with pytest.raises(ValueError, match="holds no synthetic set"):
        distill.load(out)
    again = distill.distill(settings(out, "random"), resume=True)
    assert torch.equal(again.images, distill.distill(settings(tmp_path / "new", "random")).images)


def test_a_set_that_is_to_be_replaced_stays_until_the_new_one_is_written(tmp_path, monkeypatch):
    """The disk is full: the old set is whole, and what was done is not lost."""
    out = tmp_path / "set"
    old = distill.distill(settings(out))
    other = settings(out, seed=7)
    done = []

    def full(path, text):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("distill.synthetic.write_text", full)
        with pytest.raises(OSError, match="No space left"):
            distill.distill(other, overwrite=True)
    assert torch.equal(distill.load(out).images, old.images)
    assert not list(out.glob(".atom-nas-new-*"))
    (out / ".atom-nas-new-killed").mkdir()
    again = distill.distill(other, resume=True, on_progress=lambda progress: done.append(progress.done))
    assert done == []  # the last state was kept
    assert torch.equal(again.images, distill.distill(settings(tmp_path / "new", seed=7)).images)
    assert again.path == out
    assert not list(out.glob(".atom-nas-new-*"))


def test_overwriting_replaces_the_old_readme(tmp_path):
    out = tmp_path / "set"
    distill.distill(settings(out))
    before = (out / "README.md").read_text()
    distill.distill(settings(out, seed=5), overwrite=True)
    assert "| `seed` | `5` |" in (out / "README.md").read_text()
    assert "| `seed` | `5` |" not in before


@pytest.mark.parametrize("way", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_the_readme_of_a_strangers_folder_stays(tmp_path, way):
    (tmp_path / "README.md").write_text("my thesis")
    with pytest.raises(ValueError, match="not empty"):
        distill.distill(settings(tmp_path), **way)
    assert (tmp_path / "README.md").read_text() == "my thesis"


@pytest.mark.parametrize("killed_after", range(1, 6))
def test_a_kill_while_an_old_set_is_withdrawn_leaves_a_folder_to_go_on_with(
    tmp_path, monkeypatch, killed_after
):
    from pathlib import Path

    out, real, count = tmp_path / "set", Path.unlink, 0
    distill.distill(settings(out, "random", zca=True))

    def die(path, missing_ok=False):
        nonlocal count
        if path.parent == out and not path.name.startswith("."):
            count += 1
            if count > killed_after:
                raise KeyboardInterrupt
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            distill.distill(settings(out, "random", seed=1), overwrite=True)
    (out / "checkpoint.safetensors").unlink(missing_ok=True)
    assert distill.distill(settings(out, "random", seed=1), resume=True).card["seed"] == 1
