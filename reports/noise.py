"""Runs that differ in the seed alone: how far their scores agree, and how far any ruler could get."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports import formatting
from reports.bootstrap import HOLDS_FROM, Interval, generator
from reports.correlation import Statistic
from reports.document import Noise, RepeatedProxy, Report
from reports.formatting import plural
from reports.ranking import reference_scores, ruler_scores
from reports.reliability import Ceiling, Reliability, ceiling, reliability
from reports.runs import Run
from reports.schema import RunInfo
from reports.scores import HALVING, describe_score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class _Member:
    """One of the runs side by side."""

    run: Run
    report: Report
    label: str


def measure_noise(runs: Sequence[Run], reports: Sequence[Report], labels: Sequence[str]) -> list[Noise]:
    """One entry a reference of which some run, or some ruler, was repeated with another seed.

    Runs repeat a reference if dataset, space (its code too, where that is the user's own) and the
    reference's settings are the same, and a ruler if also the synthetic set, the proxy's settings and the
    score that ranks are.
    """
    members = [
        _Member(run=run, report=report, label=label)
        for run, report, label in zip(runs, reports, labels, strict=True)
    ]
    keys = [_reference_key(member) for member in members]
    groups = _grouped(members, [(key, _code(member)) for key, member in zip(keys, members, strict=True)])
    _warn_of_other_code(_grouped(members, keys), groups)
    found = [_noise(group) for group in groups]
    return [each for each in found if each is not None]


def _noise(group: Sequence[_Member]) -> Noise | None:
    trained = group[0].run.info.reference.kind == "real"
    seeds = _one_a_seed(group) if trained else []
    references = _table(seeds, {each.label: reference_scores(each.run) for each in seeds})
    repeated = len(seeds) > 1
    proxies = [
        _repeated_proxy(same, references if repeated else None)
        for members in _grouped(group, [_proxy_key(member) for member in group])
        if len(same := _one_a_seed(members)) > 1
    ]
    if not repeated and not proxies:
        return None
    own = reliability(references, rng=generator("reference reliability")) if repeated else None
    highest = ceiling(references, rng=generator("reference ceiling")) if repeated else None
    noise = Noise(
        references=[each.label for each in seeds] if repeated else [],
        reference=own,
        ceiling=highest,
        proxies=proxies,
        sentences=[],
    )
    score = describe_score(group[0].run.reference_score).label
    return noise.model_copy(update={"sentences": list(_sentences(noise, score))})


def _repeated_proxy(same: Sequence[_Member], references: pd.DataFrame | None) -> RepeatedProxy:
    score = same[0].report.score
    scores = _table(same, {each.label: ruler_scores(each.run, score) for each in same})
    name = f"{score} of {same[0].label}"
    highest = None
    if references is not None:
        both = references.add_suffix(" reference").join(scores, how="inner")
        width = references.shape[1]
        highest = ceiling(
            both.iloc[:, :width].to_numpy(),
            both.iloc[:, width:].to_numpy(),
            rng=generator(f"ceiling: {name}"),
        )
    return RepeatedProxy(
        runs=[each.label for each in same],
        score=score,
        reliability=reliability(scores.to_numpy(), rng=generator(f"reliability: {name}")),
        ceiling=highest,
        ceiling_alone=ceiling(scores.to_numpy(), rng=generator(f"ceiling alone: {name}")),
        spearman=[each.report.default.spearman.value for each in same],
    )


def _table(members: Sequence[_Member], columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """A row a network, by the first of its names, a column a run; NaN where a run has no score of it.

    Of several names the mean is taken, which have one score where the network was trained here.
    """
    import pandas as pd

    table = pd.DataFrame(
        {each.label: columns[each.label].set_axis(each.run.trials["architecture"]) for each in members}
    )
    return table.groupby(_network_of([each.run.info.same for each in members]), sort=False).mean()


def _network_of(same: Iterable[Mapping[str, str]]) -> Callable[[str], str]:
    """One name of every network: runs that met its names in other orders call it by others."""
    other: dict[str, str] = {}

    def network(name: str) -> str:
        while name in other:
            name = other[name]
        return name

    for first_of in same:
        for name, first in first_of.items():
            if (own := network(name)) != (its := network(first)):
                other[own] = its
    return network


def _one_a_seed(members: Iterable[_Member]) -> list[_Member]:
    """The first run of each seed: another with the same seed trains the same networks again."""
    first: dict[int, _Member] = {}
    for each in members:
        if each.run.info.seed is not None:
            first.setdefault(each.run.info.seed, each)
    return list(first.values())


def _reference_key(member: _Member) -> Any:
    info = member.run.info
    return (
        # Without what earlier versions did not record.
        info.dataset.model_copy(update={"class_names": (), "smallest_class": {}}),
        info.space.name,
        info.space.options,
        info.space.digest,
        info.reference.kind,
        info.reference.table,
        info.reference.column or "score",
    ) + ((info.reference.settings, info.reference.score) if info.reference.kind == "real" else ())


def _code(member: _Member) -> Any:
    """The user's code that networks are built by, of all sessions of the run."""
    space = member.run.info.space
    return space.code, space.earlier_code


def _warn_of_other_code(alike: Sequence[Sequence[_Member]], groups: Sequence[Sequence[_Member]]) -> None:
    for same in alike:
        apart = [group[0].label for group in groups if group[0] in same]
        if len(apart) > 1:
            warnings.warn(
                f"{' and '.join(apart)} are no repeats of one another: the code of their space "
                f"{same[0].run.info.space.name} differs; to compare them, search with the same files",
                stacklevel=3,
            )


def _proxy_key(member: _Member) -> Any:
    info = member.run.info
    # Distilled twice, a set is another one though its settings are the same: its images tell.
    images = (info.synthetic.model_extra or {}).get("fingerprint", info.synthetic.directory)
    score, made_of = member.report.score, member.report.combinations
    parts = [sorted(each.told) for each in made_of if each.name == score]
    return (images, info.proxy, score, parts, _halving(info))


def _halving(info: RunInfo) -> dict[str, Any]:
    """How trainings were stopped early, if they were, whether architectures were sampled or listed."""
    if info.score != HALVING:
        return {}
    return {"by": info.strategy.halving, **info.strategy.how}


def _grouped(members: Sequence[_Member], keys: Sequence[Any]) -> list[list[_Member]]:
    """Members of equal keys together, in the order of their first; keys need not be hashable."""
    groups: list[tuple[Any, list[_Member]]] = []
    for member, key in zip(members, keys, strict=True):
        same = next((group for other, group in groups if other == key), None)
        if same is None:
            groups.append((key, [member]))
        else:
            same.append(member)
    return [group for _, group in groups]


def _sentences(noise: Noise, reference: str) -> Iterator[str]:
    if noise.reference is not None and noise.ceiling is not None:
        own, highest = noise.reference, noise.ceiling
        what = f"The reference, {reference} of {', '.join(noise.references)},"
        if own.single.n < HOLDS_FROM:
            yield _too_few(what, own.single.n)
        else:
            yield f"{what} {_itself(own)}"
            yield (
                f"No ruler, however good, can be expected to reach more than {_value(highest)} "
                "against one seed of it."
            )
    for proxy in noise.proxies:
        yield from _proxy_sentences(proxy)


def _proxy_sentences(proxy: RepeatedProxy) -> Iterator[str]:
    own = proxy.reliability
    what = f"The ruler, {describe_score(proxy.score).label} of {', '.join(proxy.runs)},"
    if own.single.n < HOLDS_FROM:
        yield _too_few(what, own.single.n)
        return
    yield f"{what} {_itself(own)}"
    if proxy.ceiling is None or proxy.ceiling.value.n < HOLDS_FROM:
        common = proxy.ceiling and plural(proxy.ceiling.value.n, "architecture")
        why = f"on only {common} in common" if common else "by no run"
        yield (
            "So it cannot be expected to reach more than "
            f"{_value(proxy.ceiling_alone)} against any reference, even one without noise; how much this "
            f"reference takes off is not known, it was trained with a second seed {why}."
        )
        return
    yield (
        f"So it cannot be expected to reach more than {_value(proxy.ceiling)} against one seed of the "
        f"reference; it reaches {_reached(proxy.spearman, proxy.ceiling.value.value)}."
    )


def _reached(found: Sequence[float | None], expected: float | None) -> str:
    """What each run reached; above what is expected of it only by chance."""
    text = " and ".join(formatting.decimals(value) for value in found)
    above = expected is not None and any(value is not None and value > expected for value in found)
    return f"{text}: above it by chance, both are known from few architectures" if above else text


def _itself(own: Reliability) -> str:
    return (
        f"agrees with itself at Spearman {_shown(own.single, own.single_interval)} when only the seed of its "
        f"trainings changes; the mean of {own.seeds} seeds would at {_shown(own.mean, own.mean_interval)}."
    )


def _too_few(what: str, n: int) -> str:
    return (
        f"{what} was trained with several seeds, but on {plural(n, 'architecture')} in common: its noise can "
        f"be told from {HOLDS_FROM} (search those of the first run again, by --architectures and its "
        "ranking.csv; --reference-samples would choose others with every seed)."
    )


def _value(highest: Ceiling) -> str:
    return _shown(highest.value, highest.interval)


def _shown(statistic: Statistic, interval: Interval | None) -> str:
    """0.87 (0.80 to 0.92, n = 48)."""
    if statistic.value is None:
        return f"an unknown value ({statistic.reason})"
    low, high = (interval.low, interval.high) if interval else (None, None)
    return formatting.estimate(statistic.value, low, high, statistic.n)
