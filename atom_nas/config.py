"""Settings from defaults, then a YAML file, then options and `--set key=value`, checked in one place."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from atom_nas.names import choose

if TYPE_CHECKING:
    from distill.presets import Case, Resolved

T = TypeVar("T")

_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list",
    "mapping": "a mapping of names to values",
    "dict": "a mapping of names to values",
}
"""What a value of the wrong type should have been, by how names of the validator's errors begin."""
_CHANNELS = 3  # where images have not been read: grey ones take little less


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ValueError: if the file is missing, is not YAML, or is not a mapping of names to values.
    """
    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"cannot read the config file {path} ({reason})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not valid YAML ({reason})") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ValueError(f"{path} must hold a mapping such as 'iterations: 500', not {type(loaded).__name__}")
    return loaded


def parse_assignments(assignments: Sequence[str], stage: str = "") -> dict[str, Any]:
    """`key=value` strings to a mapping; values are read as YAML, so numbers and true/false are themselves.

    Args:
        stage: of the option `--set-STAGE` that they were given by; `--set` if empty.
    Raises:
        ValueError: on a string without `=`, or two that give one key different values.
    """
    option = _option("set", stage)
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise ValueError(f"{option} takes KEY=VALUE, e.g. {option} key=0.5, not {assignment!r}")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # ValueError: what looks like a date and is none
            value = text
        if name in parsed and not _alike(parsed[name], value):
            raise ValueError(
                f"{name} is given twice, by {option} {name}={parsed[name]} and {name}={value}: leave one out"
            )
        parsed[name] = value
    return parsed


def assigned(assignments: Sequence[str] | None, beside: Mapping[str, Any], stage: str = "") -> dict[str, Any]:
    """What `--set`, or `--set-STAGE`, assigns, see `parse_assignments`.

    Args:
        beside: settings that have options of their own; None stands for one that was not given.
        stage: whose settings they are, where a command has several; those options are `--STAGE-NAME` then.
    Raises:
        ValueError: both ways say a setting, and not alike.
    """
    parsed, said = parse_assignments(assignments or [], stage), given(**beside)
    for name in parsed.keys() & said.keys():
        if not _alike(parsed[name], said[name]):
            own = _option(stage, name.replace("_", "-"))
            other = f"{_option('set', stage)} {name}={parsed[name]}"
            raise ValueError(f"{name} is given twice, by {own} {said[name]} and by {other}: leave one out")
    return parsed


def _option(*words: str) -> str:
    return f"--{'-'.join(filter(None, words))}"


def _alike(one: Any, other: Any) -> bool:
    return bool(one == other) or str(one) == str(other)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, which is to say those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def field_names(kind: type[Any]) -> tuple[str, ...]:
    """The names of a dataclass's fields."""
    return tuple(field.name for field in fields(kind))


