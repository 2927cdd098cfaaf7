"""The ranking as one table: every proposed architecture, best first, failed ones last."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.runs import Run
from reports.scores import (
    FITTED,
    LEADING_COLUMNS,
    MEAN_OF_RANKS,
    MEASUREMENTS,
    SCORES,
    TRAILING_COLUMNS,
    describe_score,
)

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMNS = ("architecture", "status", "reason", "reference_reason")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to spreadsheets, which may run commands or send data away."""


def choose_score(run: Run, score: str | None) -> str:
    """The score to rank by: the one asked for, or the run's own default.

    Raises:
        ValueError: if a score is asked for that no trial of the run recorded.
    """
    if score is None:
        return run.info.score
    allowed = [name for name in ruler_names(run) if name != FITTED]
    if score == FITTED:
        raise ValueError(
            f"{FITTED} is known only where the reference is, and ranks nothing: choose from "
            f"{', '.join(allowed)}"
        )
    if score not in allowed:
        raise no_score(run, score, allowed)
    return score


def no_score(run: Run, score: str, allowed: Sequence[str]) -> ValueError:
    """That a run has no such score, and how it may be had."""
    near = difflib.get_close_matches(score, allowed, n=3, cutoff=0.5)
    near += [name for name in allowed if name not in near and score and score in name]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    if score == MEAN_OF_RANKS:
        hint = "it is the mean of several other scores' ranks, and here none are combined (--combine A,B); "
    elif score in SCORES:
        add = f"search ... --resume --estimators {score}"
        hint = f"it was not recorded ('atom-nas {add}' adds what is training-free); "
    return ValueError(
        f"run {run.name} has no score {score!r}: {hint}choose from {', '.join(allowed) or 'none'}"
    )


def ruler_names(run: Run, *first: str) -> list[str]:
    """Whatever could rank: those asked for, the others recorded, then what trials were measured for."""
    measured = [name for name in MEASUREMENTS if run.trials[name].notna().any()]
    return list(dict.fromkeys([*first, *run.score_names, *measured]))


def ruler_scores(run: Run, name: str) -> pd.Series:
    """A ruler's value of every proxy trial, turned so that higher is better; NaN where failed or unknown."""
    import pandas as pd

    column = name if name in MEASUREMENTS else f"score:{name}"
    if column not in run.trials:
        return pd.Series(float("nan"), index=run.trials.index, dtype="float64")
    known = run.trials["status"] == "done"
    if name in MEASUREMENTS:  # of a name whose network was trained by another nothing was measured
        known &= ~run.networks.duplicated()
    return describe_score(name).sign * run.trials[column].where(known)


def reference_scores(run: Run) -> pd.Series:
    """The reference score of every proxy trial, oriented likewise; NaN where there is none."""
    import pandas as pd

    column = f"score:{run.reference_score}"
    if column not in run.reference:
        return pd.Series(float("nan"), index=run.trials.index, dtype="float64")
    done = run.reference[run.reference["status"] == "done"].set_index("architecture")[column]
    return describe_score(run.reference_score).sign * run.trials["architecture"].map(done).astype("float64")


def failed_references(run: Run) -> pd.DataFrame:
    """The trials of the reference that failed, in the order proposed; none where it was not trained here."""
    return run.reference[run.reference["status"] != "done"]


def ranking_table(run: Run, score: str) -> pd.DataFrame:
    """Columns rank, architecture, score, reference, every score, seconds (wall), cpu_seconds, peak_memory_mb,
    status, reason, reference_reason.

    `status` and `reason` are those of the proxy trial; `reference_reason` says why the reference's failed.

    `score` and `reference` are oriented so that higher is better (a loss appears negated); the columns named
    after scores hold them as recorded. Equal scores share the lowest rank they take (1, 2, 2, 4); failed
    architectures, and any without the score, come last with an empty rank, in the order they were proposed.
    """
    import pandas as pd

    names = sorted(run.score_names, key=_known_first)
    recorded = {name: run.trials[f"score:{name}"] for name in names}
    scores = ruler_scores(run, score)
    rank = scores.rank(method="min", ascending=False).astype("Int64")
    leading = (rank, run.trials["architecture"], scores, reference_scores(run))
    table = pd.DataFrame(
        {
            **dict(zip(LEADING_COLUMNS, leading, strict=True)),
            **recorded,
            **{column: run.trials[column] for column in TRAILING_COLUMNS},
            "reference_reason": _reference_reasons(run),
        }
    )
    return table.sort_values("rank", kind="stable", na_position="last", ignore_index=True)


def ranking_csv(table: pd.DataFrame) -> str:
    """The text of ranking.csv: an apostrophe goes before text that a spreadsheet would read as a formula.

    That holds for the names of scores in the header too; numbers stay numbers.
    """
    safe = table.copy()
    for column in TEXT_COLUMNS:
        safe[column] = safe[column].map(_inert, na_action="ignore")
    text: str = safe.rename(columns=_inert).to_csv(index=False, lineterminator="\n")
    return text


def _inert(text: str) -> str:
    """The text as a cell; a carriage return, which would end the row unquoted, becomes a newline."""
    marked = f"'{text}" if text.startswith(FORMULA_STARTS) else text
    return re.sub("\r\n?", "\n", marked)


def _reference_reasons(run: Run) -> pd.Series:
    failed = failed_references(run).set_index("architecture")["reason"].fillna("no reason recorded")
    return run.trials["architecture"].map(failed.astype("object"))


def _known_first(name: str) -> tuple[int, str]:
    known = list(SCORES)
    return (known.index(name) if name in known else len(known), name)
