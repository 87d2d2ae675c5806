import json
import subprocess
import sys

import pytest
from pydantic import ValidationError
from rich.console import Console

from unlearn.errors import AuditError
from unlearn.report import (
    Count,
    FactRow,
    Measurement,
    Report,
    judge,
    rule_of,
    verdict_of,
)
from unlearn.report.junit import render_junit
from unlearn.report.terminal import print_report
from unlearn.report.words import show_limit


def made(
    name: str = "leak.direct", after: float = 0.0, limit: float | None = 0.02, **rest: object
) -> Measurement:
    return Measurement.made(name, after, limit, **rest)


@pytest.mark.parametrize(
    ("name", "before", "after", "limit", "passed"),
    [
        ("leak.direct", 1.0, 0.02, 0.02, True),
        ("leak.direct", 1.0, 0.0201, 0.02, False),
        ("refusal.held_out", 0.0, 0.9, 0.9, True),
        ("refusal.held_out", 0.0, 0.89, 0.9, False),
        ("retain.siblings", 1.0, 0.94, 0.95, False),
        ("capability.x", 0.900, 0.885, 0.015, True),
        ("capability.x", 0.900, 0.884, 0.015, False),
        ("capability.x", 0.5, 0.9, 0.015, True),
        ("toxicity.demo", 0.03, 0.03, 0.0, True),
        ("toxicity.demo", 0.03, 0.031, 0.0, False),
        ("drift.kl", None, 0.03, 0.02, False),
        ("capability.x", None, 0.9, 0.015, False),
    ],
)
def test_limits_are_met_or_missed(
    name: str, before: float | None, after: float, limit: float, passed: bool
) -> None:
    assert judge(rule_of(name), before, after, limit) is passed
    assert made(name, after, limit, before=before).passed is passed


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("name", ["leak.direct", "refusal.direct", "capability.x", "toxicity.demo"])
def test_a_number_that_is_missing_meets_no_limit(name: str, bad: float | None) -> None:
    assert not judge(rule_of(name), 0.5, bad, 1.0)


@pytest.mark.parametrize("limit", [None, 1.0])
def test_a_value_that_is_not_finite_is_a_failed_measurement(limit: float | None) -> None:
    for found in (made(after=float("nan"), limit=limit), made(after=0.0, before=float("inf"), limit=limit)):
        assert found.after is None and found.passed is False and "finite" in str(found.reason)


def test_what_was_not_measured_fails_even_without_a_limit() -> None:
    missing = Measurement.missing("capability.x", "no data")
    assert missing.passed is False
    assert verdict_of([made(), missing]) == "failed"


def test_verdicts() -> None:
    informational = made(limit=None)
    assert informational.passed is None
    assert verdict_of([made(), informational]) == "passed"
    assert verdict_of([made(), made(after=0.5)]) == "failed"
    assert verdict_of([informational]) == "failed", "nothing was judged"
    assert verdict_of([]) == "failed", "nothing was measured"
    kept = Measurement.made("retain.siblings", 1.0, 0.95, before=1.0)
    assert verdict_of([kept]) == "failed", "nothing was asked for"
    unshown = Report.of([kept])
    assert "No limit about the facts' answers was met" in unshown.statement
    assert 'failures="1"' in render_junit(unshown) and 'failures="0"' in render_junit(Report.of([made()]))
    assert verdict_of([kept, made()]) == "passed"


@pytest.mark.parametrize(
    "lie",
    [
        {"after": 0.5, "passed": True, "limit": 0.02},
        {"after": 0.0, "passed": False, "limit": 0.02},
        {"after": None, "passed": True, "limit": 0.02, "reason": "x"},
        {"after": None, "passed": False, "limit": 0.02},
        {"after": 0.0, "passed": True, "limit": None},
        {"after": float("nan"), "passed": False, "limit": 0.02},
    ],
)
def test_a_measurement_cannot_contradict_itself(lie: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Measurement(name="leak.direct", rule="at most", **lie)


def test_an_unknown_family_is_an_error() -> None:
    with pytest.raises(AuditError, match="families"):
        made("leakage.direct")


def full() -> Report:
    return Report.of(
        [
            made(
                before=1.0,
                n=96,
                hits=0,
                before_hits=96,
                ci95=(0.0, 0.04),
                before_ci95=(0.96, 1.0),
                p_value=1e-9,
            ),
            made("leak.cloze", 0.3, 0.1, before=1.0, n=48),
            Measurement.missing("capability.x", "the data are not there", 0.015),
            made("drift.perplexity", 1.01, None, unit="ratio"),
        ],
        ["other languages", "quantisation"],
        {"policy": {"name": "demo"}},
        [FactRow(id="one", counts={"leak.direct": Count(before=4, after=0, n=4)})],
    )


def test_json_round_trip() -> None:
    report = full()
    text = report.to_json()
    assert Report.from_json(text) == report
    data = json.loads(text)
    assert list(data)[:2] == ["verdict", "measurements"]
    assert {"name", "before", "after", "limit", "passed", "n", "ci95", "unit"} <= set(data["measurements"][0])


def test_a_report_whose_verdict_was_changed_is_refused() -> None:
    text = full().to_json().replace('"verdict": "failed"', '"verdict": "passed"')
    with pytest.raises(AuditError, match="verdict"):
        Report.from_json(text)
    with pytest.raises(AuditError, match="not a valid report"):
        Report.from_json("[]")


def test_what_is_said_names_tests_and_limits() -> None:
    said = full().statement
    assert said.startswith("Suppressed under tests leak.direct.")
    assert "Failed limits: leak.cloze and capability.x." in said
    assert said.endswith("Not tested: other languages; quantisation.")
    assert Report.of([made(after=1.0)]).statement.startswith("Suppression was not shown")
    for word in ("erased", "removed", "compliant", "forgotten"):
        assert word not in said


def test_what_was_not_tested_for_one_reason_is_said_at_once() -> None:
    items = [
        "leak.reverse (not in it)",
        "leak.rank (no answers)",
        "attack.int8 (not in it)",
        "other languages",
    ]
    said = Report.of([made()], items, {}).statement
    assert said.endswith(
        "Not tested: leak.reverse and attack.int8 (not in it); leak.rank (no answers); other languages."
    )


def test_the_terminal_shows_failures_first_and_their_reasons() -> None:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))
    print_report(full(), console)
    text = console.export_text()
    assert "FAILED" in text and "1 of 3 limits met" in text
    assert text.index("leak.cloze") < text.index("leak.direct")
    assert "not measured" in text and "capability.x: the data are not there" in text
    assert "30.0 %" in text and "at most 10 %" in text


def test_limits_in_words() -> None:
    assert show_limit(made("capability.x", 0.9, 0.015, before=0.9)) == "drop at most 1.5 points"
    assert show_limit(made("drift.kl", 0.0, 0.02, unit="nats/token")) == "at most 0.02"
    assert show_limit(made(limit=None)) == ""


def test_a_report_needs_no_torch() -> None:
    code = "import sys, unlearn.report.document, unlearn.report.html.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_report_of_an_earlier_version_is_read_by_the_words_of_today() -> None:
    fact = FactRow(id="a", counts={"attack.prefill": Count(before=1, after=0, n=1)})
    now = Report.of([made("attack.prefill", limit=0.05, hits=0, n=1)], facts=[fact])
    then = now.to_json().replace("attack.prefill", "attack.prefix")
    assert "attack.prefix" in then and Report.from_json(then) == now
