"""Combinations of a run's recorded scores, as further rulers: which scores, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reports.bootstrap import generator
from reports.combining import FEWEST, mean_of_ranks, out_of_fold
from reports.correlation import count_networks, usable
from reports.ranking import no_score, reference_scores, ruler_names, ruler_scores
from reports.runs import Run, read_run
from reports.scores import COMBINED, COUNTED, FITTED, MEAN_OF_RANKS, describe_score, mean_of, repeat_of
from reports.weights import told, weights_of

if TYPE_CHECKING:
    import pandas as pd

FITTED_TOO = COUNTED
"""A fit finds out by itself which side is better."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A ruler made of recorded scores.

    Attributes:
        name: as among the report's scores.
        components: the scores that it is made of.
        weights: theirs in the mean of ranks, in the same order; None where a fit finds them.
        fitted: whether to the reference; its values are then predictions of left-out architectures.
        n: how many architectures have it.
        reason: why it is not there; None if it is.
        sentence: the same for people.
        told: the scores that it is made of, for people.
    """

    name: str
    components: list[str]
    weights: list[float] | None
    fitted: bool
    n: int
    reason: str | None
    sentence: str

    @property
    def told(self) -> list[str]:
        return _told(self.components, self.weights)


def combine(run: Run, names: Sequence[str] | None = None) -> Run:
    """The run with its combinations as further scores of its trials.

    Args:
        names: the scores to combine, with a weight in the mean of ranks as NAME=WEIGHT; none for no
            combinations. None: those that the run says, else of `COMBINED`, that it has for the mean of
            ranks, and those of `FITTED_TOO` as well for the fit.
    Raises:
        ValueError: a name is no score of the run, there is only one, or a weight is none.
    """
    ours = [name for name in run.trials if mean_of(name) in (f"score:{MEAN_OF_RANKS}", f"score:{FITTED}")]
    run = replace(run, trials=run.trials.drop(columns=ours), combinations=())
    if names is not None and not names:
        return run
    recorded = [name for name in ruler_names(run) if ruler_scores(run, name).notna().any()]
    usual = weights_of(run.info.combine or COMBINED)
    weights = _named(run, names) if names else {name: usual[name] for name in usual if name in recorded}
    chosen = list(weights)
    if len(chosen) < 2:
        return run
    trials, made = run.trials.copy(), []
    for name, columns in _mean_columns(run, chosen):
        trials[f"score:{name}"] = mean_of_ranks(columns, list(weights.values()))
    count = int(trials[f"score:{MEAN_OF_RANKS}"].notna().sum())
    made.append(_combination(MEAN_OF_RANKS, chosen, list(weights.values()), count, None))
    if run.info.reference.kind != "none":
        fitted = chosen if names else [*chosen, *(name for name in FITTED_TOO if name in recorded)]
        columns, reference = [ruler_scores(run, name) for name in fitted], reference_scores(run)
        known, networks = usable(*columns, reference), run.networks
        different = count_networks(networks, known)
        reason = None
        if different < FEWEST:
            need = f"a fit takes {FEWEST} different networks with every score and a reference"
            reason = f"{need}, and there are {different}"
        else:
            rng = generator(f"{FITTED} of {','.join(fitted)}")
            trials[f"score:{FITTED}"] = out_of_fold(columns, reference, rng=rng, networks=networks)
        made.append(_combination(FITTED, fitted, None, int(known.sum()), reason))
    return replace(run, trials=trials, combinations=tuple(made))


def _mean_columns(run: Run, chosen: Sequence[str]) -> Iterator[tuple[str, list[pd.Series]]]:
    """What the mean of ranks is made of; where architectures were trained several times, also for each of
    the trainings, with whatever does not depend on it."""
    whole = {name: ruler_scores(run, name) for name in chosen}
    yield MEAN_OF_RANKS, list(whole.values())
    for number in range(1, 1 + max(run.repeats_of(name).shape[1] for name in chosen)):
        columns = {name: f"score:{repeat_of(name, number)}" for name in chosen}
        yield (
            repeat_of(MEAN_OF_RANKS, number),
            [
                describe_score(name).sign * run.trials[column] if column in run.trials else whole[name]
                for name, column in columns.items()
            ],
        )


def ranked(folder: Path) -> list[str]:
    """The architectures of a run by its own score, the best first; of equals those proposed first.

    Raises:
        ValueError: as `reports.runs.read_run`.
    """
    run = read_run(folder)
    run = combine(run) if run.info.score == MEAN_OF_RANKS else run
    places = ruler_scores(run, run.info.score).dropna().sort_values(ascending=False, kind="stable")
    return [str(name) for name in run.trials["architecture"][places.index]]


def _named(run: Run, names: Sequence[str]) -> dict[str, float]:
    """The weights by name."""
    weights, allowed = weights_of(names), ruler_names(run)
    for name in weights:
        if name not in allowed:
            raise no_score(run, name, allowed)
    if len(weights) < 2:
        raise ValueError(f"a combination takes at least two scores, not {next(iter(weights))!r} alone")
    return weights


def _told(names: Sequence[str], weights: Sequence[float] | None) -> list[str]:
    return [told(name, weight) for name, weight in zip(names, weights or [1.0] * len(names), strict=True)]


def _combination(
    name: str, components: Sequence[str], weights: list[float] | None, n: int, reason: str | None
) -> Combination:
    listed = ", ".join(_told(components, weights))
    label = describe_score(name).label
    if reason is not None:
        sentence = f"{label}, of {listed}: left out, {reason}."
    elif name == FITTED:
        sentence = (
            f"{label}, of {listed}: a ridge regression fitted to the reference scores of {n} architectures, "
            "each judged by fits that saw neither it nor what is known to be the same network. It needs "
            "reference scores, so it can only rank further architectures once some are paid for."
        )
    else:
        sentence = f"{label}, of {listed}: fitted on nothing, it needs no reference scores."
    return Combination(
        name=name,
        components=list(components),
        weights=weights,
        fitted=name == FITTED,
        n=n,
        reason=reason,
        sentence=sentence[0].upper() + sentence[1:],
    )
