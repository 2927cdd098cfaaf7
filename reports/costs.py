"""What the stages of a run cost, and what each ruler takes an architecture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reports.document import RulerCosts, StageSeconds
from reports.occupancy import CARD_SECONDS
from reports.runs import Run
from reports.savings import Costs
from reports.scores import COUNTED, EARLY_STOPPING, HALVING, SEES_NO_IMAGE
from reports.weights import weights_of

if TYPE_CHECKING:
    import pandas as pd

NO_REFERENCE_COST = {
    "table": "the reference is a published table, so what it cost is not known",
    "none": "the run has no reference to compare with",
}


def seconds_each(run: Run, score: str) -> float | None:
    """Mean compute-seconds a network that a score takes; None where that is not known.

    A combination takes what its scores take together, each estimator once; a fitted one the reference too,
    for some architectures or all, so that there is no one number.
    """
    if any(each.name == score and each.fitted for each in run.combinations):
        return None
    sources = {_source(run, part) for part in _parts(run, score)}
    spent, _ = compute_seconds(run)
    columns = [spent + source for source in sources if source is not None]
    total = sum(float(by_network(run, run.trials, column).mean()) for column in columns)
    return None if math.isnan(total) else total


def by_network(run: Run, trials: pd.DataFrame, seconds: str) -> pd.Series:
    """Of each network, by its first name, what its costliest name took.

    One of its names is trained for all of them, not always one that has a reference too; what is scored by
    each of its names need have been scored by one.
    """
    same = run.info.same
    return trials[seconds].groupby([same.get(name, name) for name in trials["architecture"]]).max()


def _source(run: Run, score: str) -> str | None:
    """Which estimator's seconds a score took, as their column ends; None where it is counted at no cost."""
    if score in COUNTED:
        return None
    own = f":{score.partition(':')[0]}"
    return own if f"seconds{own}" in run.trials else ""


def ranking_seconds(run: Run, score: str, spent: str) -> pd.Series:
    """Of each architecture, what it took to be ranked: by whatever estimators the score is of.

    Of what is counted at no cost the proxy, which was trained all the same.

    Args:
        spent: the column that counts, without what ends it.
    """
    return sum(
        (run.trials[spent + source].fillna(0.0) for source in _sources(run, score)),
        start=0.0 * run.trials[spent],
    )


def _sources(run: Run, score: str) -> list[str]:
    """How the columns end of all that it takes to rank by a score."""
    sources = {_source(run, part) for part in _parts(run, score)}
    return sorted(source for source in sources if source is not None) or [""]


def _parts(run: Run, score: str) -> list[str]:
    """What a score is made of: of a place by rung what architectures went on by, too."""
    if score == HALVING:
        return [score, *weights_of(run.info.strategy.combined)]
    made = next((each for each in run.combinations if each.name == score and not each.fitted), None)
    return made.components if made else [score]


def ranked_by(run: Run, score: str) -> list[str]:
    """The estimators that it takes to rank by a score."""
    return [source.removeprefix(":") or "proxy" for source in _sources(run, score)]


def uses_set(run: Run, score: str) -> bool:
    """Whether what it takes to rank by a score looks at the synthetic set, which then has to be made."""
    return any(_looks_at_set(run, name) for name in ranked_by(run, score))


def _looks_at_set(run: Run, estimator: str) -> bool:
    if estimator == "proxy":
        return True
    info = run.info.estimators.get(estimator)
    return estimator not in (EARLY_STOPPING, *SEES_NO_IMAGE) and (info is None or info.images != "real")


def other_costs(run: Run, score: str) -> RulerCosts | None:
    """What the estimators took that a ranking by the score has no need of; None if there are none."""
    spent, _ = compute_seconds(run)
    needed = ranked_by(run, score)
    names = [name for name in ("proxy", *run.info.estimators) if name not in needed]
    columns = ["" if name == "proxy" else f":{name}" for name in names]
    known = [(name, own) for name, own in zip(names, columns, strict=True) if f"seconds{own}" in run.trials]
    if not known:
        return None
    return RulerCosts(
        names=[name for name, _ in known],
        trials=sum(int(run.trials[f"seconds{own}"].notna().sum()) for _, own in known),
        seconds=sum(float(run.trials[spent + own].sum()) for _, own in known),
        cpu_seconds=sum(float(run.trials[f"cpu_seconds{own}"].sum()) for _, own in known),
    )


def measured_costs(run: Run, score: str) -> Costs:
    """What was spent to rank by a score, on the reference, and on the networks that have both."""
    kind = run.info.reference.kind
    spent, distill = compute_seconds(run)
    distill = distill if uses_set(run, score) else 0.0
    trials = run.trials.assign(**{spent: ranking_seconds(run, score, spent)})
    proxy = trials[spent].tolist()
    if kind != "real":
        return Costs(
            distill_seconds=distill,
            proxy_seconds=proxy,
            reference_seconds=None,
            no_reference=NO_REFERENCE_COST[kind],
        )
    done = [frame[frame["status"] == "done"] for frame in (trials, run.reference)]
    ranked, real = (by_network(run, frame, spent) for frame in done)
    both = ranked.index.intersection(real.index)
    return Costs(
        distill_seconds=distill,
        proxy_seconds=proxy,
        reference_seconds=run.reference[spent].tolist(),
        paired_seconds=list(zip(ranked[both].tolist(), real[both].tolist(), strict=True)),
    )


def compute_seconds(run: Run) -> tuple[str, float | None]:
    """The trials' column that counts compute, and distillation's seconds in the same unit.

    Distillation uses all cores and a trial one: on a CPU only core-seconds compare. On a GPU the card is what
    is occupied: see `reports.occupancy`, which adds the column.
    """
    frames = (run.trials, run.reference)
    devices = {run.info.synthetic.device, *(d for frame in frames for d in frame.get("device", ()))}
    if devices == {"cpu"} and run.info.synthetic.distill_cpu_seconds is not None:
        return "cpu_seconds", run.info.synthetic.distill_cpu_seconds
    return CARD_SECONDS, run.info.synthetic.distill_seconds


def compute_unit(run: Run) -> str:
    """What compute-seconds are called."""
    return "core-seconds" if compute_seconds(run)[0] == "cpu_seconds" else "compute"


def wall_seconds(run: Run, score: str) -> StageSeconds:
    """Of each stage that it takes to rank by the score, as waited for."""
    info = run.info
    beside = {name == EARLY_STOPPING for name in ranked_by(run, score)}
    stages = [info.beside_wall_seconds if apart else info.search_wall_seconds for apart in beside]
    return StageSeconds(
        distill=info.synthetic.distill_seconds if uses_set(run, score) else 0.0,
        search=None if None in stages else sum(filter(None, stages)),
        reference=info.reference_wall_seconds,
        confirm=None if run.confirmed.empty else info.confirm_wall_seconds,
    )


def cpu_seconds(run: Run, score: str) -> StageSeconds:
    """Of each stage, over all cores; of the search, what it took to rank by the score."""
    measured = run.info.reference.kind == "real"
    return StageSeconds(
        distill=run.info.synthetic.distill_cpu_seconds if uses_set(run, score) else 0.0,
        search=float(ranking_seconds(run, score, "cpu_seconds").sum()),
        reference=float(run.reference["cpu_seconds"].sum()) if measured else None,
        confirm=None if run.confirmed.empty else float(run.confirmed["cpu_seconds"].sum()),
    )
