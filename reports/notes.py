"""What a reader must know to read the numbers right: what was dropped, ties, how seconds were measured."""

from __future__ import annotations

import math
from textwrap import shorten

from reports.bootstrap import HOLDS_FROM, Interval
from reports.chance import imbalance
from reports.document import Counts, SpearmanReport
from reports.formatting import break_even, by_count, decimals, estimate, plural, seconds
from reports.guessing import confirmed_guesses, proxy_guesses, reference_guesses
from reports.occupancy import share_of_card
from reports.planning import LARGEST_CORRELATION
from reports.ranking import failed_references
from reports.reliability import Reliability
from reports.runs import Run
from reports.savings import Savings
from reports.scores import EARLY_STOPPING, describe_score

SMALL_NOISE = math.sqrt(0.1)
"""Of the deviation among architectures: the noise is then a tenth of their variance."""
_MINIBATCH = 64
_WHOLE = 0.95
"""From so much of the card's time on, a trial is said to have had it to itself."""
LONGEST_REASON = 200
"""Letters of a failure's reason that a note repeats; ranking.csv has all of it."""


def write_notes(
    run: Run,
    counts: Counts,
    savings: Savings,
    *,
    repeats: Reliability | None = None,
    reached: float | None = None,
    networks: SpearmanReport | None = None,
) -> list[str]:
    """One sentence a caveat that holds for this run, in the order of the report.

    Args:
        repeats: how far the trainings of an architecture agree in the score that ranks.
        reached: Spearman of that score with the reference.
        networks: the ranking's agreement with each network counted once, where some have several names.
    """
    candidates = [
        _incomplete(run),
        _stopped_early(run),
        _failed(counts),
        _failed_references(run),
        _unmatched(run, counts),
        _table(run),
        _foreign(run),
        _same(run, networks),
        _not_compared(run),
        _ties(run, counts),
        _early_stopping(run),
        _minibatches(run),
        _noise(run),
        _repeats(repeats, reached),
        _without_set(savings),
        *_cost_notes(run, savings),
    ]
    return [note for note in candidates if note is not None]


def write_cautions(run: Run, savings: Savings, *, by_proxy: bool, said: str | None) -> list[str]:
    """What bears on the verdict itself, and on what was confirmed, to be read with it.

    Args:
        by_proxy: whether trainings of the proxy have a say in the ranking.
        said: what the verdict says already.
    """
    all_guesses = (reference_guesses(run), proxy_guesses(run) if by_proxy else None, confirmed_guesses(run))
    found = [guesses.sentence for guesses in all_guesses if guesses]
    others = (_lopsided(run), _slower(savings))
    return [caution for caution in (*found, *filter(None, others)) if caution != said]


def _slower(savings: Savings) -> str | None:
    """Said where the reference would have been the cheaper ranking."""
    if savings.speedup_total is None or savings.speedup_total >= 1:
        return None
    what = "distilling and ranking" if savings.distill_seconds else "ranking"
    times = f"{1 / savings.speedup_total:.1f}"
    took = "about" if times == "1.0" else f"{times} times"
    longer = f"{took} as long as training on real data for the reference"
    pays = break_even(savings.break_even_architectures, savings.break_even_reason)
    return f"No time was saved: {what} these architectures took {longer} (break-even: {pays})."


def _incomplete(run: Run) -> str | None:
    if run.info.complete:
        return None
    return "The search has not finished: these are the trials stored so far."


def _stopped_early(run: Run) -> str | None:
    column = "score:trained_epochs"
    if column not in run.trials:
        return None
    epochs = run.trials[column].dropna()
    longest = epochs.max() if len(epochs) else 0.0
    stopped = int((epochs < longest).sum())
    if not stopped:
        return None
    were = by_count(stopped, "was", "were")
    banded = run.info.strategy.halving == "hyperband"
    by = "by how much of its own bracket each has left behind" if banded else "those that got further first"
    return (
        f"{stopped} of {plural(len(epochs), 'training')} {were} stopped before epoch {longest:.0f}: the "
        f"place by rung ranks them all, {by}; other scores compare trainings of different lengths."
    )


def _failed(counts: Counts) -> str | None:
    if not counts.failed and not counts.unscored:
        return None
    missing = f", {counts.unscored} did not record the score" if counts.unscored else ""
    they = by_count(counts.failed + counts.unscored, "it has", "they have")
    return f"Of {plural(counts.proposed, 'architecture')} {counts.failed} failed{missing}; {they} no rank."


