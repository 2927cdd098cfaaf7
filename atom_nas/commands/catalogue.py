"""What `atom-nas list` shows; everything is read from the registries and from what their classes say."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

_PLAIN_TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text", NoneType: "null"}


@dataclass(frozen=True)
class Sheet:
    """One table: its title, the names of its columns, its rows."""

    title: str
    header: list[str]
    rows: list[list[str]]


def _summaries(title: str, registry: Mapping[str, str]) -> list[Sheet]:
    return [Sheet(title, ["name", "what it is"], [[name, summary] for name, summary in registry.items()])]


def _datasets() -> list[Sheet]:
    from distill.sources import DATASETS

    return _summaries("datasets", {name: summary for name, (_, summary) in DATASETS.items()})


def _methods() -> list[Sheet]:
    from distill.methods import METHODS

    return _summaries("methods", METHODS)


def _presets() -> list[Sheet]:
    from distill import presets

    return _summaries("presets", {name: presets.summary(name) for name in presets.names()})


def _spaces() -> list[Sheet]:
    from search_spaces import SPACES
    from search_spaces.hub import HUB, LEFT_OUT, PREFIX

    own = {"FILE.py:CLASS, module:CLASS": "a ModelSpace of NNI's of yours; see docs/guide/extending.md"}
    rest = {f"(NNI's {name})": f"left out: {why}" for name, why in LEFT_OUT.items()}
    hub = {f"{PREFIX}{name}": f"of NNI's hub: {each.summary}" for name, each in HUB.items()}
    return _summaries("spaces", {**SPACES, **hub, **own, **rest})


def _recipes() -> list[Sheet]:
    import yaml

    from atom_nas import recipes

    rows = []
    for name in recipes.names():
        shown = yaml.safe_dump(recipes.settings(name), sort_keys=False, default_flow_style=None)
        rows.append([name, recipes.summary(name), shown.strip()])
    title = "recipes (of a space, unless search is told otherwise)"
    return [Sheet(title, ["space", "what it is", "settings"], rows)]


def _strategies() -> list[Sheet]:
    from atom_nas.strategies import STRATEGIES

    return _summaries("strategies", {name: summary for name, (_, summary) in STRATEGIES.items()})


def _estimators() -> list[Sheet]:
    from atom_nas.estimators import ESTIMATORS

    own = {
        "FILE.py:FUNCTION, module:FUNCTION": "training-free: a function of yours; see docs/guide/extending.md"
    }
    return _summaries("estimators", {**ESTIMATORS, **own})


def _networks() -> list[Sheet]:
    from distill.networks import NETWORKS

    own = {
        "FILE.py:FUNCTION, module:FUNCTION": "for evaluate: a function of yours; see docs/guide/extending.md"
    }
    return _summaries("networks", {**NETWORKS, **own})


def _formats() -> list[Sheet]:
    from distill.export import FORMATS

    return _summaries("formats", {name: summary for name, (_, summary) in FORMATS.items()})


def _settings() -> list[Sheet]:
    """Every key that the `--set` options take, by the command or part that takes it."""
    from atom_nas import recipes
    from atom_nas.estimators import confirm, real
    from atom_nas.estimators._untrained import UntrainedConfig
    from atom_nas.strategies import STRATEGIES
    from distill import methods
    from distill.labelling import teacher_training
    from distill.settings import DistillSettings
    from distill.training import TrainingConfig
    from search_spaces import SPACES
    from search_spaces.hub import HUB, PREFIX

    recipe = recipes.settings(recipes.OTHERS)
    shared, epochs = recipe["training"], recipe["epochs"]
    sheets = [
        _fields_of("distill (--set, or in a --config file)", DistillSettings),
        *_together(
            "distill --method {} (--set)",
            {name: _fields_of(name, methods.load(name).Config) for name in methods.METHODS},
        ),
        _fields_of(
            "evaluate (--set); label (--set); search (--set for the proxy, --set-reference, --set-confirm)",
            TrainingConfig,
            epochs=f"{TrainingConfig.epochs}; label: {teacher_training().epochs}; search: {epochs}, "
            f"its reference {real.EPOCHS}, --confirm {confirm.EPOCHS}",
            **{name: f"{getattr(TrainingConfig, name)}; search: {value}" for name, value in shared.items()},
        ),
        _fields_of("search --estimators of training-free ones (--set-training-free)", UntrainedConfig),
        *_together(
            "search --strategy {} (--set-strategy)",
            {name: _fields_of(name, config) for name, (config, _) in STRATEGIES.items()},
        ),
        *(_space_options(name) for name in SPACES),
        *_together(
            "search --space {} (--set-space)", {f"{PREFIX}{name}": _hub_options(name) for name in HUB}
        ),
    ]
    return [sheet for sheet in sheets if sheet.rows]


_SETTINGS_HEADER = ["setting", "takes", "default", "meaning"]


def _fields_of(title: str, config: type[Any], **defaults: str) -> Sheet:
    """The fields of a dataclass, described by its docstring and those of the classes it extends.

    `defaults` are those that commands have of their own.
    """
    meanings = _attributes(config)
    types = get_type_hints(config)
    rows = []
    for each in fields(config):
        if types[each.name] is Any:  # a part with settings, and a table, of its own
            continue
        default = "required" if each.default is MISSING else _shown(each.default)
        default = defaults.get(each.name, default)
        rows.append([each.name, _takes(types[each.name]), default, meanings.get(each.name, "")])
    return Sheet(title, _SETTINGS_HEADER, rows)


def _together(title: str, sheets: Mapping[str, Sheet]) -> list[Sheet]:
    """What several have alike in one table, with their names in its title."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for name, sheet in sheets.items():
        for row in sheet.rows:
            owners.setdefault(tuple(row), []).append(name)
    shared: dict[tuple[str, ...], list[list[str]]] = {}
    for cells, names in owners.items():
        shared.setdefault(tuple(names), []).append(list(cells))
    return [Sheet(title.format(", ".join(names)), _SETTINGS_HEADER, rows) for names, rows in shared.items()]


