"""Several trainings of one architecture that differ in the seed alone, as one trial."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from distill.leg import Leg, glance
from distill.seeding import derive_seed
from reports.scores import repeat_of


def seed_of(seed: int, number: int) -> int:
    """The seed of a trial's training by its 0-based number; the first has that of the trial."""
    return derive_seed(seed, "repeat", number) if number else seed


def leg_of(leg: Leg | None, number: int) -> Leg | None:
    """The part of a training by its 0-based number, with a checkpoint of its own."""
    if leg is None or not number:
        return leg
    name = f"{leg.checkpoint.stem}-{number}{leg.checkpoint.suffix}"
    return replace(leg, checkpoint=leg.checkpoint.with_name(name))


def spent_on(leg: Leg, repeats: int) -> tuple[float, float]:
    """Wall and CPU seconds of the trainings whose checkpoints have all that the leg asks for."""
    kept = [glance(own.checkpoint) for n in range(repeats) if (own := leg_of(leg, n))]
    whole = [each for each in kept if each.epochs >= leg.until]
    return sum(each.seconds for each in whole), sum(each.cpu_seconds for each in whole)


def averaged(trainings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over the trainings and, where there are several, each one's own beside it."""
    if len(trainings) == 1:
        return dict(trainings[0])
    means = {name: sum(each[name] for each in trainings) / len(trainings) for name in trainings[0]}
    own = {
        repeat_of(name, number): value
        for number, each in enumerate(trainings, start=1)
        for name, value in each.items()
    }
    return means | own
