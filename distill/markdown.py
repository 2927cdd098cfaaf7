"""Names from strangers' files inside Markdown: shown as they are, and never read as markup.

`reports.formatting` does the same for pages; the two rooms do not import each other, and a test holds them to
one answer.
"""

import json
import re

LONGEST = 120


def harmless(text: str) -> str:
    """On one line, without characters that cannot be seen, and cut where it is too long for a name."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def code(text: str) -> str:
    """A name as a code span, in which neither Markdown nor HTML means anything.

    It is fenced by more backticks than it holds in a row. Not for tables, which are cut at bars first.
    """
    line = harmless(text)
    if not line.strip():
        return "(no name)"
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def cell(value: object) -> str:
    """A value as JSON in a code span that is safe in a table too: no bar is left, escaped or not.

    An escaped bar would not do: renderers disagree on one that follows a backslash.
    """
    if isinstance(value, str):
        value = harmless(value)
    return code(json.dumps(value, ensure_ascii=False).replace("|", "\\u007c"))
