"""Several runs side by side: one row each, and whether they differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from reports.bootstrap import Difference, generator, spearman_difference
from reports.document import ComparisonRow, Report
from reports.ranking import reference_scores, ruler_scores
from reports.runs import Run
from reports.schema import SpaceInfo, SyntheticInfo

if TYPE_CHECKING:
    import pandas as pd

SAME_REFERENCE = 1e-6
"""Reference scores of two runs that differ by more, relatively, come from different trainings."""


def compare_runs(
    runs: Sequence[Run], reports: Sequence[Report], labels: Sequence[str]
) -> list[ComparisonRow]:
    """One row a run, in the given order; differences are to the first with a correlation, the baseline."""
    usable = [
        position for position, report in enumerate(reports) if report.default.spearman.value is not None
    ]
    baseline = usable[0] if usable else None
    rows = []
    for position, (run, report, label) in enumerate(zip(runs, reports, labels, strict=True)):
        difference = None
        if baseline is not None and position != baseline:
            first = _rulers(runs[baseline], reports[baseline].score)
            difference = _difference(_rulers(run, report.score), first)
        rows.append(_row(report, label, difference, baseline=position == baseline))
    return rows


def describe_tasks(rows: Sequence[ComparisonRow]) -> str | None:
    """A warning where the runs are not all on one dataset and of one space."""
    named = {
        "on different datasets": dict.fromkeys(row.dataset for row in rows),
        "of different spaces": dict.fromkeys(row.space for row in rows),
    }
    different = [f"{what} ({', '.join(names)})" for what, names in named.items() if len(names) > 1]
    if not different:
        return None
    return (
        f"These runs are {' and '.join(different)}: their correlations are with different "
        "rankings, and a higher one need not be the better ruler."
    )


def _row(report: Report, label: str, difference: Difference | None, *, baseline: bool) -> ComparisonRow:
    return ComparisonRow(
        name=label,
        dataset=report.run.dataset.name,
        space=_space(report.run.space),
        baseline=baseline,
        method=_method(report.run.synthetic),
        images=report.run.synthetic.images,
        score=report.score,
        spearman=report.default.spearman,
        spearman_top_20=report.default.spearman_top_20,
        pick=report.default.pick,
        savings=report.savings,
        difference=difference,
    )


def _method(synthetic: SyntheticInfo) -> str:
    return f"{synthetic.method}, soft labels" if synthetic.soft_labels else synthetic.method


def _space(space: SpaceInfo) -> str:
    """convnet, or convnet with width [32, 64]."""
    options = " and ".join(f"{name} {value}" for name, value in space.options.items())
    return f"{space.name} with {options}" if options else space.name


def _rulers(run: Run, score: str) -> pd.DataFrame:
    """Columns score and reference, oriented, and network, by architecture."""
    import pandas as pd

    columns = {
        "score": ruler_scores(run, score),
        "reference": reference_scores(run),
        "network": run.networks,
    }
    return pd.DataFrame(columns).set_index(run.trials["architecture"])


def _difference(run: pd.DataFrame, first: pd.DataFrame) -> Difference:
    if run["reference"].isna().all():
        return Difference(value=None, n=0, interval=None, reason="no reference")
    both = run.add_suffix("_run").join(first.add_suffix("_first"), how="inner").dropna()
    if both.empty:
        return Difference(value=None, n=0, interval=None, reason="no architectures in common")
    if not np.allclose(both["reference_run"], both["reference_first"], rtol=SAME_REFERENCE, atol=0.0):
        return Difference(value=None, n=len(both), interval=None, reason="the runs have different references")
    return spearman_difference(
        both["score_run"],
        both["score_first"],
        both["reference_first"],
        rng=generator("difference"),
        networks=both["network_first"],
    )
