"""Accuracies that cannot be told from guessing: those are in an order of luck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.chance import how_to_guess, with_luck
from reports.formatting import by_count, plural
from reports.ranking import reference_scores, ruler_scores
from reports.runs import Run
from reports.schema import EstimatorInfo
from reports.scores import describe_score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """How many of the known accuracies are no better than guessing, and the sentence that says so."""

    count: int
    known: int
    sentence: str

    @property
    def most(self) -> bool:
        """Whether it is half of them or more."""
        return 2 * self.count >= self.known


def reference_guesses(run: Run) -> Guesses | None:
    """Of the reference; None where it has no accuracy from training, or all are better."""
    if run.info.reference.kind != "real" or not describe_score(run.reference_score).fraction:
        return None
    settings = run.info.reference.settings or EstimatorInfo()
    return _guesses(
        run, "reference", reference_scores(run), settings.test_images, "test", "--reference-epochs"
    )


def proxy_guesses(run: Run) -> Guesses | None:
    """Of the proxy's validation accuracies; None where there are none, or all are better."""
    own = ruler_scores(run, "validation_accuracy")
    return _guesses(run, "proxy", own, run.info.proxy.validation_images, "validation", "--epochs")


def confirmed_guesses(run: Run) -> Guesses | None:
    """Of the networks trained to be kept; None where there are none, or all are better."""
    confirm, column = run.info.confirm, "score:test_accuracy"
    if confirm is None or column not in run.confirmed:
        return None
    images = confirm.settings.test_images
    return _guesses(run, "confirmed", run.confirmed[column], images, "test", "--confirm-epochs")


def _guesses(
    run: Run, what: str, accuracies: pd.Series, images: int | None, split: str, more: str
) -> Guesses | None:
    classes, known = run.info.dataset.classes, accuracies.dropna()
    if not classes or not images:
        return None
    largest = run.info.dataset.largest_class.get(split, 0.0)
    chance = max(1 / classes, largest)
    luck = with_luck(chance, run.info.dataset.balanced_images.get(split, images))
    low = int((known <= luck).sum())
    if not low:
        return None
    kind = f"balanced {what}" if run.info.dataset.balanced_images else what
    these = plural(len(known), f"{kind} accuracy", f"{kind} accuracies")
    guess = how_to_guess(largest, classes)
    if luck >= 1:
        few = (
            f"{plural(images, 'image')} {by_count(images, 'is', 'are')} too few to tell {these} from {guess}."
        )
        return Guesses(count=low, known=len(known), sentence=few)
    sentence = (
        f"{low} of {these} {by_count(low, 'is', 'are')} "
        f"no better than {guess} ({100 * chance:.3g}%, with luck on "
        f"{plural(images, 'image')} {100 * luck:.3g}%): "
        f"{by_count(low, 'its place', 'their order')} is luck. More epochs ({more}) may help."
    )
    return Guesses(count=low, known=len(known), sentence=sentence)
