"""The scores a trial can carry: what they are called and which way is better."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Score:
    """A score's label for people, and whether a larger value means a better architecture."""

    label: str
    higher_is_better: bool = True
    fraction: bool = False

    @property
    def sign(self) -> int:
        """What to multiply by so that higher is better: 1 or -1."""
        return 1 if self.higher_is_better else -1


HALVING = "halving_place"
"""By which searches rank that stop trainings early."""
SCORES: dict[str, Score] = {
    "validation_accuracy": Score("validation accuracy", fraction=True),
    "validation_loss": Score("validation loss", higher_is_better=False),
    "final_training_loss": Score("final training loss", higher_is_better=False),
    "summed_training_loss": Score("summed training loss", higher_is_better=False),
    "tail_training_loss": Score("training loss, last tenth", higher_is_better=False),
    "ema_training_loss": Score("training loss, weighted to the end", higher_is_better=False),
    "training_loss_decay": Score("training loss decay"),
    HALVING: Score("place by rung"),
    "trained_epochs": Score("epochs trained"),
    "parameters": Score("parameters"),
    "flops": Score("FLOPs"),
    "synflow": Score("SynFlow"),
    "naswot": Score("NASWOT"),
    "jacov": Score("Jacobian covariance"),
    "snip": Score("SNIP"),
    "grad_norm": Score("gradient norm"),
    "grasp": Score("GraSP"),
    "fisher": Score("Fisher"),
    "zico": Score("ZiCo"),
    "mean_of_ranks": Score("combination: mean of ranks"),
    "fitted_combination": Score("combination: fitted, out of fold"),
    "test_accuracy": Score("test accuracy", fraction=True),
    "seconds": Score("seconds of the proxy trial"),
    "peak_memory_mb": Score("peak memory of the proxy trial"),
}
SEES_NO_IMAGE = ("synflow",)
"""Training-free scores that ask of images only their shape."""
COUNTED = ("parameters", "flops")
"""What is counted on the untrained network, at next to no cost."""
MEASUREMENTS = ("seconds", "peak_memory_mb")
"""What every trial is measured for besides its scores: rulers too, a slow or large network as a good one."""


MEAN_OF_RANKS, FITTED = "mean_of_ranks", "fitted_combination"
"""Made of recorded scores, see `reports.combinations`."""
COMBINED = ("final_training_loss", "validation_accuracy", "synflow", "naswot")
"""What a mean of ranks is made of where nobody says, one score a kind of evidence: how fast a network learns,
what it has learnt, and two that look at it untrained. Only scores whose better side is the same in every
space: what is counted is not among them."""
EARLY_STOPPING = "early-stopping"
"""The estimator that trains as the proxy does, on real images."""


def score_of(estimator: str, score: str) -> str:
    """What a report calls a score of another estimator than the proxy: NAME, or NAME:SCORE of several."""
    return estimator if score == estimator else f"{estimator}:{score}"


def describe_score(name: str) -> Score:
    """The known score of that name; any other is taken as higher-is-better and labelled with its name.

    Of a name as `score_of` makes it, what the part behind the colon is.
    """
    if name in SCORES:
        return SCORES[name]
    estimator, _, score = name.partition(":")
    if not score:
        return Score(name.replace("_", " "))
    known = describe_score(score)
    return replace(known, label=f"{estimator.replace('_', ' ')}: {known.label}")


_REPEAT = "#"


def repeat_of(score: str, number: int) -> str:
    """What a trial that trained several times calls the score of one training, by its 1-based number."""
    return f"{score}{_REPEAT}{number}"


def mean_of(score: str) -> str:
    """The score that one as `repeat_of` makes it is a part of; any other is its own."""
    return score.partition(_REPEAT)[0]


LEADING_COLUMNS = ("rank", "architecture", "score", "reference")
TRAILING_COLUMNS = ("seconds", "cpu_seconds", "peak_memory_mb", "status", "reason")
RANKING_COLUMNS = (*LEADING_COLUMNS, *TRAILING_COLUMNS, "reference_reason")
"""The columns of ranking.csv that every run has: no score may be named like one, it would take its place."""
