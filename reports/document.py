"""report.json: everything the pages show, as numbers. What is unknown is null, with a reason beside it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from reports.bootstrap import Difference, Interval
from reports.combinations import Combination
from reports.correlation import Statistic
from reports.reliability import Ceiling, Reliability
from reports.rulers import RulerComparison, RulerDifference
from reports.savings import Savings
from reports.schema import DatasetInfo, EstimatorInfo, ReferenceInfo, SpaceInfo, StrategyInfo, SyntheticInfo
from reports.selection import Kept, Pick, RegretCurve
from reports.verdict import Verdict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpearmanReport(_Part):
    """Spearman's rho with its percentile bootstrap interval and two-sided p-value, over n pairs.

    networks: how many different ones the n are, where some are one network by several names; null where all
    differ. Interval and p-value count networks.
    """

    value: float | None
    low: float | None
    high: float | None
    confidence: float
    p_value: float | None
    p_method: str | None
    n: int
    reason: str | None
    networks: int | None = None


class ScoreReport(_Part):
    """How one score, used as the ruler, agrees with the reference.

    recorded: successful trials that hold the score. tied: how many of the n compared share their value with
    another. kept: precision@k and recall@k. pick: regret; null with fewer than 3 pairs. seconds_each: mean
    compute-seconds a network to get the score; 0 for what is counted without training. weighted_tau:
    agreement that counts most at the top, see weighted_tau.py. difference: to the score that ranks, null for
    that one itself. combination: not recorded but made of other scores, see `Report.combinations`.
    """

    name: str
    label: str
    higher_is_better: bool
    recorded: int
    tied: int
    spearman: SpearmanReport
    kendall_tau_b: Statistic
    pearson: Statistic
    spearman_top_20: Statistic
    spearman_top_5: Statistic
    kept: list[Kept]
    pick: Pick | None
    seconds_each: float | None = None
    weighted_tau: Statistic | None = None
    weighted_tau_interval: Interval | None = None
    difference: RulerDifference | None = None
    combination: bool = False


class Counts(_Part):
    """Architectures: proposed = ranked + failed + unscored; pairs of the ranked also have a reference score.

    tied_scores, tied_references: how many of the ranked (of the pairs) share their value with another.
    failed_references: how many of those trained for the reference failed, whether ranked or not.
    """

    proposed: int
    ranked: int
    failed: int
    unscored: int
    pairs: int
    without_reference: int
    tied_scores: int
    tied_references: int
    failed_references: int


class StageSeconds(_Part):
    """Seconds of each stage: wall seconds with all workers together, or CPU seconds summed over trials."""

    distill: float | None
    search: float | None
    reference: float | None
    confirm: float | None = None


class RulerCosts(_Part):
    """What scoring by some estimators took: their names, how many trials, and compute and CPU seconds."""

    names: list[str]
    trials: int
    seconds: float
    cpu_seconds: float


class ConfirmedRow(_Part):
    """One architecture trained on the real images.

    rank: among them, by validation accuracy; null if the training failed. proxy_rank: in the run's ranking.
    lowest_class: the class of the lowest accuracy on its test images, and that; null where it is not known.
    weights: the file, below the run's folder; null if it is not there. load: the Python that loads it.
    """

    rank: int | None
    proxy_rank: int | None
    architecture: str
    validation_accuracy: float | None
    test_accuracy: float | None
    lowest_class: tuple[str, float] | None
    seconds: float
    cpu_seconds: float
    weights: str | None
    load: str | None
    reason: str | None


class Confirmed(_Part):
    """The architectures trained on the real images, the best first; asked: how many were to be.

    seconds: compute-seconds, counted apart from those of the ranking and of the reference.
    """

    asked: int | None
    settings: EstimatorInfo
    rows: list[ConfirmedRow]
    seconds: float

    @property
    def load(self) -> str | None:
        """The line of Python that loads the best of those whose weights are there."""
        return next((row.load for row in self.rows if row.load), None)


class RunSummary(_Part):
    """What was run, from run.json."""

    name: str
    command: str
    seed: int | None
    complete: bool
    device: str
    workers: int | None
    dataset: DatasetInfo
    synthetic: SyntheticInfo
    space: SpaceInfo
    strategy: StrategyInfo
    proxy: EstimatorInfo
    reference: ReferenceInfo
    environment: dict[str, Any]


class ComparisonRow(_Part):
    """One run beside others.

    space: that of its architectures, with its options. difference: its Spearman minus the baseline's, on the
    same architectures; the baseline is the first run that has one.
    """

    name: str
    dataset: str
    space: str
    baseline: bool
    method: str
    images: int | None
    score: str
    spearman: SpearmanReport
    spearman_top_20: Statistic
    pick: Pick | None
    savings: Savings
    difference: Difference | None


class RepeatedProxy(_Part):
    """Runs that score with the same ruler and settings but other seeds.

    ceiling: with one seed of the reference; null where the reference was not repeated. ceiling_alone: with a
    reference that has no noise. spearman: what each run reaches.
    """

    runs: list[str]
    score: str
    reliability: Reliability
    ceiling: Ceiling | None
    ceiling_alone: Ceiling
    spearman: list[float | None]


class Noise(_Part):
    """What the seeds of several runs say of how far any correlation could go.

    references: runs, one a seed, of one reference with the same settings; ceiling: of a ruler without noise.
    All empty or null where the reference was not trained with two seeds. sentences: the same in words.
    """

    references: list[str]
    reference: Reliability | None
    ceiling: Ceiling | None
    proxies: list[RepeatedProxy]
    sentences: list[str]


class SizeRow(_Part):
    """An architecture that is the best of its size, see sizes.py; score and reference as recorded.

    fronts: by what of "parameters" and "flops" none as small scores better.
    """

    rank: int
    architecture: str
    score: float
    reference: float | None
    parameters: float | None
    flops: float | None
    fronts: list[str]


class Report(_Part):
    """One run's report; `scores` lists the default score first, then the others, best Spearman first.

    rulers: the other scores against it. regret: of the first k of the ranking. comparison, noise: of several
    runs side by side, in the first one's report; noise is null where no two differ in the seed alone.
    combinations: the scores that are made of others, also those that could not be. repeats: how far an
    architecture's trainings agree in the score that ranks; null where each trained once. networks: agreement
    with each network counted once, by the means over its names; null where all are different. cautions: notes
    that bear on the verdict. ranked_by: the estimators whose seconds are the search's, as to rank takes them
    all; others: what those beside them took, null where there are none. sizes: the best for their size.
    compute_unit: what compute-seconds are: "core-seconds", or "compute" where a GPU took part.
    """

    format_version: Literal[1] = 1
    atom_nas_version: str
    run: RunSummary
    score: str
    reference_score: str | None
    verdict: Verdict
    counts: Counts
    scores: list[ScoreReport]
    savings: Savings
    wall_seconds: StageSeconds
    cpu_seconds: StageSeconds
    notes: list[str]
    confirmed: Confirmed | None = None
    comparison: list[ComparisonRow] | None = None
    rulers: RulerComparison | None = None
    regret: RegretCurve | None = None
    noise: list[Noise] | None = None
    repeats: Reliability | None = None
    networks: SpearmanReport | None = None
    combinations: list[Combination] = []
    cautions: list[str] = []
    ranked_by: list[str] = ["proxy"]
    others: RulerCosts | None = None
    sizes: list[SizeRow] = []
    compute_unit: str = "core-seconds"

    @property
    def default(self) -> ScoreReport:
        """The report of the score the ranking is made by."""
        return self.scores[0]
