"""The documents of a report by the name of their file, and the texts that only some of them may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unlearn.report.document import Report
from unlearn.report.html.page import render_html
from unlearn.report.junit import render_junit
from unlearn.report.markdown import render_card, render_markdown

DOCUMENTS: Mapping[str, Callable[[Report], str]] = {
    "report.json": Report.to_json,
    "report.html": render_html,
    "report.md": render_markdown,
    "junit.xml": render_junit,
    "model-card.md": render_card,
}
"""Every document of a run directory that is made from the report alone."""
