"""The report as one HTML page that needs nothing else: no script, no font, no network, and no text of any answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from unlearn.report import Measurement, Report, failed_first, show, show_interval, show_limit

#: Headings of the table, and the families under each.
SECTIONS = (
    ("Suppression", "Is the knowledge still told?", ("leak", "refusal", "attack")),
    ("Retention", "Is what must stay still there?", ("retain", "overrefusal")),
    ("General ability", "Does the model still do what it did?", ("capability",)),
    ("Toxicity", "Did its language change for the worse?", ("toxicity",)),
    ("Drift", "How far did the model move on other text?", ("drift",)),
)
#: Width of a chart in SVG units.
WIDTH = 200.0


@dataclass(frozen=True)
class Bar:
    """One bar and its whisker, in SVG units from the left."""

    label: str
    x: float
    width: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Chart:
    """Bars of one measurement on one axis, the limit, and the allowed side of it."""

    bars: tuple[Bar, ...]
    limit: float | None
    allowed: tuple[float, float] | None
    """Start and width of the allowed band."""
    words: str
    """The same for a screen reader."""


def axis(m: Measurement) -> tuple[float, float]:
    """The axis of a measurement's chart: shares use the whole range from 0 to 1, the rest what it takes."""
    if m.unit == "share":
        return 0.0, 1.0
    edge = limit_at(m)
    values = [v for v in (m.before, m.after, edge, *(m.ci95 or ()), *(m.before_ci95 or ())) if v is not None]
    origin = 1.0 if m.name == "drift.perplexity" else 0.0
    reach = max((abs(v - origin) for v in values), default=0.0) * 1.2 or 1.0
    low = origin - reach if min(values, default=origin) < origin else origin
    return low, origin + reach


def limit_at(m: Measurement) -> float | None:
    """Where the limit lies on the axis; limits on a change lie that far from the value before."""
    if m.limit is None or m.rule.startswith("at "):
        return m.limit
    if m.before is None:
        return None
    return m.before - m.limit if m.rule == "drop at most" else m.before + m.limit


def chart(m: Measurement) -> Chart | None:
    """The chart of a measurement; None for one that was not made."""
    if m.after is None:
        return None
    low, high = axis(m)
    origin = 1.0 if m.name == "drift.perplexity" else 0.0

    def at(value: float) -> float:
        return round(WIDTH * min(1.0, max(0.0, (value - low) / (high - low))), 2)

    bars = []
    for label, value, interval in (("before", m.before, m.before_ci95), ("after", m.after, m.ci95)):
        if value is None:
            continue
        start, end = sorted((at(origin), at(value)))
        whisker = (at(interval[0]), at(interval[1])) if interval else (None, None)
        bars.append(Bar(label, start, round(end - start, 2), *whisker))
    edge = limit_at(m)
    position = None if edge is None else at(edge)
    below = m.rule in ("at most", "rise at most")
    allowed = (
        None if position is None else ((0.0, position) if below else (position, round(WIDTH - position, 2)))
    )
    words = f"before {show(m.before, m.unit)}, " if m.before is not None else ""
    words += f"after {show(m.after, m.unit)}"
    if m.ci95:
        words += f", 95 % interval {show_interval(m.ci95, m.unit)}"
    return Chart(
        tuple(bars), position, allowed, words + (f", limit {show_limit(m)}" if m.limit is not None else "")
    )


def sections(report: Report) -> list[tuple[str, str, list[Measurement]]]:
    """Measurements under their headings, failed ones first within each; empty headings are left out."""
    found = []
    for title, question, families in SECTIONS:
        rows = [m for m in report.measurements if m.name.partition(".")[0] in families]
        if rows:
            found.append((title, question, failed_first(rows)))
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names with their values."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        else:
            yield name, json.dumps(value, ensure_ascii=False)


def title(report: Report) -> tuple[str, str]:
    """What the report is about, from its manifest: a name, and a line with model, method and time."""
    facts = dict(flat(report.manifest))

    def first(*endings: str) -> str:
        return next((v for e in endings for k, v in facts.items() if k == e or k.endswith("." + e)), "")

    name = first("policy.name", "name", "policy")
    model, method, when = (
        first("settings.model", "model"),
        first("method.name", "method"),
        first("started", "created"),
    )
    parts = [f"model {model}" if model else "", f"method {method}" if method else "", when]
    return name or "audit", " · ".join(part for part in parts if part)


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


def render_html(report: Report) -> str:
    """The whole page."""
    name, line = title(report)
    columns = [c for c in ("leak.direct", "leak.held_out", "leak.cloze", "leak.sampled", "refusal.held_out")]
    columns = [c for c in columns if any(c in fact.counts for fact in report.facts)]
    judged = [m for m in report.measurements if m.passed is not None]
    return _template().render(
        report=report,
        name=name,
        line=line,
        met=sum(bool(m.passed) for m in judged),
        judged=len(judged),
        sections=sections(report),
        columns=columns,
        settings=list(flat(report.manifest)),
        chart=chart,
        show=show,
        show_interval=show_interval,
        show_limit=show_limit,
        chart_width=WIDTH,
    )


def write_html(report: Report, path: Path) -> None:
    """Write the page to a file."""
    path.write_text(render_html(report), encoding="utf-8")
