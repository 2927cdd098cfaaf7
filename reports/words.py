"""The words around the numbers: titles, what was run, and what each statistic means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from reports import formatting
from reports.bootstrap import HOLDS_FROM, RESAMPLES, Difference
from reports.combining import FOLDS, REPEATS
from reports.document import Confirmed, Report, RunSummary
from reports.formatting import by_count, plural
from reports.rulers import LEVEL, RulerDifference
from reports.schema import EstimatorInfo, StrategyInfo, TrainingInfo
from reports.scores import FITTED, describe_score
from reports.section import SHOWN, Section
from reports.verdict import MODERATE_FROM, STRONG_FROM

_UNREADABLE = 10**12
"""A number of architectures from which its magnitude says more than its digits."""
BALANCED = "accuracies are balanced: means over the classes"
AGREEMENT_DEFINITIONS = (
    "Spearman is Pearson's correlation of the ranks, ties sharing their average rank: 1 is the same order,"
    " 0 none, -1 the reverse. Its 95% interval is the percentile bootstrap over architectures "
    f"({RESAMPLES:,} resamples), as are others, none of which is given below {HOLDS_FROM} pairs; p is the "
    "two-sided chance of so much agreement if there were none (all orders up to n = 8, random orders up to "
    "29, Student's t from 30). Of architectures that are one network by several names, networks are drawn, "
    "each with all its names, and p is that of networks counted once, by the means over their names.",
    "The verdict goes by the low end of that interval, given 10 pairs or more: guessing at or below 0, weak "
    f"below {MODERATE_FROM:g}, moderate below {STRONG_FROM:g}, strong from there. Of two architectures drawn "
    "at random the ranking names the better one 64% of the time at .4 and 75% at .7; its better half holds "
    "82% and 98% of the best 5%. Where interval and p-value disagree on 0 it is weak.",
    "Kendall tau-b: (pairs in the right order - pairs in the wrong order) / pairs, corrected for ties.",
    "Weighted tau: the same, where a pair weighs 1 / r + 1 / s for its ranks r and s by the reference, best "
    "first, ties in it ordered by the ruler (Vigna 2015; scipy.stats.weightedtau with rank=None): mistakes "
    "at the top count most. Its percentile bootstrap holds the truth in about 94% of samples, not 95%.",
    "Difference: Spearman of a ruler minus that of the score this ranking is made by, both on the same "
    "resampled architectures, with its 95% interval; the search's own score was chosen before it, where the "
    "best of the table owes its place to luck too. p is twice the smaller share of resamples on either side "
    f"of 0, given {HOLDS_FROM} pairs or more, and beside it as corrected by Holm for all comparisons in the "
    f"table: below {LEVEL:g} there, the two differ by more than chance. What was fitted has no p.",
    "Best 20% and best 5%: Spearman among the architectures the reference puts there, those tied with the "
    "last included. A dash: fewer than 3 of them, or all equal.",
    "Pick loses: the best reference score minus that of the architecture ranked first; of several ranked "
    "first, their mean.",
    "Precision and recall: good means in the reference's best 20%, kept means in the ranking's best k%, "
    "rounded up. A group tied at the last place counts by the share of it that fits. Loses: the best "
    "reference score of all minus the best among the kept, beside what as many at random are expected to.",
)
NOISE_DEFINITION = (
    "Noise: runs that differ in the seed alone train the same networks again, on the same images. How far "
    "one seed agrees with another is the mean Spearman over pairs of seeds; what the mean of several would, "
    "follows by Spearman and Brown. No correlation with a noisy score is expected above the square root of "
    "that agreement, or of the product of both where both sides are noisy (Spearman 1904; exact for "
    "Pearson's r and independent errors, close for ranks). Intervals: bootstrap over architectures."
)
COMBINATION_DEFINITION = (
    "Combinations are made of recorded scores, at no further cost. Mean of ranks: over the named scores, "
    "each turned so that higher is better. Fitted: ridge regression of the reference's ranks on theirs; "
    f"each architecture is predicted by fits to the other {FOLDS - 1} of {FOLDS} folds of networks, whose "
    f"strength is chosen by folds of those, and its value is its mean place in its fold over {REPEATS} cuts. "
    "Its interval takes the predictions as given: a 95% one holds in about 83% of samples where the scores "
    "say nothing, in 86% to 99% where they say something (simulated), so it has no p-value of its own. "
    "Where the others added nothing to a score that says something, the fit was called better than it in "
    "none of 2,400 simulated samples."
)
COMPUTE_DEFINITION = "Compute: core-seconds where all ran on a CPU, else the seconds that the GPU was busy."
SPEED_DEFINITION = (
    "Speed-up: compute-seconds on real data over compute-seconds on the synthetic set, on the architectures "
    "measured in both ways, nothing extrapolated. Break-even: distillation seconds over the seconds saved "
    "per architecture."
)


def definitions(sections: Sequence[Section]) -> Iterator[str]:
    """What the numbers on the page mean, leaving out those that no section has."""
    if any(section.report.reference_score for section in sections):
        yield from AGREEMENT_DEFINITIONS
    if any(section.report.combinations and section.report.reference_score for section in sections):
        yield COMBINATION_DEFINITION
    if sections[0].report.noise:
        yield NOISE_DEFINITION
    compared = any(section.report.savings.reason is None for section in sections)
    yield f"{COMPUTE_DEFINITION} {SPEED_DEFINITION}" if compared else COMPUTE_DEFINITION


def title(sections: Sequence[Section]) -> str:
    """The page's heading."""
    if len(sections) > 1:
        return f"{len(sections)} rankings of architectures side by side"
    return f"Ranking architectures on {_set_of(sections[0])}"


