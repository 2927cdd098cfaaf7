"""The artifact's `README.md`: what a person reads first, in the form of a Hugging Face dataset card.

Everything is taken from `card.json`, which may be a stranger's; no path of the machine is shown. Form:
https://huggingface.co/docs/hub/datasets-cards.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any

import yaml

from distill import methods
from distill.markdown import cell, code, harmless

README = "README.md"
_MOST_CLASSES = 200
_ABSOLUTE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]")
_SIZES = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))

_USAGE = '''import json
from pathlib import Path

import torch
from safetensors.torch import load_file

folder = Path(".")  # where these files are
card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
tensors = load_file(folder / "synthetic.safetensors")
images, labels = tensors["images"], tensors["labels"]  # float32 (N, C, H, W) in model space; int64 (N,)
{decoding}{softening}classes = card["dataset"]["classes"]  # the name of label k is classes[k]
space = card["preprocessing"]
mean, std = (torch.tensor(space[name]).view(-1, 1, 1) for name in ("mean", "std"))
zca = load_file(folder / "whitening.safetensors") if space["zca"] else None


def to_model_space(pixels):
    """Real images, uint8 (N, C, H, W), as a network that was trained on `images` must be given them."""
    normalised = (pixels.float() / 255 - mean) / std
    if zca is None:
        return normalised
    return ((normalised.flatten(1) - zca["mean"]) @ zca["matrix"]).view_as(normalised)


def to_pixels(images):
    """Back from model space, for the eye: un-whitened, un-normalised, clipped to uint8."""
    if zca is not None:
        flat = torch.linalg.solve(zca["matrix"].double(), images.flatten(1).double().T).T
        images = (flat + zca["mean"].double()).to(images.dtype).view_as(images)
    return ((images * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
'''
_DECODING = """factor = card["factor"]  # each stored image holds factor x factor smaller ones
size = images.shape[2:]
small = images.unflatten(3, (factor, -1)).unflatten(2, (factor, -1)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
images = torch.nn.functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
labels = labels.repeat_interleave(factor * factor)
"""
_SOFTENING = """targets = tensors["soft_labels"]  # float32 (images, classes): what to train networks on
"""

_CAUTIONS = """- The images live in *model space*, not in pixels. Real images must pass through
  `to_model_space` (normalisation, and ZCA where the set has it) before a network that was trained on this set
  sees them, for testing too.
- Test on real images that are prepared as the source dataset was: the same size, the same channels, the same
  cropping. Report the accuracy on the real test split, never one on images of this set.
- Distilled images start from real training images unless `initialization` says otherwise, and may show them
  recognisably. Those of `random`, `herding` and `kcenter` are training images. What may not be shown of the
  source may not be shown of this set.
- A part of the training images was held out (`validation_fraction`): tune and select on that part, not on the
  test split.
- A small set keeps little of the source's rare cases, and whatever is one-sided there may be more so here."""


def shared_name(name: str) -> str:
    """A dataset's name for others' eyes: of `folder:/home/someone/photos` only `folder:photos`."""
    if name.startswith("folder:"):
        return f"folder:{_last_part(name.removeprefix('folder:'))}"
    return _last_part(name) if _ABSOLUTE.match(name) else name


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name or "images"  # It knows both kinds of slash.


def readme(card: Mapping[str, Any]) -> str:
    """The text for a checked card (see `distill.card.Card`); its optional entries may be missing."""
    return f"---\n{_metadata(card)}---\n\n" + "\n\n".join(_sections(card)) + "\n"


def _metadata(card: Mapping[str, Any]) -> str:
    """The YAML block; each value stays on its own line, so that none can close the block."""
    data = card["dataset"]
    name = shared_name(data["name"])
    count = _count(card)
    named = not data["name"].startswith("folder:") and re.fullmatch(r"[\w-]+", name)
    block = {
        "pretty_name": harmless(f"{name}: {count} images by {card['method']}"),
        "license": "unknown",
        "task_categories": ["image-classification"],
        "size_categories": [next((size for size, limit in _SIZES if count < limit), "n>1M")],
        "source_datasets": [f"extended|other-{name}" if named else "extended|other"],
        "tags": ["dataset-distillation", "dataset-condensation", "atom-nas", "safetensors"],
        # The files are no table: the Hub's viewer would show the card's numbers as if they were the data.
        "viewer": False,
    }
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=sys.maxsize)


def _sections(card: Mapping[str, Any]) -> Iterator[str]:
    data, count = card["dataset"], _count(card)
    name = code(shared_name(data["name"]))
    channels, height, width = data["image_shape"]
    yield f"# {count:,} synthetic images that stand for {name}"
    yield (
        f"A small training set for image classification: {card['ipc']} images for each of "
        f"{len(data['classes'])} classes, {channels}x{height}x{width}, made from the training images of "
        f"{name} by {code(card['method'])} and written by atom-nas. It is meant for what needs many short "
        "trainings: comparing architectures, tuning, teaching."
    )
    if _factor(card) > 1:
        yield _formation(card)
    if _soft(card):
        yield _softened(card)
    yield "![The images as pictures, a row a class](images.png)"
    yield "## Source\n\n" + "\n".join(_source(card))
    yield f"## Method\n\n{_method(card['method'])}"
    yield "### Settings\n\n" + _table("setting", card["config"].items())
    yield "## How it was made\n\n" + _table("what", _making(card))
    if _soft(card):
        yield "## Soft labels\n\n" + _table("what", _labelling(_soft(card)))
    yield f"## Loading with safetensors and json alone\n\n```python\n{_usage(card)}```"
    yield "## Loading with atom-nas\n\n```python\n" + _OWN_USAGE + "```"
    yield f"## Cautions\n\n{_CAUTIONS}"