def _space_options(name: str) -> Sheet:
    import search_spaces

    space = search_spaces.load(name)
    options = inspect.signature(type(space)).parameters
    rows = [
        [choice, f"list of {', '.join(map(str, values))}", "all", "the values to choose from"]
        for choice, values in space.choices.items()
        if choice in options
    ]
    meanings = _attributes(type(space))
    rows += [
        [option, "whole number", str(parameter.default), meanings.get(option, "")]
        for option, parameter in options.items()
        if type(parameter.default) is int
    ]
    return Sheet(f"search --space {name} (--set-space)", _SETTINGS_HEADER, rows)


def _hub_options(name: str) -> Sheet:
    from search_spaces import hub

    defaults = hub.defaults(name)
    rows = [
        [option, _given_as(defaults[option]), _listed(defaults[option]), meaning]
        for option, meaning in hub.HUB[name].options.items()
    ]
    return Sheet(name, _SETTINGS_HEADER, rows)


def _given_as(default: Any) -> str:
    return "list" if isinstance(default, tuple | list) else _PLAIN_TYPES[type(default)]


def _listed(default: Any) -> str:
    return str(list(default)) if isinstance(default, tuple | list) else _shown(default)


def _attributes(config: type[Any]) -> dict[str, str]:
    """Name -> what the `Attributes:` of the class, or of one it extends, say."""
    from docstring_parser import DocstringStyle, parse

    found: dict[str, str] = {}
    for kind in config.__mro__[:-1]:
        for attribute in parse(kind.__doc__ or "", DocstringStyle.GOOGLE).params:
            for name in attribute.arg_name.split(","):
                found.setdefault(name.strip(), _as_typed(attribute.description or ""))
    return found


def _as_typed(text: str) -> str:
    """A docstring's text for the command line, where `--set` reads YAML."""
    return " ".join(re.sub(r"\bNone\b", "null", text).replace("`", "").split())


def _takes(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    choices = [_takes(each) for each in get_args(kind)]
    return " or ".join(choices) if choices else _PLAIN_TYPES.get(kind, kind.__name__.lower())


def _shown(default: Any) -> str:
    """As `--set` would take it."""
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default)


def narrowed(sheets: Sequence[Sheet], name: str) -> list[Sheet]:
    """The tables whose titles have a name in them; of the others the rows that begin with what has it.

    Raises:
        ValueError: there is none.
    """
    found = []
    for sheet in sheets:
        whole = name.lower() in sheet.title.lower()
        rows = [row for row in sheet.rows if whole or name.lower() in row[0].lower()]
        if rows:
            found.append(replace(sheet, rows=rows))
    if not found:
        from atom_nas.names import nearest

        there = [row[0] for sheet in sheets for row in sheet.rows]
        near = nearest(name.lower(), there, most=1, cutoff=0.6)
        meant = f"did you mean {near[0]}? Or " if near else ""
        raise ValueError(f"nothing there is called {name!r}: {meant}leave it out to see all")
    return found


TOPICS: dict[str, Callable[[], list[Sheet]]] = {
    "datasets": _datasets,
    "methods": _methods,
    "presets": _presets,
    "spaces": _spaces,
    "recipes": _recipes,
    "strategies": _strategies,
    "estimators": _estimators,
    "networks": _networks,
    "formats": _formats,
    "settings": _settings,
}
