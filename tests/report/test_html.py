import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.test_document import full, made
from unlearn.report import Measurement, Report
from unlearn.report.html.charts import WIDTH, chart, limit_at
from unlearn.report.html.page import render_html, write_html
from unlearn.report.words import about, flat

VOID = {"meta", "col", "link", "br", "img"}


class Balanced(HTMLParser):
    """Notes the texts, and fails on a tag that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(full(), path)
    page = path.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_verdict_and_failures_come_first() -> None:
    page = render_html(full())
    assert page.index("Failed</h1>") < page.index("Failed limits</h2>") < page.index("Measurements</h2>")
    assert "the data are not there" in page and "not measured" in page
    assert "other languages" in page and "<code>one</code>" in page
    passed = render_html(Report.of([made()]))
    assert "Passed</h1>" in passed and "Failed limits</h2>" not in passed


def test_every_mark_has_a_word_and_every_chart_a_text() -> None:
    parser = Balanced()
    parser.feed(render_html(full()))
    charts = [a for tag, a in parser.seen if tag == "svg" and a.get("role") == "img"]
    assert charts and all(a.get("aria-label") for a in charts)


def test_text_is_escaped() -> None:
    hostile = Measurement.missing("capability.x", "<b>bold</b> & more", 0.1)
    page = render_html(Report.of([hostile], ["<i>"], {"model": "<script>alert(1)</script>"}))
    assert "<b>bold" not in page and "<script" not in page and "&lt;b&gt;bold" in page


def drawn(m: Measurement) -> dict[str, ET.Element]:
    return {part.get("class"): part for part in ET.fromstring(str(chart(m)))}


def test_bars_lie_where_the_numbers_say() -> None:
    m = made("leak.cloze", 0.25, 0.1, before=0.5, ci95=(0.2, 0.3), before_ci95=(0.4, 0.6), n=100)
    found = drawn(m)
    assert [float(found[name].get("width")) for name in ("before", "after")] == [WIDTH / 2, WIDTH / 4]
    # Whiskers are drawn in the order of the bars: the last is that of the value after.
    assert found["whisker"].get("d").startswith(f"M{WIDTH * 0.2} 24H{WIDTH * 0.3}")
    assert found["limit"].get("d").startswith(f"M{WIDTH * 0.1} ")
    assert [float(found["band"].get(name)) for name in ("x", "width")] == [0, WIDTH * 0.1]
    least = drawn(made("retain.siblings", 0.97, 0.95, before=1.0))["band"]
    assert [float(least.get(n)) for n in ("x", "width")] == pytest.approx([WIDTH * 0.95, WIDTH * 0.05])


def test_a_limit_on_a_change_is_drawn_from_the_value_before() -> None:
    assert limit_at(made("capability.x", 0.9, 0.02, before=0.9)) == pytest.approx(0.88)
    assert limit_at(made("toxicity.demo", 0.1, 0.02, before=0.1, unit="score")) == pytest.approx(0.12)
    assert limit_at(made("drift.kl", 0.1, 0.02, unit="nats/token")) == 0.02


@pytest.mark.parametrize("after", [0.0, 0.004, 3.0])
def test_no_bar_leaves_its_chart(after: float) -> None:
    for name, unit in (("drift.kl", "nats/token"), ("drift.perplexity", "ratio"), ("drift.norm", "ratio")):
        for limit in (None, 0.02):
            m = made(name, after, limit, unit=unit, ci95=(after * 0.9, after * 1.1))
            for part in ET.fromstring(str(chart(m))).iter("rect"):
                x, width = float(part.get("x")), float(part.get("width"))
                assert 0 <= x and 0 <= width and x + width <= WIDTH + 1e-6
    assert not chart(Measurement.missing("drift.kl", "no text"))


def test_the_title_comes_from_the_manifest() -> None:
    manifest = {"policy": {"name": "demo"}, "settings": {"model": "embedded", "method": {"name": "rome"}}}
    assert about(Report.of([], manifest=manifest))[:3] == ("demo", "embedded", "rome")
    assert about(Report.of([], manifest=manifest)).line == "model embedded · method rome"
    assert about(Report.of([])) == ("audit", "", "", "")
    assert dict(flat({"a": {"b": [1, 2], "c": {}}, "d": None})) == {"a.b": "[1, 2]", "a.c": "{}", "d": "null"}
