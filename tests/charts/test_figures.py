"""Figures: marks where the numbers are, nothing where nothing was measured, and no two series that look alike."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from unlearn.charts import figures as charts
from unlearn.charts.figures import Drawn, Group, Heat, Line, Mark, Row
from unlearn.charts.svg import look_of, tag, text


def tree(drawn: Drawn) -> ElementTree.Element:
    return ElementTree.fromstring(str(drawn.picture("words")))


def of_class(svg: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [e for e in svg.iter() if name in (e.get("class") or "").split()]


def test_a_line_has_a_point_per_value_and_none_where_nothing_was_measured() -> None:
    first, second, third = (look_of(i, name) for i, name in enumerate(("alphaedit", "rome", "never")))
    series = [
        Line(first, [5, 10], [0.9, 0.8], [0.85, 0.7], [0.95, 0.9]),
        Line(second, [5, 10], [0.5, None]),
        Line(third, [], []),
    ]
    svg = tree(charts.lines(series, "facts", shares=True, reference=0.1))
    lines = of_class(svg, "curve")
    assert [len(line.get("points", "").split()) for line in lines] == [2, 1]
    assert len(of_class(svg, "range")) == 1 and len(of_class(svg, "limit")) == 1
    rules = sorted(float(line.get("y1", 0)) for line in of_class(svg, "rule"))
    places = [float(point.split(",")[1]) for point in lines[0].get("points", "").split()]
    assert places == [
        pytest.approx(rules[-1] + share * (rules[0] - rules[-1]), abs=0.02) for share in (0.9, 0.8)
    ]
    empty = tree(charts.lines([Line(first, [1], [None])], "facts"))
    assert "not measured" in [t.text for t in empty.iter("text")]
    assert "not measured" not in [t.text for t in svg.iter("text")]


def test_rows_have_a_mark_per_value_and_say_what_was_not_measured() -> None:
    look = look_of(0, "one")
    found = [Row("one", (Mark(look, 0.5, (0.4, 0.6)),), 0.1, "50.0 %"), Row("two", (), 0.1, "not measured")]
    svg = tree(charts.rows(found, width=430))
    assert len(of_class(svg, "stem")) == len(of_class(svg, "whisker")) == 1
    assert len(of_class(svg, "limit")) == 2
    assert {"one", "two", "50.0 %", "not measured"} <= {t.text for t in svg.iter("text")}


def test_intervals_of_shares_end_on_the_axis() -> None:
    look = look_of(0, "one")

    def ends(high: float) -> tuple[float, float]:
        """Where the interval ends, and where the axis does."""
        svg = tree(charts.rows([Row("one", (Mark(look, 0.3, (0.1, high)),))]))
        rules = [float(line.get("x1", 0)) for line in of_class(svg, "rule")]
        return float(of_class(svg, "whisker")[0].get("x2", 0)), max(rules)

    narrow, end = ends(0.38)
    assert narrow < end  # the control: 40 % are enough for it
    wide, end = ends(0.6)
    assert wide < end


def test_a_cloud_is_hollow_before_filled_after_and_its_arrow_joins_the_means() -> None:
    moved = Group(look_of(0, "kept"), [(0, 0), (2, 0)], [(0, 4), (2, 4), (1, 4)])
    svg = tree(charts.cloud([moved, Group(look_of(1, "none"), [], [])], "x", "y"))
    assert len(of_class(svg, "hollow")) == 2 and len(of_class(svg, "filled")) == 3
    (arrow,) = of_class(svg, "arrow")
    assert arrow.get("x1") == arrow.get("x2") and arrow.get("y1") != arrow.get("y2")
    still = tree(charts.cloud([Group(look_of(0, "kept"), [(0, 0), (1, 1)], [(0, 0), (1, 1)])], "x", "y"))
    assert of_class(still, "arrow") == []


def test_a_heat_map_leaves_gaps_and_frames_what_is_marked() -> None:
    shown = Heat("state", ["0", "1"], {"first": [0.1, 0.4], "last": [None, 0.0]}, full=0.4)
    svg = tree(charts.heat([shown], ["first", "last"], "layer", (1, 1)))
    assert len(of_class(svg, "empty")) == 3  # none where there is nothing
    assert [float(e.get("fill-opacity", -1)) for e in of_class(svg, "cell") if e.get("fill-opacity")] == [
        0.25,
        1,
    ]
    (frame,) = of_class(svg, "frame")
    last = of_class(svg, "empty")[1]
    assert frame.get("x") == last.get("x")


def test_every_series_looks_different() -> None:
    looks = [look_of(i, "") for i in range(32)]
    assert len(set(looks)) == 32
    assert all(a.shape != b.shape for a, b in zip(looks, looks[1:], strict=False))


def test_markup_in_names_is_escaped() -> None:
    assert str(text((0, 0), "<b>&")) == (
        '<text x="0" y="0" class="t" text-anchor="start">&lt;b&gt;&amp;</text>'
    )
    assert str(tag("g", id='"x"')) == '<g id="&#34;x&#34;"></g>'
