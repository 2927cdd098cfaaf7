"""The folder that a distillation writes to: what it holds already, and what may be done with that.

A card makes a set, a checkpoint an unfinished run. Where both are, the run was started to replace the set,
which stays whole until the new one is written. A shard, whose card has another name, is treated alike:

    card  checkpoint  |  neither option   --resume                          --overwrite
    no    no          |  start            start                             start
    no    yes         |  refuse           go on                             start afresh
    yes   no          |  refuse           the set, if of these settings     start afresh
    yes   yes         |  refuse           go on                             start afresh
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from distill import checkpoint, methods, synthetic
from distill.card import CARD, SHARD
from distill.checkpoint import CHECKPOINT
from distill.files import LOCK, is_temporary, remove_stale_temporaries
from distill.preprocessing import Preprocessing
from distill.readme import README
from distill.session import BOARD, EVALUATIONS, LOG
from distill.synthetic import SyntheticSet

# In the order of removal: a README goes before the images, since one without images is a stranger's.
_SET = (CARD, SHARD, README, synthetic.IMAGES, synthetic.WHITENING, synthetic.PICTURE)
_OURS = (*_SET, CHECKPOINT, LOG, EVALUATIONS)
STAGED = ".atom-nas-new-"
"""How the folder begins in which a set is written before it takes the old one's place."""
TEACHER = "teacher-"
_A_TEACHER = re.compile(f"{TEACHER}[0-9a-f]{{24}}\\.safetensors")
# What commands that use a set leave beside it by default; never removed here.
_BESIDE = (LOCK, BOARD, "export", "export.npz", "export.pt")


LATER: dict[str, Any] = {
    "deterministic": False,
    "shard": None,
    "classes_at_once": 0,
    "schedule": "constant",
    "factor": 1,
    "batch_synthetic": 0,
    "lambda_spatial": 1.0,
}
"""Settings that earlier versions did not have and did not write down; they worked as if these were given."""


_OF_ALL_METHODS = {
    *("dataset", "image_size", "method", "ipc", "seed", "zca", "validation_fraction", "validation_seed"),
    *("shard", "deterministic"),
}


def holds_set(out: Path) -> bool:
    """Whether a finished set is there, or a finished shard."""
    return (out / CARD).exists() or (out / SHARD).exists()


def is_begun(out: Path) -> bool:
    """Whether the checkpoint of an unfinished run is there."""
    return (out / CHECKPOINT).exists()


def settings_in(out: Path) -> dict[str, Any]:
    """The settings of the unfinished run in a folder, else of the set there, by the names of `resolved`.

    Raises:
        ValueError: there is neither, or it is damaged.
    """
    if is_begun(out):
        _, about = checkpoint.read(out / CHECKPOINT)
        identity = {name: value for name, value in about.identity.items() if name != "fingerprint"}
        return _completed(identity, out / CHECKPOINT) | {"preset": about.preset}
    if holds_set(out):
        card = _load(out).card
        return _completed(card["config"], out / CARD) | {"preset": card.get("preset")}
    raise ValueError(f"{out} holds no checkpoint yet: give the whole command, with --dataset, again")