def construct(kind: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a config dataclass, its values converted to the fields' types.

    Raises:
        ValueError: one line that names the first wrong setting and what is allowed.
    """
    for name in values:
        choose("setting", name, field_names(kind))
    hints = get_type_hints(kind)
    listed = {
        name: (value,) if isinstance(value, str) and hints[name] == tuple[str, ...] else value
        for name, value in values.items()
    }
    try:
        made = TypeAdapter(kind).validate_python(listed)
    except ValidationError as error:
        raise ValueError(first_wrong(error)) from None
    for name, value in values.items():
        if isinstance(value, bool) and not isinstance(getattr(made, name), bool):
            raise ValueError(f"{name} must be a number, not {_as_typed(value)}")  # which Python takes for one
    return made


def first_wrong(error: ValidationError, name: str = "") -> str:
    """What the first wrong value is and what would be right, in a line.

    Args:
        name: of the value, where the error tells of one alone.
    """
    first, *others = error.errors()
    if first["type"] == "missing":
        return f"{'.'.join(map(str, first['loc']))} is missing"
    # A value that may be of several types has an error for each, which are told apart by the end of `loc`.
    alike = [
        each
        for each in others
        if each["loc"][:1] == first["loc"][:1] and repr(each["input"]) == repr(first["input"])  # NaN too
    ]
    parts = first["loc"][:1] if alike else first["loc"]
    where = ".".join(str(part) for part in parts) or name
    wanted = list(dict.fromkeys(filter(None, map(_wanted, [first, *alike]))))
    if wanted:
        return f"{where} must be {' or '.join(wanted)}, not {_as_typed(first['input'])}"
    message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input should ")
    if message.startswith("be "):
        return f"{where} must {message}, not {_as_typed(first['input'])}"
    return f"{where}: {message}, not {_as_typed(first['input'])}" if where else message


def _as_typed(value: Any) -> str:
    """As YAML has it where Python calls it otherwise."""
    return {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))


def _wanted(error: Mapping[str, Any]) -> str | None:
    kind, _, wrong = error["type"].partition("_")
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    if error["type"] == "finite_number":
        return "a finite number"
    return _WANTED.get(kind) if wrong.startswith(("type", "parsing", "from_float")) else None


def distill_settings(values: Mapping[str, Any]) -> Any:
    """`distill.settings.DistillSettings` from one flat mapping of its own fields and its method's.

    Raises:
        ValueError: on an unknown dataset, method or setting, or a value that is not allowed.
    """
    from distill import methods
    from distill.settings import DistillSettings

    method = choose("method", str(values.get("method", "atom")), methods.METHODS)
    values = {**values, "dataset": choose_dataset(str(values.get("dataset", "")))}
    own = set(field_names(DistillSettings)) - {"method_config"}
    config = methods.load(method).Config
    for name in values:
        others = [m for m in methods.METHODS if name in field_names(methods.load(m).Config)]
        if others and name not in field_names(config):
            raise ValueError(
                f"{name} is a setting of {', '.join(others)}, which {method} has no use for: leave it out"
            )
        choose(f"setting of {method}", name, sorted(own | set(field_names(config))))
    method_config = construct(config, {k: v for k, v in values.items() if k not in own})
    mine = {k: v for k, v in values.items() if k in own}
    return construct(DistillSettings, {**mine, "method_config": method_config})


def as_begun(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the distillation in the folder `out`, and what else `values` say.

    Raises:
        ValueError: there is none, it is damaged, or `values` name another method or preset.
    """
    from distill.target import settings_in

    begun = settings_in(Path(values["out"]))
    method = begun.get("method")
    if values.get("method", method) != method:
        raise ValueError(
            f"{values['out']} was begun with {method}: leave --method out, or name another --out"
        )
    if values.get("preset") not in (None, begun.get("preset")):
        with_which = f"the preset {begun['preset']}" if begun.get("preset") else "no preset"
        raise ValueError(f"{values['out']} was begun with {with_which}: leave --preset out")
    return {**begun, **values}


@dataclass(frozen=True)
class WithPreset:
    """Settings with those of a preset among them.

    Attributes:
        values: what was given, and whatever else the preset says.
        taken: what the preset says and nothing else did.
        fallbacks: in a few words each, what the preset did not have as it was asked for.
    """

    values: dict[str, Any]
    taken: dict[str, Any]
    fallbacks: tuple[str, ...]


def with_preset(values: Mapping[str, Any]) -> WithPreset:
    """Fill in from the preset that `values` name, if they name one; what is given counts for more.

    Raises:
        ValueError: there is no such preset, or dataset, method or device are none.
    """
    from distill import methods, presets
    from distill.settings import DistillSettings

    if values.get("preset") is None:
        return WithPreset(dict(values), {}, ())
    name = choose("preset", str(values["preset"]), presets.names())
    if "dataset" not in values:
        raise ValueError("no dataset given; add --dataset NAME (see 'atom-nas list datasets')")
    case = _case(values)
    resolved = presets.resolve(name, case)
    config = methods.load(case.method).Config
    own = set(field_names(config))
    known = own | set(field_names(DistillSettings))
    taken = {k: v for k, v in resolved.settings.items() if k in known and k not in values}
    fallbacks = resolved.fallbacks
    if "iterations" in taken:
        whole = construct(config, {k: v for k, v in {**taken, **values}.items() if k in own})
        affordable = _affordable(resolved, whole, case.ipc)
        if affordable < taken["iterations"]:
            has = f"time for {affordable:,.0f}" if affordable else "no time for one"
            wanted = f"{taken['iterations']:,} iterations of {case.method} here"
            fallbacks = (*fallbacks, f"the preset {name!r} has {has} of {wanted}; --iterations N for more")
            taken["iterations"] = max(1, int(affordable))
    return WithPreset({**taken, **values, "preset": name}, taken, fallbacks)


def _case(values: Mapping[str, Any]) -> "Case":
    """What a preset is asked for, as far as that is known before the dataset is read."""
    from distill import methods, presets, sources
    from distill.settings import DistillSettings, resolve_device

    method = choose("method", str(values.get("method", "atom")), methods.METHODS)
    dataset = choose_dataset(str(values["dataset"]))
    said = given(ipc=values.get("ipc"), image_size=values.get("image_size"))
    settings = construct(DistillSettings, {"dataset": "", "out": "", **said})
    side, classes = sources.glance(dataset, settings.image_size)
    return presets.Case(
        dataset=dataset,
        method=method,
        ipc=settings.ipc,
        device=resolve_device(str(values.get("device", "auto"))).type,
        side=side or settings.image_size,
        classes=classes,
    )


def _affordable(resolved: "Resolved", config: Any, ipc: int) -> float:
    """How many iterations fit into a preset's time; any number if it has no end, or images are unknown."""
    if not (resolved.budget and resolved.side and resolved.classes):
        return math.inf
    shape = (_CHANNELS, resolved.side, resolved.side)
    return float(resolved.budget // config.operations(ipc, resolved.classes, shape))


def choose_dataset(name: str) -> str:
    """`name` if it is a registered dataset; `folder:PATH` with the path made absolute.

    Raises:
        ValueError: with the nearest matches.
    """
    from distill.sources import DATASETS

    if name.startswith("folder:") and name != "folder:":
        path = Path(name.removeprefix("folder:"))
        with suppress(RuntimeError):  # "~name" of nobody here: a folder of that very name, then
            path = path.expanduser()
        return f"folder:{path.absolute()}"
    if not name:
        raise ValueError("no dataset given; add --dataset NAME (see 'atom-nas list datasets')")
    if name not in DATASETS and Path(name).is_dir():
        raise ValueError(f"unknown dataset {name!r}: for the images in that folder give folder:{name}")
    return choose("dataset", name, DATASETS)