_OWN_USAGE = """import atom_nas

synthetic = atom_nas.load(".")  # where these files are, e.g. what huggingface_hub.snapshot_download returns
synthetic.images, synthetic.labels, synthetic.classes
synthetic.preprocessing  # called on real images, uint8 (N, C, H, W), it brings them into model space
synthetic.preprocessing.pictures(synthetic.images)  # and this leads back, to what can be looked at
"""


def _formation(card: Mapping[str, Any]) -> str:
    factor = _factor(card)
    seen = _count(card) * factor**2
    return (
        f"Multi-formation: each stored image holds {factor} x {factor} smaller ones, which are cut out and "
        f"enlarged to the full size before a network sees them. So networks are trained on {seen:,} images, "
        "as the code below makes them; the picture shows the stored ones. Source: Kim et al. 2022, "
        "[arXiv:2205.14959](https://arxiv.org/abs/2205.14959)."
    )


def _usage(card: Mapping[str, Any]) -> str:
    """Code that loads the images that networks are trained on."""
    decoding = _DECODING if _factor(card) > 1 else ""
    return _USAGE.replace("{decoding}", decoding).replace("{softening}", _SOFTENING if _soft(card) else "")


def _soft(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the labels are, where they are soft."""
    found: Mapping[str, Any] = card.get("soft_labels") or {}
    return found


def _softened(card: Mapping[str, Any]) -> str:
    teachers = _soft(card)["teachers"]
    whose = f"the mean of what {teachers} networks say" if teachers > 1 else "what a network says"
    return (
        f"Soft labels: beside its class each image has probabilities of all classes, {whose} that was "
        "trained on the real images. Networks are meant to be trained on those. Source: Hinton et al. 2015, "
        "[arXiv:1503.02531](https://arxiv.org/abs/1503.02531)."
    )


def _source(card: Mapping[str, Any]) -> Iterator[str]:
    data = card["dataset"]
    yield f"- dataset: {code(shared_name(data['name']))}"
    yield f"- images there: {data['train_images']:,} for training, {data['test_images']:,} for testing"
    held = f"{data['validation_fraction']:g} of each class, by seed {data['validation_seed']}"
    yield f"- held out from distillation: {held}"
    if data["image_size"]:
        yield f"- resized and centre-cropped to {data['image_size']} pixels a side"
    yield f"- fingerprint of class names, images and labels: {code(data['fingerprint'])}"
    yield f"- classes, in the order of their labels: {_classes(data['classes'])}"
    yield (
        "- licence: none is stated for this set. It is derived from the source dataset, whose licence and "
        "terms govern what may be done with it."
    )


def _classes(names: list[str]) -> str:
    shown = ", ".join(code(name) for name in names[:_MOST_CLASSES])
    rest = len(names) - _MOST_CLASSES
    return f"{shown} and {rest:,} more, see `card.json`" if rest > 0 else shown


def _method(name: str) -> str:
    """The method by its own description, with its paper."""
    if name not in methods.METHODS:
        return code(name)
    described = (methods.load(name).__doc__ or "").strip().splitlines()[0]
    linked = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", described)
    return f"{code(name)}. {linked}"


def _making(card: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What it took, less what the card does not say."""
    yield "seed", card["seed"]
    if "iterations" in card["config"]:
        yield "iterations", card["config"]["iterations"]
    yield "seconds", round(card["wall_seconds"], 1)
    yield "core-seconds", round(card["cpu_seconds"], 1)
    if isinstance(card.get("peak_memory_mb"), int | float):
        yield "peak memory (MiB)", round(card["peak_memory_mb"])
    watching = card.get("watching")
    if isinstance(watching, dict) and isinstance(watching.get("wall_seconds"), int | float):
        yield "seconds of evaluations on the way, not among those above", round(watching["wall_seconds"], 1)
    yield "device", card["device"]
    environment = card.get("environment")
    if isinstance(environment, dict):
        yield from environment.items()
    yield "SHA-256 of synthetic.safetensors", card["images_sha256"]


def _labelling(soft: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """How the soft labels came about; the card may be a stranger's, and say less."""
    names = {"wall_seconds": "seconds, among those above", "cpu_seconds": "core-seconds, likewise"}
    for key, value in soft.items():
        if key in names:
            yield names[key], round(value, 1)
        elif isinstance(value, str | int | float) or key == "validation_accuracy":
            yield key, value
        elif key == "training" and isinstance(value, dict):
            yield from ((f"training: {name}", each) for name, each in value.items())


def _table(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {title} | value |", "|---|---|"]
    for key, value in rows:
        plain = re.fullmatch(r"\w[\w .,()-]*", key, re.ASCII)
        shown = shared_name(value) if isinstance(value, str) else value
        lines.append(f"| {code(key) if plain else cell(key)} | {cell(shown)} |")
    return "\n".join(lines)


def _factor(card: Mapping[str, Any]) -> int:
    return int(card.get("factor", 1))


def _count(card: Mapping[str, Any]) -> int:
    """Stored images."""
    return int(card["ipc"]) * len(card["dataset"]["classes"])
