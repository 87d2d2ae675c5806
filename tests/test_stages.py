"""Stages in a patch's header, and the curves that a report draws of them."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from unlearn.errors import PatchError
from unlearn.report import Measurement, Report
from unlearn.report.html.plots import figures
from unlearn.stages import Stage, curves, note, noted

STAGES = (
    Stage(facts=0, norm_growth=0.0, hidden_drift=0.0),
    Stage(facts=10, norm_growth=0.02, hidden_drift=None, oldest=1.0),
    Stage(facts=20, norm_growth=0.05, hidden_drift=0.4, oldest=0.25),
)


def test_stages_survive_a_header_and_old_headers_have_none() -> None:
    header = json.loads(json.dumps(note(STAGES)))
    assert noted({"policy": "p", **header}) == STAGES
    assert note(()) == {} and noted({"policy": "p"}) == ()


@pytest.mark.parametrize("wrong", ["x", [1], [{"facts": -1}], [{"facts": 1, "norm_growth": "much"}], None])
def test_what_is_no_list_of_stages_is_one_sentence(wrong: object) -> None:
    with pytest.raises(PatchError, match=r"^the patch's header is not one .*: stages.*; make the edit anew$"):
        noted({"stages": wrong})


def test_each_number_is_a_curve_over_the_facts_without_what_could_not_be_had() -> None:
    found = {c.name: (c.x, c.y) for c in curves(STAGES)}
    assert found == {
        "drift.norm_growth": ((0, 10, 20), (0.0, 0.02, 0.05)),
        "drift.hidden": ((0, 20), (0.0, 0.4)),
        "edit.oldest": ((10, 20), (1.0, 0.25)),
    }
    assert [c.name for c in curves(STAGES[:2])] == ["drift.norm_growth"]  # a single place is no curve
    assert curves(STAGES[:1]) == curves(()) == []


def test_the_report_draws_them_and_only_shares_in_percent() -> None:
    report = Report.of([Measurement.made("drift.kl", 0.1)], drawings=curves(STAGES))
    assert Report.from_json(report.to_json()) == report
    drawn = {figure.title: figure for figure in figures(report)}
    oldest = "Retention of the oldest edits by number of edits"
    drift = "Drift of the hidden states by number of edits"
    assert list(drawn) == ["Norm growth by number of edits", drift, oldest]
    for title, figure in drawn.items():
        svg = ElementTree.fromstring(str(figure.svg))
        words = [element.text or "" for element in svg.iter("text")]
        assert any(word.endswith(" %") for word in words) is (title == oldest)
        assert "number of edits" in words
