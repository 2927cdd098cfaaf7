"""What workers do in a search: build an architecture, count what it costs, train and score it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from atom_nas.building import Builder, SlowAtFirst
from atom_nas.engines.base import Job
from atom_nas.estimators.base import Estimator
from atom_nas.estimators.measure import network_costs
from atom_nas.repeating import averaged, leg_of, seed_of
from distill.leg import Leg
from distill.seeding import own_randomness, seed_globally


@dataclass(frozen=True, kw_only=True)
class TrialJob(Job):
    """One network to score.

    Attributes:
        estimator: the name of one of the workload's estimators.
        architecture: its string form.
        seed: of everything random in the trial.
        leg: the part of the training that is asked for; None: all of it.
        scored_as: the architecture whose network is scored, if that is the same network by another name.
        known: the scores of that network, where they are known: costs alone are to be counted.
    """

    estimator: str
    architecture: str
    seed: int
    leg: Leg | None = None
    scored_as: str | None = None
    known: Mapping[str, float] | None = field(default=None, hash=False)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The `Work` of a search: build an architecture, count what it costs, train and score it.

    Attributes:
        build: makes a network of an architecture's string form.
        estimators: score it; their tensors go to shared memory. A job says which of them it is for.
        image_shape: (C, H, W), for counting operations.
        proxies: an estimator's name -> what makes the networks that it scores, where those are others:
            smaller ones of the same architectures. What is counted is always what `build` makes.
        repeats: an estimator's name -> how many networks it scores, where they are several: see
            `atom_nas.repeating`.
    """

    build: Builder
    estimators: tuple[Estimator, ...]
    image_shape: tuple[int, int, int]
    proxies: Mapping[str, Builder] = field(default_factory=dict)
    repeats: Mapping[str, int] = field(default_factory=dict)

    def warm_up(self, device: torch.device) -> None:
        """Use the operation counter once, on a GPU the libraries that networks need, and the builder's first
        use of its own."""
        for build in (self.build, *self.proxies.values()):
            if isinstance(build, SlowAtFirst):
                build.warm_up()
        network_costs(nn.Conv2d(self.image_shape[0], 1, 1), self.image_shape)
        if device.type != "cpu":
            channels, *size = self.image_shape
            layers = (
                nn.Conv2d(channels, 8, 1),
                nn.BatchNorm2d(8),
                nn.Flatten(),
                nn.Linear(8 * math.prod(size), 2),
            )
            nn.Sequential(*layers).to(device)(torch.zeros(2, channels, *size, device=device)).sum().backward()

    def scores(self, job: TrialJob, device: torch.device) -> dict[str, float]:
        """The scores of a freshly built network by the job's estimator, and the architecture's costs."""
        estimator = next(each for each in self.estimators if each.name == job.estimator)
        build = self.proxies.get(job.estimator, self.build)
        scored = job.scored_as or job.architecture
        with own_randomness(job.seed, device):
            if job.known is not None:
                return dict(job.known) | self._costs(self.build(job.architecture))
            own = build is self.build and scored == job.architecture
            costs = {} if own else self._costs(self.build(job.architecture))
            trainings = []
            for number in range(self.repeats.get(job.estimator, 1)):
                seed, leg = seed_of(job.seed, number), leg_of(job.leg, number)
                seed_globally(seed)
                network = build(scored)
                costs = costs or self._costs(network)
                trainings.append(estimator.score(network, seed=seed, device=device, leg=leg))
            return averaged(trainings) | costs

    def _costs(self, network: nn.Module) -> dict[str, float]:
        return network_costs(network, self.image_shape)