def subtitle(sections: Sequence[Section]) -> str:
    """What the page is about, in one line."""
    if len(sections) > 1:
        return ", ".join(section.label for section in sections)
    info = sections[0].report.run
    proposed = plural(sections[0].report.counts.proposed, "architecture")
    return f"{proposed} of {info.space.name} on {info.dataset.name}"


def facts(section: Section) -> Iterator[tuple[str, str]]:
    """What was run: pairs of name and value, leaving out what is not known."""
    run = section.report.run
    yield "Dataset", run.dataset.name + f"; {BALANCED}" * bool(run.dataset.balanced_images)
    yield "Synthetic set", _set_of(section) + _count(",", run.synthetic.iterations, "iteration")
    yield "Space", _space(run)
    yield "Strategy", _strategy(run.strategy)
    made = next((each for each in section.report.combinations if each.name == section.report.score), None)
    parts = ", ".join(made.told) if made else ""
    yield "Ranked by", section.score.label + f" of {parts}" * bool(parts) + _proxy(run)
    yield "Reference", _reference(section)
    real = run.reference.settings if run.reference.kind == "real" else None
    for what, settings in (("Proxy training", run.proxy), ("Reference training", real)):
        if settings is not None and (recipe := _recipe(settings.training)):
            yield what, recipe
    if run.device:
        yield "Device", run.device + _count(",", run.workers, "worker")
    if run.seed is not None:
        yield "Seed", str(run.seed)
    if run.command:
        yield "Command", run.command


def _strategy(strategy: StrategyInfo) -> str:
    """successive-halving (eta 3, rungs 3) among listed architectures."""
    options = ", ".join(f"{name} {value}" for name, value in strategy.how.items() if value is not None)
    among = " among listed architectures" if (strategy.model_extra or {}).get("among") else ""
    name = strategy.name
    if name == "list":
        if strategy.halving is None:
            return "none, all that were listed"
        name, among = strategy.halving, " of all that were listed"
    return f"{name}{f' ({options})' * bool(options)}{among}"


def describe_difference(difference: Difference | RulerDifference | None) -> str:
    """+0.05 (-0.02 to 0.12), or +0.05 of too few pairs for an interval."""
    if difference is None:
        return formatting.UNKNOWN
    if difference.value is None:
        return difference.reason or formatting.UNKNOWN
    if difference.interval is None:
        return f"{difference.value:+.2f}"
    low, high = difference.interval.low, difference.interval.high
    return f"{difference.value:+.2f} ({formatting.interval(low, high)})"


def images_of(method: str, images: int | None) -> str:
    """100 atom images; without the number where it is not known."""
    return f"{method} images" if images is None else plural(images, f"{method} image")


def other_scores(report: Report) -> list[tuple[str, str]]:
    """The names by which `report --score` ranks instead, and what the page calls them where that differs."""
    labels = {score.name: score.label for score in report.scores[1:] if score.name != FITTED}
    return [(name, "" if label == name.replace("_", " ") else label) for name, label in labels.items()]


def sizes_caption(section: Section) -> str:
    """What the best for their size are, above their table."""
    shown, found = len(section.sizes()), len(section.report.sizes)
    rest = f" The first {shown} of {found}; report.json holds all." if found > shown else ""
    return (
        "No ranked network with as few parameters, or as few FLOPs, has a better score. What the score says "
        f"of two that differ by little is luck; --max-parameters and --max-flops confine a search.{rest}"
    )


