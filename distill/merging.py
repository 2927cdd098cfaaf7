"""From the shards of a distillation to its synthetic set."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill import synthetic
from distill.card import ShardCard
from distill.files import lock_folder, write_text
from distill.preprocessing import Preprocessing
from distill.session import LOG, thinned
from distill.synthetic import SyntheticSet
from distill.target import LATER, check_target, sweep, write_set

# Where the data lay and whether torch compiled may differ between machines, and the shard does of course.
_MAY_DIFFER = {"shard", "dataset", "compile"}
_TOLERANCE = 1e-4
"""Of the largest value: how far the preprocessing that other processors fit may be off."""
_LISTED = 3
_WALL = (
    "wall_seconds is the sum over the shards, as if one had followed the other; side by side they take "
    "longest_wall_seconds"
)


def merge(folders: Sequence[Path | str], out: Path | str, *, overwrite: bool = False) -> SyntheticSet:
    """Put the shards of one distillation together and write their set to `out`; they stay as they are.

    The set is the one that a single process makes: to the bit if it is deterministic, else up to rounding.

    Args:
        folders: of finished shards, in any order; together they hold each class once.
        overwrite: replace a synthetic set that is in `out`.
    Raises:
        ValueError: if a folder holds no shard, shards differ in a setting, in their data or preprocessing,
            classes are missing or there twice, or `out` holds something else. Nothing has been written then.
    """
    if isinstance(folders, str | Path):
        raise ValueError(f"give a list of shards, not {str(folders)!r} alone")
    paths, out = [Path(folder) for folder in folders], Path(out)
    if not paths:
        raise ValueError("no shards were named")
    shards = [synthetic.load_shard(path) for path in paths]
    _require_partition(shards)
    for shard in shards[1:]:
        _require_alike(shards[0], shard)
    if any(path.resolve() == out.resolve() for path in paths):
        raise ValueError(f"{out} is one of the shards; write the set to another --out")
    check_target(out, {}, resume=False, overwrite=overwrite)
    out.mkdir(parents=True, exist_ok=True)
    with closing(lock_folder(out, "distillation")):
        check_target(out, {}, resume=False, overwrite=overwrite)
        sweep(out)
        images, labels = _in_order(shards)
        card = _card(shards)
        write_text(out / LOG, "".join(json.dumps(point) + "\n" for point in card["loss_curve"]))
        return write_set(out, images, labels, shards[0].preprocessing, card)


def _record(shard: SyntheticSet) -> ShardCard:
    return ShardCard.model_validate(shard.card)


def _name(shard: SyntheticSet) -> str:
    part = shard.card["shard"]
    return f"{shard.path} (shard {part['index']}/{part['count']})"


def _require_partition(shards: Sequence[SyntheticSet]) -> None:
    """Each class is in one shard."""
    for first, second in combinations(shards, 2):
        if len(first.classes) != len(second.classes):
            _refuse(first, second, "classes", len(first.classes), len(second.classes))
        twice = sorted({*_record(first).class_numbers} & {*_record(second).class_numbers})
        if twice:
            more = f" and {len(twice) - 1} more" * (len(twice) > 1)
            both = f"class {first.classes[twice[0]]}{more}"
            raise ValueError(f"{_name(first)} and {_name(second)} both hold {both}: leave one of them out")
    classes = shards[0].classes
    held = {number for shard in shards for number in _record(shard).class_numbers}
    missing = [name for number, name in enumerate(classes) if number not in held]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(classes)} classes are in no shard given ({_some(missing)}); "
            f"given are {', '.join(map(_name, shards))}{_absent(shards)}"
        )


def _absent(shards: Sequence[SyntheticSet]) -> str:
    """Which shards are missing, where all are of one count."""
    parts = [_record(shard).shard for shard in shards]
    counts = {part.count for part in parts}
    if len(counts) > 1:
        return ""
    count = counts.pop()
    given = {part.index for part in parts}
    return f", missing {_some([f'{i}/{count}' for i in range(1, count + 1) if i not in given])}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + f" and {len(names) - _LISTED} more" * (len(names) > _LISTED)


def _require_alike(first: SyntheticSet, second: SyntheticSet) -> None:
    """Both are of one distillation: settings and data are the same, and preprocessing but for rounding."""
    mine, yours = _identity(first), _identity(second)
    for key in sorted(mine.keys() | yours.keys()):
        if mine.get(key) != yours.get(key):
            _refuse(first, second, key, mine.get(key), yours.get(key))
    exact = bool(mine.get("deterministic"))
    theirs = _arrays(second.preprocessing)
    for key, array in _arrays(first.preprocessing).items():
        other = theirs.get(key)
        limit = 0.0 if exact else _TOLERANCE * float(array.abs().max())
        if other is None or other.shape != array.shape or float((array - other).abs().max()) > limit:
            raise ValueError(
                f"{_name(first)} and {_name(second)} differ in the {key} of their preprocessing: distill "
                "them with the same versions, on the same kind of machine"
            )


def _refuse(first: SyntheticSet, second: SyntheticSet, key: str, mine: object, yours: object) -> None:
    values = [text if len(text) <= 60 else f"{text[:57]}..." for text in (repr(mine), repr(yours))]
    raise ValueError(
        f"{_name(first)} and {_name(second)} are not of one distillation: {key} is {values[0]} in the first "
        f"and {values[1]} in the second"
    )


def _identity(shard: SyntheticSet) -> dict[str, Any]:
    """What has to be the same in all shards."""
    card = _record(shard)
    config = {key: value for key, value in {**LATER, **card.config}.items() if key not in _MAY_DIFFER}
    data = card.dataset.model_dump(mode="json", exclude={"name"})
    own = {"method": card.method, "ipc": card.ipc, "factor": card.factor, "seed": card.seed}
    exact = {"kernels": card.environment.get("kernels")} if config.get("deterministic") else {}
    return {**config, **data, **own, **exact}


def _arrays(preprocessing: Preprocessing) -> dict[str, Tensor]:
    whitening = preprocessing.whitening
    zca = {"zca mean": whitening.mean, "zca matrix": whitening.matrix} if whitening else {}
    return {"mean": preprocessing.mean, "std": preprocessing.std, **zca}


def _in_order(shards: Sequence[SyntheticSet]) -> tuple[Tensor, Tensor]:
    """Stored images and labels of all shards, class by class."""
    labels = torch.cat([shard.stored_labels for shard in shards])
    order = labels.argsort(stable=True)
    return torch.cat([shard.stored for shard in shards])[order], labels[order]


def _card(shards: Sequence[SyntheticSet]) -> dict[str, Any]:
    records = sorted(map(_record, shards), key=lambda record: record.class_numbers)
    whole = records[0].model_dump(mode="json")
    kept = {key: whole[key] for key in ("dataset", "method", "ipc", "factor", "seed", "environment")}
    presets = {(record.model_extra or {}).get("preset") for record in records}
    memory = [record.peak_memory_mb for record in records if record.peak_memory_mb is not None]
    return {
        **kept,
        "preset": presets.pop() if len(presets) == 1 else None,
        "config": {**whole["config"], "shard": None},
        "device": "+".join(sorted({record.device for record in records})),
        "wall_seconds": sum(record.wall_seconds for record in records),
        "longest_wall_seconds": max(record.wall_seconds for record in records),
        "wall_seconds_note": _WALL,
        "cpu_seconds": sum(record.cpu_seconds for record in records),
        "peak_memory_mb": max(memory, default=None),
        "loss_curve": thinned(list(summed([record.loss_curve for record in records]))),
        "shards": [_entry(record) for record in records],
    }


def _entry(record: ShardCard) -> dict[str, Any]:
    """What is kept of each shard on the card of the set."""
    costs = ("wall_seconds", "cpu_seconds", "peak_memory_mb", "device", "environment", "images_sha256")
    whole = record.model_dump(mode="json")
    return {**whole["shard"], **{key: whole[key] for key in costs}}


def summed(curves: Sequence[Sequence[Mapping[str, float]]]) -> Iterator[dict[str, float]]:
    """The loss and its parts summed over shards, at the iterations that all of them logged."""
    by_iteration = [{point.get("iteration"): point for point in curve} for curve in curves]
    for iteration, point in by_iteration[0].items():
        points = [curve.get(iteration) for curve in by_iteration]
        found = [each for each in points if each is not None]
        if iteration is not None and len(found) == len(curves):
            parts = {key: sum(each.get(key, 0.0) for each in found) for key in point if key != "iteration"}
            yield {"iteration": iteration, **parts}
