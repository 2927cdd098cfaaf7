"""Spearman of every ruler with accuracies of ConvNets trained on real images, with intervals, in Markdown.

    python docs/ranking/convnets.py FIRST=RANKING.csv:SCORE [NAME=RANKING.csv:SCORE ...]

Accuracies are those of convnets-references.csv: of its column `reference`, and beside it the correlation with
its column `field`. A RANKING.csv is what `atom-nas report` writes; of several scores joined by + the
ranks are averaged. The first ruler is the one that the others are compared with, on the same architectures.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from table import among_best, difference, read, spearman_text

from reports.correlation import spearman

REFERENCES = Path(__file__).with_name("convnets-references.csv")


def main(*given: str) -> None:
    """Print the table."""
    rulers = {name: read(text) for name, _, text in (each.partition("=") for each in given)}
    first = next(iter(rulers.values())).scores
    known = pd.read_csv(REFERENCES).set_index("architecture").loc[first.dropna().index]
    reference = known["reference"]
    print(f"{len(reference)} ConvNets\n")
    print("| ruler | Spearman | best 20% | less the first's | by the field's recipe |")
    print("|---|---|---|---|---|")
    for name, ruler in rulers.items():
        own = ruler.scores.reindex(reference.index)
        less = "–" if ruler.scores is first else difference(name, own, first, reference)
        value, field = spearman_text(own, reference, name), spearman(own, known["field"]).value
        print(f"| {name} | {value} | {among_best(own, reference)} | {less} | {field:.2f} |")


if __name__ == "__main__":
    np.seterr(all="raise")
    main(*sys.argv[1:])
