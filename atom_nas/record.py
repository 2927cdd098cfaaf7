"""What run.json says of a search at its start."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atom_nas import __version__, estimators
from atom_nas.estimators.base import Estimator, fingerprint, validation_subset
from atom_nas.halving import PLACE
from atom_nas.resuming import kept
from atom_nas.run_folder import RECORD_FORMAT
from atom_nas.search_plan import SearchPlan
from distill.environment import describe, other_rounding
from reports.chance import telling
from search_spaces.base import Space
from search_spaces.foreign import NniSpace
from search_spaces.sources import have_changed


def first_record(plan: SearchPlan) -> dict[str, Any]:
    """The record of a search that has not begun; JSON values only."""
    settings = plan.settings
    return {
        "format_version": RECORD_FORMAT,
        "atom_nas_version": __version__,
        "command": settings.command,
        "seed": settings.seed,
        "dataset": {
            "name": plan.dataset.name,
            "fingerprint": plan.dataset.fingerprint,
            "classes": len(plan.dataset.classes),
            "image_shape": list(plan.dataset.image_shape),
            "class_names": list(plan.synthetic.classes),
            **_class_sizes(plan),
        },
        "synthetic": _synthetic(plan),
        "space": _space(plan),
        "strategy": _strategy(plan),
        "score": PLACE if plan.halving else settings.score,
        "combine": list(settings.combine),
        "proxy": _trained(plan, plan.proxy),
        "estimators": {each.name: _trained(plan, each) for each in plan.others},
        "reference": _reference(plan),
        "confirm": _confirm(plan),
        "workers": plan.workers,
        "device": plan.device.type,
        "search_wall_seconds": 0.0,
        "reference_wall_seconds": None,
        "confirm_wall_seconds": None,
        "same": {},
        "complete": False,
        "environment": describe(),
        "settings": kept(settings),
    }


def code_before(before: Any, space: Space, out: Path) -> dict[str, Any]:
    """What the record says of trials of other code, which a resumed run may have; warns if that is new.

    Files that have been mended may go on, since the choices are the same; whether they may is the user's.
    """
    if not isinstance(before, dict) or not isinstance(space, NniSpace):
        return {}
    earlier = before["earlier_code"] if isinstance(before.get("earlier_code"), list) else []
    changed = space.changed(before.get("code"), before.get("sources"))
    if changed:
        earlier = [*earlier, before["code"]]
        are = "are of the file as it was" if len(changed) == 1 else "are of the files as they were"
        warnings.warn(
            f"{have_changed(changed)} since {out} was begun: trials from before {are}. A space may change as "
            "long as its choices do not; for scores of one code put it back, or begin a new run",
            stacklevel=3,
        )
    return {"earlier_code": earlier} if earlier else {}


def environments_before(earlier: Mapping[str, Any], now: Mapping[str, str], out: Path) -> dict[str, Any]:
    """What the record says of earlier sessions whose results round otherwise; warns if that is new."""
    listed = earlier.get("earlier_environments")
    environments = listed if isinstance(listed, list) else []
    if was := other_rounding(earlier.get("environment"), now):
        environments = [*environments, earlier["environment"]]
        warnings.warn(
            f"{out} was begun with {was}: scores may differ, by rounding, from those of a run that was not "
            "interrupted",
            stacklevel=3,
        )
    return {"earlier_environments": environments} if environments else {}


def _class_sizes(plan: SearchPlan) -> dict[str, Any]:
    """What guessing gets right of the images scored on depends on how many each class has."""
    chosen = validation_subset(plan.data, plan.settings.validation_images)
    splits = {"test": plan.data.test, "validation": chosen}
    counts = {name: split.labels.bincount().tolist() for name, split in splits.items()}
    if plan.settings.balanced:
        return {"balanced_images": {name: telling(each) for name, each in counts.items()}}
    return {
        "largest_class": {name: max(each) / sum(each) for name, each in counts.items()},
        "smallest_class": {name: min(filter(None, each)) / sum(each) for name, each in counts.items()},
    }


def _trained(plan: SearchPlan, estimator: Estimator) -> dict[str, Any]:
    """Settings of an estimator, and how networks are built otherwise for it, and how many."""
    own: dict[str, Any] = {}
    if estimator.name in estimators.AS_PROXY:
        options, repeats = dict(plan.settings.proxy_space), plan.settings.repeats
        own = {"space_options": options} if options else {}
        own |= {"repeats": repeats} if repeats > 1 else {}
    return estimator.settings() | own


def _synthetic(plan: SearchPlan) -> dict[str, Any]:
    card, synthetic = plan.synthetic.card, plan.synthetic
    return {
        "directory": str(plan.settings.synthetic),
        "fingerprint": fingerprint(synthetic.images, synthetic.targets),
        "method": card["method"],
        **({} if synthetic.soft_labels is None else {"soft_labels": card["soft_labels"]["teachers"]}),
        "ipc": card["ipc"],
        "images": len(synthetic.stored),
        "factor": synthetic.factor,
        **({"unwhitened": plan.settings.unwhiten} if synthetic.preprocessing.whitening else {}),
        "iterations": card["config"].get("iterations"),
        "distill_seconds": card["wall_seconds"],
        "distill_cpu_seconds": card["cpu_seconds"],
        "device": card["device"],
    }


def _space(plan: SearchPlan) -> dict[str, Any]:
    """Of a model space also what it leaves to choose, by which a resumed run knows it again."""
    more: dict[str, Any] = {}
    if isinstance(plan.space, NniSpace):
        choices = {name: list(values) for name, values in plan.space.choices.items()}
        more = {"choices": choices, "digest": plan.space.digest}
        more |= {"file": plan.space.file, "code": plan.space.code} if plan.space.code else {}
        more |= {"sources": dict(plan.space.sources)} if len(plan.space.sources) > 1 else {}
    limits = {what: int(most) if most == int(most) else most for what, most in plan.settings.limits.items()}
    more |= {"limits": limits} if limits else {}
    name = plan.space.title if isinstance(plan.space, NniSpace) else plan.settings.space
    return {"name": name, "options": plan.space_options, **more, "size": plan.size, "fitting": plan.fitting}


def _strategy(plan: SearchPlan) -> dict[str, Any]:
    settings, listed = plan.settings, plan.listed
    # By what architectures go on, where trainings are stopped early.
    criterion: dict[str, Any] = {"criterion": settings.score} if plan.halving else {}
    criterion |= {"combined": list(settings.combined)} if plan.halving and settings.combined else {}
    if listed is None or plan.drawn:
        among = {"among": _fingerprint(sorted(listed.architectures))} if listed else {}
        options = plan.strategy_options
        return {"name": settings.strategy, "options": options, "samples": plan.samples, **among, **criterion}
    options = {"fingerprint": _fingerprint(listed.architectures)}
    if plan.halving:
        options |= asdict(plan.halving)
        # Without a name it is successive halving, which was there first.
        options |= {} if settings.strategy == "successive-halving" else {"halving": settings.strategy}
    return {
        "name": "list",
        "options": options,
        "samples": plan.samples,
        "duplicates": listed.duplicates,
        **criterion,
    }


def _fingerprint(architectures: Sequence[str]) -> str:
    digest = hashlib.sha256("\n".join(architectures).encode()).hexdigest()
    return f"sha256:{digest}"


def _reference(plan: SearchPlan) -> dict[str, Any]:
    kind = plan.settings.reference_kind
    return {
        "kind": kind,
        "score": {"real": "test_accuracy", "table": "score", "none": None}[kind],
        "settings": plan.reference.settings() if plan.reference else {},
        "table": Path(plan.settings.reference).name if kind == "table" else None,
        "column": plan.settings.reference_column if kind == "table" else None,
        "foreign": plan.table.foreign if plan.table else 0,
        "samples": plan.settings.reference_samples,
        "matched": 0,
    }


def _confirm(plan: SearchPlan) -> dict[str, Any] | None:
    if plan.confirm is None:
        return None
    return {"count": plan.settings.confirm, "settings": plan.confirm.settings()}
