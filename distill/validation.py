"""What is wrong with a record that a file holds, or with settings that Python was given."""

from dataclasses import fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """Where the first thing that is wrong in a record is, and what."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def require_types(settings: Any) -> None:
    """Refuse values of other types than a dataclass says: text where a number is meant, or "no", which Python
    takes for true.

    Looked at are fields of plain types: whole numbers, numbers, text, truth values, None, and one or another
    of these. A field's default is right in any case. Numbers of other libraries, such as NumPy's, become
    Python's.

    Args:
        settings: an instance of a dataclass, which may be frozen.
    Raises:
        ValueError: a value is of another type.
    """
    for field in fields(settings):
        kinds = get_args(field.type) or (field.type,)
        if not all(kind in _NAMES or kind is NoneType for kind in kinds):
            continue
        value = _plain(getattr(settings, field.name))
        if value is not field.default and not any(_is(value, kind) for kind in kinds):
            wanted = " or ".join(_NAMES[kind] for kind in kinds if kind is not NoneType)
            raise ValueError(f"{field.name} must be {wanted}, not {value!r}")
        object.__setattr__(settings, field.name, value)


_NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _is(value: Any, kind: type[Any]) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
