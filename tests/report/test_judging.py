import pytest

from tests.report.cases import rich, share
from unlearn.audit.intervals import Z95, wilson
from unlearn.report import Measurement, Report
from unlearn.report.words import enough, why


@pytest.mark.parametrize(
    ("name", "limit", "numbers", "point", "strict"),
    [
        ("leak.direct", 0.05, {"after": 0.0, "ci95": (0.0, 0.04)}, True, True),
        ("leak.direct", 0.05, {"after": 0.0, "ci95": (0.0, 0.06)}, True, False),
        ("leak.direct", 0.05, {"after": 0.0}, True, False),
        ("leak.direct", 0.05, {"after": 0.06, "ci95": (0.0, 0.04)}, False, False),
        ("retain.siblings", 0.95, {"after": 1.0, "ci95": (0.96, 1.0)}, True, True),
        ("retain.siblings", 0.95, {"after": 1.0, "ci95": (0.94, 1.0)}, True, False),
        ("capability.x", 0.02, {"after": 0.89, "before": 0.9, "change_ci95": (-0.02, 0.01)}, True, True),
        ("capability.x", 0.02, {"after": 0.89, "before": 0.9, "change_ci95": (-0.03, 0.01)}, True, False),
        ("capability.x", 0.02, {"after": 0.89, "before": 0.9, "ci95": (0.88, 0.9)}, True, False),
        ("toxicity.x", 0.01, {"after": 0.1, "before": 0.1, "change_ci95": (-0.3, 0.01)}, True, True),
        ("toxicity.x", 0.01, {"after": 0.1, "before": 0.1, "change_ci95": (0.0, 0.02)}, True, False),
        ("drift.norm", 3.0, {"after": 2.0}, True, True),
        ("drift.norm", 3.0, {"after": 3.5}, False, False),
    ],
)
def test_strict_needs_the_unfavourable_end(
    name: str, limit: float, numbers: dict[str, object], point: bool, strict: bool
) -> None:
    m = Measurement.made(name, limit=limit, **numbers)
    assert m.passed is point and m.judged == "point"
    again = m.under("strict")
    assert again.passed is strict and again.judged == "strict"
    assert again.short_of_proof is (point and not strict)
    assert again.under("point") == m
    assert Measurement.model_validate(again.model_dump()) == again


def test_what_has_no_limit_or_no_value_stays_as_it_is() -> None:
    assert Measurement.made("leak.direct", 0.5).under("strict").passed is None
    missing = Measurement.missing("leak.direct", "no prompts", 0.1).under("strict")
    assert missing.passed is False and not missing.short_of_proof


def test_a_report_is_judged_anew_from_its_own_file() -> None:
    report = Report.of([share("leak.direct", 40, 0, 40, 0.02)])
    assert report.passed and not report.strict
    strict = Report.from_json(report.to_json()).under("strict")
    assert strict.verdict == "failed" and strict.strict
    assert "unfavourable ends" in strict.statement and "unfavourable" not in report.statement
    assert Report.from_json(strict.to_json()) == strict
    assert strict.under("point") == report


def test_a_strict_verdict_cannot_be_claimed_by_hand() -> None:
    text = rich(strict=True).to_json()
    with pytest.raises(Exception, match="contradict"):
        Report.from_json(text.replace('"passed": false', '"passed": true'))


@pytest.mark.parametrize(("name", "limit"), [("leak.x", 0.02), ("leak.x", 0.2), ("retain.x", 0.98)])
def test_the_number_of_items_that_would_do(name: str, limit: float) -> None:
    ideal = 0.0 if name == "leak.x" else 1.0
    need = enough(Measurement.made(name, ideal, limit, n=10, ci95=wilson(int(10 * ideal), 10)))
    met = [
        Measurement.made(name, ideal, limit, n=n, ci95=wilson(int(ideal * n), n)).under("strict").passed
        for n in (need - 1, need)
    ]
    assert met == [False, True]
    assert enough(Measurement.made(name, ideal, None)) is None
    assert Z95**2 == pytest.approx(1.959963984540054**2)


def test_the_sentence_says_that_only_the_interval_is_too_wide() -> None:
    said = why(share("leak.direct", 40, 0, 40, 0.02).under("strict"))
    assert said.startswith("0.0 % (0 of 40), before 100.0 %; the limit is at most 2 %: the estimate meets it")
    assert "(0.0 to 8.8) does not" in said and "189 items" in said
    bare = Measurement.made("capability.x", 0.9, 0.02, before=0.9).under("strict")
    assert "no interval" in why(bare)
    assert why(bare.under("point")) == ""


def test_the_policy_says_how_and_nothing_else_is_known() -> None:
    from pydantic import ValidationError

    from unlearn.policy import AuditSpec

    assert AuditSpec().judge == "point" and AuditSpec(judge="strict").judge == "strict"
    with pytest.raises(ValidationError):
        AuditSpec(judge="lenient")
