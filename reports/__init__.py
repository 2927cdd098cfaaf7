"""Results in; numbers, pictures and pages out. Reads run folders, never trains and never changes a result."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.document import Report
    from reports.planning import plan
    from reports.runs import Run, read_run
    from reports.writing import WrittenReport, write_report

__all__ = ["Report", "Run", "WrittenReport", "plan", "read_run", "write_report"]

_HOMES = {
    "Report": "reports.document",
    "Run": "reports.runs",
    "WrittenReport": "reports.writing",
    "plan": "reports.planning",
    "read_run": "reports.runs",
    "write_report": "reports.writing",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Imports pandas, matplotlib and the rest only once something of theirs is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