def _failed_references(run: Run) -> str | None:
    failed = failed_references(run)
    if failed.empty:
        return None
    trials, reason = plural(len(run.reference), "reference trial"), failed["reason"].iloc[0]
    example = f" (e.g. {shorten(reason, LONGEST_REASON, placeholder=' ...')})" if reason else ""
    these = by_count(len(failed), "this architecture has", "these architectures have")
    return f"{len(failed)} of {trials} failed{example}: {these} no reference score."


def _unmatched(run: Run, counts: Counts) -> str | None:
    if run.info.reference.kind == "none" or not counts.without_reference:
        return None
    if not counts.pairs:
        return "No ranked architecture has a reference score: nothing can be said about agreement."
    ranked = plural(counts.ranked, "ranked architecture")
    have = by_count(counts.without_reference, "has", "have")
    return (
        f"{counts.without_reference} of {ranked} {have} no reference score: "
        f"everything said about agreement rests on the other {counts.pairs}."
    )


def _table(run: Run) -> str | None:
    if run.info.reference.kind != "table":
        return None
    return (
        f"The reference scores are read from a table, and nothing in it says that they are of "
        f"{run.info.dataset.name}: that is taken for granted."
    )


def _foreign(run: Run) -> str | None:
    foreign = run.info.reference.foreign
    if not foreign:
        return None
    name = by_count(foreign, "names an architecture", "name architectures")
    return f"{plural(foreign, 'row')} of the reference table {name} that this space does not have."


def _same(run: Run, networks: SpearmanReport | None) -> str | None:
    """How many architectures are others by name only, and the agreement without them."""
    if not run.info.same:
        return None
    count = len(run.info.same)
    first = (
        f"{plural(count, 'architecture')} {by_count(count, 'is', 'are')} the same network as another by its "
        "own name; each network was trained once for all its names"
    )
    if networks is None or networks.value is None:
        return f"{first}."
    once = estimate(networks.value, networks.low, networks.high, networks.n)
    return (
        f"{first}. Intervals, p-values and the fit count networks. With each counted once, by the means "
        f"over its names, Spearman is {once}: what to expect where all are different."
    )


def _not_compared(run: Run) -> str | None:
    """Said of spaces of NNI's and of users', in which nothing tells that two names are one network."""
    if ":" not in run.info.space.name:
        return None
    return (
        "In this space names are not compared: architectures that differ in choices without effect, as where "
        "a depth leaves them unused, count as different networks, and make intervals too narrow."
    )


def _ties(run: Run, counts: Counts) -> str | None:
    parts = []
    if counts.tied_scores:
        parts.append(
            f"{counts.tied_scores} of {plural(counts.ranked, 'architecture')} share their score with another "
            "and so the best rank of their group"
        )
    if counts.tied_references:
        parts.append(f"{counts.tied_references} of {counts.pairs} share their reference score")
    if not parts:
        return None
    if run.info.reference.kind == "none":
        return f"Ties: {parts[0]}."
    return (
        f"Ties: {'; '.join(parts)}. Correlations use average ranks; what is kept or picked is averaged over "
        "all ways to break the ties."
    )


def _early_stopping(run: Run) -> str | None:
    column = f"cpu_seconds:{EARLY_STOPPING}"
    if column not in run.trials:
        return None
    spent = run.trials[column].dropna()
    return (
        f"Early stopping trained {plural(len(spent), 'architecture')} on real images, as many steps as the "
        f"proxy takes: {seconds(float(spent.sum()))} of CPU, counted apart from the search."
    )


def _minibatches(run: Run) -> str | None:
    """Said where training-free scores looked at other images than is usual."""
    looked: dict[str, list[str]] = {}
    for name, info in run.info.estimators.items():
        if info.images and (info.images, info.batch_size or _MINIBATCH) != ("synthetic", _MINIBATCH):
            what = f"{info.batch_size} {info.images} images" if info.batch_size else f"{info.images} images"
            looked.setdefault(what, []).append(describe_score(name).label)
    if not looked:
        return None
    parts = "; ".join(f"{', '.join(names)} at {what}" for what, names in looked.items())
    return f"Training-free scores look at {_MINIBATCH} synthetic images each, but for {parts}."


def _lopsided(run: Run) -> str | None:
    """Said where accuracies count images of classes that are far from one size."""
    largest, smallest = run.info.dataset.largest_class, run.info.dataset.smallest_class
    tested = run.info.reference.kind == "real" or run.info.confirm is not None
    splits = [each for each in ("validation", *["test"] * tested) if each in largest and each in smallest]
    said = next(filter(None, (imbalance(largest[each], smallest[each]) for each in splits)), None)
    return said and f"{said[0].upper()}{said[1:]}; a new search with --balanced counts all classes alike."