def _completed(kept: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """With what is not written down where it is as it ever was, see `LATER`.

    Raises:
        ValueError: there are others than a result depends on, which a stranger may have added.
    """
    own = {each.name for each in fields(methods.load(str(kept.get("method"))).Config)}
    strange = sorted(set(kept) - own - _OF_ALL_METHODS)
    if strange:
        raise ValueError(f"{file} is damaged or of a newer version: {strange[0]!r} is no setting of a result")
    unwritten = {k: v for k, v in LATER.items() if k in own or k in ("deterministic", "shard")}
    return {**unwritten, **kept}


def check_target(
    out: Path, resolved: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> SyntheticSet | None:
    """Refuse a folder that cannot be used, touching nothing.

    Args:
        out: the folder; it need not exist.
        resolved: every setting that the result depends on.
    Returns:
        The set, if `resume` finds it finished; None if there is something to do.
    Raises:
        ValueError: saying what is there, and which option or folder would do.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a folder")
    finished, begun = holds_set(out), is_begun(out)
    if finished and resume and not (begun or overwrite):
        return _same_or_refuse(out, resolved)
    if (finished or begun) and not (resume or overwrite):
        raise ValueError(_occupied(out, finished=finished, begun=begun))
    if not (finished or begun) and out.is_dir() and _is_strangers(out):
        raise ValueError(f"{out} is not empty and holds no synthetic set; name another --out")
    _require_writable(next(folder for folder in (out, *out.absolute().parents) if folder.exists()))
    return None


def sweep(out: Path) -> None:
    """Remove temporary files of killed distillations; call it under the folder's lock."""
    remove_stale_temporaries(out, _OURS)
    for path in out.iterdir():
        if _is_staged(path):
            shutil.rmtree(path)


def write_set(
    out: Path,
    images: Tensor,
    labels: Tensor,
    preprocessing: Preprocessing,
    card: Mapping[str, Any],
    soft_labels: Tensor | None = None,
) -> SyntheticSet:
    """Write a set or shard in the place of an old one, and drop the checkpoint, which has served.

    What was there stays until all of the new one is on the disk.

    Call it under the folder's lock; the arguments are those of `distill.synthetic.save`.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix=STAGED) as name:
        staged = Path(name)
        made = synthetic.save(staged, images, labels, preprocessing, card, soft_labels)
        _withdraw_set(out)
        # A card says that a set is whole: it is the first to go and the last to come.
        for file in (each for each in reversed(_SET) if (staged / each).exists()):
            (staged / file).replace(out / file)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return replace(made, path=out)


def _withdraw_set(out: Path) -> None:
    """Remove an old set, just before the new one is written.

    The card goes first, so that no half-removed set looks whole. The lock stays: it is held, and another
    process would make and hold a new one.
    """
    for name in _SET:
        (out / name).unlink(missing_ok=True)


def _occupied(out: Path, *, finished: bool, begun: bool) -> str:
    old = "a synthetic set" if (out / CARD).exists() else "a shard"
    if not begun:
        return f"{out} holds {old} already; name another --out, or add --overwrite"
    what = f"{old} and an unfinished run that is to replace it" if finished else "an unfinished run"
    return f"{out} holds {what}; go on with --resume, or start afresh with --overwrite"


def _is_strangers(out: Path) -> bool:
    """Whether there is anything that no command of this program leaves where there is no set (yet).

    Many folders have a README.md; a kill leaves ours only beside images, before which it is never written.
    """
    known = {*_OURS, *_BESIDE}
    if not (out / synthetic.IMAGES).exists():
        known.remove(README)
    paths = out.iterdir()
    return not all(path.name in known or is_temporary(path) or _is_left_over(path) for path in paths)


def _is_left_over(path: Path) -> bool:
    """A folder that a killed process was writing to, or what an unfinished labelling has trained."""
    return path.name.startswith(".export-") or _is_staged(path) or is_teacher(path)


def _is_staged(path: Path) -> bool:
    """A folder in which a killed process had a new set: it holds files of one and nothing else."""
    if not path.name.startswith(STAGED) or path.is_symlink() or not path.is_dir():
        return False
    return all(each.name in _SET or is_temporary(each) for each in path.iterdir())


def is_teacher(path: Path) -> bool:
    """Whether it is called as what a labelling keeps of a teacher."""
    return _A_TEACHER.fullmatch(path.name) is not None and path.is_file()


def _require_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to {folder}; name another --out")
    if shutil.disk_usage(folder).free < 1 << 20:
        raise ValueError(f"the disk of {folder} is full; free some space or name another --out")


def _same_or_refuse(out: Path, resolved: Mapping[str, Any]) -> SyntheticSet:
    found = _load(out)
    config = {**LATER, **found.card["config"]}
    differing = [key for key, value in resolved.items() if value not in ("auto", config.get(key))]
    if found.soft_labels is not None:
        raise ValueError(f"{out} holds a set that was given soft labels since; name another --out")
    if differing:
        raise ValueError(
            f"{out} is finished with other settings ({', '.join(differing)} differ); name another --out, "
            "or replace it with --overwrite"
        )
    return found


def _load(out: Path) -> SyntheticSet:
    return synthetic.load(out) if (out / CARD).exists() else synthetic.load_shard(out)
