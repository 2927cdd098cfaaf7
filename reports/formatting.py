"""Numbers for people: one way to write each kind, shared by pages, figures and verdicts."""

from __future__ import annotations

import math
import re

UNKNOWN = "–"


def decimals(value: float | None, digits: int = 2) -> str:
    """0.71; a dash where unknown; never -0.00."""
    if value is None:
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def percent(fraction: float | None) -> str:
    """71%"""
    return UNKNOWN if fraction is None else f"{100 * fraction:.0f}%"


def p_value(value: float | None) -> str:
    """0.031, or < 0.001."""
    if value is None:
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """0.42 s, 12.3 s, 5 min 12 s, 2 h 5 min."""
    if value is None:
        return UNKNOWN
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def factor(value: float | None) -> str:
    """12x, 3.4x or 0.52x, with a multiplication sign."""
    if value is None:
        return UNKNOWN
    if value >= 10:
        return f"{value:,.0f}×"
    return f"{value:.1f}×" if value >= 1 else f"{value:.2f}×"


def quantity(value: float | None) -> str:
    """Four significant digits; large whole numbers with thousands separators."""
    if value is None or value != value:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def count(value: float | None) -> str:
    """5,514; a dash where unknown."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def difference(value: float, *, fraction: bool) -> str:
    """A gap between reference scores: percentage points for accuracies in [0, 1], else as it is."""
    return f"{100 * value:.1f} points" if fraction else f"{value:.3g}"


def score_value(value: float, *, fraction: bool) -> str:
    """A score as recorded: 61.3% for accuracies in [0, 1], else four digits."""
    return f"{100 * value:.1f}%" if fraction and value == value else quantity(value)


def accuracy(value: float | None) -> str:
    """61.3%; a dash where unknown."""
    return UNKNOWN if value is None else score_value(value, fraction=True)


def accuracy_of(known: tuple[str, float] | None) -> str:
    """bird 61.3%; a dash where unknown."""
    return UNKNOWN if known is None else f"{known[0]} {accuracy(known[1])}"


def interval(low: float | None, high: float | None, places: int = 2) -> str:
    """0.52 to 0.83."""
    if low is None or high is None:
        return UNKNOWN
    return f"{decimals(low, places)} to {decimals(high, places)}"


def estimate(value: float | None, low: float | None, high: float | None, n: int | None = None) -> str:
    """0.71 (0.52 to 0.83, n = 48), of what is known in brackets."""
    known = [] if low is None or high is None else [interval(low, high)]
    known += [] if n is None else [f"n = {n}"]
    return f"{decimals(value)} ({', '.join(known)})" if known else decimals(value)


def sample(n: int, networks: int | None = None) -> str:
    """n = 48, or n = 100 names of 71 networks, where some are one network by several names."""
    return f"n = {n}" if networks in (None, n) else f"n = {n} names of {plural(networks or 0, 'network')}"


def by_count(count: int, one: str, several: str) -> str:
    """The word that goes with a count: was or were."""
    return one if count == 1 else several


def plural(count: int, noun: str, several: str | None = None) -> str:
    """1 row, 2 rows, 1,211 images; 2 accuracies, where `several` says so."""
    return f"{count:,} {by_count(count, noun, several or noun + 's')}"


def break_even(architectures: float | None, reason: str | None) -> str:
    """The whole number of architectures from which distilling pays, or why there is none."""
    return (reason or UNKNOWN) if architectures is None else plural(math.ceil(architectures), "architecture")


def markdown_cell(text: str) -> str:
    """Text that cannot break a Markdown table or start markup: one line, escaped only where it must be.

    `<` and `&` are markup only before what a tag or an entity begins with; the marks of headings, lists and
    quotes only at the start.
    """
    line = re.sub(r"[\\|\[\]*_`]|<(?=[A-Za-z/!?])|&(?=#?\w+;)", r"\\\g<0>", " ".join(text.split()))
    return f"\\{line}" if line.startswith(("#", ">", "+", "-", "=", "~")) else line


def markdown_code(text: str, *, in_table: bool = False) -> str:
    """Text as a code span, to be copied as it is: one line, fenced by more backticks than it holds in a row.

    Tables are cut at bars before anything else is read, so there a bar is escaped.
    """
    line = re.sub(r"\s*[\r\n]+\s*", " ", text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line.replace('|', chr(92) + '|') if in_table else line}{space}{fence}"