def _noise(run: Run) -> str | None:
    """Said where the luck of few validation images is a tenth or more of what tells architectures apart."""
    images = run.info.proxy.validation_images
    column = "score:validation_accuracy"
    if run.info.score != "validation_accuracy" or not images or column not in run.trials:
        return None
    accuracies = run.trials[column].dropna()
    if len(accuracies) < 3:
        return None
    chances = accuracies.clip(0.0, 1.0)
    even = run.info.dataset.balanced_images.get("validation", images)
    error = math.sqrt(float((chances * (1 - chances)).mean()) / even)
    deviation = float(accuracies.std())
    an = "A balanced" if run.info.dataset.balanced_images else "An"
    if error < SMALL_NOISE * deviation:
        return None
    return (
        f"{an} accuracy on {plural(images, 'validation image')} has a standard error of {100 * error:.1f} "
        f"points, and the architectures' accuracies a deviation of {100 * deviation:.1f}: part of their "
        "order is luck."
    )


def _repeats(found: Reliability | None, reached: float | None) -> str | None:
    """What the trainings of each architecture say of the luck in their mean."""
    if found is None:
        return None
    if found.single.n < HOLDS_FROM:
        return (
            f"Scores are means of {found.seeds} trainings; how much of the ranking is the seed's can be told "
            f"from {HOLDS_FROM} architectures, these are {found.single.n}."
        )
    if found.single.value is None or found.mean.value is None:
        return f"How far the trainings of one architecture agree is not known: {found.single.reason}."

    def shown(value: float, between: Interval | None) -> str:
        return estimate(value, between.low, between.high) if between else decimals(value)

    single = shown(found.single.value, found.single_interval)
    mean = shown(found.mean.value, found.mean_interval)
    return (
        f"Scores are means of {found.seeds} trainings. One training's ranking agrees with another's at "
        f"Spearman {single}; so a ranking by {found.seeds} others would agree with this one at {mean}, and a "
        f"reference without noise at no more than {decimals(math.sqrt(found.mean.value))}, if not by luck."
        f"{_next_plan(found.single.value, found.mean.value, reached)}"
    )


def _next_plan(single: float, mean: float, reached: float | None) -> str:
    """The command that plans a larger search by what this one tells, if it does."""
    agreement = round(single, 2)
    if reached is None or not (agreement > 0 and reached > 0):
        return ""
    most = math.floor(100 * min(math.sqrt(agreement), LARGEST_CORRELATION)) / 100
    by_one = min(reached * math.sqrt(single / mean), most)
    return (
        f" To plan a larger search: atom-nas plan --width 0.2 --agreement {agreement:.2f} --correlation "
        f"{by_one:.2f}, which is what one training of each is expected to reach."
    )


def _without_set(savings: Savings) -> str | None:
    if savings.distill_seconds != 0:
        return None
    return "This ranking looks at no synthetic image, so that distilling counts for nothing here."


def _cost_notes(run: Run, savings: Savings) -> list[str | None]:
    if run.info.reference.kind != "real":
        return []
    return [_subset(savings), _cached(run), _devices(run), _taking_turns(run)]


def _subset(savings: Savings) -> str | None:
    if not savings.pairs or savings.pairs == savings.proxy_trials == savings.reference_trials:
        return None
    proxy, reference = (
        plural(savings.proxy_trials, "proxy trial"),
        plural(savings.reference_trials, "reference trial"),
    )
    return (
        f"Speed-up and break-even are measured on the {plural(savings.pairs, 'network')} with both "
        f"({proxy}, {reference})."
    )


def _cached(run: Run) -> str | None:
    cached = int(run.reference["cached"].astype(bool).sum())
    if not cached:
        return None
    reused = f"{plural(len(run.reference), 'reference trial')} {by_count(cached, 'was', 'were')} reused"
    return (
        f"{cached} of {reused} from an earlier run: {by_count(cached, 'its', 'their')} seconds are those "
        "measured then, and the wall seconds of this run do not contain them."
    )


def _taking_turns(run: Run) -> str | None:
    share = share_of_card(run)
    if share > _WHOLE:
        return None
    return (
        f"{plural(run.info.workers or 0, 'worker')} shared the GPU: of the seconds of a trial {share:.0%} "
        "counts as its own, by which the trials of a stage together take as long as the stage did."
    )


def _devices(run: Run) -> str | None:
    devices = {*run.trials["device"], *run.reference["device"], run.info.synthetic.device} - {"", None}
    if len(devices) < 2:
        return None
    return (
        f"Seconds were measured on different devices ({', '.join(sorted(devices))}): compare them with care."
    )
