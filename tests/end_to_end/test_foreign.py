"""A set in strangers' hands: read by a script that has nothing of ours, and from a snapshot of the Hub."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import atom_nas
from atom_nas.cli import app
from distill.labelling import LabelConfig, label, teacher_training
from distill.methods.dm import Config
from distill.run import distill
from distill.settings import DistillSettings
from distill.training import TrainingConfig, evaluate, train

# The recipe of `atom-nas evaluate` less augmentation: SGD at 0.01, momentum 0.9, weight decay 5e-4, a tenth
# of the rate from half time on, all images in one batch.
EPOCHS, REPEATS = 100, 3
# Both ways train the same networks on the same images: rounding is all that differs. Of 450 test images, 9.
TOLERANCE = 0.02
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from torch import nn

torch.set_num_threads(1)
folder, real, epochs, repeats = Path(sys.argv[1]), load_file(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
card = json.loads((folder / "card.json").read_text())
synthetic = load_file(folder / "synthetic.safetensors")
space = card["preprocessing"]
channels, height, width = card["dataset"]["image_shape"]
classes = len(card["dataset"]["classes"])
assert synthetic["images"].shape == (classes * card["ipc"], channels, height, width)
images, labels, f = synthetic["images"], synthetic["labels"], card["factor"]
if f > 1:  # tiles, row by row, each enlarged
    h, w = height // f, width // f
    corners = [(i * h, j * w) for i in range(f) for j in range(f)]
    tiles = [image[:, y : y + h, x : x + w] for image in images for y, x in corners]
    enlarge = nn.Upsample(size=(height, width), mode="bilinear")
    images = enlarge(torch.stack(tiles))
    labels = torch.tensor([int(label) for label in labels for _ in range(f * f)])
if card["soft_labels"]:
    labels = synthetic["soft_labels"]

mean, std = (torch.tensor(space[name]).view(1, channels, 1, 1) for name in ("mean", "std"))
raw = real["images"].float() / 255
pixels = (raw - mean) / std
if space["zca"]:
    zca = load_file(folder / "whitening.safetensors")
    pixels = ((pixels.flatten(1) - zca["mean"]) @ zca["matrix"]).view_as(pixels)

def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(32, 32), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), classes),
    )

def accuracy(model, images):
    with torch.no_grad():
        return float((model(images).argmax(1) == real["labels"]).float().mean())

found = {"right": [], "raw": []}
for seed in range(repeats):
    model = network(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 if epoch < epochs // 2 else 0.001
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    found["right"].append(accuracy(model, pixels))
    found["raw"].append(accuracy(model, raw))
found["modules"] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


@pytest.fixture(
    scope="module",
    params=[(False, 1, False), (True, 1, False), (False, 2, False), (True, 1, True)],
    ids=["plain", "zca", "factor", "soft"],
)
def synthetic(request, tmp_path_factory):
    zca, factor, soft = request.param
    config = Config(iterations=20, width=16, batch_real=16, factor=factor)
    out = tmp_path_factory.mktemp("sets") / "set"
    made = distill(DistillSettings(dataset="digits", out=out, method="dm", method_config=config, zca=zca))
    if not soft:
        return made
    teaching = LabelConfig(hard_share=0.5, training=teacher_training(epochs=5))
    return label(made, made.real_dataset(), out.with_name("soft"), teaching, device=torch.device("cpu"))


def own_network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(32, 32), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def own_accuracy(synthetic, real, seed):
    """By our own loading, training loop and testing."""
    network, cpu = own_network(seed), torch.device("cpu")
    config = TrainingConfig(epochs=EPOCHS, augmentation="none")
    train(network, synthetic.images, synthetic.targets, config=config, seed=seed, device=cpu)
    tested = evaluate(network, real.images, real.labels, device=cpu, preprocessing=synthetic.preprocessing)
    return tested.accuracy


def mean(values):
    return sum(values) / len(values)


def test_a_script_with_nothing_of_ours_reaches_the_same_accuracy(synthetic, tmp_path):
    found = atom_nas.load(synthetic.path)
    test = found.real_dataset().test
    save_file({"images": test.images, "labels": test.labels}, tmp_path / "real.safetensors")
    (tmp_path / "foreign.py").write_text(SCRIPT)
    arguments = [str(found.path), str(tmp_path / "real.safetensors"), str(EPOCHS), str(REPEATS)]
    said = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "foreign.py"), *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    theirs = json.loads(said.stdout)
    assert not {"atom_nas", "distill", "search_spaces", "reports"} & set(theirs["modules"])
    ours = mean([own_accuracy(found, test, seed) for seed in range(REPEATS)])
    assert ours > 0.7
    assert mean(theirs["right"]) == pytest.approx(ours, abs=TOLERANCE)
    # Without what the card says of normalisation and whitening it would have failed.
    assert mean(theirs["raw"]) < ours - 5 * TOLERANCE


def snapshot(folder, root):
    """`folder` as huggingface_hub.snapshot_download lays it out: every file a relative link to a blob."""
    repository = root / "datasets--ada--digits"
    links = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(links.name)
    links.mkdir(parents=True)
    for k, path in enumerate(sorted(path for path in folder.iterdir() if path.is_file())):
        blob = repository / "blobs" / f"{k:040x}"
        shutil.copyfile(path, blob)
        blob.chmod(0o444)
        (links / path.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    (links / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    return links


def test_a_snapshot_of_the_hub_loads_offline(synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    links = snapshot(synthetic.path, tmp_path)
    assert (links / "card.json").is_symlink()
    found = atom_nas.load(links)
    assert torch.equal(found.images, synthetic.images)
    assert found.card == synthetic.card
    real = synthetic.real_dataset().test.images[:5]
    assert torch.equal(found.preprocessing(real), synthetic.preprocessing(real))


@pytest.mark.filterwarnings("ignore:.* is whitened")
def test_a_snapshot_of_the_hub_is_evaluated_and_searched_with(synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("ATOM_NAS_CACHE", str(tmp_path / "cache"))
    links = snapshot(synthetic.path, tmp_path)
    links.chmod(0o555)
    try:
        for command in (
            ["evaluate", links, "--repeats", 1, "--epochs", 2, "--no-baseline"],
            ["search", links, "--samples", 2, "--epochs", 1, "--reference", "none", "--validation-images", 20,
             "--workers", 1, "--out", tmp_path / "run"],
        ):  # fmt: skip
            result = CliRunner().invoke(app, [str(word) for word in command])
            assert result.exit_code == 0, result.output
    finally:
        links.chmod(0o755)
    assert (tmp_path / "run" / "report" / "index.html").exists()
