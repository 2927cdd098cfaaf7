"""What is wrong with a record that a file holds."""

from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """Where the first thing that is wrong in a record is, and what."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"
