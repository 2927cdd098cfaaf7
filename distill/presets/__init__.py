"""Presets: settings of a distillation that belong together, as data. One YAML file a preset, beside this one.

A file holds a one-line `summary`; `common` settings; `methods`, what a method has instead; `devices`, the
same for cpu and cuda; and `datasets`: for each its `side` in pixels, number of `classes`, its own `common`,
and under `ipc` what holds for a number of images per class (where that differs by device: a value for each).

`budget`, if there is one, is the time that a preset may take, by device: the operations of all iterations,
see `distill.methods._pixels.PixelConfig.operations`. Where they would be more, iterations are as many as fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a preset is asked for.

    Attributes:
        dataset: its name.
        method: likewise.
        ipc: images per class.
        device: cpu or cuda.
        side, classes: of the dataset's images, if they are known.
    """

    dataset: str
    method: str
    ipc: int
    device: str
    side: int | None = None
    classes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Settings by name, and in a few words each thing that the preset did not have as it was asked for.

    Attributes:
        budget: operations that all iterations may take; None: any number.
        side, classes: of the dataset's images, as far as they are known.
    """

    settings: Mapping[str, Any]
    fallbacks: tuple[str, ...]
    budget: float | None
    side: int | None
    classes: int | None


def names() -> tuple[str, ...]:
    """Every preset there is."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def summary(name: str) -> str:
    """What a preset is, in one line."""
    return str(_read(name)["summary"])


def resolve(name: str, case: Case) -> Resolved:
    """The settings of a preset for a case; later groups override earlier ones: common, the method's, the
    device's, the dataset's, those of the images per class.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in names():
        raise ValueError(f"unknown preset {name!r}; allowed: {', '.join(names())}")
    preset = _read(name)
    dataset, strange = _dataset(preset["datasets"], case)
    ipc, other = _nearest_ipc(dataset.get("ipc", {}), case.ipc)
    groups: list[Mapping[str, Any]] = [
        preset.get("common", {}),
        preset.get("methods", {}).get(case.method, {}),
        preset.get("devices", {}).get(case.device, {}),
        dataset.get("common", {}),
        *(_of_device(group, case.device) for group in ipc),
    ]
    settings = {key: value for group in groups for key, value in group.items()}
    fallbacks = tuple(f"the preset {name!r} has {reason}" for reason in (strange, other) if reason)
    return Resolved(
        settings=settings,
        fallbacks=fallbacks,
        budget=preset.get("budget", {}).get(case.device),
        side=case.side or dataset.get("side"),
        classes=case.classes or dataset.get("classes"),
    )


@cache
def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text())
    return loaded


def _dataset(known: Mapping[str, Any], case: Case) -> tuple[Mapping[str, Any], str | None]:
    """The dataset's entry, else that of the known one that is most like it, and why."""
    if case.dataset in known:
        return known[case.dataset], None
    alike = [name for name, entry in known.items() if case.side and entry["side"] == case.side]
    if not alike:
        return {}, f"no entry for {case.dataset}, nor for images of its size: taking what all datasets share"
    nearest = min(alike, key=lambda name: abs(known[name]["classes"] - (case.classes or 0)))
    why = f"{case.side} pixels wide, {known[nearest]['classes']} classes"
    return known[nearest], f"no entry for {case.dataset}: taking that of {nearest} ({why})"


def _nearest_ipc(tuned: Mapping[int, Any], ipc: int) -> tuple[list[Mapping[str, Any]], str | None]:
    """The entry for so many images per class, or for the nearest number of them (by ratio)."""
    if not tuned:
        return [], None
    nearest = min(tuned, key=lambda n: max(n, ipc) / min(n, ipc))
    reason = None if nearest == ipc else f"nothing for {ipc} images per class: taking that for {nearest}"
    return [tuned[nearest]], reason


def _of_device(group: Mapping[str, Any], device: str) -> Mapping[str, Any]:
    """Values given by device are this device's."""
    return {
        key: value[device] if isinstance(value, dict) else value
        for key, value in group.items()
        if not isinstance(value, dict) or device in value
    }
