"""The report as one HTML page that needs nothing else: no script, no font, no network, and no text of any answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from unlearn.charts.sheet import style
from unlearn.report.document import Report
from unlearn.report.html.charts import chart
from unlearn.report.html.plots import figures
from unlearn.report.words import (
    about,
    adjusted,
    comparisons,
    flat,
    glance,
    in_a_word,
    met,
    sections,
    show,
    show_interval,
    show_limit,
    why,
)
from unlearn.shown import shown_lines


class FactText(NamedTuple):
    """What a page shows of a fact only where it was asked to."""

    subject: str
    relation: str
    answers: tuple[str, ...]


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).resolve().parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def fact_columns(report: Report) -> list[str]:
    """The measurements for which any fact has counts, in the order of the report."""
    counted = {name for fact in report.facts for name in fact.counts}
    ordered = [m.name for m in report.measurements if m.name in counted]
    return ordered + sorted(counted - set(ordered))


def render_html(report: Report, texts: Mapping[str, FactText] | None = None) -> str:
    """The whole page.

    Args:
        texts: subject, relation and answers by fact id. Harmful where the policy is about harm: without it, facts
            appear by their ids alone.
    """
    page = _template().render(
        report=report,
        about=about(report),
        met=met(report),
        glance=glance(report),
        in_a_word=in_a_word,
        figures=figures(report),
        plot_style=Markup(style()),
        sections=sections(report),
        adjusted=adjusted(report),
        comparisons=comparisons(report),
        columns=fact_columns(report),
        texts=dict(texts or {}),
        settings=list(flat(report.manifest)),
        chart=chart,
        show=show,
        show_interval=show_interval,
        show_limit=show_limit,
        why=why,
    )
    return shown_lines(page.lstrip())


_TEXTS = re.compile(
    r'<p class="panel warning" role="note">This page was made with --show-text: [^<]*</p>\n'
    r"|<th>subject</th><th>relation</th><th>answers that count</th>"
    r"|^<td>[^<]*</td><td>[^<]*</td><td>[^<]*</td>\n",
    re.MULTILINE,
)
"""What `texts` add to a page; the texts themselves are escaped, so that none of them can end its cell."""


def without_texts(page: str) -> str:
    """A page as it would be without the texts of the facts."""
    return _TEXTS.sub("", page)


def write_html(report: Report, path: Path, texts: Mapping[str, FactText] | None = None) -> None:
    """Write the page to a file."""
    path.write_text(render_html(report, texts), encoding="utf-8")
