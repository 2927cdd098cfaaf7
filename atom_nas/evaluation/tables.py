"""What `evaluate` found, as a table, as JSON values and as the cells of a picture."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from atom_nas.evaluation.plan import SPLITS, EvaluationPlan, Subject
from atom_nas.evaluation.trainings import Found
from distill.evaluation import Accuracy, as_json
from reports.chance import with_luck
from reports.formatting import plural

Entry = dict[str, Any]
_OF_LABELS = ("teachers", "network", "temperature", "hard_share", "training")
"""What soft labels are made by, beside the seed."""


def title(plan: EvaluationPlan) -> str:
    """What the numbers are, for the head of a table or picture."""
    dataset = plan.sets[0].card["dataset"]
    if plan.split == "test":
        images = f"the {dataset['test_images']:,} images of {SPLITS['test']}"
    else:
        share = f"{100 * dataset['validation_fraction']:.3g}%"
        images = f"the validation split, {share} of the real training images"
    accuracy = "Balanced accuracy" if plan.balanced else "Accuracy"
    return f"{accuracy} on {images}, after {plural(plan.config.epochs, 'epoch')} (%)"


def table(found: Found) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row a set and network, accuracies in percent; then sets of several seeds."""
    labelled = [(subject.label, accuracies) for subject, accuracies in found.accuracies.items()]
    together = [(f"{len(sets)} seeds: {_names(sets)}", pooled) for sets, pooled in by_seeds(found)]
    rows = [
        [network, label, *_cells(accuracy.as_dict())]
        for label, accuracies in [*labelled, *together]
        for network, accuracy in accuracies.items()
    ]
    return ["network", "trained on", "mean", "std", "n"], rows


def by_seeds(found: Found) -> list[tuple[list[Subject], dict[str, Accuracy]]]:
    """Sets that differ in the seed alone, and the accuracies of all of them together, by network."""
    alike: dict[str, dict[int, Subject]] = {}
    for subject in found.accuracies:
        if subject.kind == "synthetic":
            card = found.plan.sets[subject.place].card
            settings = {
                name: value for name, value in card["config"].items() if name not in ("seed", "dataset")
            }
            soft = {name: (card.get("soft_labels") or {}).get(name) for name in _OF_LABELS}
            key = json.dumps([settings, soft], sort_keys=True)
            alike.setdefault(key, {}).setdefault(card["seed"], subject)
    groups = [list(seeds.values()) for seeds in alike.values() if len(seeds) > 1]
    return [(sets, {name: _pooled(found, sets, name) for name in found.plan.networks}) for sets in groups]


def _pooled(found: Found, sets: Sequence[Subject], network: str) -> Accuracy:
    return Accuracy(tuple(value for each in sets for value in found.accuracies[each][network].values))


def _names(sets: Sequence[Subject]) -> str:
    return ", ".join(subject.label for subject in sets)


def at_chance(found: Found) -> dict[str, list[str]]:
    """The networks that do no better than guessing a class with luck: the sets that they were trained on,
    none where that is so of all. No network where there are too few images to tell."""
    sets = {subject: of for subject, of in found.accuracies.items() if subject.kind == "synthetic"}
    luck = with_luck(found.guess, found.images)
    if luck >= 1:
        return {}
    idle: dict[str, list[str]] = {}
    for subject, accuracies in sets.items():
        for name, accuracy in accuracies.items():
            if statistics.fmean(accuracy.values) <= luck:
                idle.setdefault(name, []).append(subject.label)
    return {name: labels if len(labels) < len(sets) else [] for name, labels in idle.items()}


def as_record(found: Found) -> Entry:
    """What `--json` prints.

    dataset, and split, which it was tested on; balanced, whether accuracies are; training, every setting of
    the trainings, and seed, of which they are drawn; sets and random_baselines, a list each of what was
    trained on; seeds, of sets that differ in the seed alone: all their accuracies together, and the deviation
    of the sets' means; reused, how many trainings were done before. Where there is one set its accuracies are
    at hand as well: networks, NAME to mean, std, n and values; random_baseline, the same, pooled and by
    network.
    """
    plan = found.plan
    how = {
        "dataset": plan.sets[0].card["dataset"]["name"],
        "split": plan.split,
        "balanced": plan.balanced,
        "training": plan.config.as_dict(),
        "seed": plan.seed,
    }
    own: Entry = {}
    if len(plan.sets) == 1:
        kinds = {subject.kind: dict(accuracies) for subject, accuracies in found.accuracies.items()}
        own = as_json(kinds["synthetic"], kinds.get("random", {}))
    return {
        **how,
        **own,
        "sets": [_entry(found, subject) for subject in plan.subjects if subject.kind == "synthetic"],
        "random_baselines": [_entry(found, subject) for subject in plan.subjects if subject.kind == "random"],
        "seeds": [_together(found, sets, pooled) for sets, pooled in by_seeds(found)],
        "reused": found.reused,
    }


def matrix(found: Found) -> list[tuple[str, dict[str, Entry]]]:
    """For `reports.matrix`: a row a set, accuracies by network."""
    return [(subject.label, _by_network(accuracies)) for subject, accuracies in found.accuracies.items()]


def _entry(found: Found, subject: Subject) -> Entry:
    card = found.plan.sets[subject.place].card
    teachers = (card.get("soft_labels") or {}).get("teachers")
    own = {
        "path": str(found.plan.sets[subject.place].path),
        "method": card["method"],
        "soft_labels": teachers,
    }
    return {
        "name": subject.label,
        **(own if subject.kind == "synthetic" else {}),
        "ipc": card["ipc"],
        "networks": _by_network(found.accuracies[subject]),
    }


def _together(found: Found, sets: Sequence[Subject], pooled: Mapping[str, Accuracy]) -> Entry:
    networks = _by_network(pooled)
    for name, entry in networks.items():
        means = [statistics.fmean(found.accuracies[subject][name].values) for subject in sets]
        entry["std_of_sets"] = statistics.stdev(means)
    return {"sets": [subject.label for subject in sets], "networks": networks}


def _by_network(accuracies: Mapping[str, Accuracy]) -> dict[str, Entry]:
    return {name: accuracy.as_dict() for name, accuracy in accuracies.items()}


def _cells(entry: Entry) -> list[str]:
    std = "–" if entry["std"] is None else f"{100 * entry['std']:.2f}"
    return [f"{100 * entry['mean']:.2f}", std, str(entry["n"])]
