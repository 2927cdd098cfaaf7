"""What a finished search holds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atom_nas.run_folder import RunFolder
from atom_nas.search_plan import SearchPlan
from distill import kernels
from reports.confirmed import ESTIMATOR
from search_spaces.base import is_listed


@dataclass(frozen=True, kw_only=True)
class SearchSummary:
    """What a finished search holds.

    Attributes:
        path: the run's folder.
        asked: architectures asked for: the samples, or the lines of the list without repeats.
        proposed: architectures sampled or listed.
        all_known: whether there are known to be no others.
        failed: how many of them have no score.
        reasons: why they do not -> how many, the most frequent first.
        duplicates: lines of the list that repeated an earlier one.
        beyond: architectures of the list that cost more than they may.
        repeated: how many of the scored ones are the same network as another that was scored.
        beside_failed: estimators beside the proxy some of whose trials failed -> how many, and why one did.
        reference: "real", "table" or "none".
        matched: how many scored architectures have a reference score.
        cached: how many of those were trained by an earlier run.
        reference_failed, reference_reason: how many reference trials failed, and why one of them did.
        confirmed: how many architectures are there with trained weights.
        confirm_failed, confirm_reason: how many of those to be confirmed failed, and why one of them did.
        foreign: a word on the rows of the reference table that are not of the space; None if all are.
        fallback: why trainings were in another precision than was asked for; None if they were not.
        unfused: why training did not run on fused kernels; None if it did, or ran on a GPU.
    """

    path: Path
    asked: int
    proposed: int
    all_known: bool
    failed: int
    reasons: Mapping[str, int]
    duplicates: int
    beyond: int
    repeated: int
    beside_failed: Mapping[str, tuple[int, str]]
    reference: str
    matched: int
    cached: int
    reference_failed: int
    reference_reason: str | None
    confirmed: int
    confirm_failed: int
    confirm_reason: str | None
    foreign: str | None
    fallback: str | None
    unfused: str | None


def summarised(plan: SearchPlan, folder: RunFolder) -> SearchSummary:
    """What has come of a plan."""
    record, store, listed = folder.record, folder.store, plan.listed
    trials, references, confirmed = (store.trials(name) for name in ("proxy", "real", ESTIMATOR))
    return SearchSummary(
        path=folder.path,
        asked=plan.samples,
        proposed=len(trials),
        all_known=plan.drawn is None or is_listed(plan.drawn),
        failed=sum(not trial.done for trial in trials),
        reasons=dict(Counter(trial.reason or "" for trial in trials if not trial.done).most_common()),
        duplicates=listed.duplicates if listed else 0,
        beyond=listed.beyond if listed else 0,
        repeated=len(record["same"]),
        beside_failed=_beside_failed(plan, folder),
        reference=record["reference"]["kind"],
        matched=record["reference"]["matched"],
        cached=sum(trial.cached for trial in references),
        reference_failed=sum(not trial.done for trial in references),
        reference_reason=next((trial.reason for trial in references if not trial.done), None),
        confirmed=sum(trial.done for trial in confirmed),
        confirm_failed=sum(not trial.done for trial in confirmed),
        confirm_reason=next((trial.reason for trial in confirmed if not trial.done), None),
        foreign=plan.table.left_out if plan.table else None,
        fallback=plan.fallback,
        unfused=kernels.why_unavailable() if plan.device.type == "cpu" else None,
    )


def _beside_failed(plan: SearchPlan, folder: RunFolder) -> dict[str, tuple[int, str]]:
    """Of architectures that the proxy could train: others fail by all."""
    trained = {trial.architecture for trial in folder.store.trials("proxy") if trial.done}
    reasons: dict[str, list[str]] = {}
    for estimator in plan.others:
        for trial in folder.store.trials(estimator.name):
            if trial.reason and trial.architecture in trained:
                reasons.setdefault(estimator.name, []).append(trial.reason)
    return {name: (len(each), each[0]) for name, each in reasons.items()}
