"""Names: a wrong one that a user types becomes a helpful error, a stranger's one is made harmless."""

from search_spaces.base import choose as choose
from search_spaces.base import nearest as nearest


def harmless(text: str) -> str:
    """Without characters that steer a terminal: names may come from a stranger's file."""
    return "".join(c if c.isprintable() else " " for c in text)
