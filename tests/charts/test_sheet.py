"""Sheets: whole SVG files that need nothing else, the same letters every time, and nothing hidden in them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from unlearn.charts.figures import Line, lines
from unlearn.charts.sheet import Panel, sheet, style
from unlearn.charts.svg import look_of

LOOKS = [look_of(i, f"method {i}") for i in range(9)]
PANELS = [
    Panel(name, lines([Line(LOOKS[0], [1, 2], [0, 1])], "facts"), "lower is better") for name in "abcde"
]


def drawn(title: str = "title") -> str:
    return sheet(title, PANELS, 3, LOOKS, "a note")


def test_a_sheet_is_whole_and_the_same_every_time() -> None:
    svg = ElementTree.fromstring(drawn())
    assert drawn() == drawn()
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    words = [element.text for element in svg.iter() if element.tag.endswith("text")]
    assert {"title", "a note", "lower is better", *"abcde", "method 8"} <= set(words)
    assert svg.get("aria-label") == "title. a; b; c; d; e. a note"
    assert "prefers-color-scheme: dark" in drawn()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|@import|url\(", drawn())


def test_panels_do_not_overlap_and_lie_on_the_sheet() -> None:
    svg = ElementTree.fromstring(drawn())
    found = re.findall(r"translate\((\d+) (\d+)\)", drawn())
    places = [(float(x), float(y)) for x, y in found if x != "0"]
    wide, high = PANELS[0].drawn.width, PANELS[0].drawn.height
    assert len(set(places)) == 5
    for i, (x, y) in enumerate(places):
        assert x + wide <= float(svg.get("width", 0)) and y + high <= float(svg.get("height", 0))
        assert all(abs(x - a) >= wide or abs(y - b) >= high for a, b in places[:i])


def test_a_title_hides_nothing_and_is_no_markup() -> None:
    page = drawn("m\u202ex <b> & $x^2$")
    assert "\u202e" not in page and "m\\u202ex &lt;b&gt; &amp; $x^2$" in page
    ElementTree.fromstring(page)


def test_the_style_can_stand_in_a_page_and_in_an_svg_file() -> None:
    assert not re.search(r"[<&]|\]\]>", style())
