"""Spearman of every ruler with accuracies of ConvNets trained on real images, with intervals, in Markdown.

    python docs/ranking/convnets.py FIRST=RANKING.csv:SCORE [NAME=RANKING.csv:SCORE ...]

A RANKING.csv is what `atom-nas report` writes, with a column `reference`; of several scores joined by + the
ranks are averaged. The first ruler is the one that the others are compared with, on the same architectures.
"""

import sys

import numpy as np
import pandas as pd
from table import among_best, difference, read, spearman_text


def reference_of(text: str) -> pd.Series:
    """The reference scores that a ruler's file holds."""
    file = text.partition("+")[0].rpartition(":")[0]
    known: pd.Series = pd.read_csv(file).set_index("architecture")["reference"].dropna()
    return known


def main(*given: str) -> None:
    """Print the table."""
    named = dict(each.partition("=")[::2] for each in given)
    rulers = {name: read(text) for name, text in named.items()}
    reference = reference_of(next(iter(named.values())))
    first = next(iter(rulers.values())).scores
    print(f"{len(reference)} ConvNets\n")
    print("| ruler | Spearman | best 20% | less the first's |")
    print("|---|---|---|---|")
    for name, ruler in rulers.items():
        own = ruler.scores.reindex(reference.index)
        less = "–" if ruler.scores is first else difference(name, own, first, reference)
        value = spearman_text(own, reference, name)
        print(f"| {name} | {value} | {among_best(own, reference)} | {less} |")


if __name__ == "__main__":
    np.seterr(all="raise")
    main(*sys.argv[1:])
