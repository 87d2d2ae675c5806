import xml.etree.ElementTree as ET

import pytest
from pydantic import ValidationError

from tests.report.cases import rich, share
from unlearn.charts.figures import MOST_ROWS
from unlearn.report import Curve, Grid, Measurement, Report
from unlearn.report.html.drawn import heat
from unlearn.report.html.plots import by_attack, by_weight, figures


def drawn(figure: object) -> ET.Element:
    return ET.fromstring(str(figure.svg))


def test_every_plot_of_the_report_is_there_and_is_well_formed() -> None:
    found = {figure.key: figure for figure in figures(rich())}
    assert list(found) == [
        "leak-by-attack",
        "retain-by-part",
        "overrefusal-by-part",
        "curve-attack.relearn_text",
        "cloud-drift.hidden",
        "heat-attack.lens",
        "by-weight-drift.norm",
        "by-weight-drift.norm_growth",
    ]
    assert "The limit, 3, lies beyond the axis" in found["by-weight-drift.norm"].note
    assert found["by-weight-drift.norm_growth"].title == "Norm growth by weight matrix"
    for figure in found.values():
        svg = drawn(figure)
        assert svg.get("role") == "img" and len(svg.get("aria-label")) > 20
        width, height = (float(v) for v in svg.get("viewBox").split()[2:])
        for element in svg.iter():
            for name, most in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height)):
                assert 0 <= float(element.get(name, 0)) <= most, (figure.key, element.attrib)


def test_no_numbers_no_plots() -> None:
    assert figures(Report.of([Measurement.made("drift.kl", 0.1)])) == []
    assert by_attack(Report.of([Measurement.missing("leak.direct", "no prompts")])) is None


def test_marks_lie_where_the_numbers_say() -> None:
    svg = drawn(by_attack(Report.of([share("leak.direct", 100, 50, 100, 0.25)])))
    rules = [float(line.get("x1")) for line in svg.iter("line") if line.get("class") == "rule"]
    zero, whole = min(rules), max(rules)
    stem = next(line for line in svg.iter("line") if line.get("class") == "stem after")
    assert float(stem.get("x2")) == pytest.approx((zero + whole) / 2, abs=0.02)
    limit = next(line for line in svg.iter("line") if line.get("class") == "limit")
    assert float(limit.get("x1")) == pytest.approx(zero + (whole - zero) / 4, abs=0.02)
    assert float(next(svg.iter("circle")).get("cx")) == pytest.approx(whole, abs=0.02)


def test_an_attack_that_was_not_measured_is_named_and_not_drawn_as_zero() -> None:
    report = Report.of([share("leak.direct", 9, 0, 9, 0.1), Measurement.missing("attack.int4", "no memory")])
    svg = drawn(by_attack(report))
    assert "not measured" in [t.text for t in svg.iter("text")] and "attack.int4: not measured" in svg.get(
        "aria-label"
    )
    assert sum(line.get("class") == "stem after" for line in svg.iter("line")) == 1


def test_states_differ_in_shape_and_have_a_legend() -> None:
    found = by_attack(rich())
    assert [words for _, words in found.legend] == ["unedited", "candidate", "never knew (control)"]
    assert "<circle" in found.legend[0][0] and "<polygon" in found.legend[1][0]
    assert found.legend[1][0].split("points=")[1][:20] != found.legend[2][0].split("points=")[1][:20]


def grid(rows: int, columns: int) -> Grid:
    values = tuple(tuple(i / rows for _ in range(columns)) for i in range(rows))
    return Grid(
        name="attack.lens",
        x_label="layer",
        value_label="rank first",
        columns=tuple(map(str, range(columns))),
        rows=tuple(f"f{i}" for i in range(rows)),
        values=values,
    )


def test_a_large_heat_map_keeps_its_strongest_rows_and_says_so() -> None:
    figure = heat([grid(500, 80)])
    names = [t.text for t in drawn(figure).iter("text") if t.text.startswith("f")]
    assert names == [f"f{i}" for i in range(500 - MOST_ROWS, 500)]
    assert f"The {MOST_ROWS} facts with the highest values of 500" in figure.note
    full = [
        float(r.get("fill-opacity")) for r in drawn(heat([grid(4, 2)])).iter("rect") if r.get("fill-opacity")
    ]
    assert full == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_many_weights_show_the_largest() -> None:
    sizes = {f"layer.{i}.weight": float(i) for i in range(300)}
    m = Measurement.made("drift.norm", 299.0, 3.0, unit="ratio", by_weight=sizes)
    (figure,) = by_weight(Report.of([m]))
    assert "The 60 largest of 300" in figure.note
    words = [t.text for t in drawn(figure).iter("text")]
    assert "layer.299.weight" in words and "layer.239.weight" not in words


def test_drawings_must_be_whole() -> None:
    with pytest.raises(ValidationError, match="places"):
        Curve(name="a", x_label="x", y_label="y", x=(1.0,), y=())
    with pytest.raises(ValidationError, match="one value per row"):
        Grid(name="a", x_label="x", value_label="v", columns=("1",), rows=("r",), values=((1.0, 2.0),))
    with pytest.raises(ValidationError):
        Curve(name="a", x_label="x", y_label="y", x=(1.0,), y=(float("nan"),))


def test_markup_in_names_is_escaped() -> None:
    nasty = rich().model_copy(update={"drawings": (grid(2, 2).model_copy(update={"name": "<i>"}),)})
    assert "<i>" not in "".join(str(f.svg) for f in figures(nasty))
