"""From a run to its report: which numbers are computed from which columns. No files, no figures."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from reports import formatting
from reports.bootstrap import CONFIDENCE, Interval, generator, spearman_interval
from reports.confirmation import describe_confirmed
from reports.correlation import (
    MIN_PAIRS,
    count_networks,
    count_tied,
    kendall_tau_b,
    pearson,
    spearman,
    spearman_p_value,
    usable,
    usable_pairs,
)
from reports.costs import (
    compute_seconds,
    compute_unit,
    cpu_seconds,
    measured_costs,
    other_costs,
    ranked_by,
    seconds_each,
    wall_seconds,
)
from reports.document import Counts, Report, RunSummary, ScoreReport, SpearmanReport
from reports.guessing import reference_guesses
from reports.notes import write_cautions, write_notes
from reports.occupancy import with_card_seconds
from reports.ranking import choose_score, failed_references, reference_scores, ruler_names, ruler_scores
from reports.reliability import Reliability, reliability
from reports.rulers import RulerComparison, compare_rulers, summarise
from reports.runs import Run
from reports.savings import measure_savings
from reports.scores import FITTED, MEAN_OF_RANKS, describe_score
from reports.selection import (
    GOOD_FRACTION,
    KEPT_PERCENTS,
    RegretCurve,
    curve_steps,
    precision_and_recall,
    regret_curve,
    regret_of_pick,
    top_networks,
    top_spearman,
)
from reports.sizes import best_of_sizes
from reports.verdict import Evidence, Once, Verdict, judge
from reports.weighted_tau import weighted_tau, weighted_tau_interval

if TYPE_CHECKING:
    import pandas as pd


def analyse(run: Run, *, score: str | None = None) -> Report:
    """Every statistic of a run, ranked by `score` or the run's default.

    The same run gives the same report: bootstrap and permutations are seeded by the name of the score.

    Raises:
        ValueError: if `score` was not recorded by the run.
    """
    run, chosen = with_card_seconds(run), choose_score(run, score)
    reference = reference_scores(run)
    first, *others = [
        describe_agreement(name, ruler_scores(run, name), reference, networks=run.networks)
        for name in ruler_names(run, chosen)
    ]
    ordered = [
        each.model_copy(update={"seconds_each": seconds_each(run, each.name)})
        for each in (first, *sorted(others, key=_best_first))
    ]
    scores, rulers = _compare_rulers(run, ordered, reference)
    counts, savings = _counts(run, chosen, reference), measure_savings(measured_costs(run, chosen))
    repeats, networks = _repeats(run, chosen), _networks(run, chosen, reference)
    once = Once(value=networks.value, low=networks.low) if networks else None
    guesses = reference_guesses(run)
    luck = guesses.sentence if guesses and guesses.most else None
    verdict, ranking = _verdict(run, scores, reference, once, luck), ranked_by(run, chosen)
    return Report(
        atom_nas_version=run.info.atom_nas_version,
        run=_summary(run),
        score=chosen,
        reference_score=None if run.info.reference.kind == "none" else run.reference_score,
        verdict=verdict,
        counts=counts,
        scores=scores,
        savings=savings,
        wall_seconds=wall_seconds(run, chosen),
        cpu_seconds=cpu_seconds(run, chosen),
        notes=write_notes(
            run, counts, savings, repeats=repeats, reached=first.spearman.value, networks=networks
        ),
        cautions=write_cautions(
            run,
            savings,
            by_proxy="proxy" in ranking,
            said=luck if luck and luck in verdict.sentence else None,
        ),
        ranked_by=ranking,
        others=other_costs(run, chosen),
        confirmed=describe_confirmed(run, compute_seconds(run)[0]),
        rulers=rulers,
        regret=_regret(run, chosen, reference),
        combinations=list(run.combinations),
        repeats=repeats,
        networks=networks,
        sizes=best_of_sizes(run, chosen),
        compute_unit=compute_unit(run),
    )


def _repeats(run: Run, score: str) -> Reliability | None:
    table = run.repeats_of(score)[~run.networks.duplicated()]
    if table.shape[1] < 2:
        return None
    return reliability(table.to_numpy(), rng=generator(f"repeats of {score}"))


def _networks(run: Run, score: str, reference: pd.Series) -> SpearmanReport | None:
    if not run.info.same:
        return None
    own, target = (each.groupby(run.networks).mean() for each in (ruler_scores(run, score), reference))
    return describe_spearman(score, own, target)


def _compare_rulers(
    run: Run, scores: list[ScoreReport], reference: pd.Series
) -> tuple[list[ScoreReport], RulerComparison | None]:
    """The scores with their differences to the first, by which the run ranks, and what these say together."""
    if run.info.reference.kind == "none":
        return scores, None
    against = scores[0].name
    oriented = {score.name: ruler_scores(run, score.name) for score in scores}
    found = compare_rulers(oriented, against, reference, networks=run.networks, untested={FITTED})
    compared = [score.model_copy(update={"difference": found.get(score.name)}) for score in scores]
    labels = {score.name: score.label for score in scores}
    different = count_networks(run.networks, usable(oriented[against], reference))
    return compared, summarise(found, against, labels, different)


def _regret(run: Run, score: str, reference: pd.Series) -> RegretCurve | None:
    pairs = _pairs(run, score, reference)
    if len(pairs[0]) < MIN_PAIRS:
        return None
    return regret_curve(*pairs, curve_steps(len(pairs[0])).tolist())


def describe_agreement(
    name: str, x: pd.Series, y: pd.Series, *, networks: pd.Series | None = None
) -> ScoreReport:
    """Every statistic of one ruler x against the reference y, both oriented, NaN where missing.

    `networks`: equal for architectures that are one network; None where all differ.
    """
    first, second = usable_pairs(x, y)
    kept = [precision_and_recall(first, second, percent) for percent in KEPT_PERCENTS]
    score = describe_score(name)
    return ScoreReport(
        name=name,
        label=score.label,
        higher_is_better=score.higher_is_better,
        recorded=int(x.notna().sum()),
        tied=count_tied(first),
        spearman=describe_spearman(name, x, y, networks=networks),
        kendall_tau_b=kendall_tau_b(first, second),
        pearson=pearson(first, second),
        spearman_top_20=top_spearman(first, second, 0.20),
        spearman_top_5=top_spearman(first, second, 0.05),
        kept=[row for row in kept if row is not None],
        pick=regret_of_pick(first, second),
        weighted_tau=weighted_tau(first, second),
        weighted_tau_interval=weighted_tau_interval(
            x, y, rng=generator(f"weighted tau of {name}"), networks=networks
        ),
        combination=name in (MEAN_OF_RANKS, FITTED),
    )


def _best_first(score: ScoreReport) -> float:
    """Sorts by Spearman, largest first; scores without one come last."""
    return math.inf if score.spearman.value is None else -score.spearman.value


def describe_spearman(
    name: str, x: pd.Series, y: pd.Series, *, networks: pd.Series | None = None
) -> SpearmanReport:
    """Spearman's rho with interval and p-value; what was fitted to y has no p, fits share their data."""
    rng = generator(name)
    statistic = spearman(x, y)
    interval = spearman_interval(x, y, rng=rng, networks=networks)
    p = None if name == FITTED else spearman_p_value(x, y, rng=rng, networks=networks)
    different = count_networks(networks, usable(x, y))
    return SpearmanReport(
        value=statistic.value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        confidence=CONFIDENCE,
        p_value=p.value if p else None,
        p_method=p.method if p else None,
        n=statistic.n,
        reason=statistic.reason,
        networks=different if different < statistic.n else None,
    )


