"""What search strategies find among published cells of NAS-Bench-201, over what they spend, with many seeds.

    python docs/strategies/curves.py PUBLISHED.csv OUT.csv [--seeds 100] [--picture CURVES.png]

PUBLISHED.csv has columns architecture, cifar10_test_accuracy_200_epochs and ..._12_epochs. Strategies run
with their defaults and draw among its rows; an architecture's score is looked up, so that a search takes no
training. Costs are counted in trainings of 200 epochs, one of 12 epochs as 12/200. OUT.csv has a row for each
strategy, reward and number of architectures: median and quartiles over seeds of the published 200-epoch
accuracy of the best by the reward so far.
"""

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from atom_nas.strategies import HalvingConfig, run_strategy
from search_spaces import load
from search_spaces.among import Among

LONG, SHORT = "cifar10_test_accuracy_200_epochs", "cifar10_test_accuracy_12_epochs"
EPOCHS = {LONG: 200, SHORT: 12}
SHAPE = (3, 32, 32)
RANDOM, OTHERS = 1000, 200
HALVING = HalvingConfig(eta=17, rungs=2)  # 200 epochs, and 12 of them


@dataclass(frozen=True)
class Curve:
    """One search: what has been spent, and the accuracy of its pick so far, a value an architecture."""

    spent: np.ndarray
    found: np.ndarray


def searched(table: pd.DataFrame, seed: int, *, strategy: str, reward: str, samples: int) -> Curve:
    """A search by one column, judged by the accuracy after 200 epochs."""
    names = proposals(
        table, seed, strategy, samples, lambda batch: [float(v) for v in table.loc[batch, reward]]
    )
    rewards, accuracies = table.loc[names, reward].to_numpy(), table.loc[names, LONG].to_numpy()
    best = np.maximum.accumulate(rewards)
    place = np.array([int(np.argmax(rewards == value)) for value in best])
    each = EPOCHS[reward] / EPOCHS[LONG]
    return Curve(np.arange(1, len(names) + 1) * each, accuracies[place])


def halved(table: pd.DataFrame, seed: int, *, samples: int) -> Curve:
    """12 epochs for all, 200 for the best of them: the pick after each of the long ones.

    The 12 are another training than the beginning of the 200 in this benchmark, and so are paid in addition.
    """
    names = proposals(table, seed, "random", samples, lambda batch: [0.0] * len(batch))
    first = table.loc[names, SHORT].sort_values(ascending=False, kind="stable")
    accuracies = table.loc[first.index[: HALVING.promoted(len(names))], LONG].to_numpy()
    spent = len(names) * EPOCHS[SHORT] / EPOCHS[LONG] + np.arange(1, len(accuracies) + 1)
    return Curve(spent, np.maximum.accumulate(accuracies))


def proposals(
    table: pd.DataFrame,
    seed: int,
    strategy: str,
    samples: int,
    score: Callable[[list[str]], list[float]],
) -> list[str]:
    """What the strategy proposes among the table's rows, in order."""
    found: list[str] = []

    def evaluate(batch: object) -> list[float]:
        names = [str(each) for each in batch]  # type: ignore[attr-defined]
        found.extend(names)
        return score(names)

    space = Among(load("nasbench201"), table.index)
    run_strategy(strategy, space, SHAPE, samples=samples, seed=seed, evaluate=evaluate)
    return found


def searches() -> Iterator[tuple[str, str, Callable[[pd.DataFrame, int], Curve]]]:
    """Name of the strategy, of what it learns from, and the search."""
    for reward, label in ((LONG, "200 epochs"), (SHORT, "12 epochs")):
        for strategy in ("random", "evolution", "tpe"):
            samples = RANDOM if strategy == "random" else OTHERS
            yield strategy, label, partial(searched, strategy=strategy, reward=reward, samples=samples)
    yield "successive-halving", "12, then 200 epochs", partial(halved, samples=OTHERS)


def summary(strategy: str, reward: str, curves: list[Curve], target: float) -> pd.DataFrame:
    """Quartiles over seeds, and the share of seeds that are within half a point of `target`."""
    found = np.stack([curve.found for curve in curves])
    quartiles = np.quantile(found, [0.25, 0.5, 0.75], axis=0)
    return pd.DataFrame(
        {
            "strategy": strategy,
            "reward": reward,
            "trainings": curves[0].spent.round(2),
            **dict(zip(("lower_quartile", "median", "upper_quartile"), quartiles.round(3), strict=True)),
            "within_half_a_point": (found >= target - 0.5).mean(axis=0).round(3),
        }
    )


def draw(rows: pd.DataFrame, target: float, file: Path) -> None:
    """Medians over what was spent, with the quartiles shaded."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (strategy, reward), each in rows.groupby(["strategy", "reward"], sort=False):
        (line,) = axes.plot(each["trainings"], each["median"], label=f"{strategy} ({reward})", lw=1.5)
        axes.fill_between(
            each["trainings"],
            each["lower_quartile"],
            each["upper_quartile"],
            color=line.get_color(),
            alpha=0.12,
            lw=0,
        )
    axes.axhline(target - 0.5, color="grey", lw=0.8, ls=":", label="half a point below 1,000 random ones")
    axes.set(
        xscale="log",
        ylim=(91.5, 94.6),
        xlabel="cost, in trainings of 200 epochs",
        ylabel="accuracy of the pick (%)",
    )
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(file, dpi=110)


def main() -> None:
    """Run all searches, write the rows, and print what each strategy needs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("published", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    table = pd.read_csv(asked.published).set_index("architecture")
    curves = {}
    with ProcessPoolExecutor() as pool:
        for strategy, reward, search in searches():
            curves[strategy, reward] = list(pool.map(partial(search, table), range(asked.seeds)))
    target = float(np.median([curve.found[-1] for curve in curves["random", "200 epochs"]]))
    rows = pd.concat([summary(*key, each, target) for key, each in curves.items()])
    rows.to_csv(asked.out, index=False)
    print(f"best of {RANDOM} random ones, median of {asked.seeds} seeds: {target:.2f}")
    header = ("strategy", "learns from", "until within 0.5", "spends", "median at the end", "within 0.5 then")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for (strategy, reward), each in rows.groupby(["strategy", "reward"], sort=False):
        close = each[each["median"] >= target - 0.5]
        needed = f"{close['trainings'].iloc[0]:.1f}" if len(close) else "never"
        last = each.iloc[-1]
        numbers = f"{last['trainings']:.0f} | {last['median']:.2f} | {last['within_half_a_point']:.0%}"
        print(f"| `{strategy}` | {reward} | {needed} | {numbers} |")
    if asked.picture:
        draw(rows, target, asked.picture)


if __name__ == "__main__":
    main()