def ranking_caption(section: Section) -> tuple[str, str]:
    """What stands before and after the link to the ranking's file, above the rows that are shown."""
    counts = section.report.counts
    if counts.ranked > SHOWN:
        return "The first ten places; ", f" holds all {counts.proposed:,}."
    missing = counts.proposed - counts.ranked
    why = f", and why {missing} {by_count(missing, 'has', 'have')} no rank" if missing else ""
    return "", f" holds every score{why}."


def confirmed_caption(confirmed: Confirmed) -> str:
    """How the confirmed were trained and chosen among, above their table."""
    kind = "balanced " if (confirmed.settings.model_extra or {}).get("balanced") is True else ""
    settings = confirmed.settings
    held, tested = settings.validation_images, settings.test_images
    trained = plural(settings.training_images, "image") if settings.training_images else "images"
    epochs = _count(" for", settings.training.epochs if settings.training else None, "epoch")
    on_test = f" ({plural(tested, 'image')})" if tested else ""
    return (
        f"Trained on {trained} of the real data{epochs}; the best first, by {kind}accuracy on "
        f"{plural(held, 'held-out validation image') if held else 'held-out validation images'}. The test "
        f"accuracy{on_test} is read for this report and decides nothing: quote that of the first row."
    )


def _set_of(section: Section) -> str:
    synthetic = section.report.run.synthetic
    images = images_of(synthetic.method, synthetic.images)
    each = "" if synthetic.ipc is None else f", {synthetic.ipc} a class"
    inside = f", {synthetic.factor**2} in one" if synthetic.factor > 1 else ""
    soft = f", soft labels of {plural(synthetic.soft_labels, 'teacher')}" if synthetic.soft_labels else ""
    white = {None: "", True: ", whitening undone", False: ", whitened"}[synthetic.unwhitened]
    return images + each + inside + soft + white


def _reference(section: Section) -> str:
    reference = section.report.run.reference
    if reference.kind == "none":
        return "none"
    if reference.kind == "table":
        named = f"table {reference.table}" if reference.table else "table"
        return named if reference.column in (None, "score") else f"{named}, column {reference.column}"
    settings = reference.settings or EstimatorInfo()
    tested = _count(" on", settings.test_images, "image")
    return f"trained on real data{_training_of(settings)}, {section.reference.label}{tested}"


def _space(run: RunSummary) -> str:
    limits = [f"at most {most:,.0f} {describe_score(what).label}" for what, most in run.space.limits.items()]
    return _whole_space(run) + f"; networks of {' and '.join(limits)}" * bool(limits)


def _whole_space(run: RunSummary) -> str:
    space = run.space
    if not space.size:
        return space.name
    if space.fitting in (None, space.size):
        readable = space.size < _UNREADABLE
        size = plural(space.size, "architecture") if readable else f"{Decimal(space.size):.1e} architectures"
        return f"{space.name}, {size}"
    side = "x".join(map(str, run.dataset.image_shape[1:]))
    fitting = f"{space.fitting:,} of its {plural(space.size, 'architecture')}"
    return f"{space.name}, {fitting} {by_count(space.fitting, 'fits', 'fit')} images of {side} pixels"


def _recipe(training: TrainingInfo | None) -> str:
    """batches of 32, learning rate 0.02, onecycle schedule, dsa augmentation, float32: as far as known."""
    if training is None:
        return ""
    size, rate = training.batch_size, training.learning_rate
    known = [
        size and f"batches of {size}",
        None if rate is None else f"learning rate {rate:g}",
        training.schedule and f"{training.schedule} schedule",
        training.augmentation and f"{training.augmentation} augmentation",
        training.precision,
    ]
    return ", ".join(part for part in known if part)


def _proxy(run: RunSummary) -> str:
    settings = run.proxy
    trained = _training_of(settings, at_most="rungs" in run.strategy.options)
    scored = _count(" and scored on", settings.validation_images, "real validation image")
    smaller = ", ".join(f"{name}={value}" for name, value in settings.space_options.items())
    built = f", networks built with {smaller}" if smaller else ""
    times = f" {settings.repeats} times" if settings.repeats > 1 else ""
    return f"{built}, trained{times}{trained}{scored}" if trained else built


def _training_of(settings: EstimatorInfo, *, at_most: bool = False) -> str:
    """on 1,211 images for 10 epochs: as far as the settings say so; at_most: some for fewer."""
    epochs = settings.training.epochs if settings.training else None
    during = " for up to" if at_most else " for"
    return _count(" on", settings.training_images, "image") + _count(during, epochs, "epoch")


def _count(before: str, count: int | None, noun: str) -> str:
    return f"{before} {plural(count, noun)}" if count else ""


def labels(estimators: Sequence[str]) -> str:
    """What people call estimators, comma-separated."""
    return ", ".join(describe_score(name).label.replace("-", " ") for name in estimators)