def reference_is_fraction(run: Run, reference: pd.Series) -> bool:
    """Whether the reference is an accuracy in [0, 1], to be shown in percent; tables may hold 94.3."""
    return describe_score(run.reference_score).fraction and not bool((reference > 1).any())


def _verdict(
    run: Run, scores: list[ScoreReport], reference: pd.Series, once: Once | None, luck: str | None
) -> Verdict:
    if run.info.reference.kind == "none":
        return judge(None)
    chosen = scores[0].spearman
    interval = None
    if chosen.low is not None and chosen.high is not None:
        interval = Interval(low=chosen.low, high=chosen.high, confidence=chosen.confidence)
    parameters = next((s.spearman.value for s in scores[1:] if s.name == "parameters"), None)
    evidence = Evidence(
        spearman=spearman(*_pairs(run, scores[0].name, reference)),
        interval=interval,
        p_value=chosen.p_value,
        top=scores[0].spearman_top_20,
        pick=scores[0].pick,
        parameters=parameters,
        luck=luck,
        networks=chosen.networks,
        once=once,
        top_networks=top_networks(ruler_scores(run, scores[0].name), reference, GOOD_FRACTION, run.networks),
    )
    return judge(
        evidence, show=partial(formatting.difference, fraction=reference_is_fraction(run, reference))
    )


def _pairs(run: Run, score: str, reference: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    return usable_pairs(ruler_scores(run, score), reference)


def _counts(run: Run, score: str, reference: pd.Series) -> Counts:
    scores = ruler_scores(run, score)
    failed, ranked = int((run.trials["status"] != "done").sum()), int(scores.notna().sum())
    pairs = int((scores.notna() & reference.notna()).sum())
    return Counts(
        proposed=len(run.trials),
        ranked=ranked,
        failed=failed,
        unscored=len(run.trials) - failed - ranked,
        pairs=pairs,
        without_reference=ranked - pairs,
        tied_scores=count_tied(scores.dropna()),
        tied_references=count_tied(reference[scores.notna()].dropna()),
        failed_references=len(failed_references(run)),
    )


def _summary(run: Run) -> RunSummary:
    info = run.info
    return RunSummary(
        name=run.name,
        command=info.command,
        seed=info.seed,
        complete=info.complete,
        device=info.device,
        workers=info.workers,
        dataset=info.dataset,
        synthetic=info.synthetic,
        space=info.space,
        strategy=info.strategy,
        proxy=info.proxy,
        reference=info.reference,
        environment=info.environment,
    )
