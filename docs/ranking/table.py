"""Spearman of every ruler with published accuracies of NAS-Bench-201's cells, with intervals, as Markdown.

    python docs/ranking/table.py PUBLISHED.csv FIRST=RANKING.csv:SCORE [NAME=RANKING.csv:SCORE ...]

PUBLISHED.csv has columns architecture and cifar10_test_accuracy_200_epochs (and ..._12_epochs, a ruler too).
A RANKING.csv is what `atom-nas report` writes; of several joined by + the ranks are averaged, one
that ends in =3 counts three times. The first ruler
is the one that was chosen; the others are compared with it on the same cells. Intervals and p-values come
from a bootstrap that draws networks, each with all its cells.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports.bootstrap import generator, spearman_difference, spearman_interval
from reports.correlation import spearman
from reports.verdict import SIGNIFICANT_BELOW
from search_spaces.nasbench201 import CellSpace

PUBLISHED, SHORT = "cifar10_test_accuracy_200_epochs", "cifar10_test_accuracy_12_epochs"
LOWER_IS_BETTER = "loss"
BEST = 0.2


@dataclass(frozen=True)
class Ruler:
    """Oriented scores by architecture, and core-seconds of the trainings behind them, all together."""

    scores: pd.Series
    seconds: float | None


def read(text: str) -> Ruler:
    """RANKING.csv:SCORE, or several joined by +."""
    parts: list[Ruler] = []
    weights: list[float] = []
    seconds: dict[str, float] = {}
    for part in text.split("+"):
        file, _, weighted = part.rpartition(":")
        score, _, weight = weighted.partition("=")
        weights.append(float(weight or 1))
        table = pd.read_csv(file).set_index("architecture")
        sign = -1.0 if score.endswith(LOWER_IS_BETTER) else 1.0
        parts.append(Ruler(sign * table[score], None))
        if "loss" in score or score == "validation_accuracy":  # read off the same training
            seconds[file] = float(table["cpu_seconds"].sum())
    total = sum(seconds.values()) or None
    if len(parts) == 1:
        return Ruler(parts[0].scores, total)
    ranks = pd.concat([part.scores for part in parts], axis=1, join="inner").rank()
    return Ruler(pd.Series(np.average(ranks, axis=1, weights=weights), index=ranks.index), total)


def among_best(scores: pd.Series, reference: pd.Series, networks: Sequence[str] | None = None) -> str:
    """Spearman among the best fifth by the reference, of those scored."""
    best = reference >= reference.quantile(1 - BEST)
    same = None if networks is None else np.array(networks)[best]
    found = spearman(scores[best], reference[best])
    interval = spearman_interval(scores[best], reference[best], rng=generator("best"), networks=same)
    between = f" ({interval.low:.2f} to {interval.high:.2f})" if interval else ""
    return "–" if found.value is None else f"{found.value:.2f}{between}"


def networks_of(scores: pd.Series) -> list[str]:
    """Of each cell, one that is the same network, the same for all those."""
    space = CellSpace()
    return [str(space.representative(space.parse(str(cell)))) for cell in scores.index]


def by_network(scores: pd.Series) -> pd.Series:
    """The mean over cells that are the same network, which have scores of their own only by luck."""
    return scores.groupby(networks_of(scores)).mean()


def spearman_text(
    scores: pd.Series, reference: pd.Series, seed: str, networks: Sequence[str] | None = None
) -> str:
    """0.920 (0.86 to 0.95)."""
    found = spearman(scores, reference)
    interval = spearman_interval(scores, reference, rng=generator(seed), networks=networks)
    assert interval is not None
    return f"{found.value:.3f} ({interval.low:.2f} to {interval.high:.2f})"


def difference(
    name: str,
    scores: pd.Series,
    first: pd.Series,
    reference: pd.Series,
    networks: Sequence[str] | None = None,
) -> str:
    """-0.02 (-0.04 to +0.01), with a star where p < .05: less the first's, on the same architectures."""
    baseline, rng = first.reindex(scores.index), generator(f"{name} against")
    found = spearman_difference(scores, baseline, reference, rng=rng, networks=networks)
    if found.interval is None or found.value is None or found.p_value is None:
        return "–"
    mark = "*" if found.p_value < SIGNIFICANT_BELOW else ""
    return f"{found.value:+.2f} ({found.interval.low:+.2f} to {found.interval.high:+.2f}){mark}"


def row(name: str, ruler: Ruler, published: pd.Series, first: Ruler) -> str:
    """One line of the table."""
    both = ruler.scores.dropna().index.intersection(published.index)
    own, target = ruler.scores[both], published[both]
    networks = networks_of(own)
    once = spearman_text(by_network(own), by_network(target), f"{name} once")
    less = "–" if ruler is first else difference(name, own, first.scores, target, networks)
    # Other names of a network are not trained again.
    seconds = "–" if ruler.seconds is None else f"{ruler.seconds / len(by_network(ruler.scores)):.1f}"
    value = spearman_text(own, target, name, networks)
    return f"| {name} | {value} | {among_best(own, target, networks)} | {once} | {less} | {seconds} |"


def main(published_file: str, *given: str) -> None:
    """Print the table."""
    table = pd.read_csv(published_file).set_index("architecture")
    rulers = {name: read(text) for name, _, text in (each.partition("=") for each in given)}
    first = next(iter(rulers.values()))
    if SHORT in table:
        scored = first.scores.dropna().index
        rulers["12 epochs on all images (published)"] = Ruler(table[SHORT].reindex(scored), None)
    cells = first.scores.index
    print(f"{len(cells)} cells, {len(by_network(first.scores))} different networks\n")
    print("| ruler | Spearman | best 20% | each network once | less the first's | core-seconds a network |")
    print("|---|---|---|---|---|---|")
    for name, ruler in rulers.items():
        print(row(name, ruler, table[PUBLISHED], first))


if __name__ == "__main__":
    np.seterr(all="raise")
    main(*sys.argv[1:])
