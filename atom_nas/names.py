"""Names: a wrong one that a user types becomes a helpful error, a stranger's one is made harmless."""

import difflib
from collections.abc import Iterable


def choose(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return `name` if it is one of `allowed`.

    Args:
        kind: what is being named, for the message ("space", "strategy", ...).
        name: what the user gave.
        allowed: the names there are, in the order to show them.
    Raises:
        ValueError: one line that says what was given, the nearest matches and all allowed names.
    """
    known = list(allowed)
    if name in known:
        return name
    if not known:
        raise ValueError(f"unknown {kind} {name!r}: there are none")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(match) for match in near)}? " if near else ""
    raise ValueError(f"unknown {kind} {name!r}: {hint}allowed: {', '.join(known)}")


def harmless(text: str) -> str:
    """Without characters that steer a terminal: names may come from a stranger's file."""
    return "".join(c if c.isprintable() else " " for c in text)
