"""How long a GPU was busy with each trial.

Workers that share a card take turns, so that a trial's wall seconds have the others' turns in them: with four
workers those of a stage add up to four times what the stage took. What counts as a trial's own is its share
of that, by which all trials of a stage together take as long as the stage did; as with distillation, which
has the card to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reports.runs import Run
from reports.scores import EARLY_STOPPING

if TYPE_CHECKING:
    import pandas as pd

CARD_SECONDS = "card_seconds"
"""A column of a run's trials, in place of `seconds`, and likewise `card_seconds:NAME`."""


def with_card_seconds(run: Run) -> Run:
    """The run with `CARD_SECONDS` beside all its seconds, which they are for what a CPU has done."""
    (search, beside), usual = _ends(run), share_of_card(run)
    trained = _share(run.trials, beside, run.info.beside_wall_seconds, otherwise=usual)
    return replace(
        run,
        trials=_with_shares(_with_shares(run.trials, search, usual), beside, trained),
        reference=_shared(run.reference, run.info.reference_wall_seconds, usual),
        confirmed=_shared(run.confirmed, run.info.confirm_wall_seconds, usual),
    )


def share_of_card(run: Run) -> float:
    """How much of a proxy trial's seconds counts as its own; 1 where one worker has the card, or none."""
    return _share(run.trials, _ends(run)[0], run.info.search_wall_seconds, otherwise=1.0)


def _ends(run: Run) -> tuple[list[str], list[str]]:
    """How the columns of seconds end of what is timed as the search, and of what trains beside it."""
    names = list(run.info.estimators)
    search = ["", *(f":{name}" for name in names if name != EARLY_STOPPING)]
    return search, [f":{name}" for name in names if name == EARLY_STOPPING]


def _shared(frame: pd.DataFrame, wall: float | None, usual: float) -> pd.DataFrame:
    if "seconds" not in frame:  # a published table
        return frame
    return _with_shares(frame, [""], _share(frame, [""], wall, otherwise=usual))


def _with_shares(frame: pd.DataFrame, ends: Sequence[str], share: float) -> pd.DataFrame:
    each = _on_card(frame).map({True: share, False: 1.0})
    own = {f"{CARD_SECONDS}{end}": each * frame[f"seconds{end}"] for end in ends if f"seconds{end}" in frame}
    return frame.assign(**own)


def _share(frame: pd.DataFrame, ends: Sequence[str], wall: float | None, *, otherwise: float) -> float:
    """A stage's seconds over those of its trials; trials taken from the cache were in another stage.

    Args:
        ends: of the columns of the stage's seconds.
        wall: of the stage.
        otherwise: where the stage had no trials of its own.
    """
    new = frame[_on_card(frame) & ~frame["cached"].astype(bool)]
    taken = sum(float(new[f"seconds{end}"].sum()) for end in ends if f"seconds{end}" in new)
    return min(1.0, wall / taken) if wall and taken > 0 else otherwise


def _on_card(frame: pd.DataFrame) -> pd.Series:
    return ~frame["device"].isin(["", "cpu"])
