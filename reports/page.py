"""The pages: index.html (one file that opens offline) and report.md, filled from the same sections."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reports import formatting, words
from reports.comparison import describe_tasks
from reports.document import ComparisonRow
from reports.section import Picture, Section

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"
MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


def render_html(
    sections: Sequence[Section], rows: Sequence[ComparisonRow], chart: Picture | None, root: Path
) -> str:
    """index.html; the figures below `root` are embedded, nothing is loaded from anywhere."""
    environment = _environment(autoescape=True)
    environment.globals["embed"] = partial(data_uri, root)
    return _render(environment, "index.html", sections, rows, chart)


def render_markdown(sections: Sequence[Section], rows: Sequence[ComparisonRow], chart: Picture | None) -> str:
    """report.md; it shows the PNG figures beside it."""
    return _render(_environment(autoescape=False), "report.md", sections, rows, chart)


def data_uri(root: Path, picture: Picture) -> str:
    """The picture's file as a data: address."""
    content = (root / f"{picture.file}{picture.suffix}").read_bytes()
    return f"data:{MEDIA_TYPES[picture.suffix]};base64,{base64.b64encode(content).decode('ascii')}"


def _render(
    environment: jinja2.Environment,
    template: str,
    sections: Sequence[Section],
    rows: Sequence[ComparisonRow],
    chart: Picture | None,
) -> str:
    return environment.get_template(template).render(
        sections=sections,
        comparison=rows,
        chart=chart,
        baseline=next((row.name for row in rows if row.baseline), None),
        tasks=describe_tasks(rows),
        datasets=len({row.dataset for row in rows}) > 1,
        spaces=len({row.space for row in rows}) > 1,
        referenced=any(section.report.reference_score for section in sections),
    )


def _environment(*, autoescape: bool) -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        decimals=formatting.decimals,
        share=formatting.percent,
        p_value=formatting.p_value,
        seconds=formatting.seconds,
        factor=formatting.factor,
        quantity=formatting.quantity,
        accuracy=formatting.accuracy,
        accuracy_of=formatting.accuracy_of,
        cell=formatting.markdown_cell,
        code=formatting.markdown_code,
    )
    environment.globals.update(
        plural=formatting.plural,
        images_of=words.images_of,
        other_scores=words.other_scores,
        sizes_caption=words.sizes_caption,
        ranking_caption=words.ranking_caption,
        confirmed_caption=words.confirmed_caption,
        interval=formatting.interval,
        gap=formatting.difference,
        break_even=formatting.break_even,
        title=words.title,
        subtitle=words.subtitle,
        facts=words.facts,
        difference=words.describe_difference,
        definitions=words.definitions,
        labels=words.labels,
    )
    return environment
