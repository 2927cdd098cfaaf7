"""What `atom-nas list` shows; everything is read from the registries."""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any

Sheet = tuple[list[str], list[list[str]]]


def _summaries(registry: dict[str, str]) -> Sheet:
    return ["name", "what it is"], [[name, summary] for name, summary in registry.items()]


def _datasets() -> Sheet:
    from distill.sources import DATASETS

    return _summaries({name: summary for name, (_, summary) in DATASETS.items()})


def _methods() -> Sheet:
    from distill.methods import METHODS

    return _summaries(METHODS)


def _spaces() -> Sheet:
    from search_spaces import SPACES

    return _summaries(SPACES)


def _strategies() -> Sheet:
    from atom_nas.strategies import STRATEGIES

    return _summaries(STRATEGIES)


def _estimators() -> Sheet:
    from atom_nas.estimators import ESTIMATORS

    return _summaries(ESTIMATORS)


def _networks() -> Sheet:
    from distill.networks import NETWORKS

    return _summaries(NETWORKS)


def _formats() -> Sheet:
    from distill.export import FORMATS

    return _summaries({name: summary for name, (_, summary) in FORMATS.items()})


def _settings() -> Sheet:
    """Every `--set` key with its type and default, by the command or method that takes it."""
    from distill import methods
    from distill.run import DistillSettings
    from distill.training import TrainingConfig

    rows = [
        ["distill, all methods", *_described(f)] for f in fields(DistillSettings) if f.name != "method_config"
    ]
    for name in methods.METHODS:
        rows += [[f"distill --method {name}", *_described(f)] for f in fields(methods.load(name).Config)]
    rows += [["evaluate and search (training)", *_described(f)] for f in fields(TrainingConfig)]
    return ["of", "setting", "type", "default"], rows


def _described(field: Field[Any]) -> list[str]:
    kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    default = "required" if field.default is MISSING else str(field.default)
    return [field.name, kind.removeprefix("typing."), default]


TOPICS: dict[str, Callable[[], Sheet]] = {
    "datasets": _datasets,
    "methods": _methods,
    "spaces": _spaces,
    "strategies": _strategies,
    "estimators": _estimators,
    "networks": _networks,
    "formats": _formats,
    "settings": _settings,
}
