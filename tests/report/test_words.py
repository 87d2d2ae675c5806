import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.cases import rich, share
from unlearn.report import Measurement, Report
from unlearn.report.words import adjusted, comparisons, glance, holm, room


def test_holm_against_an_example_by_hand() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, and never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_value_and_bonferroni_and_keeps_the_order(values: list[float]) -> None:
    found = holm(values)
    for p, q in zip(values, found, strict=True):
        assert p <= q <= min(1.0, len(values) * p)
    for (p, q), (r, s) in zip(
        sorted(zip(values, found, strict=True)), sorted(zip(values, found, strict=True))[1:], strict=False
    ):
        assert p <= r and q <= s


def test_the_note_counts_the_tests() -> None:
    report = rich()
    assert len(adjusted(report)) == sum(m.p_value is not None for m in report.measurements) == 13
    assert comparisons(report).startswith("13 changes were tested: 10 with p below 0.05, 10 after Holm's")
    assert comparisons(Report.of([Measurement.made("drift.kl", 0.0, 0.02, unit="nats/token")])) == ""
    one = Report.of([share("leak.direct", 9, 0, 9, 0.1)])
    assert comparisons(one).startswith("One change was tested")


def test_every_question_gets_a_line() -> None:
    lines = {row.title: row for row in glance(rich())}
    assert lines["Attacks"].state == "failed" and "attack.singular with 21.9 %" in lines["Attacks"].answer
    assert lines["General ability"].answer == "0 of 1 limits met. Not measured: capability.reasoning."
    assert lines["Retention"].state == "passed" and "Nearest to its limit" in lines["Retention"].answer
    assert "(before 0.030), rise at most 0.01" in lines["Toxicity"].answer
    empty = {row.title: row.state for row in glance(Report.of([Measurement.made("drift.kl", 0.1)]))}
    assert empty["Drift"] == "unjudged" and empty["Attacks"] == "untested"


def test_the_furthest_off_is_the_one_that_misses_its_limit() -> None:
    near, far = share("leak.a", 50, 3, 50, 0.05), share("leak.b", 50, 9, 50, 0.05)
    met = share("leak.c", 50, 2, 50, 0.05)
    assert room(far) < room(near) < 0 < room(met)
    assert room(met.under("strict")) < 0
    dropped = Measurement.made("capability.x", 0.8, 0.02, before=0.9)
    assert room(dropped) < 0 < room(Measurement.made("capability.x", 0.9, 0.02, before=0.9))
    # A strict failure must not hide behind a limit that is met narrowly.
    narrow = Measurement.made("leak.d", 0.049, 0.05, ci95=(0.048, 0.0495))
    line = glance(Report.of([narrow, met]).under("strict"))[0]
    assert line.state == "failed" and "Furthest off: leak.c" in line.answer
