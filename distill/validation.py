"""What is wrong with a record that a file holds, or with settings that Python was given."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """Where the first thing that is wrong in a record is, and what."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def require_types(settings: object, kinds: Mapping[str, Any]) -> None:
    """Refuse what Python takes for something else than was meant, as it takes "no" for true.

    Args:
        kinds: by a setting's name its type, text or a truth value, or that and None.
    Raises:
        ValueError: a setting is of another type.
    """
    for name, kind in kinds.items():
        value = getattr(settings, name)
        if not isinstance(value, kind):
            wanted = "text" if isinstance("", kind) else "True or False"
            raise ValueError(f"{name} must be {wanted}, not {value!r}")
