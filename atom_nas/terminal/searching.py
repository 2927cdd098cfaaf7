"""What a search shows on the terminal: a bar a stage, then what was left out and what failed."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from atom_nas.terminal.console import progress_bar, say, shortened
from atom_nas.terminal.stages import say_unfused, show_report
from reports.formatting import by_count, plural

if TYPE_CHECKING:
    from atom_nas.search import SearchSummary
    from atom_nas.settings import SearchSettings
    from atom_nas.stage import Progress
    from atom_nas.terminal.console import Bar

_REASONS = 3
"""Of failures, that are told with how many there are of each."""


def _show_recipe(settings: "SearchSettings") -> None:
    """Say what a new search has of the space's recipe; one that resumes has said it."""
    from atom_nas import recipes

    taken = {} if settings.resume else recipes.followed(settings)
    if taken:
        said = {name: " + ".join(v) if isinstance(v, tuple) else v for name, v in taken.items()}
        brought = ", ".join(f"{name} {value}" for name, value in said.items())
        say(f"recipe of {settings.space}: {brought} (what you give counts for more)")
    if (reason := recipes.warning(settings.space, settings.strategy)) and not settings.resume:
        say(f"warning: {settings.strategy} does not suit {settings.space}: {reason}")


class _StageBars:
    """One bar a stage, each closed when the next one opens: a terminal shows one live bar at a time.

    Args:
        begin: called before the first.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self._stage, self._stack = "", ExitStack()
        self._bar: Bar | None = None
        self._begin = begin

    def __call__(self, progress: "Progress") -> None:
        if self._bar is None:
            self._begin()
        if self._bar is None or progress.stage != self._stage:
            self.close()
            self._stage = progress.stage
            self._bar = self._stack.enter_context(progress_bar(progress.stage, progress.total))
        counted = progress.pieces is not None
        free = progress.free if counted else progress.cached + progress.reused
        self._bar(progress.done, _note(progress), free, progress.pieces, progress.total)

    def close(self) -> None:
        """Close the bar that is open, if any."""
        self._stack.close()


def _note(progress: "Progress") -> str:
    named = f" {progress.measure.replace('_', ' ')}" if progress.measure else ""
    score = "" if progress.score is None else f"{named} {progress.score:.4f}"
    failed = f"{progress.failed} failed" if progress.failed else ""
    reused = f"{progress.reused} done before" if progress.reused else ""
    return ", ".join(filter(None, (f"{shortened(progress.architecture or '')}{score}", failed, reused)))


def search_and_report(settings: "SearchSettings") -> None:
    """`show_search`, then the run's report."""
    show_search(settings)
    show_report([settings.out])


def show_search(settings: "SearchSettings") -> None:
    """Search with a bar a stage, and say what was left out."""
    from atom_nas.search import run_search
    from reports.scores import MEAN_OF_RANKS

    if settings.combine and settings.score != MEAN_OF_RANKS:
        say(f"ranking by {settings.score}; --score {MEAN_OF_RANKS} would rank by what --combine names")
    if settings.limits and ":" in settings.space:
        say(f"building networks of {settings.space} to count what they cost, which may take a while")
    bars = _StageBars(partial(_show_recipe, settings))
    try:
        summary = run_search(settings, progress=bars)
    finally:
        bars.close()
    if not summary.proposed:
        raise ValueError(_all_that_were_found(summary, settings))
    if summary.failed == summary.proposed:
        why = next(iter(summary.reasons))
        raise ValueError(
            f"none of the {summary.proposed} architectures could be scored (e.g. {why}); "
            f"{summary.path} keeps every reason"
        )
    if summary.failed:
        say(_failures(summary))
    for name, (count, reason) in summary.beside_failed.items():
        say(f"{name} failed for {plural(count, 'architecture')} ({reason})")
    _say_confirmed(summary, settings)
    if summary.fallback:
        say(summary.fallback)
    say_unfused(summary.unfused)
    if summary.proposed < summary.asked:
        say(_all_that_were_found(summary, settings))
    if summary.duplicates:
        say(f"left out: {plural(summary.duplicates, 'repeated line')} of the list")
    if summary.beyond:
        say(f"left out: {plural(summary.beyond, 'architecture')} of the list beyond the limits")
    if summary.repeated:
        same = f"the same network as another: {plural(summary.repeated, 'architecture')}"
        say(f"{same}, not trained again")
    if summary.foreign:
        say(f"{summary.foreign}: left out")
    if summary.cached:
        scores = plural(summary.cached, "reference score")
        say(f"taken from the cache of an earlier run: {scores}")


def _all_that_were_found(summary: "SearchSummary", settings: "SearchSettings") -> str:
    source = "list" if settings.architectures else "space"
    found = plural(summary.proposed, "architecture") + " within the limits" * bool(settings.limits)
    if summary.all_known:
        return f"the {source} has {found} for these images: all were ranked"
    way_out = ": allow larger ones" * bool(settings.limits)
    return f"{found} {by_count(summary.proposed, 'was', 'were')} found by drawing, no more{way_out}"


def _failures(summary: "SearchSummary") -> str:
    """How many there are of the most frequent reasons."""
    often = [f"{count} by {reason}" for reason, count in list(summary.reasons.items())[:_REASONS]]
    others = [f"{len(summary.reasons) - _REASONS} other reasons"] if len(summary.reasons) > _REASONS else []
    failed = f"{summary.failed} of {summary.proposed} architectures failed: {'; '.join([*often, *others])}"
    return f"{failed} (ranking.csv has all)"


def _say_confirmed(summary: "SearchSummary", settings: "SearchSettings") -> None:
    """Say what is missing of the architectures to be confirmed; where none were asked for, how to ask."""
    from atom_nas.resuming import how_to_confirm

    if summary.confirm_failed:
        trainings = plural(summary.confirm_failed, "training")
        why = f"{trainings} of --confirm failed ({summary.confirm_reason}); --resume tries again"
        say(why)
    elif settings.confirm and summary.confirmed < settings.confirm:
        say(f"only {plural(summary.confirmed, 'architecture')} could be confirmed: no more are ranked")
    elif not summary.confirmed:
        command = how_to_confirm(settings.synthetic, settings.out, settings.space, settings.estimators)
        say(f"to train the best for good: {command}")
