"""Charts: the same bytes twice, matplotlib's settings untouched, and marks where the numbers are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from unlearn import charts
from unlearn.charts import Cloud, Heat, Line, Panel
from unlearn.charts.style import look_of


def panels() -> list[Panel]:
    lines = [
        Line("alphaedit", [5, 10], [0.9, 0.8], [0.85, 0.7], [0.95, 0.9]),
        Line("rome", [5, 10], [0.5, None]),
        Line("never", [], []),
    ]
    wide = [Line("alphaedit", [5, 10], [0.0, 1e-4]), Line("rome", [5, 10], [3.0, 1e3]), Line("never", [], [])]
    return [Panel("Refusal", lines, "higher", True, 0.1), Panel("KL", wide, "lower"), Panel("None", [])]


def figures() -> dict[str, Any]:
    cloud = Cloud("kept prompts", [(0, 0), (1, 1)], [(0, 1), (1, 2)])
    heat = Heat("Hidden state", [[0.1, 0.4], [math.nan, math.nan]])
    return {
        "curves": charts.curves(panels(), "facts written", "title"),
        "dots": charts.dots(panels()[:2], "title"),
        "clouds": charts.clouds(
            {"alphaedit": ([cloud], "layer 3"), "rome": ([Cloud("x", [], [])], "")}, "title"
        ),
        "trace": charts.heat_maps(
            [heat],
            ["first", "last"],
            Panel("At", [Line("state", [0, 1], [0.1, 0.4], [0, 0.3], [0.2, 0.5])]),
            [1],
            "t",
        ),
    }


def test_pictures_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    kept = dict(matplotlib.rcParams)
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for title, figure in figures().items():
            written += charts.save(figure, tmp_path / name, title)
    assert dict(matplotlib.rcParams) == kept
    assert len(written) == 16
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
        assert path.stat().st_size > 2000
    svg = (tmp_path / "one" / "curves.svg").read_text()
    assert "dc:date" not in svg and matplotlib.__version__ not in svg


def test_curves_have_a_point_per_value_and_a_line_for_the_unedited_model() -> None:
    first, second, empty = charts.curves(panels(), "facts written", "title").axes
    drawn = {line.get_label(): line for line in first.lines}
    assert list(drawn["alphaedit"].get_xdata()) == [5, 10]
    assert list(drawn["rome"].get_ydata()) == [0.5]  # nothing is drawn where nothing was measured
    assert any(list(line.get_ydata()) == [0.1, 0.1] for line in first.lines)
    assert first.get_ylim() == pytest.approx((-0.04, 1.04))
    assert second.get_yscale() == "symlog" and first.get_yscale() == "linear"
    assert "not measured" in [text.get_text() for text in empty.texts]
    assert "higher is better" in [text.get_text() for text in first.texts]
    assert empty.get_xlabel() == "facts written"


def test_dots_say_what_was_not_measured() -> None:
    first, _ = charts.dots(panels()[:2], "title").axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["alphaedit", "rome", "never"]
    assert [text.get_text() for text in first.texts].count("not measured") == 2


def test_a_heat_map_marks_the_proposal_and_leaves_gaps() -> None:
    first, below, _bar = figures()["trace"].axes[:3]
    marks = [
        line for axes in figures()["trace"].axes for line in axes.lines if set(line.get_xdata()) == {0.5}
    ]
    assert len(marks) == 1  # the left edge of layer 1
    picture = first.images[0].get_array()
    assert bool(picture.mask[1].all()) and not bool(picture.mask[0].any())
    assert "average indirect effect" in [axes.get_ylabel() for axes in figures()["trace"].axes]


def test_every_line_looks_different() -> None:
    looks = {tuple(sorted(look_of(i).items())) for i in range(24)}
    assert len(looks) == 24


def test_a_title_is_no_formula_and_nothing_is_hidden_in_it(tmp_path: Path) -> None:
    figure = charts.curves(panels(), "facts written", "m$^$ on \u202e$x^2$")
    charts.save(figure, tmp_path, "curves")
    assert figure.get_suptitle() == r"m\$^\$ on \u202e\$x^2\$"
